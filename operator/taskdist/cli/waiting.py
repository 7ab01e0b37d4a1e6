"""Waiting for a Task to end: list, watch, and again, through lost connections."""

import asyncio
import re
from collections.abc import Callable
from typing import Any

from taskdist.api import Phase
from taskdist.cli.cluster import Cluster, status_of
from taskdist.cli.run import FAILED, OK, TIMED_OUT, Problem, note
from taskdist.common.backoff import Backoff
from taskdist.kube import TASKS, ApiError, KubeError, Obj, name_of, uid_of

AGAIN = Backoff(first=0.25, most=5.0)
WHY_SECONDS = (3.0, 10.0, 30.0)
"""When it is asked why a Task does not start; the last is repeated. Each question lists the namespace's Tasks."""
_NUMBERS = re.compile(r"\d+")


def phase_of(obj: Obj) -> str:
    return str(status_of(obj).get("phase") or Phase.PENDING)


def ended(obj: Obj) -> bool:
    return phase_of(obj) in (Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED)


def settled(obj: Obj) -> bool:
    """Nothing more comes of it by itself: it has ended, or is a dead letter until somebody redrives it."""
    return ended(obj) or phase_of(obj) == Phase.DEAD_LETTERED


def verdict(obj: Obj) -> int:
    """The exit code that an ended Task stands for."""
    return OK if phase_of(obj) == Phase.SUCCEEDED else FAILED


def story(obj: Obj) -> str:
    """Where the Task stands, in one line."""
    status = status_of(obj)
    phase = phase_of(obj)
    where = f" on {status['agent']} (attempt {status.get('attempt', 1)})" if phase == Phase.ASSIGNED else ""
    done = status.get("progress") if phase == Phase.ASSIGNED else None
    progress = f", {done.get('fraction', 0):.0%} {done.get('message', '')}".rstrip() if done else ""
    reason = "" if phase in (Phase.ASSIGNED, Phase.SUCCEEDED) else str(status.get("reason") or "")
    message = str(status.get("message") or "") if reason else ""
    why = f" ({reason}{': ' if message else ''}{message})" if reason else ""
    return f"task {name_of(obj)}: {phase}{where}{progress}{why}"


def attempt_line(record: dict[str, Any]) -> str:
    """How an attempt ended, in one line."""
    where = record.get("agent") or "an unknown agent"
    return f"attempt {record.get('attempt')} on {where}: {record.get('reason')}: {record.get('message', '')}"


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

    Raises Problem: the time ran out (the Task goes on), or the Task was deleted.
    """
    told = _Told(quiet)
    asker = asyncio.get_running_loop().create_task(_say_why(cluster, told)) if not quiet else None
    try:
        async with asyncio.timeout(timeout):
            return await _follow(cluster, name, uid, told, over)
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

    def __call__(self, obj: Obj) -> None:
        self.obj = obj
        line = story(obj)
        if line != self.last and not self._quiet:
            note(line)
        self.last = line

    def why(self, reason: str, message: str) -> None:
        """Say why it does not start, unless that was said: other numbers alone are no news."""
        said = _NUMBERS.sub("#", f"{reason}: {message}")
        if said != self._why and self.obj is not None:
            note(f"task {name_of(self.obj)}: {Phase.PENDING} ({reason}: {message})")
        self._why = said


async def _say_why(cluster: Cluster, told: _Told) -> None:
    """Ask why the Task does not start, until the operator says it in status: that is after half a minute."""
    from taskdist.cli import explaining

    pauses = iter(WHY_SECONDS)
    while True:
        await asyncio.sleep(next(pauses, WHY_SECONDS[-1]))
        obj = told.obj
        if obj is None or phase_of(obj) != Phase.PENDING or status_of(obj).get("reason"):
            continue
        try:
            reason, message = await explaining.why(cluster, obj)
        except KubeError:
            return  # who may submit need not be allowed to list; the operator will say it
        if told.obj is obj:
            told.why(reason, message)


async def _follow(
    cluster: Cluster, name: str, uid: str, told: Callable[[Obj], None], over: Callable[[Obj], bool]
) -> Obj:
    fields = f"metadata.name={name}"
    failures = 0
    known = False
    while True:
        try:
            page = await cluster.list(TASKS, fields=fields)
            if not page.items:
                raise Problem(
                    f"task {name} was deleted" if known or uid else f"there is no task {name} in {cluster.namespace}"
                )
            obj = page.items[0]
            uid = uid or uid_of(obj)
            known, failures = True, 0
            if uid_of(obj) != uid:
                raise Problem(f"task {name} was deleted, and another was made under its name")
            told(obj)
            if over(obj):
                return obj
            async with cluster.watch(TASKS, page.resource_version, fields=fields) as events:
                async for event in events:
                    if event.type == "BOOKMARK":
                        continue
                    if event.type == "DELETED":
                        raise Problem(f"task {name} was deleted")
                    told(event.object)
                    if over(event.object):
                        return event.object
        except KubeError as error:
            lasting = isinstance(error, ApiError) and not (error.is_gone or error.is_throttled or error.is_server_fault)
            # Before anything was seen, an error is more likely a wrong address than a hiccup.
            if lasting or not known:
                raise
            await asyncio.sleep(AGAIN.full(failures))
            failures += 1
