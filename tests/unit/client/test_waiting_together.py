"""Thousands who wait cost one watch, through all that can happen to it; and nothing of a client outlives it."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from taskdist.client import (
    AsyncClient,
    Client,
    NotAllowed,
    QueueFull,
    Submission,
    SubmittedTask,
    TaskdistError,
    TaskGone,
    TaskTimeout,
    Unavailable,
)
from taskdist.client.testing import FakeBackend, fake_client
from taskdist.kube import AGENTPOOLS, TASKQUEUES, TASKS, ApiError, Obj, Page, Resource, Unanswered, Unreachable

WATCH = "watch tasks.taskdist.dev"
LIST = "list tasks.taskdist.dev"
GET = "get tasks.taskdist.dev"
CREATE = "create tasks.taskdist.dev"


@pytest.fixture
def fake() -> Iterator[FakeBackend]:
    with FakeBackend() as made:
        made.handler("echo")(lambda payload: payload)
        yield made


async def until(there: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not there():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def submitted(client: AsyncClient, count: int) -> list[SubmittedTask[dict[str, Any]]]:
    made = await client.submit_many([Submission("q", "echo", {"n": n}) for n in range(count)])
    return [each for each in made if isinstance(each, SubmittedTask)]


@asynccontextmanager
async def waiting(
    client: AsyncClient, tasks: list[SubmittedTask[dict[str, Any]]]
) -> AsyncIterator[list[asyncio.Task[dict[str, Any]]]]:
    waiters = [asyncio.create_task(client.result(each)) for each in tasks]
    yield waiters
    for each in waiters:
        each.cancel()
    await asyncio.gather(*waiters, return_exceptions=True)


async def test_map_asks_for_nothing_but_the_creates_and_one_watch(fake: FakeBackend) -> None:
    async with AsyncClient(backend=fake) as client:
        seen = [each.value async for each in client.map("q", "echo", [{"n": n} for n in range(200)], arrays=False)]
    assert sorted(each["n"] for each in seen) == list(range(200))
    assert fake.requests[CREATE] == 200
    assert (fake.requests[WATCH], fake.requests[LIST], fake.requests.get(GET, 0)) == (1, 1, 0)


async def test_what_was_before_a_redrive_is_no_end_of_it(fake: FakeBackend) -> None:
    fake.queue("letters", retry={"limit": 0, "onExhausted": "DeadLetter"})
    fails = [True]

    def once(payload: dict[str, Any]) -> dict[str, Any]:
        if fails:
            fails.clear()
            raise RuntimeError("the first time")
        return payload

    fake.handler("once")(once)
    async with AsyncClient(backend=fake) as client:
        task = await client.submit("letters", "once", {"n": 1})
        assert (await client.wait(task)).phase == "DeadLettered"
        await client.redrive(task)
        assert (await client.wait(task.name, timeout=20)).phase == "Succeeded"


async def test_results_of_many_that_were_submitted_before_are_listed_and_not_read_one_by_one(
    fake: FakeBackend,
) -> None:
    fake.hold()
    async with AsyncClient(backend=fake) as client:
        tasks = await submitted(client, 100)
        async with waiting(client, tasks) as waiters:
            await until(lambda: fake.requests.get(LIST, 0) == 2)
            fake.release()
            assert [each["n"] for each in await asyncio.gather(*waiters)] == list(range(100))
    assert (fake.requests[WATCH], fake.requests[LIST], fake.requests.get(GET, 0)) == (1, 2, 0)


async def test_a_watch_that_is_cut_goes_on_where_it_was(fake: FakeBackend) -> None:
    fake.hold()
    async with AsyncClient(backend=fake) as client:
        tasks = await submitted(client, 20)
        async with waiting(client, tasks) as waiters:
            await until(lambda: fake.requests.get(LIST, 0) == 2)  # which it is once the watch is open
            fake.cut_watches()
            fake.release()
            assert [each["n"] for each in await asyncio.gather(*waiters)] == list(range(20))
    assert fake.requests[WATCH] > 1


async def test_what_is_deleted_while_the_watch_is_broken_is_told_as_gone(fake: FakeBackend) -> None:
    fake.hold()
    async with AsyncClient(backend=fake) as client:
        tasks = await submitted(client, 20)
        async with waiting(client, tasks) as waiters:
            await until(lambda: fake.requests.get(LIST, 0) == 2)
            fake.fail_requests(Unreachable("cut"))
            fake.forget_history()
            fake.release()
            await until(lambda: all(each["status"]["phase"] == "Succeeded" for each in fake.tasks()))
            # Their time to live is over.
            for each in tasks[:3]:
                fake.delete(each.name)
            fake.fail_requests(None)
            found = await asyncio.gather(*waiters, return_exceptions=True)
    assert [type(each) for each in found[:3]] == [TaskGone] * 3
    assert "how it ended was not seen" in str(found[0])
    assert [each["n"] for each in found[3:] if isinstance(each, dict)] == list(range(3, 20))


async def test_who_may_not_watch_is_told_and_not_left_waiting(fake: FakeBackend) -> None:
    fake.hold()
    async with AsyncClient(backend=fake) as client:
        (task,) = await submitted(client, 1)
        fake.forbid()
        with pytest.raises(NotAllowed):
            await client.result(task, timeout=20)


async def test_a_cluster_that_comes_back_is_waited_for(fake: FakeBackend) -> None:
    fake.hold()
    async with AsyncClient(backend=fake) as client:
        (task,) = await submitted(client, 1)
        async with waiting(client, [task]) as (waiter,):
            await until(lambda: fake.requests.get(GET))  # which it is once the watch is open
            fake.fail_requests(Unreachable("gone for a while"))
            fake.cut_watches()
            before = fake.requests[WATCH]
            await until(lambda: fake.requests[WATCH] > before)
            fake.fail_requests(None)
            fake.release()
            assert await waiter == {"n": 0}


async def test_the_watch_ends_with_the_client_and_those_who_wait_too(fake: FakeBackend) -> None:
    fake.hold()
    async with AsyncClient(backend=fake) as client:
        (task,) = await submitted(client, 1)
        waiter = asyncio.create_task(client.result(task))
        await until(lambda: fake.requests.get(WATCH))
    with pytest.raises(TaskdistError, match="the client was closed"):
        await waiter
    assert [each for each in asyncio.all_tasks() if each is not asyncio.current_task()] == []


async def test_those_who_give_up_leave_nothing_behind(fake: FakeBackend) -> None:
    fake.hold()
    async with AsyncClient(backend=fake) as client:
        tasks = await submitted(client, 30)
        async with waiting(client, tasks):
            await until(lambda: fake.requests.get(LIST, 0) == 2)
            assert client._hub("q").waiting == 30
        assert client._hub("q").waiting == 0


async def test_a_watch_ends_in_time_and_interrupts_nobody_between_two_states(fake: FakeBackend) -> None:
    fake.hold()
    async with AsyncClient(backend=fake) as client:
        (task,) = await submitted(client, 1)
        states = client.watch(task, timeout=0.05)
        assert (await anext(states)).phase == "Pending"
        await asyncio.sleep(0.2)
        with pytest.raises(TaskTimeout):
            await anext(states)


def test_a_watch_of_the_blocking_client_ends_in_time(fake: FakeBackend) -> None:
    fake.hold()
    with Client(backend=fake) as client:
        states = client.watch(client.submit("q", "echo"), timeout=0.05)
        with pytest.raises(TaskTimeout):
            _ = list(states)


async def test_map_tells_of_a_client_that_is_closed_meanwhile(fake: FakeBackend) -> None:
    fake.hold()
    async with AsyncClient(backend=fake) as client:
        outcomes = client.map("q", "echo", [{"n": 1}])
        waiting = asyncio.ensure_future(anext(outcomes))
        await until(lambda: fake.requests.get(CREATE))
    outcome = await waiting
    assert isinstance(outcome.error, TaskdistError)
    await outcomes.aclose()


async def test_what_was_made_since_the_last_look_is_no_slip(fake: FakeBackend) -> None:
    fake.queue("q")
    async with AsyncClient(backend=fake) as client:
        await client.submit("q", "echo")
        fake.queue("r")
        fake.handler("later")(lambda payload: payload)
        # Warnings are errors here.
        assert await client.run("r", "later", {"n": 1}) == {"n": 1}


class Slow(FakeBackend):
    """Answers no request at once, as the network does."""

    async def list(self, resource: Resource, **how: Any) -> Page:
        await asyncio.sleep(0)
        page = await super().list(resource, **how)
        await asyncio.sleep(0)
        return page


async def test_queues_and_pools_are_looked_at_once_for_many() -> None:
    with Slow() as slow:
        slow.handler("echo")(lambda payload: payload)
        async with AsyncClient(backend=slow) as client:
            await submitted(client, 50)
        assert (slow.requests[f"list {TASKQUEUES}"], slow.requests[f"list {AGENTPOOLS}"]) == (1, 1)


class Listed(FakeBackend):
    """Notes what is listed."""

    def __init__(self) -> None:
        super().__init__()
        self.lists: list[tuple[str, int | None]] = []

    async def list(self, resource: Resource, **how: Any) -> Page:
        if resource == TASKS:
            self.lists.append((how.get("fields", ""), how.get("most")))
        return await super().list(resource, **how)


async def test_where_the_watch_begins_is_asked_of_one_task_whatever_it_is() -> None:
    # A selector that few of very many Tasks fit would have the API server read them all.
    with Listed() as fake:
        fake.handler("echo")(lambda payload: payload)
        async with AsyncClient(backend=fake) as client:
            assert await client.run("q", "echo", {"n": 1}) == {"n": 1}
        assert fake.lists == [("", 1)]


# What is tried again.


class Hiccups(FakeBackend):
    """A cluster whose answers to creations are lost, now before and now after they are done."""

    def __init__(self) -> None:
        super().__init__()
        self.lost = ["after", "before"]

    async def create(self, resource: Resource, body: Obj) -> Obj:
        when = self.lost.pop() if self.lost and resource == TASKS else ""
        if when == "before":
            raise Unanswered("no answer")
        made = await super().create(resource, body)
        if when == "after":
            raise Unanswered("no answer")
        return made


async def test_a_creation_without_an_answer_is_tried_again_and_made_once() -> None:
    with Hiccups() as fake:
        fake.handler("echo")(lambda payload: payload)
        async with AsyncClient(backend=fake) as client:
            task = await client.submit("q", "echo", {"n": 1})
        assert [each["metadata"]["uid"] for each in fake.tasks()] == [task.uid]
        assert (task.created, fake.lost) == (True, [])


async def test_map_waits_for_a_queue_that_is_full(fake: FakeBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    from taskdist.client import asynchronous
    from taskdist.common.backoff import Backoff

    monkeypatch.setattr(asynchronous, "FULL_AGAIN", Backoff(first=0.01, most=0.01))
    fake.queue("q", drained=True)
    told: list[str] = []
    async with AsyncClient(backend=fake, on_warning=told.append) as client:
        with pytest.raises(QueueFull):
            await client.submit("q", "echo")
        assert told == []
        found = asyncio.create_task(anext(client.map("q", "echo", [{"n": 1}])))
        await until(lambda: fake.requests[CREATE] > 3)
        assert [each.endswith("It is waited for.") for each in told] == [True]
        await fake.patch(TASKQUEUES, "q", {"status": {"accepting": True}})
        assert (await found).value == {"n": 1}


async def test_map_takes_no_more_payloads_than_its_window(fake: FakeBackend) -> None:
    taken = 0

    def payloads() -> Iterator[dict[str, int]]:
        nonlocal taken
        for n in range(1000):
            taken = n + 1
            yield {"n": n}

    async with AsyncClient(backend=fake) as client:
        outcomes = client.map("q", "echo", payloads(), window=5)
        for got in range(1, 20):
            await anext(outcomes)
            assert taken <= got + 5 + 1
        await outcomes.aclose()


async def test_what_payloads_raise_comes_out_of_map(fake: FakeBackend) -> None:
    def payloads() -> Iterator[dict[str, int]]:
        yield {"n": 1}
        raise LookupError("no more rows")

    async with AsyncClient(backend=fake) as client:
        with pytest.raises(LookupError, match="no more rows"):
            _ = [each async for each in client.map("q", "echo", payloads())]


# Threads of the blocking client.


def threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name == "taskdist-client"]


def test_a_closed_client_leaves_no_thread_and_says_that_it_is_closed(fake: FakeBackend) -> None:
    with Client(backend=fake) as client:
        assert client.run("q", "echo", {"n": 1}) == {"n": 1}
        assert threads() == ["taskdist-client"]
        fake.hold()
        waiting = client.submit("q", "echo")
        errors: list[BaseException] = []

        def wait() -> None:
            try:
                client.wait(waiting)
            except BaseException as error:
                errors.append(error)

        other = threading.Thread(target=wait)
        other.start()
    other.join(20)
    assert [type(each) for each in errors] == [TaskdistError]
    assert threads() == []


def test_a_client_that_nobody_refers_to_leaves_no_thread(fake: FakeBackend) -> None:
    client = Client(backend=fake)
    assert client.run("q", "echo", {"n": 1}) == {"n": 1}
    del client
    gc.collect()
    assert threads() == []


def test_a_client_that_cannot_open_leaves_no_thread(tmp_path: Any) -> None:
    with pytest.raises(Unavailable, match="there is no kubeconfig"):
        Client(kubeconfig=tmp_path / "none").open()
    assert threads() == []


def test_the_fake_client_of_the_documentation() -> None:
    with fake_client() as (client, fake):
        fake.handler("greet")(lambda payload: {"greeting": f"Hello, {payload['name']}!"})
        assert client.run("analysis", "greet", {"name": "Ann"}) == {"greeting": "Hello, Ann!"}


def test_an_error_of_the_api_server_that_nobody_foresaw_is_one_of_ours(fake: FakeBackend) -> None:
    fake.fail_requests(ApiError(418, "Teapot", "short and stout"))
    with Client(backend=fake) as client, pytest.raises(TaskdistError, match="short and stout"):
        client.submit("q", "echo")


# What importing costs.


def test_importing_the_package_brings_nothing_along() -> None:
    code = (
        "import sys, taskdist, taskdist.client; before = set(sys.modules); taskdist.Client; "
        "print('asyncio' in before, 'pydantic' in before, 'aiohttp' in before, 'grpc' in sys.modules, "
        "'taskdist.core' in sys.modules, 'taskdist.simulation' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["False"] * 6
