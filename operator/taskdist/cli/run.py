"""From a command to an exit code: connects, runs, and turns what goes wrong into words.

A traceback means a mistake in this program; whatever a user or a cluster can cause ends in one message that says what
to do.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TYPE_CHECKING, TypeVar

import typer

from taskdist.common import extras
from taskdist.common.environment import SettingsError

if TYPE_CHECKING:
    from taskdist.cli.cluster import Cluster, Target

T = TypeVar("T")

OK = 0
FAILED = 1  # the Task failed or was cancelled, or the command could not do what was asked
USAGE = 2
TIMED_OUT = 3
INTERRUPTED = 130


class Problem(Exception):
    """What the user must hear: what is wrong, and what to do about it."""

    def __init__(self, message: str, *, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code


Connector = Callable[["Target"], AbstractAsyncContextManager["Cluster"]]
"""Opens a cluster. The composition root puts it into the context's `obj`."""


def run(ctx: typer.Context, target: "Target", action: Callable[["Cluster"], Awaitable[int]]) -> None:
    """Run `action` on the cluster and end the command with the code it returns."""
    connector: Connector = ctx.obj

    async def go() -> int:
        async with connector(target) as cluster:
            return await action(cluster)

    try:
        code = asyncio.run(go())
    except Problem as problem:
        complain(str(problem))
        code = problem.code
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:
        said = explain_failure(error)
        if said is None:
            raise
        complain(said)
        code = FAILED
    raise typer.Exit(code)


@contextmanager
def extra(name: str) -> Iterator[None]:
    """For imports of a part whose libraries are an extra of the package: says what to install where they are not."""
    try:
        with extras.extra(name):
            yield
    except extras.Missing as missing:
        complain(f"this needs {missing.library}, which is not installed here: {missing.install}")
        raise typer.Exit(FAILED) from None


def configured(read: Callable[[], T]) -> T:
    """Return the settings of a process; ends the command with what is wrong with them, where anything is."""
    try:
        return read()
    except SettingsError as error:
        complain(str(error))
        raise typer.Exit(USAGE) from None


def complain(message: str) -> None:
    """An error, for people."""
    # click drops colours in a pipe, and knows nothing of NO_COLOR (no-color.org).
    word = "error:" if os.environ.get("NO_COLOR") else typer.style("error:", fg="red", bold=True)
    typer.echo(f"{word} {message}", err=True)


def note(message: str) -> None:
    """Something worth knowing beside the output, which may go into a pipe."""
    typer.echo(message, err=True)


def explain_failure(error: Exception) -> str | None:
    """What to say of a failure to talk to the API server; None if it is something else."""
    from taskdist.client.errors import TaskdistError
    from taskdist.kube import ApiError, ConfigurationError, KubeError, Unanswered, Unreachable

    if isinstance(error, TaskdistError):
        return str(error)
    if not isinstance(error, KubeError):
        return None
    match error:
        case ConfigurationError():
            return f"{error}\nName a cluster with --kubeconfig or KUBECONFIG, or start one here: taskdist dev up"
        case Unreachable():
            return f"the API server cannot be reached: {error}\nIs the cluster up, and is this the right --context?"
        case Unanswered():
            return f"the API server did not answer: {error}\nIt may have done it or not: look before asking again."
        case ApiError() if error.is_unserved:
            return (
                "this cluster does not know Tasks, TaskQueues and AgentPools.\n"
                "Install taskdist first: "
                "helm install taskdist charts/taskdist, or kubectl apply -f manifests/install.yaml"
            )
        case ApiError() if error.is_unauthorized:
            return (
                f"the API server does not accept the credentials of this kubeconfig: {error.message or 'unauthorized'}"
            )
        case ApiError():
            # Its words name the field and the fix.
            return error.message or str(error)
    return str(error)
