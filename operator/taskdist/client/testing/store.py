"""Objects in memory with what an API server does for them: versions, conflicts, selectors, watches from any version.

May be used by several threads and event loops at once.
"""

import asyncio
import pickle
import re
import threading
from bisect import bisect_right
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any, TypeVar
from uuid import uuid4

from taskdist.kube import ApiError, Obj, Page, Resource, WatchEvent

CopiedT = TypeVar("CopiedT")
_Change = tuple[int, str, str, Obj]
"""Version, resource, ADDED/MODIFIED/DELETED, object."""


class Store:
    """Objects of one namespace."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.lock = threading.RLock()
        self._objects: dict[tuple[str, str], Obj] = {}
        self._history: list[_Change] = []
        self._watches: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}
        self._version = 1
        self._oldest = 0

    def get(self, resource: Resource, name: str) -> Obj:
        with self.lock:
            try:
                return _copy(self._objects[str(resource), name])
            except KeyError:
                raise ApiError(404, "NotFound", f'{resource} "{name}" not found', {"name": name}) from None

    def find(self, resource: Resource, name: str) -> Obj | None:
        with self.lock:
            return _copy(self._objects.get((str(resource), name)))

    def peek(self, resource: Resource, name: str) -> Obj | None:
        """The object itself and no copy: to be looked at under the lock, and never changed."""
        return self._objects.get((str(resource), name))

    def page(self, resource: Resource, labels: str = "", fields: str = "", most: int | None = None) -> Page:
        with self.lock:
            found = [
                _copy(obj)
                for (kind, _), obj in self._objects.items()
                if kind == str(resource) and selected(obj, labels, fields)
            ]
            return Page(found[:most], str(self._version))

    def add(self, resource: Resource, body: Obj) -> Obj:
        with self.lock:
            metadata = dict(body["metadata"])
            prefix = metadata.pop("generateName", "")
            name = metadata.get("name") or f"{prefix}{uuid4().hex[:8]}"
            if (str(resource), name) in self._objects:
                raise ApiError(409, "AlreadyExists", f'{resource} "{name}" already exists', {"name": name})
            metadata |= {
                "name": name,
                "namespace": self.namespace,
                "uid": str(uuid4()),
                "creationTimestamp": now(),
            }
            return self._put(resource, {**_copy(body), "metadata": metadata}, "ADDED")

    def merge(self, resource: Resource, name: str, patch: Obj) -> Obj:
        """JSON merge patch; a uid in it is a condition."""
        with self.lock:
            obj = self.get(resource, name)
            wanted = (patch.get("metadata") or {}).get("uid")
            if wanted and wanted != obj["metadata"]["uid"]:
                raise ApiError(409, "Conflict", f'{resource} "{name}": the uid does not match', {"name": name})
            return self._put(resource, merged(obj, patch), "MODIFIED")

    def delete(self, resource: Resource, name: str) -> None:
        with self.lock:
            obj = self.get(resource, name)
            del self._objects[str(resource), name]
            self._note(resource, "DELETED", obj)

    def forget_history(self) -> None:
        """Watches from before now are answered with 410, as by an API server that has moved on; those that are open
        end so, too."""
        with self.lock:
            self._version += 1
            self._history.clear()
            self._oldest = self._version
            self._tell()

    def cut_watches(self) -> None:
        """End all watches that are open, as a connection that is lost."""
        with self.lock:
            cut, self._watches = self._watches, {}
        for changed, loop in cut.items():
            _call(loop, changed)

    @asynccontextmanager
    async def watch(
        self, resource: Resource, version: str, labels: str = "", fields: str = ""
    ) -> AsyncIterator[AsyncIterator[WatchEvent]]:
        changed = asyncio.Event()
        with self.lock:
            self._watches[changed] = asyncio.get_running_loop()
        events = self._events(changed, resource, int(version), labels, fields)
        try:
            yield events
        finally:
            await events.aclose()
            with self.lock:
                self._watches.pop(changed, None)

    async def _events(self, changed: asyncio.Event, resource: Resource, version: int, labels: str, fields: str) -> Any:
        while True:
            changed.clear()
            with self.lock:
                if changed not in self._watches:
                    return
                if version < self._oldest:
                    raise ApiError(410, "Expired", f"too old resource version: {version} ({self._oldest})")
                news = self._history[bisect_right(self._history, version, key=itemgetter(0)) :]
            for number, kind, word, obj in news:
                version = number
                if kind == str(resource) and selected(obj, labels, fields):
                    yield WatchEvent(word, _copy(obj))
            if not news:
                await changed.wait()

    def _put(self, resource: Resource, obj: Obj, word: str) -> Obj:
        self._objects[str(resource), obj["metadata"]["name"]] = obj
        self._note(resource, word, obj)
        return _copy(obj)

    def _note(self, resource: Resource, word: str, obj: Obj) -> None:
        self._version += 1
        obj["metadata"]["resourceVersion"] = str(self._version)
        self._history.append((self._version, str(resource), word, _copy(obj)))
        self._tell()

    def _tell(self) -> None:
        for changed, loop in self._watches.items():
            _call(loop, changed)


def _call(loop: asyncio.AbstractEventLoop, changed: asyncio.Event) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(changed.set)


def _copy(value: CopiedT) -> CopiedT:
    """A copy in depth, several times as fast as `copy.deepcopy`: arrays are large."""
    copied: CopiedT = pickle.loads(pickle.dumps(value, protocol=5))
    return copied


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def merged(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


_SET = re.compile(r"\s*([^\s!=,()]+)\s+(in|notin)\s+\(([^)]*)\)\s*")
_EQUALS = re.compile(r"\s*([^\s!=,()]+)\s*(!=|==|=)\s*([^\s,()]*)\s*")
_EXISTS = re.compile(r"\s*(!?)\s*([^\s!=,()]+)\s*")


def selected(obj: Obj, labels: str, fields: str) -> bool:
    """Whether both selectors, as kubectl writes them, take the object."""
    own = obj["metadata"].get("labels") or {}
    return all(_label_holds(own, each) for each in _parts(labels)) and all(
        _field_holds(obj, each) for each in _parts(fields)
    )


def _parts(selector: str) -> Iterator[str]:
    yield from filter(None, re.split(r",(?![^()]*\))", selector))


def _label_holds(labels: dict[str, str], part: str) -> bool:
    if match := _SET.fullmatch(part):
        values = {each.strip() for each in match[3].split(",")}
        return (labels.get(match[1]) in values) is (match[2] == "in")
    if match := _EQUALS.fullmatch(part):
        return (labels.get(match[1]) == match[3]) is (match[2] != "!=")
    if match := _EXISTS.fullmatch(part):
        return (match[2] in labels) is (not match[1])
    raise ApiError(400, "BadRequest", f"unable to parse requirement: {part!r}")


def _field_holds(obj: Obj, part: str) -> bool:
    match = _EQUALS.fullmatch(part)
    if match is None:
        raise ApiError(400, "BadRequest", f"unable to parse field selector: {part!r}")
    value: Any = obj
    for step in match[1].split("."):
        value = (value or {}).get(step)
    return (str(value or "") == match[3]) is (match[2] != "!=")
