"""What is handed back: a submitted Task, its result in the type that was asked for, or why there is none."""

import json
from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from taskdist.api import Phase
from taskdist.client.errors import DeadLettered, InvalidResult, TaskCancelled, TaskdistError, TaskFailed
from taskdist.client.states import TaskState, ending
from taskdist.kube import Obj, name_of, namespace_of, uid_of

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class SubmittedTask(Generic[ResultT]):
    """A Task that the API server has taken. Give it to `wait`, `result`, `cancel` or `explain`."""

    name: str
    namespace: str
    uid: str
    created: bool
    """False if it was there already, under its idempotency key."""
    result_type: type[ResultT] | None
    obj: Obj
    """The resource as it was created, or found."""

    @classmethod
    def of(cls, obj: Obj, created: bool, result_type: type[ResultT] | None) -> "SubmittedTask[ResultT]":
        return cls(name_of(obj), namespace_of(obj), uid_of(obj), created, result_type, obj)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Outcome(Generic[ResultT]):
    """What became of one of the Tasks of `map`."""

    index: int
    """Of its payload, from 0."""
    payload: Any
    task: SubmittedTask[ResultT] | None
    """None if it could not be submitted."""
    result: ResultT | None
    error: TaskdistError | None

    @property
    def value(self) -> ResultT:
        """The result. Raises the error, if there is none."""
        if self.error is not None:
            raise self.error
        return cast(ResultT, self.result)


def result_of(obj: Obj, result_type: type[ResultT] | None) -> ResultT:
    """The result of a settled Task. Raises TaskFailed, TaskCancelled, DeadLettered or InvalidResult."""
    state = TaskState.of(obj)
    if not state.succeeded:
        kinds = {Phase.CANCELLED: TaskCancelled, Phase.DEAD_LETTERED: DeadLettered}
        raise kinds.get(Phase(state.phase), TaskFailed)(ending(obj), state)
    return typed(state.result or {}, result_type, f"task {state.name}")


def typed(value: dict[str, Any], result_type: type[ResultT] | None, whose: str) -> ResultT:
    """The result in the type that was asked for. Raises InvalidResult."""
    if result_type is None:
        return cast(ResultT, value)
    try:
        # As JSON, which it is: a model that is strict takes a time or a tuple from there only.
        return cast(ResultT, _adapter(cast(Hashable, result_type)).validate_json(json.dumps(value)))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the result"
        raise InvalidResult(
            f"the result of {whose} is no {result_type.__name__}: {where}: {first['msg']}", value
        ) from error


@lru_cache(maxsize=256)
def _adapter(result_type: Hashable) -> TypeAdapter[Any]:
    return TypeAdapter(cast(type[Any], result_type))
