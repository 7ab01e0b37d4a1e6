"""The archive with the real operator, API server and PostgreSQL, any of them killed at any moment.

Tasks are created as cancelled, so that the operator itself ends them: one write each, and no agents. Their queue keeps
them for no time, so the operator deletes each as soon as the archive's word lets it.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from door_rights import grant
from outages import Outages
from patience import until
from postgres import Postgres
from taskdist.kube import ApiError, KubeError
from taskdist.local.controlplane import free_ports
from taskdist.local.rest import Client
from taskdist.local.stack import OPERATOR_NAMESPACE, Stack

GROUP = "/apis/taskdist.dev/v1alpha1"
TASKS = 2000
CREATORS = 6
# How often each is chosen to be killed.
WEIGHTS = {"archive": 9, "database": 6, "operator": 2, "kube-apiserver": 2}

pytestmark = pytest.mark.timeout(1800)


class Room:
    """One namespace, the parts around it, and what may be done to them."""

    def __init__(self, stack: Stack, postgres: Postgres, namespace: str) -> None:
        self.stack = stack
        self.postgres = postgres
        self.namespace = namespace
        self.client: Client = stack.plane.client
        self.archive: subprocess.Popen[bytes] | None = None
        self.outages = Outages(stack)
        self.outages.add("archive", self.kill_archive, self.start_archive)
        self.outages.add("database", postgres.kill, postgres.start)
        self._kubeconfig = stack.plane.kubeconfig_for(OPERATOR_NAMESPACE, "taskdist-archive")

    def path(self, plural: str) -> str:
        return f"{GROUP}/namespaces/{self.namespace}/{plural}"

    def queue(self, **spec: Any) -> None:
        body = {"apiVersion": "taskdist.dev/v1alpha1", "kind": "TaskQueue", "metadata": {"name": "q"}}
        self.client.create(self.path("taskqueues"), {**body, "spec": {"pools": ["nobody"], **spec}})

    def create(self, number: int) -> None:
        """Create this Task, however long it takes until the API server says that it is there."""
        body = {
            "apiVersion": "taskdist.dev/v1alpha1",
            "kind": "Task",
            "metadata": {"name": f"t{number}", "labels": {"number": str(number)}},
            "spec": {"queue": "q", "type": "none", "cancel": True, "payload": {"number": number, "text": "x" * 200}},
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

    def create_all(self, count: int) -> float:
        """Create so many, and wait until all have ended; how many ended a second."""
        begun = time.monotonic()
        with ThreadPoolExecutor(CREATORS) as pool:
            list(pool.map(self.create, range(count)))
        until(lambda: len(self.tasks("status.phase=Cancelled")) == count, f"{count} Tasks have ended", 120)
        return count / (time.monotonic() - begun)

    def tasks(self, fields: str = "") -> list[Any]:
        found: list[Any] = self.client.get(self.path("tasks"), fieldSelector=fields)["items"]
        return found

    def ask(self, text: str) -> list[Any]:
        with psycopg.connect(self.postgres.dsn, autocommit=True) as connection:
            return connection.execute(text.encode()).fetchall()

    def start_archive(self) -> None:
        metrics, health = free_ports(2)
        env = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ},
            "KUBECONFIG": str(self._kubeconfig),
            "TASKDIST_NAMESPACE": OPERATOR_NAMESPACE,
            "TASKDIST_ARCHIVE_DSN": self.postgres.dsn,
            "TASKDIST_ARCHIVE_METRICS_PORT": str(metrics),
            "TASKDIST_ARCHIVE_HEALTH_PORT": str(health),
            "TASKDIST_ARCHIVE_HOST": "127.0.0.1",
        }
        command = [str(Path(sys.executable).parent / "taskdist"), "archive"]
        self.archive = self.stack.plane.start_process("archive", command, env)

    def kill_archive(self) -> None:
        assert self.archive is not None
        assert self.archive.poll() is None, self.stack.plane.log("archive").read_text()[-3000:]
        self.archive.kill()
        self.archive.wait()


@pytest.fixture(scope="module")
def rights(stack: Stack) -> None:
    """The archive's ServiceAccount, with the rights that the chart gives it and no others."""
    grant(stack, "archive", "archive.dsnSecret.name=db")


@pytest.fixture
def room(stack: Stack, postgres: Postgres, rights: None) -> Iterator[Room]:
    name = f"archive-{secrets.token_hex(4)}"
    stack.plane.client.create("/api/v1/namespaces", {"metadata": {"name": name}})
    room = Room(stack, postgres, name)
    yield room
    if room.archive is not None and room.archive.poll() is None:
        room.archive.kill()
        room.archive.wait()
    stack.plane.client.delete(f"/api/v1/namespaces/{name}")


def test_it_copies_at_least_twice_as_fast_as_tasks_end(room: Room, capsys: pytest.CaptureFixture[str]) -> None:
    room.queue()
    ended = room.create_all(1000)
    room.start_archive()
    mine = f"FROM taskdist.tasks WHERE namespace = '{room.namespace}'"
    until(lambda: _tables(room) and room.ask(f"SELECT count(*) {mine}") == [(1000,)], "all are copied")
    lines = room.stack.plane.log("archive").read_text().splitlines()
    begun = datetime.fromisoformat(json.loads(next(line for line in lines if '"archiving"' in line))["time"])
    copied = 1000 / (datetime.now(UTC) - begun).total_seconds()
    with capsys.disabled():
        print(f"\nended {ended:.0f} Tasks/s, copied {copied:.0f} Tasks/s: {copied / ended:.1f} times as fast")
    assert copied >= 2 * ended


def _tables(room: Room) -> bool:
    return room.ask("SELECT to_regclass('taskdist.tasks') IS NOT NULL") == [(True,)]


@pytest.mark.parametrize("kills", [pytest.param(12, id="some"), pytest.param(100, id="many", marks=pytest.mark.long)])
def test_each_ended_task_is_there_once_whatever_is_killed(
    room: Room, kills: int, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = random.randrange(10**6)
    rng, counts, begun = random.Random(seed), Counter[str](), time.monotonic()
    room.queue(archive=True, archiveBacklog=1_000_000, ttlSecondsAfterFinished=0)
    room.start_archive()
    # What is still to be created is let go in as many parts as there are rounds of killing.
    allowed = threading.Semaphore(0)

    def create(number: int) -> None:
        allowed.acquire()
        room.create(number)

    with ThreadPoolExecutor(CREATORS) as pool:
        creating = [pool.submit(create, number) for number in range(TASKS)]
        try:
            for _ in range(kills):
                allowed.release(TASKS // kills)
                time.sleep(rng.random())
                parts = rng.choices(list(WEIGHTS), list(WEIGHTS.values()), k=rng.choice([1, 1, 1, 2]))
                chosen = [part for part in ("kube-apiserver", "database", "operator", "archive") if part in parts]
                for part in chosen:
                    room.outages.fail(part)
                time.sleep(rng.random() * 0.5)
                for part in chosen:
                    room.outages.mend(part)
                    counts[part] += 1
        finally:
            allowed.release(TASKS)
        for each in creating:
            each.result()
    until(lambda: _quiet(room, room.tasks) == [], f"all are archived and deleted (seed {seed})", 180)
    found = room.ask(f"SELECT name, uid, left_out FROM taskdist.tasks WHERE namespace = '{room.namespace}'")
    names = Counter(name for name, _, _ in found)
    assert names == Counter(f"t{number}" for number in range(TASKS)), f"seed {seed}"
    assert len({uid for _, uid, _ in found}) == TASKS
    assert {left_out for _, _, left_out in found} == {""}
    with capsys.disabled():
        took = time.monotonic() - begun
        print(f"\n{TASKS} Tasks, each there once; killed {dict(counts)} in {took:.0f} s (seed {seed})")


def _quiet(room: Room, ask: Callable[[], list[Any]]) -> list[Any] | None:
    try:
        return ask()
    except (KubeError, OSError):
        return None
