"""A model of the API server: uids, versions, compare-and-swap, watches, and the rules of the Task's definition.

It keeps what the lease protocol depends on and nothing else. Every state of an object is kept with its time, so that a
list may also be read as a stale cache would show it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from taskdist.api import Phase, Reason
from taskdist.core.cost import Spent
from taskdist.core.model import Parent, Task
from taskdist.protocol import still_held, task_status
from taskdist.protocol.messages import ParentResult
from taskdist.protocol.observations import ObservedPod, ObservedTask, TaskName

TOO_LARGE = b"too large"


@dataclass(slots=True)
class StoredTask:
    uid: str
    name: str
    created: float
    queue: str = "q"
    priority: int = 0
    spec: dict[str, Any] = field(default_factory=dict)  # more fields of the core's Task; parents by name
    twin: str = ""  # its idempotency key
    array: dict[str, Any] = field(default_factory=dict)  # spec.array, for an array
    cancel: bool = False
    suspend: bool = False
    redrive: int = 0
    payload_bytes: int = 2
    version: int = 0
    status: dict[str, Any] = field(default_factory=dict)
    body: bytes | None = None
    deleted: bool = False
    record: ObservedTask | None = None
    last: ObservedTask | None = None  # the record as it stood before its deletion
    past: list[tuple[float, ObservedTask | None]] = field(default_factory=list)


def merged(old: Any, patch: Any) -> Any:
    """Merge as RFC 7386 says."""
    if not isinstance(patch, dict):
        return patch
    new = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            new.pop(key, None)
        else:
            new[key] = merged(new.get(key), value)
    return new


def _seconds(text: str | None) -> float:
    return datetime.fromisoformat(text).timestamp() if text else 0.0


def _parents(names: tuple[str, ...], status: dict[str, Any]) -> tuple[Parent, ...]:
    """What status pins of those that the Task depends on."""
    pins = {each["name"]: each for each in status.get("dependencies") or ()}
    return tuple(
        Parent(name, pin.get("uid", ""), Phase(pin["phase"]) if pin.get("phase") else None)
        for name in names
        for pin in (pins.get(name, {}),)
    )


class Api:
    """Tasks and pods, and who watches them."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._version = 100
        self.tasks: dict[str, StoredTask] = {}
        self.pods: dict[str, ObservedPod] = {}
        self.annotations: dict[str, dict[str, str]] = {}  # by pod
        self.pods_past: dict[str, list[tuple[float, ObservedPod | None]]] = {}
        self.watch: Callable[[str, str, Any], None] = lambda kind, uid, value: None
        self.writes: dict[str, int] = {}

    # --- Tasks ---

    def touch(self, task: StoredTask) -> None:
        self._version += 1
        task.version = self._version
        task.record = None
        record = None if task.deleted else self.record(task)
        task.last = record or task.last
        task.past.append((self._clock(), record))
        self.watch("task", task.uid, record)

    def record(self, task: StoredTask) -> ObservedTask:
        if task.record is None:
            status = task.status
            failures = status.get("failures") or 0
            spec = task.spec
            if "parents" in spec:
                spec = spec | {"parents": _parents(spec["parents"], status)}
            record = ObservedTask(
                task=Task(
                    uid=task.uid,
                    namespace="ns",
                    name=task.name,
                    queue=status.get("spilledTo") or task.queue,
                    type="work",
                    created=task.created,
                    priority=task.priority,
                    suspended=task.suspend,
                    failures=failures,
                    not_before=_seconds(status.get("retryAfter")),
                    deaths=tuple(status.get("lostAgents") or ()),
                    attempted=task_status.attempted(status),
                    spilled=bool(status.get("spilledTo")),
                    **spec,
                ),
                resource_version=task.version,
                phase=Phase(status.get("phase", "Pending")),
                reason=Reason(status["reason"]) if status.get("reason") else None,
                attempt=status.get("attempt", 0),
                epoch=status.get("epoch", 0),
                failures=failures,
                agent_uid=status.get("agentUid") or "",
                agent_name=status.get("agent") or "",
                pool=status.get("pool") or "",
                assigned_at=_seconds(status.get("assignedAt")),
                cancel=task.cancel,
                payload_bytes=task.payload_bytes,
                attempts=tuple(status.get("attempts") or ()),
                dropped_attempts=status.get("droppedAttempts") or 0,
                terms=task_status.terms(status),
                spent=Spent(status.get("cost"), status.get("energyWh")),
                redrive=task.redrive,
                redrives=status.get("redrives") or 0,
                duplicate_of=status.get("duplicateOf") or "",
                idempotency=(task.queue, task.twin) if task.twin else None,
            )
            task.record = task_status.array({"array": task.array or None}, status, record)
        return task.record

    def last_record(self, uid: str) -> ObservedTask:
        """Return the Task as it stands, or stood when it was deleted."""
        record = self.tasks[uid].last
        assert record is not None
        return record

    def results(self, parents: tuple[Parent, ...]) -> tuple[ParentResult, ...]:
        """Return what those that have ended returned."""
        found = []
        for parent in parents:
            task = self.tasks.get(parent.uid)
            there = task is not None and not task.deleted
            body = (task.body or b"") if task is not None and there else b""
            found.append(ParentResult(parent.name, str(parent.phase or ""), body))
        return tuple(found)

    def phase(self, uid: str) -> Phase:
        return Phase(self.tasks[uid].status.get("phase", "Pending"))

    def create(self, task: StoredTask) -> None:
        self.tasks[task.uid] = task
        self.touch(task)

    def delete(self, task: StoredTask) -> None:
        task.deleted = True
        self.touch(task)

    def settled(self) -> bool:
        return all(task.deleted or self.over(task) for task in self.tasks.values())

    def over(self, task: StoredTask) -> bool:
        """Whether it has ended, or is a dead letter that nobody asks anything of, or depends on such a one."""
        phase = self.phase(task.uid)
        asked = task.cancel or task.redrive > task.status.get("redrives", 0)
        if phase.terminal or (phase is Phase.DEAD_LETTERED and not asked):
            return True
        if phase is not Phase.PENDING or task.cancel:
            return False
        return any(self._waits_for_ever(task, name) for name in task.spec.get("parents", ()))

    def _waits_for_ever(self, task: StoredTask, parent: str) -> bool:
        """On a dead letter, on who waits so itself, or on a name whose Task was gone before this one was seen."""
        named = [each for each in self.tasks.values() if each.name == parent]
        pinned = any(pin["name"] == parent for pin in task.status.get("dependencies", ()))
        if all(each.deleted for each in named):
            return bool(named) and not pinned
        return any(not each.deleted and not self.phase(each.uid).terminal and self.over(each) for each in named)

    def write(
        self,
        uid: str,
        version: int,
        status: dict[str, Any],
        body: bytes | None,
        result_of: TaskName | None = None,
    ) -> str:
        """Try a status write. Returns ok, gone, conflict, too large, or the rule that it breaks."""
        task = self.tasks.get(uid)
        if task is None or task.deleted:
            return "gone"
        if task.version != version:
            return "conflict"
        if body is not None and body.endswith(TOO_LARGE):
            return "too large"
        old, new = task.status, dict(task.status)
        for key, value in status.items():
            if value is None:
                new.pop(key, None)
            else:
                new[key] = merged(new.get(key), value) if key == "array" else value
        if any(TOO_LARGE.decode() in text for text in new.get("array", {}).get("results", {}).values()):
            return "too large"
        rule = self._broken_rule(task, old, new)
        if rule:
            return rule
        task.status = new
        if result_of is not None and (original := self.tasks.get(result_of.uid)) is not None and not original.deleted:
            body = original.body
        if body is not None:
            task.body = body
        self.writes[uid] = self.writes.get(uid, 0) + 1
        self.touch(task)
        return "ok"

    def _broken_rule(self, task: StoredTask, old: dict[str, Any], new: dict[str, Any]) -> str:
        before, after = Phase(old.get("phase", "Pending")), Phase(new.get("phase", "Pending"))
        if before.terminal and (before is not after or old != new):
            return "rule: a terminal phase is final"
        if new.get("attempt", 0) < old.get("attempt", 0):
            return "rule: attempt never decreases"
        if new.get("epoch", 0) < old.get("epoch", 0):
            return "rule: epoch never decreases"
        if new.get("redrives", 0) < old.get("redrives", 0):
            return "rule: redrives never decreases"
        if old.get("spilledTo") and new.get("spilledTo") != old["spilledTo"]:
            return "rule: spilledTo is set once"
        if before is Phase.DEAD_LETTERED and after is not before:
            redriven = after is Phase.PENDING and task.redrive > old.get("redrives", 0)
            if not redriven and after is not Phase.CANCELLED:
                return "rule: a dead letter is redriven or cancelled"
        if after is Phase.ASSIGNED:
            if before is not Phase.ASSIGNED and new.get("attempt", 0) <= old.get("attempt", 0):
                return "rule: attempt grows with each assignment"
            same = before is Phase.ASSIGNED and new.get("attempt") == old.get("attempt")
            if same and new.get("agentUid") != old.get("agentUid"):
                return "rule: the agent stays within an attempt"
        return ""

    # --- pods ---

    def put_pod(self, pod: ObservedPod) -> None:
        self.pods[pod.uid] = pod
        self.pods_past.setdefault(pod.uid, []).append((self._clock(), pod))
        self.watch("pod", pod.uid, pod)

    def remove_pod(self, uid: str, *, lost: bool = False) -> None:
        """The pod is no more; `lost`: it is out of sight only, and nothing is known of its agent."""
        if self.pods.pop(uid, None) is not None:
            self.pods_past[uid].append((self._clock(), None))
            self.watch("lost pod" if lost else "pod", uid, None)

    def annotate(self, uid: str, key: str, value: str | None) -> None:
        pod = self.pods.get(uid)
        if pod is None:
            return
        annotations = self.annotations.setdefault(uid, {})
        if value is None:
            annotations.pop(key, None)
        else:
            annotations[key] = value
        self.put_pod(replace(pod, still_held=still_held.read(annotations, "ns", uid, pod.name)))

    # --- lists ---

    def list_tasks(self, at: float) -> list[ObservedTask]:
        """All Tasks as they stood at this time."""
        return [r for task in self.tasks.values() if (r := _as_of(task.past, at)) is not None]

    def list_pods(self, at: float) -> list[ObservedPod]:
        return [r for past in self.pods_past.values() if (r := _as_of(past, at)) is not None]


def _as_of(past: list[tuple[float, Any]], at: float) -> Any:
    value = None
    for since, state in past:
        if since > at:
            break
        value = state
    return value
