"""A Kafka broker for all tests that ask for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kafka_broker import Kafka


@pytest.fixture(scope="session")
def kafka() -> Iterator[Kafka]:
    with Kafka() as broker:
        yield broker
