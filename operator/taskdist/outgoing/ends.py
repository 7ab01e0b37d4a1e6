"""The end of a Task as a CloudEvent 1.0, and which ends a sink selects. Pure.

Objects are taken as the API server sent them, and may hold anything: what is malformed is left out, so that no Task can
keep those after it from being told.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from taskdist.api import GROUP, VERSION, LabelSelector, TaskSinkSpec
from taskdist.common.label_selector import Requirement, meets
from taskdist.common.times import read
from taskdist.intake.message import Absent, Message, Parts, Poison
from taskdist.intake.templates import Template, TemplateError, parse
from taskdist.protocol.arrays.indexes import IndexSet

EVENT_TYPE: Final = "dev.taskdist.task"
# By the phase in which a Task ended.
ENDS: Final = {
    "Succeeded": "succeeded",
    "Failed": "failed",
    "Cancelled": "cancelled",
    "DeadLettered": "deadlettered",
}
# What a reference to a result says, and the most bytes of one.
_REFERENCE: Final = ("uri", "size", "sha256", "contentType")
_MOST_REFERENCE: Final = 4096
# Of an array: 1000000/1000000, and room.
_MOST_DONE: Final = 32
# The longest key, in characters; a longer one is cut.
MAX_KEY: Final = 1024

Obj = dict[str, Any]


class InvalidKey(Exception):
    """The template of keys is none; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class End:
    """One end of one Task.

    `id`: the same whenever this end is told, and another one for the end of the same Task after a redrive.
    """

    id: str
    namespace: str
    name: str
    uid: str
    version: int
    key: str
    ended: str
    body: bytes


def end_id(obj: Obj) -> str:
    """Return what tells this end from all others; empty where the Task has not ended."""
    status = _dict(obj.get("status"))
    ending = ENDS.get(_text(status.get("phase")))
    if ending is None:
        return ""
    redrives = status.get("redrives")
    return f"{obj['metadata']['uid']}.{redrives if type(redrives) is int else 0}.{ending}"


def version(obj: Obj) -> int:
    """Return its resourceVersion; 0 where it is no number."""
    text = str(obj["metadata"]["resourceVersion"])
    return int(text) if text.isdecimal() else 0


class Selection:
    """The selection of a sink: the ends that it tells, and the keys that order them.

    Args:
        since: when the sink was created, as the API writes it: what ended before is not told.

    Raises:
        InvalidKey: of a template that is none.
    """

    def __init__(self, spec: TaskSinkSpec, since: str = "") -> None:
        selector = spec.selector
        self._queues = frozenset(selector.queues)
        self._types = frozenset(selector.types)
        self._phases = frozenset(selector.phases or ENDS)
        self._labels = _requirements(selector.labels)
        self._key = None if spec.key is None else key_template(spec.key)
        self._most = spec.max_result_bytes
        self._since = read(since)

    @property
    def field_selector(self) -> str:
        """Return the field selector by which the API server leaves out what is not told."""
        phases = ["Pending", "Assigned", *sorted(set(ENDS) - self._phases)]
        parts = [f"status.phase!={phase}" for phase in phases]
        if len(self._queues) == 1:
            parts += [f"spec.queue={queue}" for queue in self._queues]
        return ",".join(parts)

    def selects(self, obj: Obj) -> bool:
        """Whether this is an end to be told."""
        spec, status, metadata = _dict(obj.get("spec")), _dict(obj.get("status")), obj["metadata"]
        if _text(status.get("phase")) not in self._phases:
            return False
        if self._queues and _text(spec.get("queue")) not in self._queues:
            return False
        if self._types and _text(spec.get("type")) not in self._types:
            return False
        ended = read(_text(status.get("finishedAt")) or None)
        if self._since is not None and ended is not None and ended < self._since:
            return False
        return meets(_labels(metadata), self._labels)

    def end(self, obj: Obj) -> End:
        """Return the end of a Task that is selected."""
        event = event_of(obj, self._most)
        key = self._key_of(event, obj)
        event["partitionkey"] = key
        metadata = obj["metadata"]
        return End(
            id=str(event["id"]),
            namespace=str(metadata["namespace"]),
            name=str(metadata["name"]),
            uid=str(metadata["uid"]),
            version=version(obj),
            key=key,
            ended=str(event.get("time", "")),
            body=encoded(event),
        )

    def _key_of(self, event: Mapping[str, Any], obj: Obj) -> str:
        if self._key is not None:
            try:
                found = self._key.text(Parts(Message(body=encoded(event))))
            except (Absent, Poison):
                # Nothing is there: it has an order with itself alone.
                found = ""
            if found:
                return found[:MAX_KEY]
        spec = _dict(obj.get("spec"))
        ordering = _text(spec.get("orderingKey"))
        if self._key is None and ordering:
            return f"{_text(spec.get('queue'))}/{ordering}"[:MAX_KEY]
        return str(obj["metadata"]["uid"])


def key_template(text: str) -> Template:
    """Parse the template of keys. Raises `InvalidKey`."""
    try:
        template = parse(text)
    except TemplateError as error:
        raise InvalidKey(str(error)) from None
    odd = sorted({each.root for each in template.expressions} - {"$"})
    if odd:
        raise InvalidKey(f"{{{odd[0]}}} is nothing that an event has: name a path into it, such as {{$.data.tenant}}")
    return template


def event_of(obj: Obj, most_result_bytes: int) -> dict[str, Any]:
    """Return the event of an ended Task, without its partition key."""
    metadata, spec, status = obj["metadata"], _dict(obj.get("spec")), _dict(obj.get("status"))
    namespace, name, phase = str(metadata["namespace"]), str(metadata["name"]), _text(status.get("phase"))
    data: dict[str, Any] = {
        "namespace": namespace,
        "name": name,
        "uid": str(metadata["uid"]),
        "queue": _text(spec.get("queue")),
        "type": _text(spec.get("type")),
        "tenant": _text(spec.get("tenant")) or namespace,
        "priority": _text(spec.get("priority")) or "Normal",
        "phase": phase,
        "reason": _text(status.get("reason")),
        "message": _text(status.get("message")),
        "attempts": status["attempt"] if type(status.get("attempt")) is int else 0,
        "labels": _labels(metadata),
    }
    for field, value in (
        ("orderingKey", spec.get("orderingKey")),
        ("createdAt", metadata.get("creationTimestamp")),
        ("startedAt", status.get("startedAt")),
        ("finishedAt", status.get("finishedAt")),
    ):
        if isinstance(value, str):
            data[field] = value
    if (result := status.get("result")) is not None:
        if _bounded(result, most_result_bytes):
            data["result"] = result
        else:
            data["resultOmitted"] = True
    if ref := {name: value for name, value in _dict(status.get("resultRef")).items() if name in _REFERENCE}:
        # Who may read the object is the store's business; without results the place is not told either.
        data |= (
            {"resultRef": ref} if _bounded(ref, min(most_result_bytes, _MOST_REFERENCE)) else {"resultOmitted": True}
        )
    if isinstance(spec.get("array"), dict):
        data |= _items(_dict(status.get("array")), most_result_bytes)
    event: dict[str, Any] = {
        "specversion": "1.0",
        "id": end_id(obj),
        "source": f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/tasks/{name}",
        "type": f"{EVENT_TYPE}.{ENDS.get(phase, 'ended')}",
        "subject": name,
        "datacontenttype": "application/json",
        "data": data,
    }
    ended = _text(status.get("finishedAt"))
    if read(ended or None) is not None:
        event["time"] = ended
    return event


def without_result(body: bytes) -> bytes:
    """Return the body of an end without the Task's result, and with a word that it is left out."""
    event = json.loads(body)
    for name in ("result", "results"):
        if name in event["data"]:
            del event["data"][name]
            event["data"]["resultOmitted"] = True
    return encoded(event)


def encoded(value: Any) -> bytes:
    """As JSON, in ASCII: half a character has no bytes in UTF-8. Raises ValueError for a number beyond all bounds."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")


def _items(array: Mapping[str, Any], most_result_bytes: int) -> dict[str, Any]:
    """Return what is told of an array's items: how many, and what they returned."""
    items: dict[str, Any] = {"done": _text(array.get("done"))[:_MOST_DONE]}
    with suppress(ValueError):  # nothing that this project wrote
        items["failed"] = len(IndexSet.parse(_text(array.get("failed"))))
    if type(dropped := array.get("resultsDropped")) is int:
        items["resultsDropped"] = dropped
    data: dict[str, Any] = {"items": items}
    if results := _dict(array.get("results")):
        data |= {"results": results} if _bounded(results, most_result_bytes) else {"resultOmitted": True}
    return data


def _bounded(result: Any, most: int) -> bool:
    try:
        return most > 0 and len(encoded(result)) <= most
    except ValueError:
        return False


def _requirements(selector: LabelSelector | None) -> tuple[Requirement, ...]:
    if selector is None:
        return ()
    exact = (Requirement(key, frozenset((value,)), False) for key, value in selector.match_labels.items())
    further = (
        Requirement(
            each.key,
            frozenset(each.values) if each.operator in ("In", "NotIn") else None,
            each.operator in ("NotIn", "DoesNotExist"),
        )
        for each in selector.match_expressions
    )
    return (*exact, *further)


def _labels(metadata: Mapping[str, Any]) -> dict[str, str]:
    labels = _dict(metadata.get("labels"))
    return {name: value for name, value in labels.items() if isinstance(value, str)}


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
