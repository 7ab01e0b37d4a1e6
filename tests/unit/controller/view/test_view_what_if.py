"""What-ifs of the view: played on a copy in a process of their own, bounded whatever is asked, and never in the way."""

import asyncio
import gc
import io
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, cast

import pytest
from aiohttp import web

from taskdist.api.view import TaskList, WhatIf
from taskdist.controller.view import trying
from taskdist.controller.view.copying import Copy, Part, read, written
from taskdist.controller.view.pace import MOST_OF_ONE, Pace
from taskdist.controller.view.problems import Problem
from taskdist.controller.view.selecting import Selection
from taskdist.controller.view.server import Question, Route, as_json
from taskdist.controller.view.trying import Trying
from taskdist.core import Core
from taskdist.core.model import Parent, Pool, Queue, TokenRate
from taskdist.kube import TASKS, Caller
from taskdist.protocol.operator import Leader
from taskdist.simulation.what_if import FEWEST, Change, Snapshot, what_if
from unit.controller.view.room import NOW, Room, obj
from unit.controller.view.serving import Known, served

PATH = "/v1/namespaces/{namespace}/tasks/{name}/what-if"
MANY = 20_000


def question(body: bytes | dict[str, Any], name: str = "c", caller: str = "ann", **query: str) -> Question:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Question(Caller(caller), "ns", name, query, data, cast(web.Request, None))


def busy() -> Room:
    """One agent of one slot, a Task that it has, and two that wait."""
    room = Room()
    for name in ("a", "b", "c"):
        room.put(obj(name))
    room.put(obj("done", phase="Succeeded"))
    room.put(obj("elsewhere", "other"))
    room.lead()
    room.written(room.agent())
    return room


@pytest.fixture
def room() -> Room:
    return busy()


@pytest.fixture
def asked(room: Room) -> Trying:
    return Trying(room.view, Pace(1.0))


def copied(room: Room) -> Snapshot:
    assert room.leader is not None
    part = Part()
    for piece in Copy(room.leader, "ns", NOW.wall).pieces():
        piece(part)
    return read(io.BytesIO(written(part)), NOW.wall)


def test_a_copy_stands_where_the_leader_stands(room: Room) -> None:
    assert room.leader is not None
    room.leader.queue_applied(Queue("ns", "q", ("p",), rate=TokenRate(0.5, 4)), NOW)
    room.put(obj("held", spec={"dependsOn": [{"name": "b"}]}))
    room.leader.task_observed(next(each for each in room.store if each.task.name == "held"), NOW)
    room.leader.queue_applied(Queue("other", "q"), NOW)
    room.leader.core.learn(next(iter(room.store)).task, 30.0)
    found = copied(room)
    core = Core()
    for event in found.events:
        core.handle(event, NOW.wall)
    for key, levels in found.levels.items():
        core.recall_levels(key, levels)
    core.decide(NOW.wall)
    for name in ("b", "c", "held"):
        ours, its = (each.explain(f"ns-{name}", NOW.wall) for each in (core, room.leader.core))
        assert ours is not None
        assert its is not None
        assert (ours.reason, ours.message, ours.position) == (its.reason, its.message, its.position)
    assert core.levels(("ns", "q"), NOW.wall) == room.leader.core.levels(("ns", "q"), NOW.wall)
    assert core.queue_counts() == {("ns", "q"): (3, 1)}, "nothing of another namespace is in it"
    assert sum(found.services[("ns", "q"), "echo"]) / 20 == pytest.approx(30.0, rel=0.1)


def test_values_with_others_in_them_are_copied_whole(room: Room) -> None:
    assert room.leader is not None
    entry = next(iter(room.leader.state.tasks.values()))
    task = replace(entry.record.task, parents=(Parent("x"),), skills=frozenset({"gpu"}), labels=(("a", "b"),))
    entry.record = replace(entry.record, task=task)
    entry.told = None
    assert task in [getattr(each, "task", None) for each in copied(room).events]


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the process itself, which gives way to all else on the machine."""
    monkeypatch.setattr(trying, "SECONDS", 300)


@pytest.mark.usefixtures("patience")
async def test_it_is_played_as_the_command_plays_it(room: Room, asked: Trying) -> None:
    answer = await asked.answer(question({"agents": {"p": 1}}))
    told = WhatIf.model_validate_json(cast(web.Response, answer).text or "")
    assert told.runs >= FEWEST, "fewer than all, where the machine is busy"
    assert told == what_if(copied(room), "ns-c", Change(agents={"p": 1}), runs=told.runs).told()
    before, after = told.as_it_is.expected_start, told.changed.expected_start
    assert before is not None
    assert after is not None
    assert after.at < before.at
    assert told.as_it_is.starts == told.changed.starts == 1.0


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param(b"", "EOF", id="nothing"),
        pytest.param({}, "say what would be different", id="no-change"),
        pytest.param({"agents": {}, "moreAgents": 0}, "say what would be different", id="a-change-that-is-none"),
        pytest.param(b"[1]", "object", id="a-list"),
        pytest.param(b"\xff\xfe", "JSON", id="no-text"),
        pytest.param(b'{"priority":' * 3000, "recursion", id="very-deep"),
        pytest.param({"slots": 3}, "slots: Extra", id="a-change-that-is-not-known"),
        pytest.param({"priority": "Highest"}, "priority: ", id="no-level"),
        pytest.param({"priority": 3}, "priority: ", id="a-number-for-a-level"),
        pytest.param({"pool": "../x"}, "pool: ", id="a-path-for-a-pool"),
        pytest.param({"pool": "p" * 64}, "pool: ", id="a-long-name"),
        pytest.param({"agents": {"p": 5001}}, "agents.p: ", id="more-agents-than-anybody-has"),
        pytest.param({"agents": {"p": -5001}}, "agents.p: ", id="fewer-than-none"),
        pytest.param(b'{"agents": {"p": 1e400}}', "agents.p: ", id="a-number-without-end"),
        pytest.param(b'{"agents": {"p": ' + b"9" * 5000 + b"}}", "number out of range", id="a-number-of-5000-digits"),
        pytest.param({"agents": {"p": 1.5}}, "agents.p: ", id="half-an-agent"),
        pytest.param({"agents": {"p": True}}, "agents.p: ", id="a-truth-is-no-number"),
        pytest.param({"agents": {"p": "2"}}, "agents.p: ", id="a-text-is-no-number"),
        pytest.param({"agents": {f"p{i}": 1 for i in range(101)}}, "agents: ", id="a-hundred-pools"),
        pytest.param({"moreAgents": 10**9}, "moreAgents: ", id="a-thousand-million-agents"),
    ],
)
async def test_what_makes_no_sense_is_refused_with_the_field(
    asked: Trying, body: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: Any, **__: Any) -> Any:
        pytest.fail("a process was started")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", never)
    with pytest.raises(Problem, match=words) as refused:
        await asked.answer(question(body))
    assert refused.value.status == 400
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        pytest.param("a", 409, "task a is Assigned: a what-if is for Tasks that wait", id="it-runs"),
        pytest.param("done", 409, "task done is Succeeded", id="it-has-ended"),
        pytest.param("none-such", 404, "no Task none-such", id="it-is-not-there"),
    ],
)
async def test_only_what_waits_can_start_otherwise(asked: Trying, name: str, status: int, words: str) -> None:
    with pytest.raises(Problem, match=words) as refused:
        await asked.answer(question({"priority": "High"}, name))
    assert refused.value.status == status


@pytest.mark.usefixtures("patience")
async def test_a_pool_that_is_not_there_is_named(asked: Trying) -> None:
    with pytest.raises(Problem, match="x: no such AgentPool in the namespace") as refused:
        await asked.answer(question({"agents": {"x": 1}}))
    assert refused.value.status == 400
    with pytest.raises(Problem, match="parameter"):
        await asked.answer(question({"priority": "High"}, priority="Low"))


class Player:
    """In place of the process: says what it is to, once it is let."""

    returncode = None

    def __init__(self, said: bytes = b"") -> None:
        self.said = said
        self.stdin, self.stdout = self, self
        self.begun, self.go = asyncio.Event(), asyncio.Event()
        self.killed = 0
        self.on_read: Callable[[], None] = lambda: None

    async def __call__(self, *_: Any, **__: Any) -> "Player":
        self.begun.set()
        return self

    def write(self, _data: bytes) -> None: ...

    def close(self) -> None: ...

    async def drain(self) -> None: ...

    async def read(self) -> bytes:
        await self.go.wait()
        self.on_read()
        return self.said

    def kill(self) -> None:
        self.killed += 1

    async def wait(self) -> int:
        return -9


TOLD = json.dumps({"answer": {"asItIs": {"starts": 0.0}, "changed": {"starts": 1.0}, "runs": 3}}).encode()


@pytest.fixture
async def player(monkeypatch: pytest.MonkeyPatch) -> Player:
    made = Player(TOLD)
    monkeypatch.setattr(asyncio, "create_subprocess_exec", made)
    return made


async def test_few_are_played_at_once_and_one_of_each_caller(asked: Trying, player: Player) -> None:
    body = {"priority": "High"}
    first = asyncio.create_task(asked.answer(question(body)))
    await player.begun.wait()
    with pytest.raises(Problem) as again:
        await asked.answer(question(body))
    second = asyncio.create_task(asked.answer(question(body, caller="bob")))
    player.begun.clear()
    await player.begun.wait()
    with pytest.raises(Problem) as third:
        await asked.answer(question(body, caller="eve"))
    assert {(each.value.status, each.value.retry_after) for each in (again, third)} == {(429, trying.AGAIN_SECONDS)}
    player.go.set()
    assert [each.status for each in await asyncio.gather(first, second)] == [200, 200]
    assert (await asked.answer(question(body))).status == 200, "there is room again"


async def test_who_is_gone_leaves_no_process_and_no_place_taken(asked: Trying, player: Player) -> None:
    waits = asyncio.create_task(asked.answer(question({"priority": "High"})))
    await player.begun.wait()
    waits.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waits
    assert player.killed == 1
    player.go.set()
    assert (await asked.answer(question({"priority": "High"}))).status == 200


@pytest.mark.parametrize(
    ("said", "status", "words"),
    [
        pytest.param(b"", 503, "not played to its end", id="it-was-killed"),
        pytest.param(b'{"failed": "it takes more memory"}', 503, "it takes more memory: play it where", id="memory"),
    ],
)
async def test_what_is_not_played_here_says_where_it_can_be(
    asked: Trying, player: Player, said: bytes, status: int, words: str
) -> None:
    player.said = said
    player.go.set()
    with pytest.raises(Problem, match=words) as refused:
        await asked.answer(question({"priority": "High"}))
    assert refused.value.status == status


async def test_an_endless_play_is_ended(asked: Trying, player: Player, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trying, "SECONDS", 0.05)
    with pytest.raises(Problem, match="not played to its end within") as refused:
        await asked.answer(question({"priority": "High"}))
    assert (refused.value.status, player.killed) == (503, 1)


async def test_too_many_tasks_are_left_to_who_asks(
    asked: Trying, player: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trying, "MOST_TASKS", 2)
    with pytest.raises(Problem, match="more than 2 Tasks wait or run here: play it where you are") as refused:
        await asked.answer(question({"priority": "High"}))
    assert (refused.value.status, player.killed) == (503, 1)


@pytest.mark.parametrize("then", [None, Leader(Core(), 2)], ids=["nobody-leads", "another-leadership"])
async def test_a_leadership_that_is_lost_meanwhile_answers_nothing(
    room: Room, asked: Trying, player: Player, then: Leader | None
) -> None:
    def lose() -> None:
        room.leader = then

    player.on_read = lose
    player.go.set()
    with pytest.raises(Problem) as refused:
        await asked.answer(question({"priority": "High"}))
    assert refused.value.status == 421


@pytest.mark.usefixtures("patience")
async def test_it_is_a_read_of_the_task_and_its_body_is_bounded(room: Room) -> None:
    callers, pace = Known(), Pace(1.0)
    route = Route("POST", PATH, [("get", TASKS)], Trying(room.view, pace).answer)
    url = "/v1/namespaces/ns/tasks/c/what-if"
    async with served([route], callers, pace) as session:
        async with session.post(url, json={"moreAgents": 1}) as answer:
            assert (answer.status, (await answer.json())["asItIs"]["starts"]) == (200, 1.0)
        (right,) = callers.checked
        assert (right.verb, right.resource, right.namespace, right.name) == ("get", TASKS, "ns", "c")
        async with session.post(url, data=b" " * 17_000) as answer:
            assert answer.status == 413
        async with session.get(url) as answer:
            assert answer.status == 405
        callers.may.clear()
        async with session.post(url, json={"moreAgents": 1}) as answer:
            assert answer.status == 403


@pytest.fixture(scope="module")
def many() -> Iterator[Room]:
    made = Room()
    for number in range(MANY):
        made.put(obj(f"t{number:05}"))
    assert made.leader is not None
    made.leader.pool_applied(Pool("ns", "p"), NOW)
    made.lead()
    # As the operator does once it has read all.
    gc.collect()
    gc.freeze()
    yield made
    gc.unfreeze()


async def longest_pause(work: "asyncio.Future[Any]") -> float:
    """How long the loop was kept at most, in seconds of its own: what other processes take is not counted."""
    longest, last = 0.0, time.thread_time()
    while not work.done():
        await asyncio.sleep(0)
        now = time.thread_time()
        longest, last = max(longest, now - last), now
    return longest


async def test_fifty_who_list_very_many_keep_the_loop_for_moments_only(many: Room) -> None:
    pace, steps = Pace(), []

    def page(after: str) -> str:
        began = time.thread_time()
        found = many.view.page("ns", Selection.read({"continue": after}))
        body = as_json(found).text or ""
        steps.append(time.thread_time() - began)
        return TaskList.model_validate_json(body).continue_ if after == "" else found.continue_

    async def lists(caller: str) -> list[str]:
        after, seen = "", []
        for _ in range(2):
            after = await pace.step(caller, lambda: page(after))  # noqa: B023  the step is done before it changes
            seen.append(after)
        return seen

    work = asyncio.ensure_future(asyncio.gather(*(lists(f"caller-{number}") for number in range(50))))
    assert await longest_pause(work) < 0.05, "5 ms on a quiet machine"
    assert {tuple(each) for each in await work} == {("t00249", "t00499")}, "all see the same"
    assert len(steps) == 100


async def test_who_lists_without_end_is_put_off_and_others_are_not(many: Room) -> None:
    """At the pace of the view: what so many ask in vain costs next to nothing."""
    free = asyncio.Event()

    async def sleep(_seconds: float) -> None:
        await free.wait()

    pace = Pace(sleep=sleep)

    def ask(caller: str) -> "asyncio.Task[Any]":
        return asyncio.create_task(pace.step(caller, lambda: many.view.page("ns", Selection.read({}))))

    asked = [ask("greedy") for _ in range(MOST_OF_ONE + 5)] + [ask(f"caller-{number}") for number in range(40)]
    done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_EXCEPTION)
    refused = [each for each in done if each.exception() is not None]
    assert all(each in asked[: MOST_OF_ONE + 5] for each in refused), "only the greedy one"
    free.set()
    results = await asyncio.gather(*asked, return_exceptions=True)
    problems = [each for each in results if isinstance(each, Problem)]
    assert {(each.status, each.retry_after) for each in problems} == {(429, 1)}
    assert len(problems) == 4, "one was answered at once"


async def test_a_copy_of_very_many_keeps_the_loop_for_moments_only(many: Room, player: Player) -> None:
    player.go.set()
    work = asyncio.create_task(Trying(many.view, Pace()).answer(question({"priority": "High"}, "t00007")))
    assert await longest_pause(work) < 0.02
    assert (await work).status == 200
