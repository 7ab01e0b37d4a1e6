"""For the command's tests: a cluster in memory, a script of what watches will see, and how the command is called."""

import asyncio
import copy
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from typer.testing import CliRunner

from taskdist.api.meta import Model
from taskdist.api.view import Explanation, TaskRow
from taskdist.cli.cluster import Target
from taskdist.cli.main import build
from taskdist.client.errors import NoAnswer
from taskdist.client.questions import AnswerT, Question
from taskdist.kube import TASKS, ApiError, Obj, Page, Resource, WatchEvent

Step = WatchEvent | Exception


def not_found(resource: Resource, name: str) -> ApiError:
    return ApiError(404, "NotFound", f'{resource} "{name}" not found', {"name": name})


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


class MemoryView:
    """The view of a leader that says what it is told to."""

    lease = "taskdist-system/taskdist"

    def __init__(self) -> None:
        self.explanations: dict[str, Explanation] = {}
        """By Task; others are not answered."""
        self.answers: dict[str, Model] = {}
        """By path."""
        self.asked: list[Question[Any]] = []
        self.rows: list[TaskRow | Exception] | None = None
        """What a stream tells before it hangs; None: nobody is reached."""
        self.told = asyncio.Event()
        """Set once all was told, the stream has broken, or nobody was reached."""
        self.first = False
        """Whether what watches see happens only then."""

    async def ask(self, question: Question[AnswerT]) -> AnswerT:
        self.asked.append(question)
        await asyncio.sleep(0)
        *_, name, what = question.path.partition("?")[0].split("/")
        told = self.explanations.get(name) if what == "explain" else self.answers.get(question.path)
        if told is None:
            raise NoAnswer("the leader cannot be asked: there is none here")
        # As over the wire.
        return question.read(told.model_dump_json(by_alias=True, exclude_none=True).encode())

    @asynccontextmanager
    async def progress(self, namespace: str, name: str) -> AsyncIterator[AsyncIterator[TaskRow]]:
        if self.rows is None:
            self.told.set()
            raise NoAnswer("the leader cannot be asked: there is none here")
        yield self._tell()

    async def _tell(self) -> AsyncIterator[TaskRow]:
        for row in self.rows or ():
            if isinstance(row, Exception):
                self.told.set()
                raise row
            yield row
        self.told.set()
        await asyncio.Event().wait()


class MemoryCluster:
    """Also its own connector: `cluster(target)` opens it and notes the target."""

    def __init__(self, namespace: str = "ns") -> None:
        self.namespace = namespace
        self.options = ""
        self.view = MemoryView()
        self.objects: dict[tuple[str, str, str], Obj] = {}
        self.watches: list[list[Step]] = []
        """What each watch in turn sees; a list that ends lets the watch end, and none left lets it hang."""
        self.logs: dict[str, list[str] | Exception] = {}
        self.errors: dict[str, Exception] = {}
        """By verb: what the next call of it raises."""
        self.targets: list[Target] = []
        self.calls: list[str] = []
        self._version = 0

    @asynccontextmanager
    async def __call__(self, target: Target) -> AsyncIterator["MemoryCluster"]:
        self.targets.append(target)
        self._raise("connect")
        self.namespace = target.namespace or self.namespace
        self.options = target.options
        yield self

    def add(self, resource: Resource, obj: Obj) -> Obj:
        """Put an object in, with the metadata that a server would add."""
        self._version += 1
        metadata = {
            "namespace": self.namespace,
            "uid": f"uid-{obj['metadata']['name']}",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "managedFields": [{"manager": "test"}],
        } | obj["metadata"]
        metadata["resourceVersion"] = str(self._version)
        stored = {**obj, "metadata": metadata}
        self.objects[(str(resource), metadata["namespace"], metadata["name"])] = stored
        return stored

    def task(self, name: str, status: dict[str, Any] | None = None, **spec: Any) -> Obj:
        body: Obj = {"metadata": {"name": name}, "spec": {"queue": "q", "type": "t", **spec}}
        return self.add(TASKS, body | {"status": {"phase": "Pending", **(status or {})}})

    def seen(self, name: str, status: dict[str, Any], type: str = "MODIFIED") -> WatchEvent:
        """The Task as a watch would show it with this status."""
        obj = copy.deepcopy(self.objects[(str(TASKS), self.namespace, name)])
        return WatchEvent(type, obj | {"status": obj["status"] | status})

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Obj:
        # Leases lie elsewhere, and other rights may be needed for them.
        self._raise(f"get {resource}" if namespace else "get")
        try:
            return copy.deepcopy(self.objects[(str(resource), namespace or self.namespace, name)])
        except KeyError:
            raise not_found(resource, name) from None

    async def list(
        self,
        resource: Resource,
        *,
        everywhere: bool = False,
        labels: str = "",
        fields: str = "",
        most: int | None = None,
    ) -> Page:
        self._raise("list")
        self._raise(f"list {resource}")
        found = [
            copy.deepcopy(obj)
            for (kind, namespace, _), obj in self.objects.items()
            if kind == str(resource) and (everywhere or namespace == self.namespace)
        ]
        for condition in filter(None, fields.split(",")):
            path, value = condition.split("=")
            found = [obj for obj in found if self._field(obj, path) == value]
        if labels:
            key, equals, value = labels.partition("=")
            has = [(obj, obj["metadata"].get("labels", {})) for obj in found]
            found = [obj for obj, of in has if key in of and (not equals or of[key] == value)]
        return Page(found[:most], str(self._version))

    async def pages(self, resource: Resource, *, labels: str = "", fields: str = "") -> AsyncIterator[Page]:
        page = await self.list(resource, labels=labels, fields=fields)
        for start in range(0, len(page.items), 2):
            yield Page(page.items[start : start + 2], page.resource_version)

    async def create(self, resource: Resource, body: Obj) -> Obj:
        self._raise("create")
        metadata = dict(body["metadata"])
        if "generateName" in metadata:
            metadata["name"] = f"{metadata['generateName']}x7k2p"
        if (str(resource), self.namespace, metadata["name"]) in self.objects:
            raise ApiError(409, "AlreadyExists", f'{resource} "{metadata["name"]}" already exists')
        body = {**body, "metadata": metadata}
        return copy.deepcopy(self.add(resource, body | {"status": {"phase": "Pending"}} if resource == TASKS else body))

    async def patch(self, resource: Resource, name: str, body: Obj) -> Obj:
        self._raise("patch")
        obj = await self.get(resource, name)
        if body.get("metadata", {}).get("uid", obj["metadata"]["uid"]) != obj["metadata"]["uid"]:
            raise ApiError(409, "Conflict", "the uid does not match")
        self.calls.append(f"patch {name} {body}")
        return self.add(resource, merge(obj, body))

    @asynccontextmanager
    async def watch(
        self, resource: Resource, version: str, *, everywhere: bool = False, labels: str = "", fields: str = ""
    ) -> AsyncIterator[AsyncIterator[WatchEvent]]:
        self._raise("watch")
        yield self._events(self.watches.pop(0) if self.watches else None)

    @asynccontextmanager
    async def log(self, pod: str, container: str, *, follow: bool = False) -> AsyncIterator[AsyncIterator[bytes]]:
        self.calls.append(f"log {pod}/{container}{' -f' if follow else ''}")
        lines = self.logs[pod]
        if isinstance(lines, Exception):
            raise lines

        async def each() -> AsyncIterator[bytes]:
            for line in lines:
                yield line.encode()

        yield each()

    async def _events(self, steps: Sequence[Step] | None) -> AsyncIterator[WatchEvent]:
        if self.view.first:
            await self.view.told.wait()
        for step in steps or ():
            if isinstance(step, Exception):
                raise step
            if step.type != "BOOKMARK":
                metadata = step.object["metadata"]
                key = (str(TASKS), metadata["namespace"], metadata["name"])
                if step.type == "DELETED":
                    self.objects.pop(key, None)
                else:
                    self.objects[key] = step.object
            yield step
        if steps is None:
            await asyncio.Event().wait()

    def _raise(self, verb: str) -> None:
        error = self.errors.pop(verb, None)
        if error is not None:
            raise error

    @staticmethod
    def _field(obj: Obj, path: str) -> str:
        value: Any = obj
        for part in path.split("."):
            value = (value or {}).get(part)
        return "" if value is None else str(value)


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


def call(cluster: MemoryCluster, *arguments: str, input: str | None = None, program: str = "taskdist") -> Outcome:
    app = build(program)
    result = CliRunner(env={"NO_COLOR": "1"}).invoke(
        app, list(arguments), obj=cluster, prog_name=program, input=input, catch_exceptions=False
    )
    return Outcome(result.exit_code, result.stdout, result.stderr)


SUCCEEDED = {"phase": "Succeeded", "reason": "Completed", "result": {"lines": 3}, "attempt": 1}
FAILED_STATUS = {
    "phase": "Failed",
    "reason": "RetriesExhausted",
    "message": "failed 2 times",
    "attempt": 2,
    "attempts": [{"attempt": 1, "agent": "p-0", "reason": "HandlerError", "message": "boom"}],
}
ASSIGNED = {"phase": "Assigned", "reason": "Assigned", "agent": "p-0", "pool": "p", "attempt": 1}
