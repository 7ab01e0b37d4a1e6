"""Changing the few things of a Task that may change: cancel, suspend, resume, redrive."""

from taskdist.api import GROUP, Phase
from taskdist.client.backend import Backend
from taskdist.client.creating import create
from taskdist.client.errors import TaskdistError
from taskdist.client.states import ended, phase_of, status_of
from taskdist.kube import TASKS, ApiError, Obj, name_of, namespace_of, uid_of
from taskdist.protocol.arrays import counts

REDRIVE_OF = f"{GROUP}/redrive-of"
"""Label of an array that tries failed items of another again: the uid of that one."""
LEFT_OUT = (
    "deadline",
    "notBefore",
    "dependsOn",
    "onDependencyFailure",
    "idempotencyKey",
    "redrive",
    "cancel",
    "suspend",
)
"""What meant the first array: times that are past, Tasks that may be gone, and its steering."""
_LONGEST_NAME = 200


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


async def redrive_failed(backend: Backend, obj: Obj) -> tuple[Obj, bool]:
    """Let the failed items of an array be tried again, and no others.

    A dead letter waits again itself. One that has ended stays as it is: a new array gets its items. Twice is as once.

    Returns:
        The Task that tries them, and whether it was made, or asked to, by this call. Raises TaskdistError, KubeError.
    """
    name, phase, array = name_of(obj), phase_of(obj), counts.seen(obj)
    if array is None:
        raise TaskdistError(f"task {name} is no array: redrive it without --failed, if it is a dead letter")
    if phase == Phase.DEAD_LETTERED:
        return obj, await redrive(backend, obj)
    if not ended(obj):
        raise TaskdistError(f"task {name} is {phase}: its failed items can be tried again once it has ended")
    if not array[1].failed:
        raise TaskdistError(f"task {name} is {phase}, and none of its items has failed")
    items = obj["spec"]["array"].get("items")
    if not items:
        raise TaskdistError(
            f"task {name} is {phase}, and its items are told apart by their index alone, which a new array would not "
            "keep. An array of a queue with retry.onExhausted: DeadLetter waits to be redriven"
        )
    body = _of_failed(obj, [items[index] for index in array[1].failed])
    try:
        return (await create(backend, body, lambda _message: None))[0], True
    except ApiError as error:
        if not error.is_already_exists:
            raise
        return await backend.get(TASKS, name_of(body)), False


def _of_failed(obj: Obj, items: list[Obj]) -> Obj:
    """An array of these items, under a name that only they have: made twice, it is one."""
    spec = {key: value for key, value in obj["spec"].items() if key not in LEFT_OUT}
    array = {key: value for key, value in spec["array"].items() if key != "completions"}
    return {
        "apiVersion": obj.get("apiVersion"),
        "kind": "Task",
        "metadata": {
            "namespace": namespace_of(obj),
            "name": f"{name_of(obj)[:_LONGEST_NAME].rstrip('-.')}-failed-{uid_of(obj)[:8]}",
            "labels": {**(obj["metadata"].get("labels") or {}), REDRIVE_OF: uid_of(obj)},
        },
        "spec": {**spec, "array": {**array, "items": items}},
    }
