"""`map`: payloads go in arrays, as many as fit, and each outcome is that of its payload."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import fields
from typing import Any, cast

import pytest

from taskdist.agent import Context, Permanent
from taskdist.client import (
    AsyncClient,
    Client,
    DeadLettered,
    ResultDropped,
    TaskCancelled,
    TaskFailed,
    TaskGone,
    TaskTimeout,
)
from taskdist.client.mapping import AT_ONCE, FIRST_ITEMS, MOST_ALONE, Mapped, Ways
from taskdist.client.testing import FakeBackend
from taskdist.core.agents.filters import CHUNKS
from taskdist.kube import TASKS, ApiError, Obj, Resource, name_of

CREATE = f"create {TASKS}"


@pytest.fixture
def fake() -> Iterator[FakeBackend]:
    with FakeBackend() as made:
        made.handler("echo")(lambda payload: payload)
        yield made


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


def arrays(fake: FakeBackend) -> list[int]:
    """How many items each array has."""
    return [len(each["spec"]["array"]["items"]) for each in fake.tasks() if each["spec"].get("array")]


def singles(fake: FakeBackend) -> int:
    return sum(not each["spec"].get("array") for each in fake.tasks())


def test_thousands_of_payloads_each_with_its_result(fake: FakeBackend) -> None:
    with Client(backend=fake) as client:
        begun, seen, names = time.monotonic(), 0, set[str]()
        for done in client.map("work", "echo", ({"n": n} for n in range(4_000))):
            assert done.value == {"n": done.index}
            assert done.task is not None
            names.add(done.task.name)
            seen += 1
        print(f"{seen / (time.monotonic() - begun):.0f} a second, {len(names)} arrays")
    assert (seen, singles(fake)) == (4_000, 0)
    assert fake.requests[CREATE] == len(names) < 100
    assert max(arrays(fake)) > 10 * FIRST_ITEMS


async def test_in_order_if_asked(fake: FakeBackend) -> None:
    async with AsyncClient(backend=fake) as client:
        payloads = [{"n": n} for n in range(500)]
        assert [each.index async for each in client.map("work", "echo", payloads, ordered=True)] == list(range(500))


async def test_no_more_are_taken_than_the_window_lets(fake: FakeBackend) -> None:
    taken = handed = most = 0

    def payloads() -> Iterator[dict[str, Any]]:
        nonlocal taken, most
        for n in range(300):
            taken += 1
            most = max(most, taken - handed)
            yield {"n": n}

    async with AsyncClient(backend=fake) as client:
        async for _ in client.map("work", "echo", payloads(), window=20):
            handed += 1
    assert handed == 300
    # One more is drawn before there is room for it, and what is yielded in one go has been let go together.
    assert most <= 2 * 20 + 1


async def test_who_waits_for_a_result_before_the_next_payload_is_not_kept_waiting(fake: FakeBackend) -> None:
    came = asyncio.Queue[int]()

    async def payloads() -> AsyncIterator[dict[str, Any]]:
        for n in range(4):
            yield {"n": n}
            assert await asyncio.wait_for(came.get(), 20) == n

    async with AsyncClient(backend=fake) as client:
        async for each in client.map("work", "echo", payloads()):
            came.put_nowait(each.value["n"])
    assert arrays(fake) == [1, 1, 1, 1]


async def test_slow_items_are_all_handed_out(fake: FakeBackend) -> None:
    fake.hold()
    async with AsyncClient(backend=fake) as client:
        outcomes = client.map("work", "echo", [{"n": n} for n in range(2 * AT_ONCE * FIRST_ITEMS)])
        first = asyncio.ensure_future(anext(outcomes))
        await until(lambda: len(fake.tasks()) == 2 * AT_ONCE)
        fake.release()
        assert len([await first, *[each async for each in outcomes]]) == 2 * AT_ONCE * FIRST_ITEMS


async def test_large_payloads_are_tasks_of_their_own(fake: FakeBackend) -> None:
    payloads = [{"n": 0, "text": "x" * MOST_ALONE}, {"n": 1}, {"n": 2}]
    async with AsyncClient(backend=fake) as client:
        seen = {each.index: each.value["n"] async for each in client.map("work", "echo", payloads)}
    assert (seen, arrays(fake), singles(fake)) == ({0: 0, 1: 1, 2: 2}, [2], 1)


@pytest.mark.parametrize(
    "options", [{"arrays": False}, {"ordering_key": "k"}, {"execution_timeout": 5.0}, {"progress_timeout": 5.0}]
)
async def test_what_arrays_cannot_have_goes_in_tasks(fake: FakeBackend, options: dict[str, Any]) -> None:
    async with AsyncClient(backend=fake) as client:
        seen = [each.value async for each in client.map("work", "echo", [{"n": 1}, {"n": 2}], **options)]
    assert (len(seen), arrays(fake), singles(fake)) == (2, [], 2)


async def test_a_failure_is_of_its_payload_alone(fake: FakeBackend) -> None:
    fake.queue("work", retry={"limit": 1})
    tries: dict[int, int] = {}

    def odd(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
        n = payload["n"]
        tries[n] = tries.get(n, 0) + 1
        if n == 3:
            raise Permanent("never three")
        if n == 4:
            raise RuntimeError("not four")
        if n == 5 and tries[n] == 1:
            raise RuntimeError("once")
        return {"n": n}

    fake.handler("odd")(odd)
    async with AsyncClient(backend=fake) as client:
        seen = [each async for each in client.map("work", "odd", [{"n": n} for n in range(8)], ordered=True)]
    assert [each.index for each in seen if each.error is None] == [0, 1, 2, 5, 6, 7]
    assert isinstance(seen[3].error, TaskFailed)
    assert "never three" in str(seen[3].error)
    assert (seen[3].error.reason, isinstance(seen[4].error, TaskFailed)) == ("HandlerError", True)
    assert (tries[3], tries[4], tries[5]) == (1, 2, 2)


async def test_failed_items_of_a_queue_of_letters_are_dead_letters_and_redriven(fake: FakeBackend) -> None:
    fake.queue("letters", retry={"limit": 0, "onExhausted": "DeadLetter"})
    good = False

    def sometimes(payload: dict[str, Any]) -> dict[str, Any]:
        if payload["n"] == 1 and not good:
            raise RuntimeError("not yet")
        return payload

    fake.handler("sometimes")(sometimes)
    async with AsyncClient(backend=fake) as client:
        seen = [each async for each in client.map("letters", "sometimes", [{"n": 0}, {"n": 1}], ordered=True)]
        assert (seen[0].value, isinstance(seen[1].error, DeadLettered)) == ({"n": 0}, True)
        good = True
        task = seen[1].task
        assert task is not None
        assert await client.redrive(task)
        state = await client.wait(task.name, timeout=20)
    assert (state.phase, state.obj["status"]["array"]["succeeded"]) == ("Succeeded", "0-1")


async def test_results_that_found_no_room_are_had_by_running_again(fake: FakeBackend) -> None:
    fake.queue("work")
    fake.handler("much")(lambda payload: {"n": payload["n"], "text": "x" * 10_000})
    async with AsyncClient(backend=fake) as client:
        seen = {each.index: each.value["n"] async for each in client.map("work", "much", [{"n": n} for n in range(60)])}
    assert seen == {n: n for n in range(60)}
    assert singles(fake)


async def test_at_most_once_nothing_is_run_again(fake: FakeBackend) -> None:
    fake.queue("once", delivery="AtMostOnce")
    runs: list[int] = []

    def much(payload: dict[str, Any]) -> dict[str, Any]:
        runs.append(payload["n"])
        return {"text": "x" * 10_000}

    fake.handler("much")(much)
    async with AsyncClient(backend=fake) as client:
        seen = [each async for each in client.map("once", "much", [{"n": n} for n in range(8)])]
    assert sorted(runs) == list(range(8))
    assert any(isinstance(each.error, ResultDropped) for each in seen)
    assert any(each.error is None for each in seen)


class Old(FakeBackend):
    """A cluster of a release that knows no arrays."""

    async def create(self, resource: Resource, body: Obj) -> Obj:
        if body["spec"].get("array"):
            raise ApiError(400, "BadRequest", 'strict decoding error: unknown field "spec.array"')
        return await super().create(resource, body)


async def test_a_cluster_without_arrays_gets_tasks() -> None:
    with Old() as old:
        old.handler("echo")(lambda payload: payload)
        async with AsyncClient(backend=old) as client:
            seen = [each.value["n"] async for each in client.map("work", "echo", [{"n": n} for n in range(20)])]
        assert sorted(seen) == list(range(20))


async def test_where_no_agent_takes_chunks_the_payloads_go_in_tasks(fake: FakeBackend) -> None:
    fake.hold()
    async with AsyncClient(backend=fake) as client:
        outcomes = client.map("work", "echo", [{"n": n} for n in range(3)])
        first = asyncio.ensure_future(anext(outcomes))
        await until(fake.tasks)
        said = {"reason": "SkillMissing", "message": f"No agent takes chunks of an array's items (skill {CHUNKS})"}
        fake._store.merge(TASKS, name_of(fake.tasks()[0]), {"status": said})
        await until(lambda: singles(fake) == 3)
        fake.release()
        seen = [(await first).value["n"], *[each.value["n"] async for each in outcomes]]
    assert sorted(seen) == [0, 1, 2]


@pytest.mark.parametrize(
    ("trouble", "kind"), [("cancel", TaskCancelled), ("delete", TaskGone), ("nothing", TaskTimeout)]
)
async def test_an_array_that_does_not_end_well_is_told_of_each_payload(
    fake: FakeBackend, trouble: str, kind: type[Exception]
) -> None:
    fake.hold()
    async with AsyncClient(backend=fake) as client:
        outcomes = client.map(
            "work", "echo", [{"n": n} for n in range(3)], timeout=0.3 if trouble == "nothing" else None
        )
        first = asyncio.ensure_future(anext(outcomes))
        await until(fake.tasks)
        name = name_of(fake.tasks()[0])
        if trouble == "cancel":
            await client.cancel(name)
        elif trouble == "delete":
            fake.delete(name)
        errors = [(await first).error, *[each.error async for each in outcomes]]
    assert [type(each) for each in errors] == [kind] * 3


async def test_who_stops_listening_leaves_nothing_behind(fake: FakeBackend) -> None:
    async with AsyncClient(backend=fake) as client:
        async for _ in (outcomes := client.map("work", "echo", [{"n": n} for n in range(500)])):
            break
        await outcomes.aclose()


@pytest.mark.parametrize("ticks", range(6))
async def test_who_stops_as_an_array_ends_is_not_kept_waiting(ticks: int) -> None:
    ways = Ways(*[cast(Any, None)] * len(fields(Ways)))
    feed = Mapped(ways, arrays=True, result_type=None, ordered=False, window=9, timeout=None)
    feed._flying = AT_ONCE
    pacing = asyncio.ensure_future(feed._paced())
    for _ in range(3):
        await asyncio.sleep(0)
    feed._ended.set()
    for _ in range(ticks):
        await asyncio.sleep(0)
    pacing.cancel()
    await asyncio.wait((pacing,), timeout=20)
    assert pacing.cancelled()


async def test_an_error_of_the_payloads_is_told(fake: FakeBackend) -> None:
    def payloads() -> Iterator[dict[str, Any]]:
        yield {"n": 1}
        raise LookupError("no more")

    async with AsyncClient(backend=fake) as client:
        with pytest.raises(LookupError, match="no more"):
            _ = [each async for each in client.map("work", "echo", payloads())]
