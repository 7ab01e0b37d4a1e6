"""Events: the API takes each body, repeats fold into one, and nobody waits for the API server."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskdist.api import Reason
from taskdist.observability.events import Aggregator, Entry, Recorder, Subject, body


def subject(uid: str = "u1") -> Subject:
    return Subject("Task", "ns", f"task-{uid}", uid)


def entry(at: float = 0.0, uid: str = "u1", message: str = "m", reason: Reason = Reason.AGENT_LOST) -> Entry:
    return Entry(subject(uid), reason, message, "Retry", True, at, at)


def test_body() -> None:
    assert body(entry(1.5), instance="operator-0", suffix="x1") == {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": "task-u1.x1", "namespace": "ns"},
        "eventTime": "1970-01-01T00:00:01.500000Z",
        "reportingController": "taskdist.dev/operator",
        "reportingInstance": "operator-0",
        "action": "Retry",
        "reason": "AgentLost",
        "regarding": {
            "apiVersion": "taskdist.dev/v1alpha1",
            "kind": "Task",
            "namespace": "ns",
            "name": "task-u1",
            "uid": "u1",
        },
        "note": "m",
        "type": "Warning",
    }


def test_a_series_says_how_often_and_when_last() -> None:
    event = body(Entry(subject(), Reason.IDLE, "m", "Scale", False, 1, 3, 7), instance="i", suffix="x")
    assert event["series"] == {"count": 7, "lastObservedTime": "1970-01-01T00:00:03.000000Z"}
    assert event["type"] == "Normal"


@given(st.text(min_size=1, max_size=2000), st.text(max_size=200))
def test_bounds_of_the_api_hold(message: str, instance: str) -> None:
    event = body(
        Entry(Subject("Task", "ns", "a" * 253, "u"), Reason.IDLE, message, "Scale" * 50, False, 0, 0),
        instance=instance,
        suffix="x" * 20,
    )
    assert len(event["note"].encode()) <= 1024
    assert 1 <= len(event["reportingInstance"]) <= 128
    assert len(event["action"]) <= 128
    assert len(event["metadata"]["name"]) <= 253


def told(aggregator: Aggregator, now: float) -> list[tuple[str, int]]:
    return [(e.message, e.count) for e in aggregator.take(now)[0]]


def test_the_first_goes_at_once_and_repeats_as_one_series() -> None:
    aggregator = Aggregator(window=60)
    aggregator.offer(entry(0, message="first"), 0)
    assert told(aggregator, 0) == [("first", 1)]
    for at in (1, 2, 3):
        aggregator.offer(entry(at, message=f"again {at}"), at)
    entries, again = aggregator.take(30)
    assert (entries, again) == ([], 60)
    assert told(aggregator, 60) == [("again 3", 3)]
    # The window goes on: what repeats after a series is held back as well.
    aggregator.offer(entry(61, message="later"), 61)
    assert told(aggregator, 61) == []
    assert told(aggregator, 120) == [("later", 1)]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(entry(1, uid="u2"), id="subject"),
        pytest.param(entry(1, reason=Reason.LEASE_EXPIRED), id="reason"),
        pytest.param(Entry(subject(), Reason.AGENT_LOST, "m", "Fail", True, 1, 1), id="action"),
    ],
)
def test_what_differs_is_told_apart(other: Entry) -> None:
    aggregator = Aggregator()
    aggregator.offer(entry(0), 0)
    aggregator.offer(other, 1)
    assert len(aggregator.take(1)[0]) == 2


def test_the_rate_is_kept_and_nothing_is_forgotten() -> None:
    aggregator = Aggregator(burst=2, per_second=10)
    for number in range(5):
        aggregator.offer(entry(uid=f"u{number}"), 0)
    entries, again = aggregator.take(0)
    assert len(entries) == 2
    assert again == pytest.approx(0.1, abs=1e-3)
    assert [len(aggregator.take(at)[0]) for at in (0.05, 0.11, 0.5)] == [0, 1, 2]


@given(st.floats(0.01, 1000), st.floats(0, 1e6))
def test_who_comes_when_told_does_not_come_in_vain(per_second: float, at: float) -> None:
    aggregator = Aggregator(burst=1, per_second=per_second)
    for number in range(3):
        aggregator.offer(entry(at, uid=f"u{number}"), at)
    entries, again = aggregator.take(at)
    while len(entries) < 3:
        assert again is not None
        told, again = aggregator.take(again)
        assert told
        entries += told


def test_a_flood_is_dropped_and_counted() -> None:
    aggregator = Aggregator(most=10, burst=1, per_second=0.001)
    for number in range(100):
        aggregator.offer(entry(uid=f"u{number}"), 0)
    assert aggregator.dropped == 90
    assert len(aggregator.flush()) == 10


@given(
    st.lists(st.tuples(st.floats(0, 40), st.sampled_from("abc")), max_size=60),
    st.integers(1, 5),
    st.integers(1, 60),
)
def test_each_happening_is_told_once_or_counted_as_dropped(
    happenings: list[tuple[float, str]], burst: int, most: int
) -> None:
    aggregator = Aggregator(window=30, burst=burst, per_second=0.5, most=most)
    now, counted = 0.0, 0
    for wait, uid in happenings:
        now += wait
        aggregator.offer(entry(now, uid), now)
        counted += sum(e.count for e in aggregator.take(now)[0])
    counted += sum(e.count for e in aggregator.flush())
    assert counted + aggregator.dropped == len(happenings)


class Port:
    """The API server as the recorder sees it."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.error: Exception | None = None
        self.arrived = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()

    async def create(self, namespace: str, event: dict[str, Any]) -> None:
        self.arrived.set()
        await self.open.wait()
        if self.error:
            raise self.error
        self.events.append(event)

    async def until(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.events) < count:
                self.arrived.clear()
                await self.arrived.wait()
                await asyncio.sleep(0)


async def test_the_recorder_writes_under_names_of_their_own() -> None:
    port = Port()
    recorder = Recorder(port.create, instance="operator-0")
    task = asyncio.create_task(recorder.run())
    recorder.record(subject("u1"), Reason.AGENT_LOST, "one", action="Retry")
    await port.until(1)
    recorder.record(subject("u1"), Reason.HANDLER_ERROR, "two", action="Retry")
    await port.until(2)
    task.cancel()
    assert [event["note"] for event in port.events] == ["one", "two"]
    assert len({event["metadata"]["name"] for event in port.events}) == 2


async def test_recording_never_waits_and_a_dead_server_stops_nothing() -> None:
    port, lost = Port(), []
    port.open.clear()
    port.error = RuntimeError("no answer")
    gone = asyncio.Event()

    def on_lost(entry: Entry, error: Exception) -> None:
        lost.append((entry.message, str(error)))
        port.error = None
        gone.set()

    recorder = Recorder(port.create, instance="i", on_lost=on_lost)
    task = asyncio.create_task(recorder.run())
    recorder.record(subject("u1"), Reason.AGENT_LOST, "one", action="Retry")
    await asyncio.wait_for(port.arrived.wait(), 10)
    recorder.record(subject("u2"), Reason.AGENT_LOST, "two", action="Retry")
    port.open.set()
    await asyncio.wait_for(gone.wait(), 10)
    await port.until(1)
    task.cancel()
    assert lost == [("one", "no answer")]
    assert [event["note"] for event in port.events] == ["two"]


async def test_what_is_held_back_is_written_at_the_end() -> None:
    port = Port()
    recorder = Recorder(port.create, instance="i")
    for message in ("one", "two", "three"):
        recorder.record(subject(), Reason.AGENT_LOST, message, action="Retry")
    await recorder.flush()
    assert [(e["note"], e.get("series", {}).get("count", 1)) for e in port.events] == [("one", 1), ("three", 2)]


async def test_the_end_waits_only_so_long() -> None:
    port = Port()
    port.open.clear()
    recorder = Recorder(port.create, instance="i")
    recorder.record(subject(), Reason.AGENT_LOST, "one", action="Retry")
    await asyncio.wait_for(recorder.flush(timeout=0.01), 10)
    assert port.events == []


async def test_a_clock_that_is_set_back_holds_nothing_back() -> None:
    port, wall = Port(), [1e9]
    port.open.set()
    recorder = Recorder(port.create, instance="i", aggregator=Aggregator(window=0.05), clock=lambda: wall[0])
    running = asyncio.create_task(recorder.run())
    for message in ("first", "again"):
        recorder.record(subject("u1"), Reason.AGENT_LOST, message, action="Retry")
        await asyncio.sleep(0)
        wall[0] -= 3600
    await port.until(2)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert [event["note"] for event in port.events] == ["first", "again"]
