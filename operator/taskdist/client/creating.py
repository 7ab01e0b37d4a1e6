"""Making a Task once, and saying what looks like a slip of the finger."""

import asyncio
import difflib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from taskdist.client.backend import Backend
from taskdist.client.errors import KeyInUse, QueueFull, full_queue
from taskdist.client.states import phase_of, status_of
from taskdist.common.backoff import Backoff
from taskdist.kube import AGENTPOOLS, TASKQUEUES, TASKS, ApiError, KubeError, Obj, Resource, Unanswered, name_of
from taskdist.protocol.values import same

Warn = Callable[[str], None]
CREATED = "created"
NOTHING_TELLS = 30.0
"""When to ask a full queue again, in seconds: nothing tells a client how fast it empties."""
LOOK_AGAIN = 60.0
"""How long what is known of queues and pools is good enough for warnings, in seconds."""
AGAIN = Backoff(first=0.25, most=2.0)
UNANSWERED_TRIES = 4


async def create(backend: Backend, body: Obj, warn: Warn) -> tuple[Obj, str]:
    """Return the Task, and whether it was made now or was there under its idempotency key.

    Raises KubeError; QueueFull; KeyInUse, where a Task of another key has the name.
    """
    key, unanswered = body["spec"].get("idempotencyKey"), 0
    name = body["metadata"].get("name")
    while True:
        try:
            return await backend.create(TASKS, body), CREATED
        except Unanswered:
            unanswered += 1
            # It may be there. Under a name of its own it is made once, however often it is tried.
            if not name or unanswered >= UNANSWERED_TRIES:
                raise
            await asyncio.sleep(AGAIN.full(unanswered - 1))
            continue
        except ApiError as error:
            if full := full_queue(error):
                words = error.message.partition("denied request: ")[2] or error.message
                raise QueueFull(words, full, error.retry_after or NOTHING_TELLS) from error
            if not (error.is_already_exists and name and (key or unanswered)):
                raise
            refused = error
        try:
            found = await backend.get(TASKS, name)
        except ApiError as error:
            if error.is_not_found:
                continue  # deleted meanwhile: the name is free again
            raise
        spec = found["spec"]
        if not key:
            if is_ours(found, body):
                return found, CREATED
            raise refused
        if (spec["queue"], spec.get("idempotencyKey")) != (body["spec"]["queue"], key):
            raise KeyInUse(
                f"task {name_of(found)} has the name of this idempotency key, and another key: delete it, or choose "
                "another key"
            )
        if not is_ours(found, body):
            warn(f"task {name_of(found)} was submitted with another type or payload, which stand")
        return found, f"exists already ({phase_of(found)})"


def is_ours(found: Obj, body: Obj) -> bool:
    """Whether the Task that is there is the one that was to be made: its type and payload are the same."""
    wanted, spec = body["spec"], found["spec"]
    alike = same(spec.get("payload") or {}, wanted.get("payload") or {}) and _content(spec) == _content(wanted)
    return spec["type"] == wanted["type"] and alike


def _content(spec: Obj) -> tuple[object, object]:
    """Return what tells one payload by reference from another, wherever it stands."""
    ref = spec.get("payloadRef") or {}
    return ref.get("size"), ref.get("sha256")


@dataclass(slots=True)
class Slips:
    """Looks whether what a Task names is there, once for many Tasks. Who may submit need not be allowed to read."""

    backend: Backend
    warn: Warn
    seconds: float = LOOK_AGAIN
    _seen: dict[tuple[str, str], float] = field(default_factory=dict)
    _lists: dict[str, tuple[float, list[Obj]]] = field(default_factory=dict)
    _listing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def look(self, body: Obj) -> None:
        """Warn of each name that is not there. A Task may be made before its queue, pool and parents: no error."""
        spec = body["spec"]
        asked: list[tuple[Resource, str, str]] = [(TASKQUEUES, "queue", spec["queue"])]
        if spec.get("pool"):
            asked.append((AGENTPOOLS, "pool", spec["pool"]))
        for resource, word, name in asked:
            if self.is_new(word, name):
                with _a_favour():
                    await self._missing(resource, word, name)
        for parent in spec.get("dependsOn") or ():
            with _a_favour():
                await self._parent(parent["name"])
        if self.is_new(f"type in {spec['queue']} {spec.get('pool') or ''}", spec["type"]):
            with _a_favour():
                await self._type(spec)

    def is_new(self, word: str, name: str) -> bool:
        now = time.monotonic()
        if now - self._seen.get((word, name), -1e9) < self.seconds:
            return False
        if len(self._seen) > 1000:
            self._seen.clear()
        self._seen[word, name] = now
        return True

    async def _all(self, resource: Resource, fresh: bool = False) -> list[Obj]:
        # Many Tasks are submitted at once: the first lists, the others wait for it.
        async with self._listing:
            now = time.monotonic()
            at, items = self._lists.get(str(resource), (-1e9, []))
            if fresh or now - at > self.seconds:
                items = (await self.backend.list(resource)).items
                self._lists[str(resource)] = (now, items)
            return items

    async def _missing(self, resource: Resource, word: str, name: str) -> None:
        # It may have been made since the last look.
        for fresh in (False, True):
            there = sorted(name_of(each) for each in await self._all(resource, fresh))
            if name in there:
                return
        others = f"; there are: {', '.join(there)}" if there else f", and no other {word} either"
        self.warn(f"there is no {word} {name!r} in namespace {self.backend.namespace}{others}. The Task waits for it.")

    async def _parent(self, name: str) -> None:
        try:
            await self.backend.get(TASKS, name)
        except ApiError as error:
            if not error.is_not_found:
                raise
            # There may be very many Tasks: others are not named.
            self.warn(f"there is no task {name!r} in namespace {self.backend.namespace}. The Task waits for it.")

    async def _type(self, spec: dict[str, Any]) -> None:
        said = ""
        for fresh in (False, True):
            queues, pools = await self._all(TASKQUEUES, fresh), await self._all(AGENTPOOLS, fresh)
            said = unhandled(spec, next((each for each in queues if name_of(each) == spec["queue"]), None), pools)
            if not said:
                return
        self.warn(said)


@contextmanager
def _a_favour() -> Iterator[None]:
    """What goes wrong with a look is nobody's failure, nor that one may not look."""
    with suppress(KubeError):
        yield


def unhandled(spec: dict[str, Any], queue: Obj | None, pools: list[Obj]) -> str:
    """What to say of a type that no agent seems to handle; empty where one does, or nothing tells.

    A pool whose template lists its types handles no others. Of all others it is known what their agents have run: then
    only a name that is nearly one of those is a likely slip.
    """
    wanted = str(spec["type"])
    named = {spec["pool"]} if spec.get("pool") else set((queue or {}).get("spec", {}).get("pools") or ())
    routes = [] if spec.get("pool") else (queue or {}).get("spec", {}).get("routes") or []
    for route in routes:
        for step in route.get("steps") or ():
            named |= set(step.get("pools") or ())
    mine = [each for each in pools if name_of(each) in named]
    listed = [declared_types(each) for each in mine]
    known = {str(each["type"]) for pool in mine for each in status_of(pool).get("performance") or ()}
    known |= {name for types in listed for name in types or ()}
    if not mine or wanted in known:
        return ""
    near = difflib.get_close_matches(wanted, sorted(known), n=1, cutoff=0.75)
    hint = f"; did you mean {near[0]!r}?" if near else f"; they handle: {', '.join(sorted(known))}." if known else "."
    if all(types is not None for types in listed):
        where = f"pool {sorted(named)[0]}" if len(named) == 1 else f"the pools {', '.join(sorted(named))}"
        return f"no agent of {where} handles type {wanted!r}{hint}"
    return f"no agent of queue {spec['queue']} has run a Task of type {wanted!r} yet{hint}" if near else ""


def declared_types(pool: Obj) -> frozenset[str] | None:
    """The types that a pool's template lists (`TASKDIST_TYPES`, or `--types`); None if it lists none: any, then."""
    found: set[str] = set()
    template = pool.get("spec", {}).get("template") or {}
    for container in (template.get("spec") or {}).get("containers") or ():
        for variable in container.get("env") or ():
            if variable.get("name") == "TASKDIST_TYPES":
                found |= _words(str(variable.get("value") or ""))
        words = [str(each) for each in [*(container.get("command") or ()), *(container.get("args") or ())]]
        for index, word in enumerate(words):
            if word == "--types" and index + 1 < len(words):
                found |= _words(words[index + 1])
            elif word.startswith("--types="):
                found |= _words(word.removeprefix("--types="))
    return frozenset(found) or None


def _words(text: str) -> set[str]:
    return {each.strip() for each in text.split(",") if each.strip()}
