"""All that waits, in the order in which it would start: one engine, asked of each."""

import time
from collections.abc import Iterator

import pytest

from taskdist.client import explaining
from taskdist.client.testing import FakeBackend
from taskdist.common import times
from taskdist.kube import AGENTPOOLS, LEASES, PODS, TASKS


@pytest.fixture
def fake() -> Iterator[FakeBackend]:
    with FakeBackend("demo") as fake:
        fake.hold()
        yield fake


async def add(fake: FakeBackend, name: str, queue: str, age: float, **spec: object) -> None:
    await fake.create(TASKS, {"metadata": {"name": name}, "spec": {"queue": queue, "type": "t", **spec}})
    await fake.patch(TASKS, name, {"metadata": {"creationTimestamp": times.utc(time.time() - age)}})


async def ready_agent(fake: FakeBackend) -> None:
    await fake.patch(AGENTPOOLS, "fake", {"spec": {"slots": 1}})
    running = {"name": "agent", "ready": True, "state": {"running": {}}}
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [running]}
    labels = {"taskdist.dev/pool": "fake"}
    spec = {"containers": [{"name": "agent"}]}
    await fake.create(PODS, {"metadata": {"name": "fake-0", "labels": labels}, "spec": spec, "status": status})


async def test_first_what_there_is_room_for_then_by_position_then_what_has_none(fake: FakeBackend) -> None:
    fake.queue("a")
    fake.queue("b")
    await ready_agent(fake)
    await add(fake, "suspended", "a", 50, suspend=True)
    await add(fake, "late", "a", 10)
    await add(fake, "early", "a", 20)
    await add(fake, "urgent", "a", 5, priority="Critical")
    stories, _ = await explaining.order(fake)
    assert [each["task"] for each in stories] == ["urgent", "early", "late", "suspended"]
    assert [each.get("position") for each in stories] == [None, 1, 2, None]
    assert "has room for it now" in stories[0]["message"]


async def test_one_queue_is_asked_of_beside_the_others(fake: FakeBackend) -> None:
    fake.queue("a")
    fake.queue("b")
    await add(fake, "of-a", "a", 20)
    await add(fake, "of-b", "b", 10)
    stories, _ = await explaining.order(fake, "b")
    assert [each["task"] for each in stories] == ["of-b"]


async def test_each_is_told_what_explain_tells_of_it(fake: FakeBackend) -> None:
    fake.queue("a", quota={"leased": 1})
    await ready_agent(fake)
    for number in range(3):
        await add(fake, f"t{number}", "a", 30 - number)
    stories, _ = await explaining.order(fake)
    for story in stories:
        alone = (await explaining.explain(fake, story["task"])).story
        assert {key: story[key] for key in ("reason", "message", "unblock", "command")} == {
            key: alone[key] for key in ("reason", "message", "unblock", "command")
        }
        assert story.get("position") == alone.get("position")


async def test_while_nobody_leads_nothing_starts_and_the_order_stands(
    fake: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKDIST_OPERATOR_LEASE", "demo/lease")
    fake.queue("a")
    await fake.create(LEASES, {"metadata": {"name": "lease"}, "spec": {"holderIdentity": ""}})
    await add(fake, "late", "a", 10)
    await add(fake, "early", "a", 20)
    stories, warnings = await explaining.order(fake)
    assert [(each["task"], each["reason"]) for each in stories] == [("early", "NoLeader"), ("late", "NoLeader")]
    assert warnings == []
