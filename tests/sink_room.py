"""A sink with a real receiver, API server and operator: what the tests of all kinds of receivers have in common.

Tasks are created as cancelled, so that the operator itself ends them, without agents. Their queue keeps them for no
time: the operator deletes each as soon as the sink lets it, so that what the sink has not told is lost if either errs.
"""

from __future__ import annotations

import base64
import os
import random
import secrets
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import pytest

from door_rights import may_read
from etcd_store import History, TaskStore
from outages import Outages
from patience import until
from taskdist.kube import ApiError, KubeError
from taskdist.local.controlplane import free_ports
from taskdist.local.rest import Client
from taskdist.local.stack import OPERATOR_NAMESPACE, Stack

GROUP = "/apis/taskdist.dev/v1alpha1"
# The Secret of a sink that needs one.
SECRET = "login"
KEYS = 20
CREATORS = 6
# How often each is chosen to be killed. A broker takes seconds to come back.
WEIGHTS = {"sinks": 8, "kube-apiserver": 3, "operator": 3, "receiver": 3}
LONG_SECONDS = 86_400


class Target(Protocol):
    """A receiver, and what it took. What it holds for a sink is named after the sink's namespace."""

    def start(self) -> None:
        """Start it, also once more after `kill`, and wait until it answers."""

    def kill(self) -> None:
        """End it as a power cut would."""

    def prepare(self, name: str) -> None:
        """Make what is sent to."""

    def spec(self, name: str) -> dict[str, Any]:
        """Return what the sink's spec says of it."""

    def secret(self) -> dict[str, str]:
        """Return what its Secret holds; nothing where there is none."""

    def taken(self, name: str) -> list[dict[str, Any]]:
        """Return the events that it took, in their order; one that came twice is there twice."""


class Room:
    """A namespace with sinks, and the parts around it."""

    def __init__(self, stack: Stack, target: Target, namespace: str) -> None:
        self.stack = stack
        self.target = target
        self.namespace = namespace
        self.client: Client = stack.plane.client
        self.store = TaskStore(stack.plane, namespace)
        self.sinks: subprocess.Popen[bytes] | None = None
        self.outages = Outages(stack)
        self.outages.add("sinks", self.kill_sinks, self.start_sinks)
        self.outages.add("receiver", target.kill, target.start)
        self._kubeconfig = stack.plane.kubeconfig_for(OPERATOR_NAMESPACE, "taskdist-sinks")

    def path(self, plural: str) -> str:
        return f"{GROUP}/namespaces/{self.namespace}/{plural}"

    def create(self, kind: str, name: str, spec: Any) -> None:
        body = {"apiVersion": "taskdist.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        self.client.create(self.path(f"{kind.lower()}s"), body)

    def make_queue(self, name: str = "q") -> None:
        self.create("TaskQueue", name, {"pools": ["nobody"], "ttlSecondsAfterFinished": 0})

    def make_sink(self, name: str = "s", **spec: Any) -> None:
        """Create a sink, and its Secret if it has one."""
        path = f"/api/v1/namespaces/{self.namespace}/secrets"
        if (secret := self.target.secret()) and not self.client.get(path)["items"]:
            data = {key: base64.b64encode(value.encode()).decode() for key, value in secret.items()}
            self.client.create(path, {"metadata": {"name": SECRET}, "data": data})
        self.create("TaskSink", name, {**self.target.spec(self.namespace), **spec})

    def end(self, number: int, queue: str = "q") -> None:
        """Have this Task end, however long it takes until the API server says that it is there."""
        body = {
            "apiVersion": "taskdist.dev/v1alpha1",
            "kind": "Task",
            "metadata": {"name": f"t{number}"},
            "spec": {"queue": queue, "type": "t", "cancel": True, "orderingKey": str(number % KEYS)},
        }
        client = self.stack.plane.client

        def created() -> bool:
            try:
                client.create(self.path("tasks"), body)
            except ApiError as error:
                return error.is_already_exists
            except (KubeError, OSError):
                return False
            return True

        until(created, f"Task {number} is created", 120)

    def start_sinks(self) -> None:
        metrics, health = free_ports(2)
        env = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ},
            "KUBECONFIG": str(self._kubeconfig),
            "TASKDIST_NAMESPACE": OPERATOR_NAMESPACE,
            "TASKDIST_SINKS_METRICS_PORT": str(metrics),
            "TASKDIST_SINKS_HEALTH_PORT": str(health),
            "TASKDIST_SINKS_HOST": "127.0.0.1",
            "TASKDIST_SINKS_ALLOWED": "127.0.0.1",
        }
        command = [str(Path(sys.executable).parent / "taskdist"), "sinks"]
        self.sinks = self.stack.plane.start_process("sinks", command, env)

    def kill_sinks(self) -> None:
        self.kept()
        assert self.sinks is not None
        self.sinks.kill()
        self.sinks.wait()

    def kept(self) -> bool:
        """Start the process again where it has ended by itself, as a kubelet would: it does so without its Lease."""
        if self.sinks is not None and self.sinks.poll() is not None:
            self.start_sinks()
        return True

    def status(self, name: str = "s") -> dict[str, Any]:
        try:
            found: dict[str, Any] = self.client.get(self.path(f"tasksinks/{name}")).get("status") or {}
        except (KubeError, OSError):
            return {}
        return found

    def reason(self, name: str = "s") -> str:
        conditions = self.status(name).get("conditions", [])
        return next((str(each["reason"]) for each in conditions if each["type"] == "Ready"), "")

    def names(self) -> list[str]:
        """Return the names of the Tasks whose ends were taken, as often as they were."""
        return [str(each["data"]["name"]) for each in self.target.taken(self.namespace)]


@contextmanager
def room(stack: Stack, target: Target) -> Iterator[Room]:
    """Make a namespace of a test's own, in which the process may read the one Secret."""
    name = f"sink-{secrets.token_hex(4)}"
    stack.plane.client.create("/api/v1/namespaces", {"metadata": {"name": name}})
    may_read(stack, "sinks", name, SECRET)
    target.prepare(name)
    made = Room(stack, target, name)
    yield made
    if made.sinks is not None and made.sinks.poll() is None:
        made.sinks.kill()
        made.sinks.wait()
    stack.plane.client.delete(f"/api/v1/namespaces/{name}")


# How many ends, and how many kills.
HISTORIES = pytest.mark.parametrize(
    ("ends", "kills"),
    [pytest.param(1000, 5, id="some"), pytest.param(100_000, 100, id="many", marks=pytest.mark.long)],
)


def each_end_is_told(room: Room, ends: int, kills: int) -> str:
    """Have so many Tasks end while parts are killed so often; see that all is told, in order, and say how it went."""
    ends, kills = int(os.environ.get("TASKDIST_ENDS", ends)), int(os.environ.get("TASKDIST_KILLS", kills))
    seed, begun = random.randrange(10**6), time.monotonic()
    rng, counts = random.Random(seed), Counter[str]()
    room.make_queue()
    room.make_sink(holdSeconds=LONG_SECONDS)
    room.start_sinks()
    # Each part once, then by chance.
    order = rng.sample(list(WEIGHTS), k=len(WEIGHTS))
    order += rng.choices(list(WEIGHTS), list(WEIGHTS.values()), k=kills - len(order))
    share = ends // kills
    with room.store.history() as history, ThreadPoolExecutor(CREATORS) as pool:
        for number, part in enumerate(order):
            numbers = range(number * share, ends if number == kills - 1 else (number + 1) * share)
            ending = [pool.submit(room.end, each) for each in numbers]
            time.sleep(rng.random() * 2)
            room.outages.fail(part)
            time.sleep(rng.random() * 0.5)
            room.outages.mend(part)
            counts[part] += 1
            for each in ending:
                each.result()
        patience = 120 + ends / 50
        until(lambda: room.kept() and len(history.ended) == ends, f"all have ended (seed {seed})", patience)
        # Deleted by the operator, once the sink has said that all is told.
        until(lambda: room.kept() and room.store.count() == 0, f"all are told and deleted (seed {seed})", patience)
    names = room.names()
    assert set(names) == {f"t{number}" for number in range(ends)}, f"seed {seed}"
    assert_in_order(history, names, f"seed {seed}")
    status = room.status()
    assert (status["undelivered"], status["lost"]) == (0, 0), f"seed {seed}"
    took = time.monotonic() - begun
    again = len(names) - ends
    return f"{ends} ends told, {again} of them again; killed {dict(counts)} in {took:.0f} s (seed {seed})"


def assert_in_order(history: History, names: list[str], said: str) -> None:
    """Of one key nothing is told before what ended before it was told."""
    for key in range(KEYS):
        ended = sorted((end.version, name) for name, end in history.ended.items() if int(name[1:]) % KEYS == key)
        first = list(dict.fromkeys(name for name in names if int(name[1:]) % KEYS == key))
        assert first == [name for _, name in ended], f"key {key}, {said}"


def what_a_sink_holds_stays(room: Room) -> None:
    """See that what is not told is deleted when a short hold is over, and before a long one is not."""
    room.make_queue("short")
    room.make_queue("long")
    room.make_sink("short", selector={"queues": ["short"]}, holdSeconds=4)
    room.make_sink("long", selector={"queues": ["long"]}, holdSeconds=LONG_SECONDS)
    room.target.kill()
    with room.store.history() as history:
        room.start_sinks()
        for number in range(10):
            room.end(number, "short" if number % 2 else "long")
        short = [f"t{number}" for number in range(1, 10, 2)]
        until(lambda: sorted(history.deleted) == short, lambda: f"only those are deleted: {history.deleted}")
        for name in short:
            finished = datetime.fromisoformat(history.ended[name].task["status"]["finishedAt"])
            assert history.deleted[name] >= finished.timestamp() + 4, name
        down = ("Retrying", "BrokerUnreachable")  # a receiver, a broker
        until(
            lambda: room.reason("long") in down, lambda: f"the sink says that nobody takes them: {room.status('long')}"
        )
        assert sorted(history.deleted) == short
        room.target.start()
        until(lambda: room.store.count() == 0, "the others are told and deleted")
    assert {f"t{number}" for number in range(0, 10, 2)} <= set(room.names())
