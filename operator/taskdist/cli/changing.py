"""Changing the few things of a Task that may change: cancel, suspend, resume, redrive."""

from collections.abc import Sequence

from taskdist.api import GROUP, Phase
from taskdist.cli.cluster import Cluster
from taskdist.cli.run import FAILED, OK, complain, explain_failure, note
from taskdist.cli.waiting import until_ended
from taskdist.client import changing
from taskdist.client.errors import TaskdistError
from taskdist.client.states import ended, phase_of, status_of
from taskdist.kube import TASKS, KubeError, Obj, name_of, uid_of
from taskdist.protocol.arrays import counts


async def change(
    cluster: Cluster,
    names: Sequence[str],
    field: str,
    value: bool,
    done: str,
    *,
    wait: bool = False,
    timeout: float | None = None,
) -> int:
    """Set `spec.<field>` of each Task. Goes on with the others where one cannot be changed."""
    code = OK
    waiting: list[tuple[str, str]] = []
    for name in names:
        try:
            obj = await cluster.get(TASKS, name)
            same = await changing.switch(cluster, obj, field, value) is obj
            print(f"task.{GROUP}/{name} {'was ' if same else ''}{done}{' already' if same else ''}")
            waiting.append((name, uid_of(obj)))
        except (KubeError, TaskdistError) as error:
            complain(explain_failure(error) or str(error))
            code = FAILED
    if wait:
        for name, uid in waiting:
            # A dead letter that is cancelled is still to end.
            await until_ended(cluster, name, timeout=timeout, uid=uid, over=ended)
    return code


async def redrive(
    cluster: Cluster, names: Sequence[str], *, queue: str | None, reason: str | None, dry_run: bool
) -> int:
    """Let dead letters wait again: those named, or else all of the queue that ended for this reason."""
    if names:
        return await _redrive_named(cluster, names, dry_run)
    fields = ",".join([f"status.phase={Phase.DEAD_LETTERED}", *([f"spec.queue={queue}"] if queue else [])])
    found = [each for each in (await cluster.list(TASKS, fields=fields)).items if reason in (None, *_reasons(each))]
    # Oldest first, so that they wait in the order in which they came.
    found.sort(key=lambda each: (each["metadata"].get("creationTimestamp") or "", name_of(each)))
    failed = 0
    for each in found:
        try:
            await _redrive(cluster, each, dry_run)
        except (KubeError, TaskdistError) as error:
            complain(f"task {name_of(each)}: {explain_failure(error) or error}")
            failed += 1
    where = f"of queue {queue}" if queue else f"in namespace {cluster.namespace}"
    which = f" with reason {reason}" if reason else ""
    count = len(found) - failed
    told = f"{count if count else 'no'} dead letter{'' if count == 1 else 's'} {where}{which}"
    note(f"{told} would be redriven" if dry_run else f"{told} redriven" if count else told)
    return FAILED if failed else OK


async def redrive_failed(cluster: Cluster, names: Sequence[str], *, dry_run: bool) -> int:
    """Let the failed items of these arrays be tried again."""
    code = OK
    for name in names:
        try:
            obj = await cluster.get(TASKS, name)
            if dry_run and (array := counts.seen(obj)) is not None:
                print(f"task.{GROUP}/{name}: {len(array[1].failed)} items would be tried again ({array[1].failed})")
                continue
            made, asked = await changing.redrive_failed(cluster, obj)
            by = "" if name_of(made) == name else f" by task.{GROUP}/{name_of(made)}"
            print(f"task.{GROUP}/{name}: its failed items {'are' if asked else 'were already'} tried again{by}")
        except (KubeError, TaskdistError) as error:
            complain(explain_failure(error) or str(error))
            code = FAILED
    return code


async def _redrive_named(cluster: Cluster, names: Sequence[str], dry_run: bool) -> int:
    code = OK
    for name in names:
        try:
            await _redrive(cluster, await cluster.get(TASKS, name), dry_run)
        except (KubeError, TaskdistError) as error:
            complain(explain_failure(error) or str(error))
            code = FAILED
    return code


async def _redrive(cluster: Cluster, obj: Obj, dry_run: bool) -> None:
    if dry_run and phase_of(obj) == Phase.DEAD_LETTERED:
        print(f"task.{GROUP}/{name_of(obj)} would be redriven ({status_of(obj).get('reason') or 'no reason given'})")
        return
    asked = await changing.redrive(cluster, obj)
    print(f"task.{GROUP}/{name_of(obj)} {'redriven' if asked else 'was redriven already'}")


def _reasons(obj: Obj) -> list[str]:
    """Why it is a dead letter, and why its last attempt failed: either may be what somebody looks for."""
    attempts = status_of(obj).get("attempts") or []
    return [str(status_of(obj).get("reason")), *(str(each.get("reason")) for each in attempts[-1:])]
