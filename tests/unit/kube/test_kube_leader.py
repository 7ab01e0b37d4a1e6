"""The elector around the election: callbacks in order, ended in time, and a Lease spelled as others expect it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from taskdist.common.boottime import boottime
from taskdist.kube import ApiError, Client, LeaderElector, Obj, Timing, Unanswered, Unreachable, leader
from taskdist.kube.client import WatchEvent
from taskdist.kube.transport import Answer, Request
from unit.kube.fakes import CONFLICT, status

TIMING = Timing(lease=1.0, renew_deadline=0.5, retry=0.05)


class OneLease(Client):
    """An API server that knows one Lease, and may be cut off."""

    def __init__(self) -> None:
        self.lease: Obj | None = None
        self.version = 0
        self.cut = False
        self.written = asyncio.Event()
        self.looked = asyncio.Event()

    def _reach(self) -> None:
        if self.cut:
            raise Unreachable("cut")

    async def get(self, *_: Any, **__: Any) -> Obj:
        self._reach()
        self.looked.set()
        if self.lease is None:
            raise ApiError(404, "NotFound", "", {"name": "operator"})
        return self.lease

    async def create(self, resource: Any, body: Obj, *_: Any, **__: Any) -> Obj:
        self._reach()
        if self.lease is not None:
            raise ApiError(409, "AlreadyExists")
        return self._store(body)

    async def put(self, resource: Any, name: str, body: Obj, *_: Any, **__: Any) -> Obj:
        self._reach()
        assert self.lease is not None
        if body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise ApiError.from_answer(CONFLICT.status, CONFLICT.body)
        return self._store(body)

    @asynccontextmanager
    async def watch(self, *_: Any, **__: Any) -> AsyncIterator[AsyncIterator[WatchEvent]]:
        self._reach()
        yield self._changes()

    async def _changes(self) -> AsyncIterator[WatchEvent]:
        seen = -1
        while True:
            if seen != self.version:
                seen = self.version
                if self.lease is not None:
                    yield WatchEvent("MODIFIED", self.lease)
            self.written.clear()
            await self.written.wait()

    def _store(self, body: Obj) -> Obj:
        self.version += 1
        self.lease = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.version)}}
        self.written.set()
        return self.lease


class Silent:
    """The wire to an API server that takes every request and answers none: each ends a little after its time."""

    async def open(self) -> None:
        """Nothing."""

    async def close(self) -> None:
        """Nothing."""

    async def exchange(self, request: Request) -> Answer:
        await asyncio.sleep(request.timeout + 0.05)
        raise Unanswered("silence")

    def stream(self, request: Request, stall: float) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        raise Unanswered("silence")


class Led:
    """An elector whose callbacks note what happened; `stopping` is what on_stopping does."""

    def __init__(self, client: Client, stopping: Any = None, started: Any = None) -> None:
        self.notes: list[str] = []
        self.began, self.ended = asyncio.Event(), asyncio.Event()
        self.deadline = 0.0
        self.floor = 0
        self._stopping, self._started = stopping, started
        self.elector = elector_of(self, client)

    def on_started(self, epoch: int) -> None:
        self.notes.append(f"started {epoch}")
        if self._started is not None:
            self._started()
        self.began.set()

    async def on_stopping(self, deadline: float) -> None:
        self.notes.append("stopping")
        self.deadline = deadline
        assert self.elector.leading() is None
        if self._stopping is not None:
            await self._stopping()

    def on_stopped(self) -> None:
        self.notes.append("stopped")
        self.ended.set()

    async def wait(self, event: asyncio.Event) -> None:
        await asyncio.wait_for(event.wait(), 10)


def elector_of(
    led: Led, client: Client, clock: Callable[[], float] = boottime, timing: Timing = TIMING
) -> LeaderElector:
    return LeaderElector(
        client,
        namespace="ns",
        name="operator",
        on_started=led.on_started,
        on_stopping=led.on_stopping,
        on_stopped=led.on_stopped,
        timing=timing,
        floor=lambda: led.floor,
        clock=clock,
    )


async def test_leads_and_resigns() -> None:
    client = OneLease()
    led = Led(client)
    runner = asyncio.create_task(led.elector.run())
    await led.wait(led.began)
    assert led.elector.leading() == 1
    assert client.lease is not None
    spec = client.lease["spec"]
    assert spec["holderIdentity"] == led.elector.identity
    assert (spec["leaseTransitions"], spec["leaseDurationSeconds"]) == (1, 1)
    led.elector.resign()
    led.elector.resign()
    await asyncio.wait_for(runner, 10)
    assert led.notes == ["started 1", "stopping", "stopped"]
    assert client.lease["spec"]["holderIdentity"] == ""
    assert client.lease["spec"]["leaseTransitions"] == 1


async def test_a_stopping_runs_to_its_end_though_its_deadline_is_past_and_only_then_it_campaigns_again() -> None:
    client = OneLease()
    late = 0.0

    async def close() -> None:
        nonlocal late
        if not late:  # not so at the end of the test
            late = 3 * TIMING.lease
            for _ in range(20):
                await asyncio.sleep(0)
            led.notes.append("closed")

    led = Led(client, stopping=close)
    led.elector = elector_of(led, client, lambda: boottime() + late)
    runner = asyncio.create_task(led.elector.run())
    await led.wait(led.began)
    led.began.clear()
    client.cut = True
    await led.wait(led.ended)
    client.cut = False
    await led.wait(led.began)
    assert led.notes == ["started 1", "stopping", "closed", "stopped", "started 2"]
    led.elector.resign()
    await asyncio.wait_for(runner, 10)


async def test_an_end_that_is_noticed_after_the_lease_was_over_is_cleaned_up_like_any_other() -> None:
    now = boottime()
    cleaned = asyncio.Event()

    async def clean_up() -> None:
        await asyncio.sleep(0)  # a first await is where it used to be cut off
        cleaned.set()

    client = OneLease()
    led = Led(client, stopping=clean_up)
    late = 0.0
    led.elector = elector_of(led, client, lambda: now + late)
    runner = asyncio.create_task(led.elector.run())
    await led.wait(led.began)
    late = 3 * TIMING.lease  # as after a pause of the whole process
    client.lease = None  # with it the late renewal fails, which would make the leadership go on
    led.elector._poke.set()
    await led.wait(led.ended)
    assert cleaned.is_set()
    runner.cancel()
    await asyncio.gather(runner, return_exceptions=True)


async def test_a_stopping_that_never_ends_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leader, "STOPPING_SECONDS", 0.01)
    client = OneLease()
    led = Led(client, stopping=asyncio.Event().wait)
    runner = asyncio.create_task(led.elector.run())
    await led.wait(led.began)
    client.cut = True
    with pytest.raises(TimeoutError, match="has not ended"):
        await asyncio.wait_for(runner, 10)


async def test_each_silence_of_the_api_server_is_told_as_one() -> None:
    told: list[str] = []
    enough = asyncio.Event()

    def on_request(verb: str, resource: str, outcome: str, seconds: float) -> None:
        if verb != "watch":
            told.append(outcome)
            if len(told) > 3:
                enough.set()

    led = Led(Client(Silent(), on_request=on_request))
    runner = asyncio.create_task(led.elector.run())
    await led.wait(enough)
    assert set(told) == {"unanswered"}, "what is cancelled would be nobody's silence"
    runner.cancel()
    await asyncio.gather(runner, return_exceptions=True)


async def test_it_steps_down_and_leads_again_above_what_is_known_from_elsewhere() -> None:
    client = OneLease()
    led = Led(client)
    runner = asyncio.create_task(led.elector.run())
    await led.wait(led.began)
    led.began.clear()
    led.floor = 41
    led.elector.step_down("agents have seen epoch 41")
    await led.wait(led.began)
    assert led.notes == ["started 1", "stopping", "stopped", "started 42"]
    led.elector.resign()
    await asyncio.wait_for(runner, 10)


async def test_after_a_cut_it_leads_again_under_a_new_epoch() -> None:
    client = OneLease()
    led = Led(client)
    runner = asyncio.create_task(led.elector.run())
    await led.wait(led.began)
    client.cut = True
    await led.wait(led.ended)
    led.began.clear()
    client.cut = False
    await led.wait(led.began)
    assert led.notes == ["started 1", "stopping", "stopped", "started 2"]
    led.elector.resign()
    await asyncio.wait_for(runner, 10)


async def test_a_lease_that_is_given_back_is_taken_at_once_not_at_the_next_look() -> None:
    client = OneLease()
    first, second = Led(client), Led(client)
    slow = Timing(lease=300, renew_deadline=200, retry=60)
    for each in (first, second):
        each.elector = elector_of(each, client, timing=slow)
    leading = asyncio.create_task(first.elector.run())
    await first.wait(first.began)
    client.looked.clear()
    waiting = asyncio.create_task(second.elector.run())
    await second.wait(client.looked)
    first.elector.resign()
    await asyncio.wait_for(leading, 10)
    await second.wait(second.began)
    assert second.notes == ["started 2"]
    second.elector.resign()
    await asyncio.wait_for(waiting, 10)


@pytest.mark.parametrize("where", ["started", "stopping"])
async def test_an_error_in_a_callback_ends_it(where: str) -> None:
    def fail() -> None:
        raise LookupError(where)

    async def fail_later() -> None:
        fail()

    led = Led(OneLease(), started=fail if where == "started" else None, stopping=fail_later)
    runner = asyncio.create_task(led.elector.run())
    if where == "stopping":
        await led.wait(led.began)
        led.elector.resign()
    with pytest.raises(LookupError, match=where):
        await asyncio.wait_for(runner, 10)


async def test_each_process_has_an_identity_of_its_own() -> None:
    assert Led(OneLease()).elector.identity != Led(OneLease()).elector.identity


async def test_a_refusal_by_the_server_is_tried_again() -> None:
    client = OneLease()
    answers = [status(403, "Forbidden"), status(500, "InternalError")]
    plain = client.get

    async def get(*_: Any, **__: Any) -> Obj:
        if answers:
            answer = answers.pop(0)
            raise ApiError.from_answer(answer.status, answer.body)
        return await plain()

    client.get = get  # type: ignore[method-assign]
    led = Led(client)
    runner = asyncio.create_task(led.elector.run())
    await led.wait(led.began)
    led.elector.resign()
    await asyncio.wait_for(runner, 10)
