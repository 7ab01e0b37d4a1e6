"""Changing the few things of a Task that may change: cancel, suspend, resume, redrive."""

from collections.abc import Sequence

from taskdist.api import GROUP, Phase
from taskdist.cli.cluster import Cluster, status_of
from taskdist.cli.run import FAILED, OK, complain, explain_failure, note
from taskdist.cli.waiting import ended, phase_of, until_ended
from taskdist.kube import TASKS, ApiError, Obj, name_of, uid_of


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
            if ended(obj):
                complain(f"task {name} is {phase_of(obj)}: an ended Task does not change any more")
                code = FAILED
                continue
            same = bool(obj["spec"].get(field)) is value
            if not same:
                # With the uid as condition: a new Task of the same name is not the one that was meant.
                await cluster.patch(TASKS, name, {"metadata": {"uid": uid_of(obj)}, "spec": {field: value}})
            print(f"task.{GROUP}/{name} {'was ' if same else ''}{done}{' already' if same else ''}")
            waiting.append((name, uid_of(obj)))
        except ApiError as error:
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
        except ApiError as error:
            complain(f"task {name_of(each)}: {explain_failure(error) or error}")
            failed += 1
    where = f"of queue {queue}" if queue else f"in namespace {cluster.namespace}"
    which = f" with reason {reason}" if reason else ""
    count = len(found) - failed
    told = f"{count if count else 'no'} dead letter{'' if count == 1 else 's'} {where}{which}"
    note(f"{told} would be redriven" if dry_run else f"{told} redriven" if count else told)
    return FAILED if failed else OK


async def _redrive_named(cluster: Cluster, names: Sequence[str], dry_run: bool) -> int:
    code = OK
    for name in names:
        try:
            obj = await cluster.get(TASKS, name)
            if phase_of(obj) != Phase.DEAD_LETTERED:
                complain(f"task {name} is {phase_of(obj)}: only a dead letter can be redriven")
                code = FAILED
            else:
                await _redrive(cluster, obj, dry_run)
        except ApiError as error:
            complain(explain_failure(error) or str(error))
            code = FAILED
    return code


async def _redrive(cluster: Cluster, obj: Obj, dry_run: bool) -> None:
    asked, done = obj["spec"].get("redrive") or 0, status_of(obj).get("redrives") or 0
    if dry_run:
        print(f"task.{GROUP}/{name_of(obj)} would be redriven ({status_of(obj).get('reason') or 'no reason given'})")
        return
    if asked <= done:
        body = {"metadata": {"uid": uid_of(obj)}, "spec": {"redrive": done + 1}}
        await cluster.patch(TASKS, name_of(obj), body)
    print(f"task.{GROUP}/{name_of(obj)} {'redriven' if asked <= done else 'was redriven already'}")


def _reasons(obj: Obj) -> list[str]:
    """Why it is a dead letter, and why its last attempt failed: either may be what somebody looks for."""
    attempts = status_of(obj).get("attempts") or []
    return [str(status_of(obj).get("reason")), *(str(each.get("reason")) for each in attempts[-1:])]
