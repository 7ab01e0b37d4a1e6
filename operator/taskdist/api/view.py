"""Answers of the leader's view: shapes only, camelCase on the wire as in the resources.

The view serves them, the client reads them; both sides ignore fields that they do not know.
"""

from datetime import datetime
from typing import Any

from pydantic import Field

from taskdist.api.meta import Model
from taskdist.api.task import Progress


class Problem(Model):
    """Why there is no answer: problem details (RFC 9457). `leader` says who leads, where that is another replica."""

    type: str = "about:blank"
    title: str = ""
    status: int = 0
    detail: str = ""
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


class TaskDetail(TaskRow, Standing):
    """A Task with its place in the order."""


class Explanation(Standing):
    """Where a Task stands and why: what `taskdist explain` prints."""

    task: str = Field(description="NAMESPACE/NAME")
    queue: str
    phase: str
    since: datetime | None = Field(default=None, description="Since when it waits.")
    reason: str = ""
    message: str = ""
    unblock: str = Field(default="", description="What would let it go.")
    command: str = Field(default="", description="The command that does.")
    rejections: list[Rejection] = Field(default_factory=list)
    agent: str = ""
    pool: str = ""
    attempt: int = 0
    assigned_at: datetime | None = None
    progress: Progress | None = None
    route: dict[str, Any] | None = None
    cost: float | None = None
    energy_wh: float | None = None
    attempts: list[dict[str, Any]] = Field(default_factory=list)
