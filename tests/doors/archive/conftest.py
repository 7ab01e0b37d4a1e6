"""One PostgreSQL server for the module that asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from postgres import Postgres


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server
