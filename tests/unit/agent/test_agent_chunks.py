"""Chunks of items: each goes to the handler by itself, and whatever becomes of them is told within bounds."""

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from taskdist.agent import Agent, Context, Permanent, Throttled
from taskdist.agent.attempt import Attempt, Reports
from taskdist.agent.chunk import MOST_FAILED_RUNS, MOST_KINDS, run_chunk
from taskdist.agent.outcomes import Cancelled, Failed, Outcome, Returned
from taskdist.agent.place import Place
from taskdist.api import Reason
from taskdist.api.task import MAX_RESULT_BYTES
from taskdist.common.boottime import boottime
from taskdist.protocol.arrays.chunk_results import ChunkResult, FailedItems, decode
from taskdist.protocol.arrays.indexes import EMPTY, IndexSet
from taskdist.protocol.messages import Chunk, Grant, LeaseName
from unit.agent.test_agent_workers import bench


@pytest.fixture(scope="module")
def reports() -> Reports:
    return Reports()


class Runs:
    """Runs chunks as a worker does. `attempt` is the last one."""

    def __init__(self, reports: Reports, runner: asyncio.Runner) -> None:
        self._reports, self._runner = reports, runner
        self.attempt: Attempt
        self.count = 100_000

    def __call__(
        self, handler: Callable[..., Any], items: str, payloads: tuple[bytes, ...] = (), stop: str = ""
    ) -> tuple[Outcome, dict[str, float]]:
        agent = Agent()
        agent.task("t")(handler)
        spans = [tuple(span) for span in IndexSet.parse(items).spans]
        chunk = {"spans": spans, "count": self.count, "sizes": [len(each) for each in payloads]}
        head = {"type": "t", "task": "big", "namespace": "ns", "uid": "u", "attempt": 1, "agent": "a", "chunk": chunk}
        self.attempt = Attempt(1, head, b"".join(payloads) or b'{"all":1}', lambda *_: None)
        if stop:
            self.attempt.cancel(stop)
        place, descriptor = Place.create()
        os.close(descriptor)
        try:
            return run_chunk(agent, self.attempt, self._reports, self._runner, place)
        finally:
            assert place.read(10**6) is None
            place.close()


@pytest.fixture
def run(reports: Reports) -> Iterator[Runs]:
    with asyncio.Runner() as runner:
        yield Runs(reports, runner)


@pytest.mark.parametrize(
    ("count", "whole"),
    [
        pytest.param(700, False, id="all that the array can keep is kept: the rest is given back"),
        pytest.param(100_000, True, id="more than the array can keep anyway is dropped"),
    ],
)
def test_a_chunk_whose_results_fill_their_room(run: Runs, count: int, whole: bool) -> None:
    run.count = count
    said = told(run(lambda: {"text": "x" * 50}, "0-699")[0])
    assert (not said.left, bool(said.dropped)) == (whole, whole)
    assert len(said.results) + said.dropped + len(said.left) == 700
    assert len(said.results) > 300


def told(outcome: Outcome) -> ChunkResult:
    assert isinstance(outcome, Returned)
    assert len(outcome.body) <= MAX_RESULT_BYTES
    return decode(outcome.body)


def test_each_item_is_called_with_its_index_and_what_it_returns_is_kept_by_it(run: Runs) -> None:
    seen: list[Any] = []

    def handler(payload: dict[str, Any], ctx: Context) -> dict[str, Any] | None:
        seen.append((payload, ctx.index, ctx.count, ctx.uid))
        return {"i": ctx.index} if ctx.index != 8 else None

    outcome, used = run(handler, "3,7-8")
    assert seen == [({"all": 1}, index, 100_000, "u") for index in (3, 7, 8)]
    assert told(outcome) == ChunkResult({3: '{"i":3}', 7: '{"i":7}'})
    assert used == {}


def test_an_item_of_its_own_is_its_payload(run: Runs) -> None:
    async def handler(payload: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0)
        return payload

    outcome, _ = run(handler, "1-2", (b'{"a":1}', b'{"b":[2]}'))
    assert told(outcome).results == {1: '{"a":1}', 2: '{"b":[2]}'}


def test_what_one_item_raises_fails_that_item(run: Runs) -> None:
    def handler(ctx: Context) -> None:
        if ctx.index in (1, 2):
            raise ValueError("boom")
        if ctx.index == 4:
            raise Permanent("never")

    result = told(run(handler, "0-5")[0])
    assert result.failed == (
        FailedItems(IndexSet.span(1, 2), Reason.HANDLER_ERROR, "ValueError: boom"),
        FailedItems(IndexSet.of([4]), Reason.HANDLER_ERROR, "taskdist.agent.sdk.Permanent: never", retryable=False),
    )
    assert (result.left, result.results) == (EMPTY, {})


def test_a_cancel_ends_the_chunk_between_two_items(run: Runs) -> None:
    def handler(ctx: Context) -> dict[str, Any]:
        if ctx.index == 2:
            run.attempt.cancel("Drain")
        return {"i": ctx.index}

    result = told(run(handler, "0-9")[0])
    assert sorted(result.results) == [0, 1, 2]
    assert result.left == IndexSet.span(3, 9)


def test_a_cancel_before_the_first_item_leaves_nothing(run: Runs) -> None:
    calls: list[int] = []

    def handler() -> None:
        calls.append(1)

    outcome, _ = run(handler, "0-9", stop="Drain")
    assert isinstance(outcome, Cancelled)
    assert calls == []


def test_an_item_that_saw_the_cancel_is_given_back(run: Runs) -> None:
    def handler(ctx: Context) -> None:
        ctx.cancel("Drain")
        assert ctx.cancelled

    result = told(run(handler, "0")[0])
    assert [(str(each.items), each.reason) for each in result.failed] == [("0", Reason.GIVEN_BACK)]


def test_a_throttled_item_gives_back_all_behind_it(run: Runs) -> None:
    def handler(ctx: Context) -> None:
        if ctx.index == 2:
            raise Throttled(after=7)

    assert told(run(handler, "0-9")[0]).left == IndexSet.span(2, 9)
    first, _ = run(handler, "2-9")
    assert first == Failed(Reason.THROTTLED, "the handler is throttled", True, 7.0)


def test_a_type_without_a_handler_fails_each_item(run: Runs) -> None:
    def handler(payload: int) -> None:
        raise AssertionError(payload)

    (failed,) = told(run(handler, "0-2")[0]).failed
    assert (failed.items, failed.reason, failed.retryable) == (IndexSet.span(0, 2), Reason.INVALID_PAYLOAD, False)


def test_results_that_find_no_room_are_counted(run: Runs) -> None:
    def handler() -> dict[str, str]:
        return {"text": "é" * 2000}

    result = told(run(handler, "0-99")[0])
    assert len(result.results) + result.dropped == 100
    assert 0 < len(result.results) < 10
    assert result.failed == ()


def test_however_many_items_fail_it_is_told_within_bounds(run: Runs) -> None:
    def handler(ctx: Context) -> None:
        if ctx.index is not None and ctx.index % 2:
            raise ValueError(f"{'x' * 300} {ctx.index}")

    result = told(run(handler, "0-9999")[0])
    assert len(IndexSet.union(each.items for each in result.failed)) == MOST_FAILED_RUNS
    assert result.left == IndexSet.span(2 * MOST_FAILED_RUNS, 9999)
    assert len(result.failed) <= MOST_KINDS + 1


def test_what_items_use_of_budgets_is_added_up(run: Runs) -> None:
    def handler(ctx: Context) -> None:
        ctx.used("tokens", 5)

    assert run(handler, "0-3")[1] == {"tokens": 20}


async def test_a_worker_process_runs_a_chunk() -> None:
    async with bench() as made:
        assert made.offered.arrays
        lease = LeaseName("uid.1-1", 1, 1)
        chunk = Chunk(((0, 1), (5, 5)), 9, (b'{"n":1}', b'{"n":2}', b'{"n":3}'))
        made.pool.start(Grant(lease, "ns", "big", "echo", 1, boottime(), 60.0, 120.0, chunk=chunk), boottime() + 60.0)
        kind, (body,) = await made.ended(lease)
        assert kind == "finished"
        assert {key: json.loads(text) for key, text in decode(body).results.items()} == {
            0: {"n": 1},
            1: {"n": 2},
            5: {"n": 3},
        }


async def test_a_worker_that_dies_fails_the_item_that_it_died_at() -> None:
    async with bench() as made:
        lease = LeaseName("uid.1-1", 1, 1)
        payloads = (b'{"spared":true}', b"{}", b'{"spared":true}')
        chunk = Chunk(((4, 5), (9, 9)), 10, payloads)
        made.pool.start(Grant(lease, "ns", "big", "crash", 1, boottime(), 60.0, 120.0, chunk=chunk), boottime() + 60.0)
        kind, (body,) = await made.ended(lease)
        result = decode(body)
        assert kind == "finished"
        crashed, given_back = result.failed
        assert (str(crashed.items), crashed.reason) == ("5", Reason.HANDLER_CRASHED)
        assert "SIGKILL" in crashed.message
        assert (str(given_back.items), given_back.reason) == ("4", Reason.GIVEN_BACK)
        assert str(result.left) == "9"


async def test_commands_are_given_no_chunks() -> None:
    async with bench("command", ["cat"]) as made:
        assert not made.offered.arrays
