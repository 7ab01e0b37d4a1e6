"""Two makers' servers of SQS for the module that asks for one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import sqs_server
from sqs_server import Server


@pytest.fixture(scope="module")
def moto() -> Iterator[Server]:
    with sqs_server.moto() as server:
        yield server


@pytest.fixture(scope="session")
def elasticmq() -> Iterator[Server]:
    with sqs_server.elasticmq() as server:
        yield server
