"""Making a Task, and waiting for its result."""

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any

from taskdist.api import GROUP, VERSION, Phase
from taskdist.cli import show
from taskdist.cli.cluster import Cluster, status_of
from taskdist.cli.run import OK, Problem, complain, note
from taskdist.cli.waiting import phase_of, until_ended, verdict
from taskdist.kube import AGENTPOOLS, TASKQUEUES, TASKS, ApiError, Obj, Resource, name_of, uid_of
from taskdist.protocol.values import same

CREATED = "created"


@dataclass(frozen=True, slots=True)
class Submission:
    """A Task as the user describes it."""

    queue: str
    type: str
    payload: dict[str, Any] = field(default_factory=dict)
    name: str | None = None
    generate_name: str | None = None
    priority: str | None = None
    tenant: str | None = None
    deadline: str | None = None
    not_before: str | None = None
    waiting_timeout: float | None = None
    execution_timeout: float | None = None
    progress_timeout: float | None = None
    ttl: int | None = None
    depends_on: tuple[str, ...] = ()
    on_dependency_failure: str | None = None
    concurrency_key: str | None = None
    ordering_key: str | None = None
    idempotency_key: str | None = None
    skills: tuple[str, ...] = ()
    slots: int | None = None
    resources: dict[str, int] = field(default_factory=dict)
    selector: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    pool: str | None = None


def manifest(submission: Submission, namespace: str) -> Obj:
    """The Task to create. What was not said is left out: the API server knows the defaults."""
    name = submission.name
    if submission.idempotency_key and not name:
        name = keyed_name(submission.queue, submission.idempotency_key)
    named: dict[str, Any] = (
        {"name": name} if name else {"generateName": submission.generate_name or f"{_label(submission.type)}-"}
    )
    labels: dict[str, Any] = {"labels": submission.labels} if submission.labels else {}
    spec: dict[str, Any] = {"queue": submission.queue, "type": submission.type}
    timeouts = {
        "waitingSeconds": submission.waiting_timeout,
        "executionSeconds": submission.execution_timeout,
        "progressSeconds": submission.progress_timeout,
    }
    optional = {
        "payload": submission.payload,
        "priority": submission.priority,
        "tenant": submission.tenant,
        "deadline": submission.deadline,
        "notBefore": submission.not_before,
        "timeouts": {key: value for key, value in timeouts.items() if value is not None},
        "dependsOn": [{"name": name} for name in submission.depends_on],
        "onDependencyFailure": submission.on_dependency_failure,
        "concurrencyKey": submission.concurrency_key,
        "orderingKey": submission.ordering_key,
        "idempotencyKey": submission.idempotency_key,
        "pool": submission.pool,
        "slots": submission.slots,
        "resources": submission.resources,
        "skills": list(submission.skills),
        "agentSelector": submission.selector,
    }
    spec |= {key: value for key, value in optional.items() if value}
    if submission.ttl is not None:
        spec["ttlSecondsAfterFinished"] = submission.ttl
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "Task",
        "metadata": {"namespace": namespace, **named, **labels},
        "spec": spec,
    }


async def submit(
    cluster: Cluster, submission: Submission, *, wait: bool, timeout: float | None, output: str | None
) -> int:
    """Create the Task, or find the one with its idempotency key; with `wait`, stay until it has ended and print its
    result."""
    obj, done = await _create(cluster, submission)
    if done == CREATED:
        await _warn(cluster, submission)
    name = name_of(obj)
    if not wait:
        _created(obj, output, done)
        return OK
    note(f"task.{GROUP}/{name} {done}")
    obj = await until_ended(cluster, name, timeout=timeout, uid=uid_of(obj))
    if output == "name":
        _created(obj, output)
    elif output:
        show.document(show.clean(obj), output)
    elif verdict(obj) == OK:
        print(show.as_json(status_of(obj).get("result") or {}))
    if verdict(obj) != OK:
        complain(ending(obj, cluster.options))
    return verdict(obj)


def keyed_name(queue: str, key: str) -> str:
    """Return the name of the Task with this idempotency key: the same for all who submit it, so that the API server
    takes one of them only."""
    return f"{queue}-{hashlib.sha256(f'{queue}/{key}'.encode()).hexdigest()[:20]}"


async def _create(cluster: Cluster, submission: Submission) -> tuple[Obj, str]:
    """Return the Task, and whether it was made now or was there."""
    body = manifest(submission, cluster.namespace)
    while True:
        try:
            return await cluster.create(TASKS, body), CREATED
        except ApiError as error:
            if not (submission.idempotency_key and error.is_already_exists):
                raise
        try:
            found = await cluster.get(TASKS, body["metadata"]["name"])
        except ApiError as error:
            if error.is_not_found:
                continue  # deleted meanwhile: the key is free again
            raise
        spec = found["spec"]
        if (spec["queue"], spec.get("idempotencyKey")) != (submission.queue, submission.idempotency_key):
            raise Problem(
                f"task {name_of(found)} has the name of this idempotency key, and another key: delete it, or choose "
                "another key"
            )
        if spec["type"] != submission.type or not same(spec.get("payload") or {}, submission.payload):
            note("warning: it was submitted with another type or payload, which stand")
        return found, f"exists already ({phase_of(found)})"


def ending(obj: Obj, options: str = "") -> str:
    """How a Task ended that has no result. `options`: what a suggested command needs to mean the same cluster."""
    status = status_of(obj)
    reason, message = status.get("reason") or "", status.get("message") or ""
    text = f"task {name_of(obj)} is {phase_of(obj)}"
    text += f": {reason}: {message}" if reason and message else f": {reason or message or 'no reason given'}"
    if phase_of(obj) == Phase.DEAD_LETTERED:
        text += f"\nTry it again: taskdist redrive {name_of(obj)}{options}"
    return text


def _created(obj: Obj, output: str | None, done: str = CREATED) -> None:
    if output == "name":
        print(f"task.{GROUP}/{name_of(obj)}")
    elif output:
        show.document(show.clean(obj), output)
    else:
        print(f"task.{GROUP}/{name_of(obj)} {done}")


async def _warn(cluster: Cluster, submission: Submission) -> None:
    """A Task may be made before its queue, pool and parents: not an error, yet most often a slip of the finger."""
    asked: list[tuple[Resource, str, str]] = [(TASKQUEUES, "queue", submission.queue)]
    if submission.pool:
        asked.append((AGENTPOOLS, "pool", submission.pool))
    asked += [(TASKS, "task", name) for name in submission.depends_on]
    for resource, word, name in asked:
        try:
            await cluster.get(resource, name)
        except ApiError as error:
            # Who may submit need not be allowed to read queues.
            if error.is_not_found:
                # There may be very many Tasks.
                there = await _names(cluster, resource) if resource is not TASKS else []
                none = f", and no other {word} either" if resource is not TASKS else ""
                others = f"; there are: {', '.join(there)}" if there else none
                note(
                    f"warning: there is no {word} {name!r} in namespace {cluster.namespace}{others}. "
                    "The Task waits for it."
                )


async def _names(cluster: Cluster, resource: Resource) -> list[str]:
    try:
        return sorted(name_of(each) for each in (await cluster.list(resource)).items)
    except ApiError as error:
        raise Problem(str(error.message or error)) from error


def _label(word: str) -> str:
    """A Task type as the start of a name."""
    return re.sub(r"[^a-z0-9]+", "-", word.lower()).strip("-")[:40].strip("-") or "task"
