"""What the client raises: one class for each thing that a caller may want to do something about.

`TaskdistError` is all of them. Those of a Task that did not succeed carry how it ended.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from taskdist.kube.errors import ApiError, ConfigurationError, KubeError, Unreachable

if TYPE_CHECKING:
    from taskdist.client.states import TaskState


class TaskdistError(Exception):
    """Anything that goes wrong between a caller and its Tasks. The message says what to do about it."""


class TaskdistWarning(UserWarning):
    """What is most often a slip of the finger, and yet allowed."""


# Of submitting.


class InvalidTask(TaskdistError):
    """The Task is not accepted as it is: sending it again changes nothing. `field` is the one at fault, if it is known,
    as in `spec.slots`."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class QueueFull(TaskdistError):
    """The queue takes no new Tasks now. `retry_after` is when to ask again, in seconds."""

    def __init__(self, message: str, queue: str = "", retry_after: float = 30.0) -> None:
        super().__init__(message)
        self.queue = queue
        self.retry_after = retry_after


class ObjectFailed(TaskdistError):
    """A payload or result is too large for a resource, and the object store did not take or give it. `reason`: the
    store's, as a Task would say it; empty where none was asked."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class KeyInUse(TaskdistError):
    """There is a Task of this name that was not submitted under this idempotency key."""


class NotAllowed(TaskdistError):
    """The credentials do not do: who one is, or what one may, is not enough."""


class Unavailable(TaskdistError):
    """The cluster cannot be reached, does not answer, or does not know Tasks."""


# Of waiting and reading.


class TaskNotFound(TaskdistError):
    """There is no Task of this name."""


class NoAnswer(TaskdistError):
    """The operator that leads could not be asked, and why: others may know, from the cluster's objects."""


class TaskGone(TaskdistError):
    """The Task was deleted, and how it ended was not seen: by somebody, or because its time to live was over."""


class TaskTimeout(TaskdistError, TimeoutError):
    """The time to wait is up. The Task goes on."""


class InvalidResult(TaskdistError):
    """The result is there, and does not fit the type that was asked for. `result` is as the handler returned it."""

    def __init__(self, message: str, result: dict[str, Any]) -> None:
        super().__init__(message)
        self.result = result


class ResultDropped(TaskdistError):
    """An item of an array succeeded, and its result found no room in the array's status."""


class TaskUnsuccessful(TaskdistError):
    """The Task is over and has no result.

    `reason` is one of the words of docs/troubleshooting.md, `attempts` how each attempt ended (attempt, agent, reason,
    message).
    """

    def __init__(self, message: str, state: TaskState) -> None:
        super().__init__(message)
        self.state = state
        self.reason = state.reason
        self.message = state.message
        self.attempts = state.attempts


class TaskFailed(TaskUnsuccessful):
    """It failed."""


class TaskCancelled(TaskUnsuccessful):
    """It was cancelled."""


class DeadLettered(TaskUnsuccessful):
    """It failed and is kept for a person, who may redrive it."""


@contextmanager
def told() -> Iterator[None]:
    """Turn what the API client raises within into one of the classes above."""
    try:
        yield
    except KubeError as error:
        raise of_kube(error) from error


def of_kube(error: KubeError) -> TaskdistError:
    """The class that a failure to talk to the API server stands for."""
    if isinstance(error, ConfigurationError):
        return Unavailable(str(error))
    if not isinstance(error, ApiError):
        sure = "" if isinstance(error, Unreachable) else " It may have been done or not."
        return Unavailable(f"the API server cannot be reached: {error}.{sure}")
    message = error.message or str(error)
    if error.is_unserved:
        return Unavailable("this cluster does not know Tasks, TaskQueues and AgentPools: install taskdist first")
    if error.is_not_found:
        return TaskNotFound(message)
    if full := full_queue(error):
        return QueueFull(message, full)
    if error.is_invalid or error.is_too_large or error.is_already_exists:
        return InvalidTask(message, field_of(error))
    if error.is_forbidden or error.is_unauthorized or error.is_denied:
        return NotAllowed(message)
    return Unavailable(message) if error.is_server_fault or error.is_throttled else TaskdistError(message)


_FULL = re.compile(r"TaskQueue (\S+) takes no new Tasks now")
_UNKNOWN_FIELD = re.compile(r'unknown field "([^"]+)"')


def full_queue(error: ApiError) -> str:
    """The queue whose door is closed, if that is why (the chart's policy says so); else empty."""
    found = _FULL.search(error.message) if error.is_denied else None
    return found[1] if found else ""


def field_of(error: ApiError) -> str:
    """The first field that the API server names."""
    for cause in error.details.get("causes") or ():
        if isinstance(cause, dict) and cause.get("field"):
            return str(cause["field"])
    unknown = _UNKNOWN_FIELD.search(error.message)
    return unknown[1] if unknown else ""


def instead(error: NoAnswer) -> str:
    """Return the note that the leader could not be asked, and others were."""
    return f"{error}; found out from the cluster's objects instead"
