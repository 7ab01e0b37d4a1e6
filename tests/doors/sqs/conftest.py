"""One server of SQS for the module that asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sqs_server import Moto


@pytest.fixture(scope="module")
def sqs() -> Iterator[Moto]:
    with Moto() as server:
        yield server
