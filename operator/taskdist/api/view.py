"""Answers of the leader's view: shapes only, camelCase on the wire as in the resources.

The view serves them, the client reads them; both sides ignore fields that they do not know.
"""

from datetime import datetime
from typing import Annotated, Any

from pydantic import ConfigDict, Field, StringConstraints

from taskdist.api.attempts import Progress
from taskdist.api.meta import Model
from taskdist.api.problems import ProblemDetails
from taskdist.api.task import Priority


class Problem(ProblemDetails):
    """Why there is no answer. `leader` says who leads, where that is another replica."""

    leader: "Leader | None" = None


class Leader(Model):
    """The replica that leads, and how it is reached."""

    leading: bool = Field(description="Whether the replica that answers leads.")
    holder: str = Field(description="The replica that leads, by its pod's name; empty where nobody is known to.")
    epoch: int = Field(description="The number of that leadership; it only grows.")
    address: str = Field(description="Where all replicas' views are asked, host:port.")


class TaskRow(Model):
    """A Task in a list."""

    name: str
    namespace: str
    uid: str
    queue: str = Field(description="Where it waits, or waited: not its own queue, if it was spilled.")
    type: str
    tenant: str = ""
    level: str = Field(description="Its own level, such as Normal.")
    phase: str
    reason: str = ""
    agent: str = ""
    pool: str = ""
    attempt: int = 0
    created: datetime
    age: float = Field(description="Seconds since it was created.")
    deadline: datetime | None = None
    progress: Progress | None = None
    done: str = Field(default="", description="Of an array: how many items have succeeded, of how many: 120/1000.")


class TaskList(Model):
    """One page of Tasks, by name. `continue` asks for the next one; it is empty on the last."""

    items: list[TaskRow] = Field(default_factory=list)
    continue_: str = Field(default="", alias="continue")


class ExpectedStart(Model):
    """When a Task should start: four times in five between `earliest` and `latest`."""

    at: datetime
    earliest: datetime
    latest: datetime


class Rejection(Model):
    """A reason for which agents may not run the Task, with their number."""

    agents: int
    why: str


class Standing(Model):
    """Where a waiting Task stands among those that wait for the same agents."""

    position: int | None = Field(default=None, description="How many start before it, and one.")
    position_exact: bool = True
    waiting: int | None = Field(default=None, description="How many wait for the same agents.")
    expected_start: ExpectedStart | None = Field(default=None, description="Absent where nothing tells.")


class Outside(Model):
    """Messages that wait at sources for a queue: they have no Task yet."""

    messages: int
    source: str = Field(default="", description="The TaskSource with the oldest; where none tells that, with the most.")
    oldest: datetime | None = Field(
        default=None, description="When the oldest was published, of those that sources have in hand."
    )


class Items(Model):
    """How the items of an array stand. `count` is the sum of succeeded, failed, running and waiting."""

    count: int
    succeeded: int = 0
    failed: int = Field(default=0, description="Those that are not tried again.")
    running: int = Field(default=0, description="Those in chunks that agents have.")
    waiting: int = Field(default=0, description="Those that nobody has: untried ones, and those to be tried again.")
    retrying: int = Field(default=0, description="Those of the waiting ones that are tried again.")
    parts: int = Field(default=0, description="How many chunks agents have.")
    agents: list[str] = Field(default_factory=list, description="The agents that have them, by name: the first ten.")
    more_agents: int = Field(default=0, description="How many agents more have some.")
    results_dropped: int = Field(default=0, description="How many results found no room in status.")


class TaskDetail(TaskRow, Standing):
    """A Task with its place in the order."""


class Explanation(Standing):
    """Where a Task stands and why: what `taskdist explain` prints.

    Of a Task that has ended the leader keeps no message and no route: these stand in the Task's status.
    """

    task: str = Field(description="NAMESPACE/NAME")
    queue: str
    phase: str
    since: datetime | None = Field(default=None, description="Since when it waits.")
    reason: str = ""
    message: str = ""
    unblock: str = Field(default="", description="What would let it go.")
    command: str = Field(default="", description="The command that does.")
    rejections: list[Rejection] = Field(default_factory=list)
    stalled: str = Field(default="", description="What keeps pools that it may use from having agents.")
    outside: Outside | None = Field(
        default=None, description="What waits at sources for its queue: pools are sized for it, too."
    )
    holder: str = Field(default="", description="Who leads and says so.")
    items: Items | None = Field(
        default=None, description="Of an array: how its items stand. All above is said of the first chunk that waits."
    )
    agent: str = ""
    pool: str = ""
    attempt: int = 0
    assigned_at: datetime | None = None
    progress: Progress | None = None
    route: dict[str, Any] | None = None
    cost: float | None = None
    energy_wh: float | None = None
    attempts: list[dict[str, Any]] = Field(default_factory=list)


PoolName = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
More = Annotated[int, Field(strict=True, ge=-5000, le=5000)]


class Changes(Model):
    """Changes of which it is asked what they would do for a Task that waits. All at once."""

    model_config = ConfigDict(extra="forbid")

    priority: Priority | None = Field(default=None, description="Its level.")
    pool: PoolName | None = Field(default=None, description="The pool that it names.")
    agents: Annotated[dict[PoolName, More], Field(max_length=100)] = Field(
        default_factory=dict, description="How many agents more (or fewer, below 0) a pool has, by its name."
    )
    more_agents: More = Field(default=0, description="The same of the first pool that it may use.")

    @property
    def none(self) -> bool:
        """Whether nothing would be different."""
        return self == Changes()


class Course(Model):
    """When a Task would start, in many runs played forward. `expected_start` is absent if it starts in none."""

    expected_start: ExpectedStart | None = None
    starts: float = Field(description="The part of the runs in which it starts.")


class WhatIf(Model):
    """When a Task that waits would start as things are, and changed."""

    as_it_is: Course
    changed: Course
    runs: int = Field(default=0, description="How many times each was played forward.")


class LevelCount(Model):
    """How many Tasks of one level, their own, there are."""

    level: str
    waiting: int
    leased: int


class Limit(Model):
    """What is left of a rate or budget."""

    name: str = Field(description="Which limit of the queue's spec, as its status names it.")
    left: float
    capacity: int
    per_second: float = Field(description="So much comes back, up to capacity; 0: with the end of attempts.")


class Bottleneck(Model):
    """What most waiting time goes to, once that has lasted."""

    reason: str
    what: str = Field(description="A resource, skill, label, limit or place.")
    tasks: int = Field(description="How many wait for it.")
    part: float = Field(description="Its share of all waiting time, from 0 to 1.")
    message: str
    unblock: str = Field(default="", description="What would mend it.")
    command: str = Field(default="", description="The command that does.")


class QueueView(Model):
    """A queue as it is now."""

    name: str
    namespace: str
    pools: list[str] = Field(default_factory=list)
    paused: bool = False
    accepting: bool = Field(description="Whether it takes new Tasks.")
    why_not: str = Field(default="", description="Why it does not, and what to do.")
    waiting: int = 0
    leased: int = Field(default=0, description="Tasks that agents have, or are about to.")
    dead_letters: int = 0
    outside: Outside | None = Field(default=None, description="What waits at sources for it.")
    levels: list[LevelCount] = Field(default_factory=list, description="The highest first; those without Tasks not.")
    limits: list[Limit] = Field(default_factory=list)
    bottleneck: Bottleneck | None = None


class QueueList(Model):
    """One page of queues, by name."""

    items: list[QueueView] = Field(default_factory=list)
    continue_: str = Field(default="", alias="continue")


class AgentRow(Model):
    """An agent, or a pod that is to be one."""

    name: str
    uid: str
    state: str = Field(description="starting, idle, busy, not_ready, draining, or gone: its lease stands yet.")
    slots: int
    busy_slots: int
    breaker: str = Field(description="Closed, Open or HalfOpen.")
    attempts: int = Field(default=0, description="How many of its latest attempts are judged.")
    pace: float | None = Field(default=None, description="Time it takes, as a multiple of what is expected.")
    success_rate: float | None = None


class PoolRow(Model):
    """A pool as it is now."""

    name: str
    namespace: str
    desired: int
    reason: str = Field(default="", description="Why so many are wanted.")
    message: str = ""
    pods: int
    ready: int
    slots: int = Field(description="Of ready agents.")
    busy_slots: int
    states: dict[str, int] = Field(default_factory=dict, description="How many agents are in each state.")
    stalled: str = Field(default="", description="What keeps it from having agents, as its status says.")
    bottleneck: Bottleneck | None = None


class PoolDetail(PoolRow):
    """A pool with its agents."""

    agents: list[AgentRow] = Field(default_factory=list, description="By name.")
    left_out: int = Field(default=0, description="How many agents there are beyond these.")


class PoolList(Model):
    """One page of pools, by name."""

    items: list[PoolRow] = Field(default_factory=list)
    continue_: str = Field(default="", alias="continue")


class StreamEnd(Model):
    """The last event of a stream."""

    reason: str
