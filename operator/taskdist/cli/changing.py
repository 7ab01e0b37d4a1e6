"""Changing the few things of a Task that may change: cancel, suspend, resume."""

from collections.abc import Sequence

from taskdist.api import GROUP
from taskdist.cli.cluster import Cluster
from taskdist.cli.run import FAILED, OK, complain, explain_failure
from taskdist.cli.waiting import ended, phase_of, until_ended
from taskdist.kube import TASKS, ApiError, uid_of


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
            await until_ended(cluster, name, timeout=timeout, uid=uid)
    return code
