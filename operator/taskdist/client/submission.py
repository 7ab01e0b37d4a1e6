"""A Task as a caller describes it, and the resource that it becomes."""

import hashlib
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict, Unpack

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, to_jsonable_python

from taskdist.api import GROUP, VERSION
from taskdist.api.task import MAX_PAYLOAD_BYTES
from taskdist.client.errors import InvalidTask
from taskdist.kube import Obj
from taskdist.objects.settings import MAX_BYTES, URL
from taskdist.protocol import values

Payload = Mapping[str, Any] | BaseModel | Any
"""A JSON object: a mapping, a pydantic model or a dataclass."""
Moment = str | datetime | timedelta
"""RFC 3339 with an offset, a time with its zone, or so long from now."""
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"


class TaskOptions(TypedDict, total=False):
    """What may be said of a Task beside its queue, type and payload. Times are in seconds."""

    name: str | None
    generate_name: str | None
    priority: str | None
    tenant: str | None
    deadline: Moment | None
    not_before: Moment | None
    waiting_timeout: float | None
    execution_timeout: float | None
    progress_timeout: float | None
    ttl: int | None
    depends_on: Sequence[str]
    on_dependency_failure: str | None
    concurrency_key: str | None
    ordering_key: str | None
    idempotency_key: str | None
    skills: Sequence[str]
    slots: int | None
    resources: Mapping[str, int]
    selector: Mapping[str, Any]
    labels: Mapping[str, str]
    pool: str | None


@dataclass(frozen=True, slots=True)
class Submission:
    """A Task to submit. Each field is one of the Task's spec: see docs/reference/task.md. Times are in seconds."""

    queue: str
    type: str
    payload: Payload = field(default_factory=dict)
    name: str | None = None
    generate_name: str | None = None
    priority: str | None = None
    tenant: str | None = None
    deadline: Moment | None = None
    not_before: Moment | None = None
    waiting_timeout: float | None = None
    execution_timeout: float | None = None
    progress_timeout: float | None = None
    ttl: int | None = None
    depends_on: Sequence[str] = ()
    on_dependency_failure: str | None = None
    concurrency_key: str | None = None
    ordering_key: str | None = None
    idempotency_key: str | None = None
    skills: Sequence[str] = ()
    slots: int | None = None
    resources: Mapping[str, int] = field(default_factory=dict)
    selector: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    pool: str | None = None

    @classmethod
    def of(cls, queue: str, type: str, payload: Payload = None, **options: Unpack[TaskOptions]) -> "Submission":
        return cls(queue, type, {} if payload is None else payload, **options)


def manifest(submission: Submission, namespace: str, most_bytes: int = MAX_PAYLOAD_BYTES) -> Obj:
    """The Task to create. What was not said is left out: the API server knows the defaults. Raises InvalidTask.

    `most_bytes`: how large the payload may be; what is more than 64 KiB is then to go by reference.
    """
    name = submission.name
    if submission.idempotency_key and not name:
        name = keyed_name(submission.queue, submission.idempotency_key)
    named: dict[str, Any] = (
        {"name": name} if name else {"generateName": submission.generate_name or f"{_label(submission.type)}-"}
    )
    labels: dict[str, Any] = {"labels": dict(submission.labels)} if submission.labels else {}
    spec: dict[str, Any] = {"queue": submission.queue, "type": submission.type}
    timeouts = {
        "waitingSeconds": submission.waiting_timeout,
        "executionSeconds": submission.execution_timeout,
        "progressSeconds": submission.progress_timeout,
    }
    optional = {
        "payload": json_object(submission.payload, most_bytes),
        "priority": submission.priority,
        "tenant": submission.tenant,
        "deadline": _moment(submission.deadline, "spec.deadline"),
        "notBefore": _moment(submission.not_before, "spec.notBefore"),
        "timeouts": {key: value for key, value in timeouts.items() if value is not None},
        "dependsOn": [{"name": name} for name in submission.depends_on],
        "onDependencyFailure": submission.on_dependency_failure,
        "concurrencyKey": submission.concurrency_key,
        "orderingKey": submission.ordering_key,
        "idempotencyKey": submission.idempotency_key,
        "pool": submission.pool,
        "slots": submission.slots,
        "resources": dict(submission.resources),
        "skills": list(submission.skills),
        "agentSelector": dict(submission.selector),
    }
    # 0 is a word of its own, and a wrong one: the API server says so.
    spec |= {key: value for key, value in optional.items() if value or (key == "slots" and value is not None)}
    if submission.ttl is not None:
        spec["ttlSecondsAfterFinished"] = submission.ttl
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "Task",
        "metadata": {"namespace": namespace, **named, **labels},
        "spec": spec,
    }


def from_document(document: Any, namespace: str, most_bytes: int = MAX_PAYLOAD_BYTES) -> Obj:
    """A Task out of a document: a manifest (it has a `spec`), or the fields of a spec with `name` and `labels`.

    `most_bytes` as in `manifest`. Raises InvalidTask.
    """
    if not isinstance(document, dict):
        raise InvalidTask("it is no JSON object")
    if "spec" in document:
        if document.get("kind", "Task") != "Task":
            raise InvalidTask(f"its kind is {document['kind']!r}, and only Tasks are submitted", "kind")
        spec, metadata = document["spec"], document.get("metadata") or {}
    else:
        spec = {key: value for key, value in document.items() if key not in ("name", "generateName", "labels")}
        metadata = {key: document[key] for key in ("name", "generateName", "labels") if document.get(key)}
    if not isinstance(spec, dict) or not isinstance(metadata, dict):
        raise InvalidTask("spec and metadata are JSON objects")
    for required in ("queue", "type"):
        if not isinstance(spec.get(required), str) or not spec[required]:
            raise InvalidTask(f"it says no {required}", f"spec.{required}")
    if metadata.get("namespace", namespace) != namespace:
        raise InvalidTask(f"it is of namespace {metadata['namespace']}, not {namespace}", "metadata.namespace")
    if wrong := payload_fault(spec.get("payload") or {}, most_bytes):
        raise InvalidTask(f"spec.payload {wrong}", "spec.payload")
    metadata = {**metadata, "namespace": namespace}
    if spec.get("idempotencyKey") and not metadata.get("name"):
        metadata["name"] = keyed_name(spec["queue"], str(spec["idempotencyKey"]))
    if not metadata.get("name"):
        metadata.setdefault("generateName", f"{_label(spec['type'])}-")
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Task", "metadata": metadata, "spec": spec}


def named(body: Obj) -> Obj:
    """The same with a name made up here, if it has none: what is tried again under one name is made once."""
    metadata = dict(body["metadata"])
    prefix = metadata.pop("generateName", "")
    if metadata.get("name"):
        return body
    # As long as names may be, less what is made up; the API server does the same.
    metadata["name"] = f"{prefix[:240]}{''.join(secrets.choice(_LETTERS) for _ in range(10))}"
    return {**body, "metadata": metadata}


def keyed_name(queue: str, key: str) -> str:
    """Return the name of the Task with this idempotency key: the same for all who submit it, so that the API server
    takes one of them only."""
    return f"{queue}-{hashlib.sha256(f'{queue}/{key}'.encode()).hexdigest()[:20]}"


def json_object(payload: Payload, most_bytes: int = MAX_PAYLOAD_BYTES) -> dict[str, Any]:
    """The payload as the handler will get it. Raises InvalidTask."""
    try:
        value = to_jsonable_python(payload)
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        raise InvalidTask(f"the payload cannot be written as JSON: {error}", "spec.payload") from error
    if not isinstance(value, dict):
        kind = type(payload).__name__
        raise InvalidTask(f"the payload is a {kind}: give a dict, a pydantic model or a dataclass", "spec.payload")
    if wrong := payload_fault(value, most_bytes):
        raise InvalidTask(f"the payload {wrong}", "spec.payload")
    return value


def encoded(payload: Any) -> bytes:
    """The payload as JSON, as short as it can be written."""
    return json.dumps(payload, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


def payload_fault(value: Any, most_bytes: int = MAX_PAYLOAD_BYTES) -> str:
    """What keeps a payload from reaching its handler as it is, to be said behind its name; empty if nothing does."""
    wrong = values.fault(value)
    if wrong:
        return f"would not reach the handler as it is: {wrong}"
    size = len(encoded(value))
    if size > most_bytes:
        stored = most_bytes > MAX_PAYLOAD_BYTES
        mend = f"raise {MAX_BYTES}" if stored else f"set {URL}=s3://BUCKET/PREFIX, so that it goes by an object store"
        return (
            f"is {size} bytes of JSON, and a payload has at most {most_bytes} here: {mend}, or store the data "
            "elsewhere and pass a reference to it"
        )
    return ""


def _moment(moment: Moment | None, field: str) -> str | None:
    if moment is None or isinstance(moment, str):
        return moment
    if isinstance(moment, timedelta):
        moment = datetime.now(UTC) + moment
    if moment.tzinfo is None:
        raise InvalidTask(f"{field}: the time does not say in which zone; give it one, such as UTC", field)
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def _label(word: str) -> str:
    """A Task type as the start of a name."""
    return re.sub(r"[^a-z0-9]+", "-", word.lower()).strip("-")[:40].strip("-") or "task"
