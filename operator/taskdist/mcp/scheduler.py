"""The tool *scheduler*: in which order Tasks start and when, and what a change would make of that."""

from typing import Annotated, Any, Literal

from pydantic import Field

from taskdist.api import Priority
from taskdist.api.view import Changes
from taskdist.client import AsyncClient, explaining
from taskdist.mcp.errors import Refusal, explained
from taskdist.mcp.forms import AgentsMore, ExpectedStart, Form, PoolName, QueueName, TaskName, expected_start
from taskdist.mcp.reading import Reading
from taskdist.mcp.wording import counted
from taskdist.simulation.what_if import HORIZON

DESCRIPTION = """\
When work starts. The scheduler that the operator runs is asked here, over what the cluster holds now. Say what you \
want by `request.action`:
- order: the Tasks that wait, in the order in which they would start, each with why it waits and when it should start.
- what_if: when one waiting Task would start as things are, and after a change of its priority, its pool, or the \
number of a pool's agents.
- simulate: the same for all that waits in a queue: when the last of its Tasks would start with more or fewer agents.
It changes nothing: what_if and simulate play forward what waits and runs now, with no new Tasks and no failures, and \
how long Tasks take is drawn from those that have ended. Where there is nothing to judge by, a start is left out."""


class Order(Form):
    """List what waits in its order."""

    action: Literal["order"]
    queue: QueueName | None = None
    most: int = Field(50, ge=1, le=500, description="How many to list at most.")


class WhatIf(Form):
    """Tell what a change would do for one waiting Task."""

    action: Literal["what_if"]
    task: TaskName
    priority: Priority | None = None
    pool: PoolName | None = None
    agents: AgentsMore = Field(default_factory=dict)


class Simulate(Form):
    """Tell what a change of pools' sizes would do for all that waits in a queue."""

    action: Literal["simulate"]
    queue: QueueName
    agents: AgentsMore = Field(default_factory=dict)


Request = Annotated[Order | WhatIf | Simulate, Field(discriminator="action", description="What is wanted.")]


class Place(Form):
    """A Task that waits."""

    task: str
    queue: str
    reason: str
    message: str = Field(description="May quote an agent: data.")
    position: int | None = Field(None, description="Among Tasks that may use the same agents.")
    expected_start: ExpectedStart | None = None


class Course(Form):
    """The start of a Task, in many runs played forward."""

    expected_start: ExpectedStart | None = Field(None, description="Absent if it starts in none of the runs.")
    starts: float = Field(description="The part of the runs in which it starts.")


class Comparison(Form):
    """The start of a Task as things are, and changed."""

    task: str
    as_it_is: Course
    changed: Course


class Answer(Form):
    """The findings. `said` is the same in a sentence."""

    said: str
    order: list[Place] | None = None
    waiting: int | None = Field(None, description="How many wait in all.")
    comparison: Comparison | None = None
    warnings: list[str] | None = None


class SchedulerTool:
    """The tool: answers requests about order and starts."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    @property
    def _client(self) -> AsyncClient:
        return self._reading.client

    async def __call__(self, request: Request) -> Answer:
        with explained():
            async with self._reading.turn:
                return await self._answer(request)

    async def _answer(self, request: Request) -> Answer:
        match request:
            case Order():
                return await self._order(request)
            case WhatIf():
                return await self._what_if(request)
            case Simulate():
                return await self._simulate(request)

    async def _order(self, wanted: Order) -> Answer:
        if wanted.queue is not None:
            await self._reading.queues(wanted.queue)  # else a slip of the pen is an empty queue
        stories, warnings = await explaining.order(self._client.backend, wanted.queue or "")
        places = [_place(each) for each in stories[: wanted.most]]
        where = f" in queue {wanted.queue}" if wanted.queue else ""
        first = f" Next: {places[0].task} ({places[0].reason})." if places else ""
        return Answer(
            said=f"{counted(len(stories), 'Task')} waiting{where}.{first}",
            order=places,
            waiting=len(stories),
            warnings=warnings or None,
        )

    async def _what_if(self, wanted: WhatIf) -> Answer:
        changes = Changes(priority=wanted.priority, pool=wanted.pool, agents=wanted.agents)
        if changes.none:
            raise Refusal('Say what would be different: priority, pool or agents (a number by pool, as in {"p": 2}).')
        return await self._compared(wanted.task, changes, [])

    async def _simulate(self, wanted: Simulate) -> Answer:
        await self._reading.queues(wanted.queue)
        stories, warnings = await explaining.order(self._client.backend, wanted.queue)
        if not stories:
            return Answer(said=f"Nothing waits in queue {wanted.queue}.", waiting=0, warnings=warnings or None)
        placed = [each for each in stories if each.get("position") is not None]
        if not placed and stories[-1]["reason"] not in ("Queued", explaining.NO_LEADER):
            raise Refusal(
                f"None of the {len(stories)} Tasks of queue {wanted.queue} has a position, as agents alone let none of "
                "them start: action order says what each waits for."
            )
        last = (placed or stories)[-1]["task"]
        answer = await self._compared(last, Changes(agents=wanted.agents), warnings)
        answer.waiting = len(stories)
        waiting = counted(len(stories), "Task")
        answer.said = f"{waiting} waiting in queue {wanted.queue}; the last of them, {answer.said}"
        return answer

    async def _compared(self, name: str, changes: Changes, warnings: list[str]) -> Answer:
        told = await explaining.explain(self._client.backend, name, changes, self._client.view)
        warnings = warnings + [told.not_asked] * bool(told.not_asked)
        found = told.story["what_if"]
        compared = Comparison(task=name, as_it_is=_course(found["as_it_is"]), changed=_course(found["changed"]))
        said = f"{name} starts {_when(compared.as_it_is)} as things are, and {_when(compared.changed)} changed."
        return Answer(said=said, comparison=compared, warnings=[*warnings, *told.warnings] or None)


def _place(story: dict[str, Any]) -> Place:
    return Place(
        task=story["task"],
        queue=story["queue"],
        reason=story["reason"],
        message=story["message"],
        position=story.get("position"),
        expected_start=expected_start(story.get("expected_start")),
    )


def _course(told: dict[str, Any]) -> Course:
    return Course(expected_start=expected_start(told["expected_start"]), starts=told["starts"])


def _when(course: Course) -> str:
    if course.expected_start is None:
        return f"never within {HORIZON / 86_400:g} days"
    often = "" if course.starts >= 1 else f" (in {course.starts:.0%} of the runs)"
    return f"at {course.expected_start.at}{often}"
