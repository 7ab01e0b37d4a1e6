"""A Task followed over HTTPS: what an agent says arrives at once, and no reader costs more than it may."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web

from taskdist.api.view import TaskRow
from taskdist.controller.view import following
from taskdist.controller.view.following import LOOKS_AT_ONCE, MOST_OF_ONE, MOST_STREAMS, Followers, Following
from taskdist.controller.view.pace import MOST_WAITING, Pace
from taskdist.controller.view.problems import Problem
from taskdist.controller.view.server import Question, Route
from taskdist.controller.view.tasks import row
from taskdist.kube import TASKS, Caller, Right
from taskdist.protocol.messages import Progress, Result
from unit.controller.view.room import NOW, Room, obj
from unit.controller.view.serving import Known, served

PATH = "/v1/namespaces/{namespace}/progress"
ASK = "/v1/namespaces/ns/progress?task=t"


class World:
    """A leader with a Task `t` that an agent runs, followers of it, and a session of somebody who may follow."""

    def __init__(self) -> None:
        self.room, self.followers, self.callers = Room(), Followers(), Known()
        self.callers.may = {("watch", TASKS)}
        self.room.put(obj("t"))
        self.room.lead()
        self.room.written(self.room.agent())
        self.pace = Pace(1.0)
        self.following = Following(self.room.view, self.followers, self.pace, self.still)
        self.session: aiohttp.ClientSession
        self.ended = asyncio.Event()
        """Set once a stream has ended, however it did."""

    async def answer(self, question: Question) -> web.StreamResponse:
        try:
            return await self.following.answer(question)
        finally:
            self.ended.set()

    async def still(self, question: Question) -> None:
        await self.callers.check(question.caller, [Right("watch", TASKS, question.namespace)])

    def report(self, fraction: float, message: str) -> None:
        """The agent reports progress, and the dispatcher says so."""
        leader = self.room.leader
        assert leader is not None
        (entry,) = leader.state.tasks.values()
        assert entry.lease is not None
        leader.received(self.room.sessions, Progress(entry.lease.name, fraction, message), NOW)
        self.followers.touched(entry.uid)

    def succeed(self) -> None:
        """The agent returns a result, which is written."""
        leader = self.room.leader
        assert leader is not None
        (entry,) = leader.state.tasks.values()
        assert entry.lease is not None
        self.room.written(leader.received(self.room.sessions, Result(entry.lease.name), NOW))
        self.followers.touched(entry.uid)

    def remove(self) -> None:
        self.room.remove(obj("t", version=999))
        self.followers.touched("ns-t")


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(following, "LEAST_SECONDS", 0.0)
    made = World()
    route = Route("GET", PATH, [("watch", TASKS)], made.answer)
    async with served([route], made.callers, made.pace) as session:
        made.session = session
        yield made


async def event(answer: aiohttp.ClientResponse) -> tuple[str, Any]:
    """The next one; a heartbeat is one without a name."""
    lines = []
    async with asyncio.timeout(20):
        while line := (await answer.content.readline()).decode().strip():
            lines.append(line)
    if not lines:
        raise EOFError
    if lines[0].startswith(":"):
        return "", None
    return lines[0].removeprefix("event: "), json.loads(lines[1].removeprefix("data: "))


async def test_what_an_agent_says_arrives(world: World) -> None:
    async with world.session.get(ASK) as answer:
        assert (answer.status, answer.content_type) == (200, "text/event-stream")
        name, told = await event(answer)
        assert (name, told["name"], told["phase"], told["agent"]) == ("task", "t", "Assigned", "p-0")
        assert "progress" not in told
        for fraction, message in ((0.25, "page 1"), (0.5, "page 2")):
            world.report(fraction, message)
            name, told = await event(answer)
            assert (name, told["progress"]["fraction"], told["progress"]["message"]) == ("task", fraction, message)


async def test_nothing_new_is_not_told_and_much_at_once_is_told_as_it_is_last(world: World) -> None:
    async with world.session.get(ASK) as answer:
        await event(answer)
        world.followers.touched("ns-t")
        for number in range(1000):
            world.report(number / 1000, f"page {number}")
        _, told = await event(answer)
        assert told["progress"]["message"] == "page 999"


async def test_the_stream_ends_with_the_task_and_says_why(world: World) -> None:
    async with world.session.get(ASK) as answer:
        await event(answer)
        world.succeed()
        assert (await event(answer))[1]["phase"] == "Succeeded"
        assert await event(answer) == ("end", {"reason": "it is Succeeded"})
        with pytest.raises(EOFError):
            await event(answer)
    assert not world.followers._news


async def test_a_task_that_is_gone_ends_it(world: World) -> None:
    async with world.session.get(ASK) as answer:
        await event(answer)
        world.remove()
        name, told = await event(answer)
        assert (name, told["reason"]) == ("end", "there is no Task t in namespace ns")


async def test_it_says_now_and_then_that_it_lives_and_asks_for_rights_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "HEARTBEAT_SECONDS", 0.01)
    async with world.session.get(ASK) as answer:
        assert (await event(answer))[0] == "task"
        assert (await event(answer))[0] == ""
        world.callers.may.clear()
        while (told := await event(answer))[0] == "":
            pass
        assert told[0] == "end"
        assert "may not" in told[1]["reason"]


async def test_an_agent_that_has_much_to_say_keeps_no_right_alive(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "HEARTBEAT_SECONDS", 0.5)
    async with world.session.get(ASK) as answer, asyncio.timeout(20):
        name, number = (await event(answer))[0], 0
        world.callers.may.clear()
        while name != "end":
            number += 1
            world.report(number % 1000 / 1000, f"page {number}")
            name, _ = await event(answer)
            assert name, "there is always something new"


async def test_streams_leave_room_in_the_line_for_questions(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting, most, gate = 0, 0, asyncio.Event()

    async def step(_caller: str, work: Callable[[], TaskRow]) -> TaskRow:
        nonlocal waiting, most
        waiting += 1
        most = max(most, waiting)
        await gate.wait()
        waiting -= 1
        return work()

    monkeypatch.setattr(world.pace, "step", step)
    question = cast(Question, SimpleNamespace(caller=Caller("ann"), namespace="ns"))
    seen = row(world.room.view.seen("ns", "t"), NOW.wall)
    looks = [asyncio.ensure_future(world.following._again(question, seen)) for _ in range(MOST_STREAMS)]
    await asyncio.sleep(0)
    gate.set()
    assert len(await asyncio.gather(*looks)) == MOST_STREAMS
    assert most == LOOKS_AT_ONCE < MOST_WAITING


async def test_who_stops_to_lead_ends_it(world: World) -> None:
    async with world.session.get(ASK) as answer:
        await event(answer)
        world.room.leader = None
        world.followers.touched("ns-t")
        assert await event(answer) == ("end", {"reason": "this replica has stopped to lead: ask again"})


@pytest.mark.parametrize(
    ("query", "status"),
    [("", 400), ("?task=", 400), ("?task=t&x=1", 400), ("?task=none-such", 404)],
    ids=["nobody", "empty", "more", "not there"],
)
async def test_refusals_come_before_the_stream(world: World, query: str, status: int) -> None:
    async with world.session.get(f"/v1/namespaces/ns/progress{query}") as answer:
        assert (answer.status, answer.content_type) == (status, "application/problem+json")


async def test_who_goes_away_is_forgotten(world: World) -> None:
    async with world.session.get(ASK) as answer:
        await event(answer)
        assert world.followers._news
        answer.close()
    async with asyncio.timeout(20):
        await world.ended.wait()
    assert not world.followers._news


async def test_a_reader_that_reads_nothing_is_cut_off(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(_response: Any, _data: bytes) -> None:
        raise TimeoutError

    async with world.session.get(ASK) as answer:
        await event(answer)
        monkeypatch.setattr(following, "_write", never)
        world.report(0.5, "x")
        with pytest.raises(aiohttp.ClientError):
            await event(answer)
    assert not world.followers._news


def test_streams_are_few_in_all_and_of_one() -> None:
    followers, open_ = Followers(), []
    for number in range(MOST_OF_ONE):
        open_.append(followers.follow("ann", f"u{number}"))
        open_[-1].__enter__()
    with pytest.raises(Problem) as refused, followers.follow("ann", "u"):
        pass
    assert (refused.value.status, refused.value.retry_after) == (429, 5)
    for number in range(MOST_STREAMS - MOST_OF_ONE):
        open_.append(followers.follow(f"c{number}", "u"))
        open_[-1].__enter__()
    with pytest.raises(Problem), followers.follow("another", "u"):
        pass
    for each in open_:
        each.__exit__(None, None, None)
    with followers.follow("ann", "u") as news:
        followers.touched("another")
        assert not news.is_set()
        followers.touched("u")
        assert news.is_set()
