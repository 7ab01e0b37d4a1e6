"""Changing the few things of a Task that may change: cancel, suspend, resume, redrive."""

from taskdist.api import Phase
from taskdist.client.backend import Backend
from taskdist.client.errors import TaskdistError
from taskdist.client.states import ended, phase_of, status_of
from taskdist.kube import TASKS, Obj, name_of, uid_of


async def switch(backend: Backend, obj: Obj, field: str, value: bool) -> Obj:
    """Set `spec.<field>`; return the Task. Raises TaskdistError, if it has ended; KubeError."""
    if ended(obj):
        raise TaskdistError(f"task {name_of(obj)} is {phase_of(obj)}: an ended Task does not change any more")
    if bool(obj["spec"].get(field)) is value:
        return obj
    # With the uid as condition: a new Task of the same name is not the one that was meant.
    return await backend.patch(TASKS, name_of(obj), {"metadata": {"uid": uid_of(obj)}, "spec": {field: value}})


async def redrive(backend: Backend, obj: Obj) -> bool:
    """Let a dead letter wait again; False if somebody has asked for it already. Raises TaskdistError, KubeError."""
    if (patch := redriven(obj)) is None:
        return False
    await backend.patch(TASKS, name_of(obj), patch)
    return True


def redriven(obj: Obj) -> Obj | None:
    """The patch that lets a dead letter wait again; None if somebody has asked for it already. Raises TaskdistError."""
    if phase_of(obj) != Phase.DEAD_LETTERED:
        raise TaskdistError(f"task {name_of(obj)} is {phase_of(obj)}: only a dead letter can be redriven")
    asked, done = obj["spec"].get("redrive") or 0, status_of(obj).get("redrives") or 0
    return {"metadata": {"uid": uid_of(obj)}, "spec": {"redrive": done + 1}} if asked <= done else None
