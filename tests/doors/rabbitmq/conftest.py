"""A RabbitMQ broker for all tests that ask for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rabbitmq import RabbitMQ


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQ]:
    with RabbitMQ() as broker:
        yield broker
