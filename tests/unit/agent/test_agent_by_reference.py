"""Payloads and results by reference: the work sees none of it, and each failure is told as what it is."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.host import SAMPLE
from agents.peer import TIMEOUT
from taskdist.agent.by_reference import ByReference
from taskdist.agent.logs import make_logger
from taskdist.agent.options import AgentOptions
from taskdist.agent.outcomes import Failed
from taskdist.agent.parents import decode, encode
from taskdist.agent.runner import make_executor
from taskdist.agent.work import Offered, WorkEvents
from taskdist.api import Reason
from taskdist.api.task import MAX_RESULT_BYTES
from taskdist.common.boottime import boottime
from taskdist.objects import transfer
from taskdist.objects.memory import MemoryStore, memory_objects
from taskdist.objects.places import Place
from taskdist.objects.settings import ObjectSettings
from taskdist.objects.store import ObjectError
from taskdist.protocol.messages import Chunk, Grant, LeaseName, ObjectRef, ParentResult, by_value
from unit.agent.recorder import Recorder

LEASE = LeaseName("0a1b", 1, 1)
GRANT = Grant(LEASE, "team", "task", "t", 1, 0.0, 60.0, 120.0)
LARGE = b'{"text":"' + b"x" * MAX_RESULT_BYTES + b'"}'
DOWN = ObjectError(Reason.OBJECT_UNAVAILABLE, "the store is down", retryable=True)


class Work:
    """An executor that notes what it is asked, and returns what it was given."""

    def __init__(self, answers: bool = True) -> None:
        self.answers = answers
        self.asked: list[tuple[Any, ...]] = []
        self.events: WorkEvents | None = None

    async def open(self, events: WorkEvents) -> Offered:
        self.events = events
        return Offered(None, fenced=True)

    def start(self, grant: Grant, deadline: float) -> None:
        self.asked.append(("start", grant, deadline))
        assert self.events is not None
        self.events.started(grant.lease)
        if self.answers:
            self.events.finished(grant.lease, grant.payload)

    def fence(self, lease: LeaseName, deadline: float) -> None:
        self.asked.append(("fence", deadline))

    def cancel(self, lease: LeaseName, reason: str) -> None:
        self.asked.append(("cancel", reason))

    def kill(self, lease: LeaseName) -> None:
        self.asked.append(("kill",))

    async def close(self) -> None:
        self.asked.append(("close",))

    @property
    def grant(self) -> Grant:
        kind, grant, _ = self.asked[0]
        assert kind == "start"
        assert isinstance(grant, Grant)
        return grant


class Slow(MemoryStore):
    """A store that answers when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.let = asyncio.Event()
        self.let.set()

    async def get(self, key: str, size: int) -> bytes:
        await self.let.wait()
        return await super().get(key, size)

    async def put(self, key: str, body: bytes) -> None:
        await self.let.wait()
        await super().put(key, body)


async def run(work: Work, grant: Grant, store: MemoryStore, **options: Any) -> tuple[str, tuple[Any, ...]]:
    """How the attempt ended."""
    events, executor = Recorder(), ByReference(work, memory_objects(store), **options)
    await executor.open(events)
    executor.start(grant, 7.0)
    try:
        return await asyncio.wait_for(events.ended(grant.lease), TIMEOUT)
    finally:
        await executor.close()
        assert not events.broken


@settings(deadline=None, max_examples=60)
@given(
    st.dictionaries(
        st.text(max_size=5), st.integers(-(2**63), 2**63 - 1) | st.text(max_size=20) | st.none(), max_size=3
    ),
    st.integers(-40, 40),
    st.sampled_from("xä€"),
)
def test_what_the_handler_gets_and_returns_is_what_was_submitted_around_the_bound(
    value: dict[str, Any], off: int, filler: str
) -> None:
    def encoded() -> bytes:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()

    value |= {"filler": ""}
    value["filler"] = filler * max(0, (MAX_RESULT_BYTES + off - len(encoded())) // len(filler.encode()))
    body = encoded()

    async def there_and_back() -> tuple[Work, Any]:
        store, work = MemoryStore(), Work()
        objects = memory_objects(store)
        payload = body if len(body) <= MAX_RESULT_BYTES else await objects.put_payload("team", body)
        kind, (told,) = await run(work, replace(GRANT, payload=payload), store)
        assert kind == "finished"
        assert isinstance(told, ObjectRef) == (len(body) > MAX_RESULT_BYTES)
        return work, await objects.fetch(told, "team") if isinstance(told, ObjectRef) else told

    work, result = asyncio.run(there_and_back())
    assert by_value(work.grant.payload) == body == result


async def test_the_payload_of_a_chunk_is_fetched_once_for_all_its_items() -> None:
    store, work, chunk = MemoryStore(), Work(), Chunk(((0, 2), (7, 9)), 10)
    payload = await memory_objects(store).put_payload("team", b'{"all":1}')
    await run(work, replace(GRANT, payload=payload, chunk=chunk), store)
    assert by_value(work.grant.payload) == b'{"all":1}'
    assert work.grant.chunk == chunk


@pytest.mark.parametrize(
    ("spoil", "reason", "retryable"),
    [
        pytest.param("down", Reason.OBJECT_UNAVAILABLE, True, id="a store that is down may be up again"),
        pytest.param("delete", Reason.OBJECT_NOT_FOUND, False, id="an object that is gone stays gone"),
        pytest.param("change", Reason.OBJECT_MISMATCH, False, id="another object stays another"),
        pytest.param("elsewhere", Reason.OBJECT_REFUSED, False, id="what is of another namespace is none of ours"),
    ],
)
async def test_a_payload_that_cannot_be_fetched_fails_the_attempt_before_work_starts(
    spoil: str, reason: Reason, retryable: bool
) -> None:
    store, work = MemoryStore(), Work()
    ref = await memory_objects(store).put_payload("team", LARGE)
    (key,) = store.objects
    match spoil:
        case "down":
            store.trouble = DOWN
        case "delete":
            del store.objects[key]
        case "change":
            store.objects[key] = LARGE.upper()
        case _:
            ref = ref._replace(uri=ref.uri.replace("/team/", "/other/"))
    kind, told = await run(work, replace(GRANT, payload=ref), store)
    assert (kind, told[0], told[2]) == ("failed", reason, retryable)
    assert work.asked == [("close",)]


async def test_a_result_that_cannot_be_put_fails_the_attempt_and_may_be_tried_again() -> None:
    class Full(MemoryStore):
        async def put(self, key: str, body: bytes) -> None:
            raise DOWN

    kind, told = await run(Work(), replace(GRANT, payload=LARGE), Full())
    assert (kind, told[0], told[2]) == ("failed", Reason.OBJECT_UNAVAILABLE, True)


async def test_a_result_beyond_what_is_taken_here_is_too_large_for_good() -> None:
    store, events, work = MemoryStore(), Recorder(), Work()
    executor = ByReference(work, memory_objects(store, max_bytes=MAX_RESULT_BYTES + 5))
    await executor.open(events)
    executor.start(replace(GRANT, payload=LARGE), 7.0)
    kind, told = await events.ended(LEASE)
    assert (kind, told[0], told[2]) == ("failed", Reason.RESULT_TOO_LARGE, False)
    assert not store.objects


async def test_a_result_is_put_before_it_is_told_under_its_own_attempt() -> None:
    store = MemoryStore()
    _, (ref,) = await run(Work(), replace(GRANT, payload=LARGE), store)
    assert list(store.objects) == [f"tasks/team/results/0a1b/1/{ref.sha256}"]


@pytest.mark.parametrize("stop", ["cancel", "kill"])
@pytest.mark.parametrize("way", ["fetching", "putting"])
async def test_whoever_stops_the_lease_ends_its_transfer(stop: str, way: str) -> None:
    store, events, work = Slow(), Recorder(), Work()
    objects = memory_objects(store)
    payload = await objects.put_payload("team", LARGE) if way == "fetching" else LARGE
    store.let.clear()
    executor = ByReference(work, objects)
    await executor.open(events)
    executor.start(replace(GRANT, payload=payload), 7.0)
    assert events.find(LEASE, "finished", "failed", "stopped") is None
    if stop == "cancel":
        executor.cancel(LEASE, "as asked")
    else:
        executor.kill(LEASE)
    assert events.find(LEASE, "stopped") is not None
    store.let.set()
    await executor.close()
    ends = [kind for kind, _, _ in events.told if kind in ("finished", "failed", "stopped")]
    assert ends == ["stopped"]
    assert [each[0] for each in work.asked] == (["close"] if way == "fetching" else ["start", "close"])
    assert not events.broken


async def test_the_lease_s_end_that_moved_while_it_was_fetched_is_the_work_s() -> None:
    store, events, work = Slow(), Recorder(), Work(answers=False)
    objects = memory_objects(store)
    ref = await objects.put_payload("team", LARGE)
    store.let.clear()
    executor = ByReference(work, objects)
    await executor.open(events)
    executor.start(replace(GRANT, payload=ref), 7.0)
    executor.fence(LEASE, 9.0)
    store.let.set()
    await events.wait(LEASE, "started")
    executor.fence(LEASE, 11.0)
    executor.cancel(LEASE, "as asked")
    assert [each[0] for each in work.asked] == ["start", "fence", "cancel"]
    assert work.asked[0][2] == 9.0
    await executor.close()


@pytest.mark.parametrize(
    ("fetches", "whole"),
    [
        pytest.param(True, [True, True, False], id="as many as one object may have bytes, in their order"),
        pytest.param(False, [False, True, False], id="none for a command, whose environment takes no more"),
    ],
)
async def test_results_of_parents_are_fetched_within_bounds(fetches: bool, whole: list[bool]) -> None:
    store, work = MemoryStore(), Work()
    objects = memory_objects(store)
    refs = [await objects.put_result("team", LeaseName(uid, 1, 1), LARGE) for uid in ("a", "b")]
    small = ParentResult("small", "Succeeded", b'{"a":1}')
    parents = (ParentResult("a", "Succeeded", refs[0]), small, ParentResult("b", "Succeeded", refs[1]))
    events, executor = Recorder(), ByReference(work, memory_objects(store, len(LARGE) + 9), parents=fetches)
    await executor.open(events)
    executor.start(replace(GRANT, parents=parents), 7.0)
    await asyncio.wait_for(events.ended(LEASE), TIMEOUT)
    seen = decode(encode(work.grant.parents))
    assert [not each.reference for each in seen.values()] == whole
    assert seen["b"].reference == refs[1].uri
    if fetches:
        assert seen["a"].result == json.loads(LARGE)


async def test_a_parent_s_result_that_is_no_json_fails_the_child_with_its_name() -> None:
    store = MemoryStore()
    ref = await memory_objects(store).put_result("team", LEASE, b"x" * 70_000)
    kind, told = await run(Work(), replace(GRANT, parents=(ParentResult("p", "Succeeded", ref),)), store)
    assert (kind, told[0], told[2]) == ("failed", Reason.OBJECT_REFUSED, False)
    assert ref.uri in told[1]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{},"task":"another"', id="more than one value, which would be read as the Task's name"),
        pytest.param(b"[1]", id="a list"),
        pytest.param(b'{"a":', id="half of one"),
        pytest.param(b"\xff{}", id="no UTF-8"),
    ],
)
@pytest.mark.parametrize(
    ("how", "reason"),
    [
        pytest.param({"command": ("cat",)}, Reason.OBJECT_REFUSED, id="a command"),
        pytest.param({"http": "http://127.0.0.1:9/run"}, Reason.OBJECT_REFUSED, id="a server"),
        pytest.param({"module": str(SAMPLE), "in_process": True}, Reason.INVALID_PAYLOAD, id="a handler, by its model"),
    ],
)
async def test_a_payload_that_is_no_json_object_reaches_no_work(
    body: bytes, how: dict[str, Any], reason: Reason, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = memory_objects()
    monkeypatch.setattr(transfer, "connect", lambda _: objects)
    ref = await objects.put_payload("team", body + b" " * MAX_RESULT_BYTES)
    executor, events = (
        make_executor(AgentOptions(objects=ObjectSettings(Place("test")), **how), make_logger()),
        Recorder(),
    )
    await executor.open(events)
    try:
        executor.start(replace(GRANT, type="echo", payload=ref), boottime() + 60.0)
        kind, told = await asyncio.wait_for(events.ended(LEASE), TIMEOUT)
    finally:
        await executor.close()
    assert (kind, told[0], told[2]) == ("failed", reason, False), told


async def test_a_failure_of_the_work_goes_through() -> None:
    store, events, work = MemoryStore(), Recorder(), Work(answers=False)
    executor = ByReference(work, memory_objects(store))
    await executor.open(events)
    executor.start(GRANT, 7.0)
    executor.failed(LEASE, Failed(Reason.HANDLER_ERROR, "words", retryable=False))
    assert events.find(LEASE, "failed") == ("failed", (Reason.HANDLER_ERROR, "words", False))
