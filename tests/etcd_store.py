"""The store behind the API server, asked directly: it is told nothing, and knows what happened in which order."""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from patience import until
from taskdist.local.certificates import LocalAuthority
from taskdist.local.controlplane import ControlPlane

ENDS = ("Succeeded", "Failed", "Cancelled", "DeadLettered")


class Ended(NamedTuple):
    """A Task's end: the version that was written, and the Task as it was then."""

    version: int
    task: dict[str, Any]


@dataclass
class History:
    """The Tasks of a namespace that have ended, in that order, and when each was seen to be gone (wall clock)."""

    ended: dict[str, Ended] = field(default_factory=dict)
    deleted: dict[str, float] = field(default_factory=dict)
    begun: threading.Event = field(default_factory=threading.Event)

    def take(self, result: dict[str, Any]) -> None:
        """Take in what the store tells: at first that it does, then changes."""
        for event in result.get("events", ()):
            name = base64.b64decode(event["kv"]["key"]).decode().rpartition("/")[2]
            if event.get("type") == "DELETE":
                self.deleted[name] = time.time()
                continue
            task = json.loads(base64.b64decode(event["kv"]["value"]))
            if name not in self.ended and task.get("status", {}).get("phase") in ENDS:
                self.ended[name] = Ended(int(event["kv"]["mod_revision"]), task)
        self.begun.set()


class TaskStore:
    """Tasks of one namespace."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        arguments = plane.processes["etcd"].args
        assert isinstance(arguments, list)
        self._url = next(
            str(each).partition("=")[2] for each in arguments if str(each).startswith("--listen-client-urls")
        )
        authority = LocalAuthority(plane.directory / "pki" / "etcd")
        pair = authority.client("test")
        self._context = ssl.create_default_context(cafile=str(authority.certificate))
        self._context.load_cert_chain(pair.certificate, pair.key)
        first = f"/registry/taskdist.dev/tasks/{namespace}/".encode()
        last = first[:-1] + bytes([first[-1] + 1])
        self._keys = {"key": base64.b64encode(first).decode(), "range_end": base64.b64encode(last).decode()}

    def count(self) -> int:
        """Count the Tasks, at no cost for the API server."""
        return int(self._range(count_only=True).get("count", 0))

    def created(self) -> list[str]:
        """Return the names of the Tasks in the order in which they were created."""
        answer = self._range(keys_only=True, sort_target="CREATE", sort_order="ASCEND")
        return [base64.b64decode(each["key"]).decode().rpartition("/")[2] for each in answer["kvs"]]

    @contextmanager
    def history(self) -> Iterator[History]:
        """Follow the Tasks from now on; the store is the one part that no test kills."""
        history = History()
        body = json.dumps({"create_request": self._keys}).encode()

        def follow() -> None:
            # Without a time limit: one that strikes ends the stream. It ends with the store.
            with urllib.request.urlopen(f"{self._url}/v3/watch", body, context=self._context) as stream:
                for line in stream:
                    history.take(json.loads(line)["result"])

        threading.Thread(target=follow, name="history", daemon=True).start()
        until(history.begun.is_set, "the store is followed")
        yield history

    def _range(self, **how: Any) -> Any:
        body = json.dumps({**self._keys, **how}).encode()
        with urllib.request.urlopen(f"{self._url}/v3/kv/range", body, 60, context=self._context) as answer:
            return json.load(answer)
