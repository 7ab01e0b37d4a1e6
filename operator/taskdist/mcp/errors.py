"""Refusals: what is wrong with a call, and what its caller can do about it."""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from taskdist.client.errors import (
    InvalidTask,
    NotAllowed,
    QueueFull,
    TaskdistError,
    TaskGone,
    TaskNotFound,
    TaskUnsuccessful,
    Unavailable,
    told,
)


class Refusal(Exception):
    """A call that has no answer. The message is for its caller."""


class Missing(Refusal):
    """A refusal, as what was named is not there or cannot be read."""


@contextmanager
def explained() -> Iterator[None]:
    """Turn what the client raises into a Refusal that says what to do."""
    try:
        with told():
            yield
    except TaskdistError as error:
        kind = Missing if isinstance(error, TaskNotFound) else Refusal
        raise kind(_with_advice(error)) from error


def missing(kind: str, name: str, there: Iterable[str], how: str) -> Missing:
    """Make the refusal of a name that no queue or pool has. `how`: the call that lists those there are."""
    known = sorted(there)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f" Did you mean {near[0]!r}?" if near else f" There are: {', '.join(known[:20])}." if known else ""
    return Missing(f"There is no {kind} {name!r} in this namespace.{hint} {how} lists them.")


def _with_advice(error: TaskdistError) -> str:
    said = str(error).rstrip()
    said = said if said.endswith((".", "!", "?")) else f"{said}."
    return f"{said[:1].upper()}{said[1:]} {_advice(error)}".rstrip()


def _advice(error: TaskdistError) -> str:
    match error:
        case TaskNotFound():
            return 'List the Tasks that are there: tool task-queue, {"action": "inspect", "queue": …}.'
        case TaskGone():
            return "Submit it anew, if it is still wanted."
        case TaskUnsuccessful():
            return "Read its attempts before it is tried again."
        case QueueFull():
            return f"Submit it again in {error.retry_after:g} s, or to another queue: action queues says which accept."
        case InvalidTask():
            return f"Mend {error.field or 'what is named'} and submit again: as it is, it is never taken."
        case NotAllowed():
            return (
                "Here one may do what one's credentials may: ask for `get`, `list`, `watch`, "
                "`create` and `patch` on tasks, and for `list` on taskqueues, agentpools and pods. Through the HTTP "
                "door only Tasks can be reached."
            )
        case Unavailable():
            return "Try again; if it stays, look at the kubeconfig or the address of the gateway."
        case _:
            return ""
