"""The set under review: objects by name, read as the operator reads them, and who may run what.

Owns what rules ask of the set as a whole. Objects that the schema refuses, and Tasks that have ended, count as there
but are judged no further. Refuses to find anything wrong itself.
"""

import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from taskdist.api import AgentPoolSpec, OrderPolicy, Phase, TaskQueueSpec, TaskSinkSpec, TaskSourceSpec, TaskSpec
from taskdist.core.agents import filters
from taskdist.core.fleet.routes import NONE, route_of
from taskdist.core.model import Key, Pool, Queue, Task, Timeouts
from taskdist.core.order import is_emergency
from taskdist.lint import schema
from taskdist.lint.manifests import Manifest, Obj
from taskdist.protocol import convert
from taskdist.protocol.observations import ObservedTask

CAP = "count/tasks.taskdist.dev"
"""The resource by which a ResourceQuota counts Tasks."""


@dataclass(frozen=True, slots=True)
class QueueDoc:
    """A TaskQueue: as it is written, by its model, and as the core knows it."""

    manifest: Manifest
    spec: TaskQueueSpec
    rules: Queue

    @property
    def levelled(self) -> bool:
        """Whether its Tasks' own priorities count."""
        return self.rules.policy is OrderPolicy.PRIORITY


@dataclass(frozen=True, slots=True)
class PoolDoc:
    """An AgentPool, and what an agent of it would offer: what it declares, and what its container's command tells."""

    manifest: Manifest
    spec: AgentPoolSpec
    shape: Pool
    offer: filters.Offer

    @property
    def pod(self) -> Obj:
        return self.spec.template.spec

    @property
    def single(self) -> bool:
        """Whether its agents say that they take single Tasks only: a command, an endpoint, handlers in process."""
        flags, variables = said(agent_container(self.pod))
        return not self.offer.fenced or "--command" in flags or bool(variables.get("TASKDIST_COMMAND"))


@dataclass(frozen=True, slots=True)
class TaskDoc:
    """A Task that has not ended. One that is not in the cluster yet counts as created now.

    `begins` is when it may start at the earliest, in seconds since the Unix epoch.
    """

    manifest: Manifest
    task: Task
    record: ObservedTask
    begins: float

    @property
    def spec(self) -> Obj:
        found: Obj = self.manifest.body["spec"]
        return found

    @property
    def running(self) -> bool:
        return self.record.phase is Phase.ASSIGNED


@dataclass(frozen=True, slots=True)
class SourceDoc:
    """A TaskSource, by its model."""

    manifest: Manifest
    spec: TaskSourceSpec


@dataclass(frozen=True, slots=True)
class SinkDoc:
    """A TaskSink, by its model."""

    manifest: Manifest
    spec: TaskSinkSpec


@dataclass(frozen=True, slots=True)
class Cap:
    """A ResourceQuota that bounds how many Tasks a namespace holds."""

    manifest: Manifest
    most: float


class Setup:
    """All objects of a review. `now` is in seconds since the Unix epoch."""

    def __init__(self, manifests: Sequence[Manifest], now: float, *, whole: bool = False) -> None:
        """`whole` says that all there is is in the set; a set of files may leave out what is applied elsewhere."""
        self.manifests = manifests
        self.now = now
        self.whole = whole
        self.queues: dict[Key, QueueDoc] = {}
        self.pools: dict[Key, PoolDoc] = {}
        self.tasks: dict[Key, TaskDoc] = {}
        self.sources: dict[Key, SourceDoc] = {}
        self.sinks: dict[Key, SinkDoc] = {}
        self.caps: list[Cap] = []
        self.problems: list[tuple[Manifest, schema.Problem]] = []
        self._names: dict[tuple[str, str], set[str]] = defaultdict(set)
        self._by_queue: dict[Key, list[TaskDoc]] = defaultdict(list)
        known = schema.schemas()
        for manifest in manifests:
            self._take(manifest, known)
        for doc in self.tasks.values():
            self._by_queue[doc.task.queue_key].append(doc)

    def names(self, kind: str, namespace: str) -> list[str]:
        """All of a kind that are there, those that cannot be read included."""
        return sorted(self._names.get((kind, namespace), ()))

    def has(self, kind: str, namespace: str, name: str) -> bool:
        """Whether one of this name is there. Of Tasks there may be many: a list of their names would be long."""
        return name in self._names.get((kind, namespace), ())

    def tasks_of(self, queue: Key) -> list[TaskDoc]:
        return self._by_queue.get(queue, [])

    def queue_of(self, task: Task) -> QueueDoc | None:
        return self.queues.get(task.queue_key)

    def pools_of(self, doc: TaskDoc, queue: QueueDoc) -> list[PoolDoc]:
        """The pools whose agents may run the Task, if they are able to."""
        task, namespace = doc.task, doc.task.namespace
        if task.pool is not None:
            names = [task.pool]
        elif is_emergency(queue.rules, task):
            names = self.names("AgentPool", namespace)
        else:
            names = self._way(task, queue)
        return [self.pools[namespace, name] for name in names if (namespace, name) in self.pools]

    def missing_pools(self, doc: TaskDoc, queue: QueueDoc) -> bool:
        """Whether the Task could also run on a pool that is not in the set, or cannot be read."""
        names = [doc.task.pool] if doc.task.pool is not None else self._way(doc.task, queue)
        return any((doc.task.namespace, name) not in self.pools for name in names)

    def queues_using(self, pool: Key) -> list[QueueDoc]:
        return [
            doc for doc in self.queues.values() if doc.rules.namespace == pool[0] and pool[1] in doc.rules.all_pools
        ]

    def _way(self, task: Task, queue: QueueDoc) -> list[str]:
        """The pools of the Task's route, of all its steps, or else of its queue; all, if it names its agent."""
        if task.agent is not None:
            return self.names("AgentPool", task.namespace)
        route = route_of(queue.rules, task)
        return list(queue.rules.pools if route == NONE else queue.rules.routes[route].pools)

    def timeouts(self, doc: TaskDoc) -> Timeouts:
        """The Task's limits of time: its own word, or else its queue's."""
        queue = self.queue_of(doc.task)
        other = queue.rules.timeouts if queue is not None else Timeouts()
        own = doc.record
        return Timeouts(
            other.waiting if doc.task.waiting_limit is None else doc.task.waiting_limit,
            other.execution if own.execution_limit is None else own.execution_limit,
            other.progress if own.progress_limit is None else own.progress_limit,
        )

    def _take(self, manifest: Manifest, known: Mapping[str, schema.Schema]) -> None:
        if manifest.kind == "ResourceQuota" and not manifest.ours:
            most = _cap(manifest.body)
            if most is not None:
                self.caps.append(Cap(manifest, most))
            return
        self._names[manifest.kind, manifest.namespace].add(manifest.name)
        if manifest.kind not in known:
            return
        found = list(schema.problems(known[manifest.kind], manifest.body))
        found += schema.metadata_problems(manifest.body.get("metadata"))
        self.problems += [(manifest, each) for each in found]
        if any(not each.unknown for each in found):
            return
        try:
            self._understand(manifest)
        except ValidationError as error:
            self.problems += [(manifest, _said(each)) for each in error.errors()]
        except ValueError as error:
            self.problems.append((manifest, schema.Problem("spec", str(error), "Write it anew.")))

    def _understand(self, manifest: Manifest) -> None:
        """Read it as the operator does. Raises ValueError for what only the models refuse, such as keys of maps."""
        key = (manifest.namespace, manifest.name)
        while manifest.kind == "Task" and key in self.tasks:
            # Of one generateName there may be many.
            key = (key[0], f"{key[1]}'")
        body = _completed(manifest, "/".join(key))
        match manifest.kind:
            case "TaskQueue":
                self.queues[key] = QueueDoc(manifest, TaskQueueSpec.model_validate(body["spec"]), convert.queue(body))
            case "AgentPool":
                spec = AgentPoolSpec.model_validate(body["spec"])
                pool = convert.pool(body)
                self.pools[key] = PoolDoc(manifest, spec, pool, _offer(pool, spec.template.spec))
            case "TaskSource":
                self.sources[key] = SourceDoc(manifest, TaskSourceSpec.model_validate(body["spec"]))
            case "TaskSink":
                self.sinks[key] = SinkDoc(manifest, TaskSinkSpec.model_validate(body["spec"]))
            case "Task":
                TaskSpec.model_validate(body["spec"])
                record = convert.observed_task(body)
                task = record.task if manifest.live else replace(record.task, created=self.now)
                if record.phase in (Phase.PENDING, Phase.ASSIGNED):
                    self.tasks[key] = TaskDoc(manifest, task, record, max(self.now, task.not_before))


def _completed(manifest: Manifest, uid: str) -> Obj:
    """The object with the metadata that the API server would add; what a file says of it is not so yet."""
    metadata: Obj = {"resourceVersion": "0", **(manifest.body["metadata"] if manifest.live else {})}
    metadata |= {"name": manifest.name, "namespace": manifest.namespace, "uid": uid}
    return {**manifest.body, "metadata": metadata, "spec": _without_nulls(manifest.body["spec"])}


def _without_nulls(value: Any) -> Any:
    """As the API server stores it: null is no value of any field, but inside a payload."""
    if isinstance(value, dict):
        return {
            key: each if key == "payload" else _without_nulls(each) for key, each in value.items() if each is not None
        }
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value


def _said(error: ErrorDetails) -> schema.Problem:
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error["loc"])
    # A Task's spec is read on its own.
    path = path.removeprefix(".")
    found = path if path.startswith(("spec", "metadata")) else f"spec.{path}"
    return schema.Problem(found, error["msg"], "Write what the field takes; see kubectl explain.")


def agent_container(pod: Obj) -> Obj:
    """The container that is the agent: the one of that name, or else the first."""
    containers: list[Obj] = pod["containers"]
    return next((each for each in containers if each.get("name") == convert.AGENT_CONTAINER), containers[0])


def _offer(pool: Pool, pod: Obj) -> filters.Offer:
    flags, variables = said(agent_container(pod))
    unfenced = (
        "--http" in flags
        or "--in-process" in flags
        or bool(variables.get("TASKDIST_HTTP"))
        or variables.get("TASKDIST_IN_PROCESS", "").lower() in ("1", "true", "yes")
    )
    types = flags.get("--types") or variables.get("TASKDIST_TYPES") or ""
    named = frozenset(word.strip() for word in types.split(",") if word.strip())
    # What a ConfigMap or Secret brings is not seen here.
    stores = "TASKDIST_OBJECTS_URL" in variables or bool(agent_container(pod).get("envFrom"))
    return replace(filters.prospective(pool), fenced=not unfenced, types=named or None, objects=stores)


def with_variable(pool: PoolDoc, variable: Obj) -> Obj:
    """Return the change that gives the pool's agents a further variable."""
    container = agent_container(pool.pod)
    env = [*_listed(container, "env"), variable]
    return {"spec": {"template": {"spec": {"containers": [{"name": container.get("name"), "env": env}]}}}}


def said(container: Obj) -> tuple[dict[str, str], dict[str, str]]:
    """Return what the runner is told by the container: flags of `taskdist agent`, and variables."""
    words: list[str] = []
    for each in [*_listed(container, "command"), *_listed(container, "args")]:
        try:
            words += shlex.split(str(each))
        except ValueError:
            words.append(str(each))
    flags: dict[str, str] = {}
    if "agent" in words or "taskdist.agent" in words:
        for number, word in enumerate(words):
            name, equals, value = word.partition("=")
            if name.startswith("--"):
                following = words[number + 1] if number + 1 < len(words) else ""
                flags[name] = value if equals else following
    variables = {
        str(each.get("name")): str(each.get("value", ""))
        for each in _listed(container, "env")
        if isinstance(each, dict)
    }
    return flags, variables


def _listed(container: Obj, name: str) -> Iterable[Any]:
    value = container.get(name)
    return value if isinstance(value, list) else ()


_QUANTITIES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 1024.0, "Mi": 1024.0**2, "Gi": 1024.0**3}


def _cap(body: Obj) -> float | None:
    spec = body.get("spec")
    hard = spec.get("hard") if isinstance(spec, dict) else None
    text = str(hard.get(CAP, "")) if isinstance(hard, dict) else ""
    digits = text.rstrip("kKMGi")
    unit = _QUANTITIES.get(text[len(digits) :])
    return float(digits) * unit if digits.isdecimal() and unit is not None else None
