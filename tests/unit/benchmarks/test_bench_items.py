"""`make bench-items` on few items and no server: what it asks of `map`, and what it tells."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from agents.of_items import agent
from benchmarks.bench_items import QUEUE, figures, mapped
from taskdist.client import AsyncClient
from taskdist.client.testing import FakeBackend


@pytest.fixture
def fake() -> Iterator[FakeBackend]:
    with FakeBackend() as made:
        made.queue(QUEUE)
        yield made


async def test_each_payload_is_given_back(fake: FakeBackend) -> None:
    fake.serve(agent)
    async with AsyncClient(backend=fake) as client:
        await mapped(client, 25)


async def test_a_result_of_another_item_is_noticed(fake: FakeBackend) -> None:
    fake.handler("payload")(lambda payload: {**payload, "n": 3})
    async with AsyncClient(backend=fake) as client:
        with pytest.raises(AssertionError):
            await mapped(client, 5)


def test_what_is_told_has_medians_their_spread_and_how_they_compare() -> None:
    nothing = {
        "taskdist": [9000.0, 12000.0, 10000.0],
        "celery": [1000.0],
        "celery_chunks": [8000.0],
        "dramatiq": [2000.0],
    }
    told = figures({"nothing": nothing, "payload": {"taskdist": [50.0]}})
    assert json.loads(json.dumps(told)) == {
        "items_per_second": 10000,
        "celery_per_second": 1000,
        "celery_chunks_per_second": 8000,
        "dramatiq_per_second": 2000,
        "nothing": {
            "taskdist": {"per_second": 10000, "least": 9000, "most": 12000},
            "celery": {"per_second": 1000, "least": 1000, "most": 1000},
            "celery_chunks": {"per_second": 8000, "least": 8000, "most": 8000},
            "dramatiq": {"per_second": 2000, "least": 2000, "most": 2000},
            "times_the_better_plain_one": 5.0,
            "times_celery_chunks": 1.25,
        },
        "payload": {"taskdist": {"per_second": 50, "least": 50, "most": 50}},
    }
