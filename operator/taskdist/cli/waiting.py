"""Waiting for a Task to end, and saying meanwhile where it stands."""

import asyncio
import re
from collections.abc import Callable
from contextlib import aclosing

from taskdist.api import Phase
from taskdist.api.view import TaskRow
from taskdist.cli import live
from taskdist.cli.cluster import Cluster
from taskdist.cli.run import FAILED, OK, TIMED_OUT, Problem, note
from taskdist.client import questions
from taskdist.client.changes import changes
from taskdist.client.errors import NoAnswer, instead
from taskdist.client.states import ending, phase_of, settled, status_of, story
from taskdist.kube import KubeError, Obj, name_of

WHY_SECONDS = (3.0, 10.0, 30.0)
"""When more is asked than status tells; the last is repeated. What ends before costs no question.

Where the leader does not answer, each lists the namespace's Tasks."""
_NUMBERS = re.compile(r"\d+")


def verdict(obj: Obj) -> int:
    """The exit code that an ended Task stands for."""
    return OK if phase_of(obj) == Phase.SUCCEEDED else FAILED


def no_result(obj: Obj, options: str = "") -> str:
    """How a Task ended that has no result. `options`: what a suggested command needs to mean the same cluster."""
    again = f"\nTry it again: taskdist redrive {name_of(obj)}{options}"
    return ending(obj) + (again if phase_of(obj) == Phase.DEAD_LETTERED else "")


async def until_ended(
    cluster: Cluster,
    name: str,
    *,
    timeout: float | None,
    uid: str = "",
    quiet: bool = False,
    over: Callable[[Obj], bool] = settled,
) -> Obj:
    """The Task once it has ended, or is a dead letter. Says on standard error what happens meanwhile.

    `over` says what counts as its end instead.

    Raises Problem: the time ran out (the Task goes on). TaskGone: it was deleted.
    """
    told = _Told(quiet)
    asker = asyncio.get_running_loop().create_task(_look(cluster, name, told)) if not quiet else None
    try:
        async with asyncio.timeout(timeout):
            async with aclosing(changes(cluster, name, uid)) as states:
                async for obj in states:
                    told(obj)
                    if over(obj):
                        return obj
            raise AssertionError("unreachable: changes have no end of their own")
    except TimeoutError:
        raise Problem(
            f"the time is up, and the Task has not ended; it goes on. {told.last}".rstrip()
            + f"\nSee why: taskdist explain {name}{cluster.options}",
            code=TIMED_OUT,
        ) from None
    except asyncio.CancelledError:
        # Not the time-out: somebody pressed Ctrl-C.
        note(f"not waiting any longer; the Task goes on. Go on waiting: taskdist result {name} --wait{cluster.options}")
        raise
    finally:
        if asker is not None:
            asker.cancel()


class _Told:
    """Tells each story once."""

    def __init__(self, quiet: bool) -> None:
        self.last = ""
        self.obj: Obj | None = None
        self._quiet = quiet
        self._why = ""
        self._row: TaskRow | None = None
        self._asked_others = False

    def __call__(self, obj: Obj) -> None:
        self.obj = obj
        line = story(live.with_progress(obj, self._row))
        if line != self.last and not self._quiet:
            note(line)
        self.last = line

    async def heard(self, row: TaskRow | None) -> None:
        """Take what the leader tells of its progress."""
        # What has been told stands, and status catches up with it in some seconds.
        self._row = row
        if row is not None and self.obj is not None:
            self(self.obj)

    def why(self, reason: str, message: str) -> None:
        """Say why it does not start, unless that was said: other numbers alone are no news."""
        said = _NUMBERS.sub("#", f"{reason}: {message}")
        if said != self._why and self.obj is not None:
            note(f"task {name_of(self.obj)}: {Phase.PENDING} ({reason}: {message})")
        self._why = said

    def others_are_asked(self, error: NoAnswer) -> None:
        """Say once that it is not the leader who tells why."""
        if not self._asked_others:
            note(instead(error))
        self._asked_others = True


async def _look(cluster: Cluster, name: str, told: _Told) -> None:
    """Say more than status does of a Task that takes its time: why it does not start, and how it gets on."""
    pauses = iter(WHY_SECONDS)
    following: asyncio.Task[None] | None = None
    try:
        while True:
            await asyncio.sleep(next(pauses, WHY_SECONDS[-1]))
            obj = told.obj
            if obj is not None and phase_of(obj) == Phase.ASSIGNED and following is None:
                following = asyncio.create_task(live.follow(cluster, name, told.heard))
            # The operator says it in status after half a minute.
            if obj is None or phase_of(obj) != Phase.PENDING or status_of(obj).get("reason"):
                continue
            try:
                why = await _why(cluster, obj, told)
            except KubeError:
                return  # who may submit need not be allowed to list; the operator will say it
            if why is not None and told.obj is obj:
                told.why(*why)
    finally:
        if following is not None:
            following.cancel()


async def _why(cluster: Cluster, obj: Obj, told: _Told) -> tuple[str, str] | None:
    """Return the reason and its message; None if it waits no longer."""
    from taskdist.client import explaining

    try:
        found = await cluster.view.ask(questions.explanation(cluster.namespace, name_of(obj)))
    except NoAnswer as error:
        told.others_are_asked(error)
        return await explaining.why(cluster, obj)
    if found.phase != Phase.PENDING:
        return None
    more = f" Position {live.place(found)}, starts: {live.start(found)}." if found.position is not None else ""
    return found.reason, found.message + more
