"""Sinks at work: an API server in memory, a receiver that fails as told, processes that are killed, virtual time."""

from __future__ import annotations

import asyncio
import copy
import json
import random
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest

from taskdist.api import SinkReason
from taskdist.kube import TASKS, TASKSINKS, ApiError, Unreachable
from taskdist.outgoing.delivery import Delivery, Failure, Room
from taskdist.outgoing.ends import End
from taskdist.sinks import keeper, sending
from taskdist.sinks.receiver import NotTold, Stopped, Trouble
from unit.sinks.world import World


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.sinks.close()
    assert made.failures == []


def fails(*names: str, failure: Failure = Failure.FAILED, why: str = "it answered 500") -> Any:
    def answer(end: End) -> None:
        if not names or end.name in names:
            raise NotTold(failure, why)

    return answer


async def test_each_end_is_told_once_and_status_tells_of_it(world: World) -> None:
    world.server.end("b")
    await world.apply()
    world.server.end("a")
    await world.pass_seconds(6)
    assert world.receiver.took == ["b", "a"]
    assert json.loads(world.receiver.bodies[0])["data"]["name"] == "b"
    status = world.status
    assert (status["delivered"], status["pending"], status["undelivered"], status["lost"]) == (2, 0, 0, 0)
    assert status["position"] == int(world.server.objects[str(TASKS), "a"]["metadata"]["resourceVersion"])
    assert world.condition()[:2] == ("True", "Delivering")


async def test_what_ended_before_the_sink_was_made_is_not_told(world: World) -> None:
    world.server.end("old", at="2029-12-31T23:59:59.9Z")
    world.server.end("new", at="2030-01-01T00:00:00.1Z")
    await world.apply()
    assert world.receiver.took == ["new"]


async def test_a_list_is_told_in_the_order_of_its_ends_not_of_its_names(world: World) -> None:
    for name in ("z", "m", "a", "q"):
        world.server.end(name, key="k")
    await world.apply()
    assert world.receiver.took == ["z", "m", "a", "q"]


async def test_the_next_process_tells_again_only_what_is_above_the_position(world: World) -> None:
    await world.apply()
    world.server.end("one")
    await world.pass_seconds(6)
    world.server.end("two")
    await world.clock.settle()
    await world.kill()
    assert world.receiver.took == ["one", "two", "two"]


async def test_a_process_that_ends_in_order_leaves_nothing_to_be_told_again(world: World) -> None:
    await world.apply()
    world.server.end("one")
    await world.clock.settle()
    await world.sinks.close()
    world.leading = False
    await world.kill()
    assert world.receiver.took == ["one"]


async def test_what_ends_while_no_process_runs_is_told_by_the_next(world: World) -> None:
    await world.apply()
    world.leading = False
    await world.sinks.close()
    world.server.end("meanwhile")
    world.server.expire()
    await world.kill()
    assert world.receiver.took == ["meanwhile"]


async def test_a_watch_that_has_expired_is_a_list_again(world: World) -> None:
    await world.apply()
    world.server.errors["watch"] = Unreachable("no route")
    world.server.expire()
    world.server.end("one")
    await world.pass_seconds(10)
    world.server.expire()
    del world.server.errors["watch"]
    world.server.end("two")
    await world.pass_seconds(10)
    assert world.receiver.took == ["one", "two"]
    assert world.server.lists >= 2


async def test_a_change_of_labels_tells_nothing_anew_and_a_second_end_does(world: World) -> None:
    await world.apply()
    dead = world.server.end("a", phase="DeadLettered")
    await world.clock.settle()
    world.server.put(TASKS, {**dead, "metadata": {**dead["metadata"], "labels": {"x": "y"}}})
    await world.clock.settle()
    assert world.receiver.took == ["a"]
    world.server.put(TASKS, {**dead, "status": {"phase": "Pending", "redrives": 1}})
    world.server.put(TASKS, {**dead, "status": {**dead["status"], "redrives": 1}})
    world.server.put(TASKS, {**dead, "status": {**dead["status"], "redrives": 1, "phase": "Cancelled"}})
    await world.clock.settle()
    assert world.receiver.took == ["a", "a", "a"]
    assert [json.loads(body)["id"] for body in world.receiver.bodies] == [
        "uid-a.0.deadlettered",
        "uid-a.1.deadlettered",
        "uid-a.1.cancelled",
    ]


async def test_more_than_there_is_room_for_is_told_by_several_lists_in_order(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "Delivery", partial(Delivery, most_ends=4))
    names = [f"t{number}" for number in (5, 3, 9, 1, 7, 2, 8, 6, 4, 0, 15, 11, 13)]
    for name in names:
        world.server.end(name, key="k")
    await world.apply()
    await world.pass_seconds(6)
    assert world.receiver.took == names
    assert world.server.lists > 2
    world.server.end("last", key="k")
    await world.pass_seconds(6)
    assert world.receiver.took == [*names, "last"]


async def test_sinks_take_turns_at_lists_and_share_what_may_be_in_hand(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that however many sinks wait for one receiver, the process does not run out of memory."""
    room = Room(most_ends=30, least_ends=4)
    monkeypatch.setattr(keeper, "Commons", lambda: sending.Commons(room))
    await world.kill(unseen=True)
    world.receiver.hold = asyncio.Event()
    for number in range(40):
        world.server.end(f"t{number}")
    names = [f"s{number}" for number in range(20)]
    for name in names:
        await world.apply(name)
    await world.pass_seconds(6)
    pending = [world.server.objects[str(TASKSINKS), name]["status"]["pending"] for name in names]
    assert min(pending) > 0
    assert sum(pending) <= 30 + 20 * 4
    world.receiver.hold.set()
    await world.pass_seconds(6)
    assert len(world.receiver.took) == 20 * 40
    assert room.ends == 0
    assert world.server.most_listing <= sending.LISTS_AT_ONCE


async def test_a_key_that_fails_holds_back_itself_and_nothing_else(world: World) -> None:
    world.receiver.answer = fails("a1")
    await world.apply(retry={"initialSeconds": 1, "maxSeconds": 2})
    for name, key in (("a1", "a"), ("a2", "a"), ("b1", "b")):
        world.server.end(name, key=key)
    await world.pass_seconds(6)
    assert world.receiver.took == ["b1"]
    first = int(world.server.objects[str(TASKS), "a1"]["metadata"]["resourceVersion"])
    assert (world.status["position"], world.status["pending"]) == (first - 1, 2)
    world.receiver.answer = fails("nobody")
    await world.pass_seconds(6)
    assert world.receiver.took == ["b1", "a1", "a2"]


async def test_a_poison_is_given_up_and_told_of(world: World) -> None:
    world.receiver.answer = fails("bad", failure=Failure.REJECTED, why="it answered 422")
    await world.apply(retry={"initialSeconds": 1, "maxSeconds": 1})
    world.server.end("bad", key="k")
    world.server.end("next", key="k")
    world.server.end("other")
    await world.pass_seconds(12)
    assert world.receiver.took == ["other", "next"]
    assert world.status["undelivered"] == 1
    told = world.status["lastUndelivered"]
    assert (told["id"], told["task"], told["message"]) == ("uid-bad.0.succeeded", "bad", "it answered 422")
    assert (world.status["pending"], world.condition()[1]) == (0, "Delivering")


async def test_a_receiver_that_takes_nothing_is_waited_for_and_status_says_so(world: World) -> None:
    world.receiver.answer = fails(why="it answered 502")
    await world.apply(retry={"initialSeconds": 1, "maxSeconds": 1, "maxAttempts": 2})
    world.server.end("a")
    world.server.end("b")
    await world.pass_seconds(60)
    ready, reason, message = world.condition()
    assert (ready, reason) == ("False", "Retrying")
    assert "it answered 502" in message
    assert world.status["undelivered"] == 0
    world.receiver.answer = fails("nobody")
    await world.pass_seconds(6)
    assert sorted(world.receiver.took) == ["a", "b"]
    assert world.condition()[:2] == ("True", "Delivering")


async def test_a_receiver_that_asks_for_rest_gets_it(world: World) -> None:
    asked = []

    def busy(end: End) -> None:
        asked.append(world.clock.ticks())
        if len(asked) == 1:
            raise NotTold(Failure.UNAVAILABLE, "it answered 429", rest=30)

    world.receiver.answer = busy
    await world.apply(inFlight=1)
    for name in "abc":
        world.server.end(name)
    await world.pass_seconds(29)
    assert len(asked) == 1
    await world.pass_seconds(3)
    assert len(asked) == 4


async def test_a_receiver_that_is_gone_is_told_nothing_until_the_sink_is_changed(world: World) -> None:
    def gone(_: End) -> None:
        raise Stopped("it answered 410 (Gone)")

    world.receiver.answer = gone
    await world.apply()
    world.server.end("a")
    await world.pass_seconds(600)
    assert world.condition("Stalled")[:2] == ("True", "ReceiverGone")
    world.receiver.answer = fails("nobody")
    await world.pass_seconds(600)
    assert world.receiver.took == []
    await world.apply(inFlight=2)
    assert world.receiver.took == ["a"]


async def test_a_body_without_room_is_read_again_and_a_task_that_is_gone_is_lost(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "Delivery", partial(Delivery, most_bytes=1))
    world.receiver.hold = asyncio.Event()
    await world.apply()
    for name in ("a", "b", "c", "d"):
        world.server.end(name, key="k")
    await world.clock.settle()
    # Its last word comes by the watch, and there is no room for it either.
    world.server.delete("c")
    world.server.put(TASKS, {**world.server.objects[str(TASKS), "d"], "status": {"phase": "Pending", "redrives": 1}})
    await world.clock.settle()
    world.receiver.hold.set()
    await world.pass_seconds(6)
    assert world.receiver.took == ["a", "b"]
    assert (world.server.reads.count("b"), world.status["lost"], world.status["delivered"]) == (1, 2, 2)


async def test_an_api_server_that_is_away_takes_nothing_from_an_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "Delivery", partial(Delivery, most_bytes=1))
    world.receiver.hold = asyncio.Event()
    await world.apply()
    for name in ("a", "b"):
        world.server.end(name, key="k")
    await world.clock.settle()
    world.server.errors["get"] = Unreachable("no route")
    world.receiver.hold.set()
    await world.pass_seconds(100)
    assert world.receiver.took == ["a"]
    del world.server.errors["get"]
    await world.pass_seconds(100)
    assert world.receiver.took == ["a", "b"]
    assert world.status["lost"] == 0


async def test_status_is_written_at_most_each_five_seconds_and_not_where_nothing_changes(world: World) -> None:
    await world.apply()
    for number in range(50):
        world.server.end(f"t{number}")
        await world.pass_seconds(1)
    busy = world.server.status_writes
    assert busy <= 12
    await world.pass_seconds(600)
    assert world.server.status_writes <= busy + 1


@pytest.mark.parametrize(
    ("spec", "reason", "says"),
    [
        pytest.param({"suspend": True}, "Suspended", "spec.suspend is true", id="suspended"),
        pytest.param({"key": "{headers.x}"}, "InvalidTemplate", "spec.key", id="a key that looks elsewhere"),
        pytest.param({"http": None}, "Unreadable", "no target that this release knows", id="no target"),
        pytest.param({"inFlight": "many"}, "Unreadable", "inFlight", id="of another release"),
    ],
)
async def test_a_sink_that_cannot_run_says_why_and_tells_nothing(
    world: World, spec: dict[str, Any], reason: str, says: str
) -> None:
    world.server.end("a")
    await world.apply(**spec)
    await world.pass_seconds(60)
    assert world.receiver.took == []
    ready, told, message = world.condition()
    assert (ready, told) == ("False", reason)
    assert says in message


async def test_what_ends_while_it_is_suspended_is_told_later(world: World) -> None:
    await world.apply(suspend=True)
    world.server.end("a")
    await world.pass_seconds(60)
    await world.apply(suspend=False)
    assert world.receiver.took == ["a"]


async def test_a_sink_that_fails_is_begun_again_and_says_why(world: World) -> None:
    world.receiver.open_error = Trouble(SinkReason.SECRET_UNUSABLE, "there is no Secret s: create it")
    await world.apply()
    world.server.end("a")
    await world.pass_seconds(10)
    assert world.condition()[1] == "SecretUnusable"
    world.receiver.open_error = None
    await world.pass_seconds(60)
    assert world.receiver.took == ["a"]
    assert world.condition()[1] == "Delivering"


async def test_tasks_that_may_not_be_read_are_told_of(world: World) -> None:
    world.server.errors["list"] = ApiError(403, "Forbidden", "tasks is forbidden")
    await world.apply()
    await world.pass_seconds(10)
    ready, reason, message = world.condition()
    assert (ready, reason) == ("False", "Failing")
    assert "forbidden" in message


async def test_a_sink_that_is_deleted_tells_nothing_any_more(world: World) -> None:
    await world.apply()
    world.sinks.deleted(("team", "sink"))
    await world.clock.settle()
    world.server.end("a")
    await world.pass_seconds(10)
    assert (world.receiver.took, world.receiver.closed) == ([], 1)


def gauges(world: World) -> dict[str, float]:
    """What metrics say of the sink as it is, by name."""
    return {
        each.name: each.value
        for family in world.metrics.registry.collect()
        for each in family.samples
        if family.type == "gauge" and each.labels.get("sink") == "sink"
    }


async def test_of_a_sink_that_is_deleted_while_ends_wait_no_gauge_stays(world: World) -> None:
    world.receiver.answer = fails(failure=Failure.UNAVAILABLE, why="nobody answers there")
    await world.apply()
    world.server.end("a")
    await world.pass_seconds(60)
    assert gauges(world)["taskdist_sink_pending"] == 1
    del world.server.objects[str(TASKSINKS), "sink"]
    world.sinks.deleted(("team", "sink"))
    await world.pass_seconds(10)
    assert gauges(world) == {}


async def test_a_sink_that_is_made_anew_while_ends_wait_tells_what_ends_from_then_on(world: World) -> None:
    world.receiver.hold = asyncio.Event()
    await world.apply()
    world.server.end("a")
    await world.pass_seconds(6)
    world.sinks.deleted(("team", "sink"))
    await world.pass_seconds(2)
    known = world.server.objects.pop((str(TASKSINKS), "sink"))
    born = world.clock.now().isoformat()
    body = {"metadata": {**known["metadata"], "uid": "another", "creationTimestamp": born}, "spec": known["spec"]}
    world.sinks.seen(copy.deepcopy(world.server.put(TASKSINKS, body)))
    world.receiver.hold.set()
    await world.clock.settle()
    world.server.end("b", at=born)
    await world.pass_seconds(6)
    assert world.receiver.took == ["b"]
    assert (world.status["delivered"], world.status["pending"]) == (1, 0)
    assert gauges(world)["taskdist_sink_pending"] == 0


async def test_twenty_thousand_ends_that_wait_for_a_receiver_are_told_in_order_once_it_is_back(world: World) -> None:
    world.server.page_size = 500
    tries = 0

    def down(_: End) -> None:
        nonlocal tries
        tries += 1
        raise NotTold(Failure.UNAVAILABLE, "nobody answers there")

    world.receiver.answer = down
    for number in range(20_000):
        world.server.end(f"t{number}", key=str(number % 50))
    await world.apply()
    await world.pass_seconds(300)
    assert tries < 30
    assert world.status["pending"] <= 10_000
    assert world.condition()[:2] == ("False", "Retrying")
    world.receiver.answer = lambda _: None
    await world.pass_seconds(900)
    assert world.status["pending"] == 0
    numbers = [int(name[1:]) for name in world.receiver.took]
    assert sorted(numbers) == list(range(20_000))
    for key in range(50):
        of_key = [number for number in numbers if number % 50 == key]
        assert of_key == sorted(of_key)


async def test_after_etcd_was_restored_all_is_told_that_ends_since(world: World) -> None:
    await world.apply()
    world.server.end("before")
    await world.pass_seconds(6)
    assert world.receiver.took == ["before"]
    # An earlier state of all; the watch from a later one has expired.
    world.server.objects.pop((str(TASKS), "before"))
    world.server.log.clear()
    world.server.version = 50
    world.server.least = 10**6
    world.server._wake()
    world.server.end("since")
    await world.clock.settle()
    world.server.least = 0
    await world.pass_seconds(10)
    world.server.end("later")
    await world.pass_seconds(10)
    assert world.receiver.took == ["before", "since", "later"]


async def test_a_position_that_is_later_than_the_sink_is_of_another_history(world: World) -> None:
    await world.apply(suspend=True)
    sink = world.server.objects["tasksinks.taskdist.dev", "sink"]
    sink["status"]["position"] = 10**6
    world.server.end("a")
    world.leading = False
    await world.sinks.close()
    sink["spec"]["suspend"] = False
    await world.kill()
    assert world.receiver.took == ["a"]


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_is_killed_and_fails_nothing_is_lost_and_keys_keep_their_order(
    world: World, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "Delivery", partial(Delivery, most_ends=8, most_bytes=900))
    rng = random.Random(seed)

    def now_and_then(_: End) -> None:
        if rng.random() < 0.2:
            raise NotTold(rng.choice(list(Failure)), "as it comes")

    world.receiver.answer = now_and_then
    await world.apply(retry={"initialSeconds": 1, "maxSeconds": 4, "maxAttempts": 1000}, inFlight=4)
    ended: list[str] = []
    for number in range(150):
        name = f"{rng.choice('zyx')}{number}"
        ended.append(name)
        world.server.end(name, key=name[0])
        match rng.randrange(12):
            case 0:
                await world.kill()
            case 1:
                world.server.expire()
            case 2 | 3:
                await world.pass_seconds(rng.random() * 7)
            case 4:
                await world.clock.settle()
    world.receiver.answer = fails("nobody")
    await world.pass_seconds(60)
    first = list(dict.fromkeys(world.receiver.took))
    assert sorted(first) == sorted(ended)
    for key in "xyz":
        assert [name for name in first if name[0] == key] == [name for name in ended if name[0] == key]
    last = int(world.server.objects[str(TASKS), ended[-1]]["metadata"]["resourceVersion"])
    assert world.status["position"] >= last
    assert world.status["undelivered"] == world.status["lost"] == 0
