"""An S3 server for all tests that ask for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from object_server import ObjectServer


@pytest.fixture(scope="session")
def server() -> Iterator[ObjectServer]:
    with ObjectServer() as started:
        yield started
