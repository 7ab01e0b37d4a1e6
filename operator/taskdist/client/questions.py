"""Questions to the leader's view: by which path each is asked, and how its answer is read.

Refuses to ask: ways to the leader are `client.view`'s.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypedDict, TypeVar, Unpack
from urllib.parse import quote, urlencode

from taskdist.api.meta import Model
from taskdist.api.view import Changes, Explanation, QueueView, TaskDetail, TaskList, WhatIf
from taskdist.client.errors import NoAnswer, TaskdistError

AnswerT = TypeVar("AnswerT", bound=Model)

ASK_SECONDS = 5.0
# The leader gives up before.
WHAT_IF_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Question(Generic[AnswerT]):
    """One question. `body` is what is posted; `seconds` how long the answer may take."""

    path: str
    answer: type[AnswerT]
    body: bytes | None = None
    seconds: float = ASK_SECONDS

    def read(self, told: bytes) -> AnswerT:
        """Raises NoAnswer."""
        try:
            return self.answer.model_validate_json(told)
        except ValueError as error:
            raise NoAnswer(f"the leader's answer makes no sense here: is it of another release? {error}") from error


def explanation(namespace: str, name: str) -> Question[Explanation]:
    """Where the Task stands and why."""
    return Question(_path(namespace, "tasks", name) + "/explain", Explanation)


def task(namespace: str, name: str) -> Question[TaskDetail]:
    """A Task with its place in the order and its expected start."""
    return Question(_path(namespace, "tasks", name), TaskDetail)


def tasks(namespace: str, queue: str = "", phase: str = "", labels: str = "", after: str = "") -> Question[TaskList]:
    """A page of Tasks by name: those after this one."""
    query = {"queue": queue, "phase": phase, "labelSelector": labels, "continue": after}
    return Question(_path(namespace, "tasks", **query), TaskList)


def what_if(namespace: str, name: str, changes: Changes) -> Question[WhatIf]:
    """When the Task would start as things are, and changed."""
    body = changes.model_dump_json(by_alias=True, exclude_defaults=True).encode()
    return Question(_path(namespace, "tasks", name) + "/what-if", WhatIf, body, WHAT_IF_SECONDS)


def queue(namespace: str, name: str) -> Question[QueueView]:
    """A queue as it is now."""
    return Question(_path(namespace, "queues", name), QueueView)


class ChangeOptions(TypedDict, total=False):
    """Changes of which it is asked what they would do. `agents`: how many more (or fewer) a pool has, by its name."""

    priority: str
    pool: str
    agents: Mapping[str, int]


def changes(**given: Unpack[ChangeOptions]) -> Changes:
    """Return the changes of a what-if. Raises TaskdistError where they make no sense."""
    try:
        found = Changes.model_validate(given)
    except ValueError as error:
        raise TaskdistError(f"this is no change: {error}") from error
    if found.none:
        raise TaskdistError("say what would be different: priority, pool or agents")
    return found


def _path(namespace: str, kind: str, name: str = "", **query: str) -> str:
    below = f"/{quote(name, safe='')}" if name else ""
    asked = urlencode({key: value for key, value in query.items() if value})
    return f"/v1/namespaces/{quote(namespace, safe='')}/{kind}{below}{f'?{asked}' if asked else ''}"
