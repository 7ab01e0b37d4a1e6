"""A server that answers from a script, under the real client: what was asked is recorded, nothing is timed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from taskdist.kube import Answer, ApiError, Obj, Request


def make(name: str, version: int | str = 1, *, uid: str = "", namespace: str = "ns", **rest: Any) -> Obj:
    """An object in a state; its uid is its name's unless said otherwise."""
    metadata = {
        "name": name,
        "namespace": namespace,
        "uid": uid or f"uid-{name}",
        "resourceVersion": str(version),
        **rest.pop("metadata", {}),
    }
    return {"apiVersion": "taskdist.dev/v1alpha1", "kind": "Task", "metadata": metadata, **rest}


def ok(obj: Obj) -> Answer:
    return Answer(200, json.dumps(obj).encode())


def listing(version: int, *items: Obj, token: str = "") -> Answer:
    return ok({"metadata": {"resourceVersion": str(version), "continue": token}, "items": list(items)})


def status(code: int, reason: str = "", message: str = "", retry_after: str | None = None, **details: Any) -> Answer:
    body = {"kind": "Status", "code": code, "reason": reason, "message": message, "details": details}
    return Answer(code, json.dumps(body).encode(), retry_after)


GONE = status(410, "Expired", "too old resource version")
NOT_FOUND = status(404, "NotFound", "not found", name="a", kind="tasks")
CONFLICT = status(409, "Conflict", "the object has been modified", name="a", kind="tasks")


@dataclass
class Stream:
    """A watch: these lines, then an orderly end, an error, or (`hang`) silence until it is closed."""

    lines: list[Obj] = field(default_factory=list)
    error: Exception | None = None
    hang: bool = False


def event(kind: str, obj: Obj) -> Obj:
    return {"type": kind, "object": obj}


def bookmark(version: int) -> Obj:
    return event("BOOKMARK", {"metadata": {"resourceVersion": str(version)}})


def streaming(version: int, *items: Obj) -> Stream:
    """A list as a stream."""
    end = {"resourceVersion": str(version), "annotations": {"k8s.io/initial-events-end": "true"}}
    return Stream([*(event("ADDED", item) for item in items), event("BOOKMARK", {"metadata": end})])


Step = Answer | Exception | Stream


class Script:
    """A transport that gives the steps in order. A watch asked for beyond the last step hangs; anything else fails."""

    def __init__(self, *steps: Step) -> None:
        self.steps = list(steps)
        self.asked: list[Request] = []
        self.exhausted = asyncio.Event()

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    def add(self, *steps: Step) -> None:
        self.steps += steps

    async def exchange(self, request: Request) -> Answer:
        self.asked.append(request)
        if not self.steps:
            raise AssertionError(f"nothing scripted for {request.method} {request.path}")
        step = self.steps.pop(0)
        await asyncio.sleep(0)
        if isinstance(step, Exception):
            raise step
        assert isinstance(step, Answer), f"{request.method} {request.path} came where the script has a watch"
        return step

    @asynccontextmanager
    async def stream(self, request: Request, stall: float) -> AsyncIterator[AsyncIterator[bytes]]:
        self.asked.append(request)
        step = self.steps.pop(0) if self.steps else Stream(hang=True)
        if isinstance(step, Exception):
            raise step
        if isinstance(step, Answer):
            raise ApiError.from_answer(step.status, step.body, step.retry_after)
        yield self._lines(step)

    async def _lines(self, stream: Stream) -> AsyncIterator[bytes]:
        for line in stream.lines:
            yield json.dumps(line).encode()
        if stream.error is not None:
            raise stream.error
        if stream.hang:
            self.exhausted.set()
            await asyncio.Event().wait()

    def queries(self) -> list[dict[str, str]]:
        return [{key: value[0] for key, value in parse_qs(request.query).items()} for request in self.asked]

    def bodies(self) -> list[Any]:
        return [json.loads(request.body) for request in self.asked if request.body is not None]
