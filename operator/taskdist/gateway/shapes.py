"""What goes in and out, as the OpenAPI description shows it: camelCase, as in the resources."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from taskdist.api import Priority, TaskSpec
from taskdist.api.meta import LabelKey, LabelValue, Model
from taskdist.client.backend import Source, Told
from taskdist.client.states import status_of
from taskdist.gateway.board import Row, row_of
from taskdist.kube import Obj, as_object

TaskName = Annotated[
    str,
    StringConstraints(
        min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
    ),
]


class NewTask(TaskSpec):
    """A Task to run: the fields of its spec, and a name if it should have one of its own."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")

    name: TaskName | None = Field(
        default=None, description="Name of the Task. Without one it gets one, from the idempotency key where there is."
    )
    labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=64)] = Field(
        default_factory=dict, description="Labels of the Task, to find it again."
    )

    def document(self) -> dict[str, Any]:
        """Return what was asked for, and nothing else: the rest is left to the API server's defaults."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)


class TaskRow(Model):
    """Where a Task stands."""

    name: str = Field(description="Name of the Task.")
    namespace: str = Field(description="Its namespace.")
    resource_version: str = Field(default="", description="Of two states of a Task the higher is the later.")
    uid: str = Field(description="Tells it from others that had or will have its name.")
    queue: str = Field(description="The queue it was submitted to.")
    type: str = Field(description="What kind of work it is.")
    priority: str = Field(description="Its level.")
    tenant: str = Field(description="On whose account it runs.")
    labels: dict[str, str] = Field(default_factory=dict, description="Its labels.")
    phase: str = Field(description="Pending, Assigned, DeadLettered, Succeeded, Failed or Cancelled.")
    settled: bool = Field(description="Nothing more comes of it by itself: it has ended, or is a dead letter.")
    reason: str = Field(default="", description="Why it waits, or why it ended.")
    message: str = Field(default="", description="The same for people, with what to do about it.")
    pool: str = Field(default="", description="Pool of the agent that runs it, or ran it last.")
    agent: str = Field(default="", description="That agent.")
    attempt: int = Field(default=0, description="How many attempts were begun.")
    progress: dict[str, Any] | None = Field(default=None, description="How far the running attempt is.")
    done: str = Field(default="", description="Of an array: how many of its items have succeeded, of how many.")
    created_at: str | None = Field(default=None, description="When it was created.")
    deadline: str | None = Field(default=None, description="When it should have succeeded.")
    assigned_at: str | None = Field(default=None, description="When the last attempt was given to an agent.")
    finished_at: str | None = Field(default=None, description="When it ended, or became a dead letter.")

    @classmethod
    def of(cls, row: Row) -> "TaskRow":
        return cls.model_validate(_values(row))


class TaskDocument(TaskRow):
    """A Task with what went in, and what came out."""

    spec: dict[str, Any] = Field(default_factory=dict, description="Its spec, but for the payload.")
    payload: dict[str, Any] = Field(default_factory=dict, description="What the handler gets.")
    result: dict[str, Any] | None = Field(default=None, description="What the handler returned.")
    result_ref: dict[str, Any] | None = Field(
        default=None, description="Where that stands, if it is in an object store: it is fetched there."
    )
    array: dict[str, Any] | None = Field(
        default=None, description="Where the items of an array stand, and what they returned: its status.array."
    )
    attempts: list[dict[str, Any]] = Field(default_factory=list, description="How its attempts ended, oldest first.")
    redrives: int = Field(default=0, description="How often it was redriven.")

    @classmethod
    def of_object(cls, obj: Obj) -> "TaskDocument":
        spec, status, row = as_object(obj.get("spec")), status_of(obj), row_of(obj)
        attempts, result = status.get("attempts"), status.get("result")
        return cls.model_validate(
            _values(row)
            | {
                "spec": {key: value for key, value in spec.items() if key != "payload"},
                "redrives": redrives if isinstance(redrives := status.get("redrives"), int) else 0,
                "payload": as_object(spec.get("payload")),
                "result": result if isinstance(result, dict) else None,
                "result_ref": ref if isinstance(ref := status.get("resultRef"), dict) else None,
                "array": array if isinstance(array := status.get("array"), dict) else None,
                "attempts": [each for each in attempts if isinstance(each, dict)] if isinstance(attempts, list) else [],
            }
        )


class TaskPage(Model):
    """A part of a list, by name."""

    items: list[TaskRow] = Field(description="The Tasks.")
    next: str | None = Field(default=None, description="Send it as `after` to go on; absent at the end.")
    resource_version: str = Field(description="Send it as `Last-Event-ID` for what has changed since.")


class TaskExplanation(BaseModel):
    """Where a Task stands and why, as `taskdist explain -o json` prints it."""

    model_config = ConfigDict(extra="allow")

    task: str = Field(description="NAMESPACE/NAME")
    queue: str = Field(description="Its queue.")
    phase: str = Field(description="Its phase.")
    told_by: Source = Field(description="Who knew it.")
    not_asked: str = Field(default="", description="Why the operator that leads could not be asked, if it was to be.")
    warnings: list[str] = Field(default_factory=list, description="What could not be read.")
    reason: str = Field(default="", description="Why it waits, or ended.")
    message: str = Field(default="", description="The same for people.")
    unblock: str = Field(default="", description="What would let it go.")
    command: str = Field(default="", description="The command that does.")
    position: int | None = Field(default=None, description="Its place among those that wait for the same agents.")
    expected_start: dict[str, str] | str | None = Field(default=None, description="When it should start, if known.")
    outside: dict[str, Any] | None = Field(
        default=None,
        description="Messages that wait at sources for its queue; the source with the oldest, and its age.",
    )

    @classmethod
    def of(cls, told: Told) -> "TaskExplanation":
        return cls(**told.story, told_by=told.told_by, not_asked=told.not_asked, warnings=list(told.warnings))

    def document(self) -> dict[str, Any]:
        """Return the explanation as it is sent: fields that nobody told are left out."""
        return self.model_dump(mode="json", exclude_unset=True)


class TaskChange(Model):
    """What may be changed of a Task; what is not said stays."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")

    uid: str | None = Field(default=None, max_length=64, description="Only of the Task with this uid.")
    cancel: bool | None = Field(default=None, description="End it as Cancelled. Cannot be taken back.")
    suspend: bool | None = Field(default=None, description="Hold it back, or let it go on.")
    priority: Priority | None = Field(default=None, description="Its level.")
    pool: str | None = Field(default=None, max_length=50, description="Run on this pool only.")
    agent: str | None = Field(default=None, max_length=253, description="Run on this agent only.")
    redrive: int | None = Field(default=None, ge=0, description="Raise it to let a dead letter wait again.")

    def patch(self) -> dict[str, Any]:
        """Return it as a merge patch."""
        spec = self.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude={"uid"})
        return {"spec": spec} | ({"metadata": {"uid": self.uid}} if self.uid else {})


def _values(row: Row) -> dict[str, Any]:
    found = {name: getattr(row, name) for name in TaskRow.model_fields if name != "resource_version"}
    return found | {"resource_version": row.version}
