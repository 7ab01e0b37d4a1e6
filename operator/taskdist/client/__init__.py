"""Submitting Tasks from Python and getting their results: what the command line and the doors build on.

`AsyncClient` and `Client` are for programs. Under them: `submission` (a Task as a resource), `creating` (once for each
key), `hub` (one watch for all who wait), `changes` (one Task as it changes), `explaining` (why one waits), and the port
`backend`, behind which stands the API server (`kube`) or, in users' tests, `testing`.

Names are resolved on first use: importing this costs nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from taskdist.client.asynchronous import AsyncClient
    from taskdist.client.blocking import Client
    from taskdist.client.errors import (
        DeadLettered,
        InvalidResult,
        InvalidTask,
        KeyInUse,
        NotAllowed,
        ObjectFailed,
        QueueFull,
        ResultDropped,
        TaskCancelled,
        TaskdistError,
        TaskdistWarning,
        TaskFailed,
        TaskGone,
        TaskNotFound,
        TaskTimeout,
        TaskUnsuccessful,
        Unavailable,
    )
    from taskdist.client.results import Outcome, SubmittedTask
    from taskdist.client.states import TaskState
    from taskdist.client.submission import Submission

_HOMES = {
    "AsyncClient": "asynchronous",
    "Client": "blocking",
    "Outcome": "results",
    "Submission": "submission",
    "SubmittedTask": "results",
    "TaskState": "states",
} | dict.fromkeys(
    (
        "DeadLettered",
        "InvalidResult",
        "InvalidTask",
        "KeyInUse",
        "NotAllowed",
        "ObjectFailed",
        "QueueFull",
        "ResultDropped",
        "TaskCancelled",
        "TaskFailed",
        "TaskGone",
        "TaskNotFound",
        "TaskTimeout",
        "TaskUnsuccessful",
        "TaskdistError",
        "TaskdistWarning",
        "Unavailable",
    ),
    "errors",
)

__all__ = [
    "AsyncClient",
    "Client",
    "DeadLettered",
    "InvalidResult",
    "InvalidTask",
    "KeyInUse",
    "NotAllowed",
    "ObjectFailed",
    "Outcome",
    "QueueFull",
    "ResultDropped",
    "Submission",
    "SubmittedTask",
    "TaskCancelled",
    "TaskFailed",
    "TaskGone",
    "TaskNotFound",
    "TaskState",
    "TaskTimeout",
    "TaskUnsuccessful",
    "TaskdistError",
    "TaskdistWarning",
    "Unavailable",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"taskdist.client.{_HOMES[name]}"), name)
