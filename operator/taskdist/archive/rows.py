"""What is kept of an ended Task: pure, from the API's object to the columns of the tables.

Whatever stands in the object becomes a row, as the database takes it: what is malformed is left empty, and a character
that PostgreSQL has none for is replaced. So no Task can keep those after it from being archived.
"""

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from taskdist.api import Phase
from taskdist.kube import Obj, as_object, name_of, namespace_of, uid_of, version_of

ENDED = frozenset((Phase.DEAD_LETTERED, Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED))
"""A dead letter may wait again; its row is replaced when it ends once more."""
_EPOCH = datetime.fromtimestamp(0, UTC)
_LEAST, _MOST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2999, 12, 31, tzinfo=UTC)
_MOST_INT, _MOST_BIG = 2**31 - 1, 2**63 - 1


class Attempt(NamedTuple):
    """A row of `attempts`, in the order of `ATTEMPT_COLUMNS`."""

    uid: str
    attempt: int
    task_ended_at: datetime
    reason: str
    message: str
    agent: str
    started_at: datetime | None
    ended_at: datetime | None


class Columns(NamedTuple):
    """A row of `tasks`, in the order of `TASK_COLUMNS`; JSON as text."""

    uid: str
    version: int
    cluster: str
    namespace: str
    name: str
    queue: str
    tenant: str
    type: str
    pool: str
    agent: str
    phase: str
    reason: str
    message: str
    priority: str
    attempts: int
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime
    queue_ms: int | None
    run_ms: int | None
    labels: str
    spec: str | None
    status: str | None
    result: str | None
    usage: str | None
    verdict: str | None
    left_out: str


TASK_COLUMNS = Columns._fields
ATTEMPT_COLUMNS = Attempt._fields


@dataclass(frozen=True, slots=True)
class Row:
    """One ended Task with all its attempts."""

    task: Columns
    attempts: tuple[Attempt, ...]

    @property
    def key(self) -> tuple[datetime, int]:
        """Which of two states of a Task is the later one: the later end, or else the later version.

        By the end first, as versions begin again where etcd was restored from a backup.
        """
        return self.task.ended_at, self.task.version

    @property
    def size(self) -> int:
        """Bytes that it takes, about."""
        task = self.task
        texts = (task.labels, task.spec, task.status, task.result, task.message)
        return 500 + sum(len(text) for text in texts if text) + sum(200 + len(each.message) for each in self.attempts)

    def bare(self, why: str) -> "Row":
        """Return it without what users and agents wrote, for a database that refuses the whole."""
        task = self.task._replace(
            labels="{}", spec=None, status=None, result=None, message="", left_out=clean(why)[:1000]
        )
        return replace(self, task=task, attempts=tuple(each._replace(message="") for each in self.attempts))


def has_ended(obj: Obj) -> bool:
    """Whether the Task ended, or is a dead letter."""
    status = obj.get("status")
    return isinstance(status, dict) and status.get("phase") in ENDED


def row(obj: Obj, cluster: str = "") -> Row:
    """Return the row of a Task that has ended."""
    spec, status, metadata = as_object(obj.get("spec")), as_object(obj.get("status")), obj["metadata"]
    uid, namespace = uid_of(obj), namespace_of(obj)
    created = _moment(metadata.get("creationTimestamp")) or _EPOCH
    ended = _moment(status.get("finishedAt")) or created
    started = _moment(status.get("startedAt"))
    version = version_of(obj)
    rest = {key: value for key, value in status.items() if key not in ("result", "attempts", "conditions", "lease")}
    return Row(
        Columns(
            uid=clean(uid),
            version=min(int(version), _MOST_BIG) if version.isdecimal() else 0,
            cluster=clean(cluster),
            namespace=clean(namespace),
            name=clean(name_of(obj)),
            queue=_text(spec.get("queue")),
            tenant=_text(spec.get("tenant")) or clean(namespace),
            type=_text(spec.get("type")),
            pool=_text(status.get("pool")),
            agent=_text(status.get("agent")),
            phase=_text(status.get("phase")),
            reason=_text(status.get("reason")),
            message=_text(status.get("message")),
            priority=_text(spec.get("priority")) or "Normal",
            attempts=_whole(status.get("attempt")),
            created_at=created,
            started_at=started,
            ended_at=ended,
            queue_ms=_between(created, started),
            run_ms=_between(started, ended),
            labels=_json(as_object(metadata.get("labels"))) or "{}",
            spec=_json(spec),
            status=_json(rest),
            result=_json(status.get("result")),
            usage=None,
            verdict=None,
            left_out="",
        ),
        tuple(_attempts(clean(uid), ended, status)),
    )


def _attempts(uid: str, ended: datetime, status: dict[str, Any]) -> list[Attempt]:
    """Return those that status lists, and the last one, whose result or end is the Task's own."""
    found: dict[int, Attempt] = {}
    listed = status.get("attempts")
    for each in listed if isinstance(listed, list) else ():
        record = as_object(each)
        number = _whole(record.get("attempt"))
        found[number] = Attempt(
            uid,
            number,
            ended,
            _text(record.get("reason")),
            _text(record.get("message")),
            _text(record.get("agent")),
            _moment(record.get("startedAt")),
            _moment(record.get("endedAt")),
        )
    last = _whole(status.get("attempt"))
    if last and last not in found and status.get("assignedAt"):
        reason, message, agent = (_text(status.get(key)) for key in ("reason", "message", "agent"))
        found[last] = Attempt(uid, last, ended, reason, message, agent, _moment(status.get("startedAt")), ended)
    return [found[number] for number in sorted(found)]


def clean(text: str) -> str:
    """Replace what PostgreSQL's text cannot hold: NUL, and halves of surrogate pairs."""
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _json(value: Any) -> str | None:
    if value is None:
        return None
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=str)
    if "\\u0000" not in text and text.isascii():
        return text
    return json.dumps(_cleaned(value), separators=(",", ":"), ensure_ascii=False, default=str)


def _cleaned(value: Any) -> Any:
    match value:
        case str():
            return clean(value)
        case dict():
            return {clean(str(key)): _cleaned(each) for key, each in value.items()}
        case list():
            return [_cleaned(each) for each in value]
    return value


def _text(value: Any) -> str:
    return clean(value) if isinstance(value, str) else ""


def _whole(value: Any) -> int:
    return min(max(value, 0), _MOST_INT) if type(value) is int else 0


def _moment(value: Any) -> datetime | None:
    """A time of the API; None for one that no calendar has, or of another age."""
    if not isinstance(value, str):
        return None
    try:
        then = datetime.fromisoformat(value.upper())
        then = (then if then.tzinfo else then.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return then if _LEAST <= then <= _MOST else None


def _between(start: datetime | None, end: datetime | None) -> int | None:
    if start is None or end is None:
        return None
    return max(0, round((end - start).total_seconds() * 1000))
