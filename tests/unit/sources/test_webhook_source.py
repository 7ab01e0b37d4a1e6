"""Webhooks in the process that runs sources: it says whether they can work, and makes no Tasks of them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from unit.sources.world import World

HOOK = {"format": "JSON", "secretName": "s", "signature": {"header": "X-Signature"}}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.process.close()
    assert made.failures == []


async def test_a_sound_webhook_is_ready_and_says_where_to_post(world: World) -> None:
    await world.apply("w", cron=None, webhook=HOOK, task={"identity": "{hash}"})
    ready = world.condition(name="w")
    assert (ready["status"], ready["reason"]) == ("True", "Running")
    assert "/v1/namespaces/ns/webhooks/w" in ready["message"]
    assert world.condition("Stalled", "w")["status"] == "False"
    await world.clock.to("2026-01-02T00:00:00")
    assert (world.api.writes, world.api.tasks()) == (["w"], [])


async def test_one_that_is_suspended_says_so(world: World) -> None:
    await world.apply("w", cron=None, webhook=HOOK, suspend=True)
    assert world.condition(name="w")["reason"] == "Suspended"


@pytest.mark.parametrize(
    ("webhook", "task", "field"),
    [
        pytest.param(HOOK, {"priority": "Urgent"}, "spec.task.priority", id="a level that is none"),
        pytest.param(
            HOOK | {"signature": {"header": "S", "timestamp": "{headers.date}"}},
            {},
            "spec.webhook.signature.timestamp",
            id="a time that nobody signed",
        ),
    ],
)
async def test_one_of_which_nothing_can_come_stalls(
    world: World, webhook: dict[str, object], task: dict[str, object], field: str
) -> None:
    await world.apply("w", cron=None, webhook=webhook, task=task)
    assert world.condition("Stalled", "w")["reason"] == "InvalidTemplate"
    assert field in world.condition(name="w")["message"]
    await world.apply("w", cron=None, webhook=HOOK)
    assert world.condition(name="w")["status"] == "True", "mended, it is ready"
