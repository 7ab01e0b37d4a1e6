"""One RabbitMQ broker for the module that asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rabbitmq import RabbitMQ


@pytest.fixture(scope="module")
def rabbitmq() -> Iterator[RabbitMQ]:
    with RabbitMQ() as broker:
        yield broker
