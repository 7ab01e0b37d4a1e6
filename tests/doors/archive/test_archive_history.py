"""`history` and `rerun` on a real PostgreSQL: each filter, each output, and what cannot be answered."""

from __future__ import annotations

import asyncio
import copy
import json
import secrets
from typing import Any

import psycopg
import pytest
import yaml

from memory_cluster import MemoryCluster, Outcome, call
from postgres import Postgres
from taskdist.archive.database import Database
from taskdist.archive.rows import row
from taskdist.kube import TASKS

TASK: dict[str, Any] = {
    "metadata": {"namespace": "ns", "creationTimestamp": "2026-11-01T08:00:00Z"},
    "spec": {"queue": "reports", "type": "analyse", "payload": {"path": "a.py"}},
    "status": {
        "phase": "Succeeded",
        "reason": "Completed",
        "attempt": 1,
        "agent": "p-1",
        "assignedAt": "2026-11-01T08:00:01Z",
        "startedAt": "2026-11-01T08:00:01Z",
        "finishedAt": "2026-11-01T08:00:02Z",
        "cost": 0.5,
        "result": {"lines": 3},
    },
}


def made(uid: str, metadata: dict[str, Any], spec: dict[str, Any], status: dict[str, Any]) -> dict[str, Any]:
    task = copy.deepcopy(TASK)
    task["metadata"] |= {"uid": uid, "name": f"t-{uid}", "resourceVersion": "7", **metadata}
    task["spec"] |= spec
    task["status"] |= status
    return task


FAILED = {
    "phase": "Failed",
    "reason": "RetriesExhausted",
    "message": "boom",
    "attempt": 2,
    "finishedAt": "2026-11-03T00:00:00Z",
    "result": None,
    "attempts": [
        {"attempt": number, "reason": "HandlerError", "message": f"no {number}", "agent": f"p-{number}"}
        for number in (1, 2)
    ],
}
TASKS_THERE = [
    made("a", {"labels": {"batch": "nightly", "zone": "x"}}, {}, {}),
    made("b", {"labels": {"batch": "daily"}}, {"tenant": "blue", "deadline": "2026-11-01T09:00:00Z"}, FAILED),
    made("c", {"namespace": "other"}, {"queue": "mail", "type": "send"}, {"finishedAt": "2026-10-31T23:00:00Z"}),
    made("d", {"name": "t-a"}, {}, {"finishedAt": "2026-11-02T00:00:00Z", "phase": "Cancelled"}),
]


@pytest.fixture(scope="module")
def dsn(postgres: Postgres) -> str:
    async def fill() -> None:
        database = Database(postgres.dsn, "here")
        assert await database.open()
        rows = [row(task) for task in TASKS_THERE]
        bare = row(made("bare", {"namespace": "odd"}, {}, {"finishedAt": "2026-09-01T00:00:00Z"})).bare("refused")
        await database.save([*rows, bare])
        await database.close()

    asyncio.run(fill())
    return postgres.dsn


@pytest.fixture
def ask(dsn: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TASKDIST_ARCHIVE_DSN", dsn)
    return lambda *arguments: call(MemoryCluster(), *arguments)


@pytest.mark.parametrize(
    ("arguments", "uids"),
    [
        pytest.param([], "bdacbare", id="all, the last first"),
        pytest.param(["--limit", "2"], "bd", id="no more than asked"),
        pytest.param(["-n", "ns"], "bda", id="of a namespace"),
        pytest.param(["--queue", "mail"], "c", id="of a queue"),
        pytest.param(["--tenant", "blue"], "b", id="of a tenant"),
        pytest.param(["--tenant", "other"], "c", id="whose tenant is its namespace"),
        pytest.param(["--type", "send"], "c", id="of a type"),
        pytest.param(["--outcome", "failed"], "b", id="that failed"),
        pytest.param(["--outcome", "Failed", "--outcome", "Cancelled"], "bd", id="either"),
        pytest.param(["--since", "2026-11-01T08:00:02Z"], "bda", id="since, that moment included"),
        pytest.param(["--until", "2026-11-01T08:00:02Z"], "cbare", id="until, that moment left out"),
        pytest.param(["-l", "batch=nightly"], "a", id="a label"),
        pytest.param(["-l", "batch"], "ba", id="a label whatever its value"),
        pytest.param(["-l", "!batch"], "dcbare", id="without a label"),
        pytest.param(["-l", "batch in (nightly, x),zone"], "a", id="a set of values, and another"),
        pytest.param(["-l", "batch notin (daily)"], "dacbare", id="none of a set, or none at all"),
        pytest.param(["-l", "batch!=daily", "-n", "ns"], "da", id="not this value"),
        pytest.param(["t-a"], "da", id="of a name, each of them"),
        pytest.param(["c"], "c", id="of a uid"),
    ],
)
def test_each_filter(ask: Any, arguments: list[str], uids: str) -> None:
    done: Outcome = ask("history", *arguments, "-o", "name")
    assert (done.code, done.out.split()) == (0, [*uids.replace("bare", "")] + (["bare"] if "bare" in uids else []))


def test_a_table(ask: Any) -> None:
    lines = ask("history", "-n", "ns", "--limit", "2").out.splitlines()
    assert lines[0].split() == [
        *("NAMESPACE", "NAME", "QUEUE", "TYPE", "OUTCOME", "REASON", "ATTEMPTS", "QUEUED", "RAN", "ENDED"),
    ]
    told = ("ns", "t-b", "reports", "analyse", "Failed", "RetriesExhausted", "2", "1s", "39h")
    assert tuple(lines[1].split()[: len(told)]) == told
    wide = ask("history", "-n", "ns", "-o", "wide").out.splitlines()
    assert "UID" in wide[0]
    assert wide[1].split()[10] == "b"
    assert "there may be more: these are the last 2" in ask("history", "--limit", "2").err
    assert "no Task of the archive matches" in ask("history", "-n", "nowhere").err


def test_one_alone_is_told_with_its_attempts(ask: Any) -> None:
    out = ask("history", "b").out
    for words in ("ns/t-b", "Failed", "boom", "batch=daily", "blue", "no 1", "no 2", "HandlerError"):
        assert words in out
    assert '"lines": 3' in ask("history", "a").out


def test_whole_objects(ask: Any) -> None:
    found = json.loads(ask("history", "b", "-o", "json").out)
    assert (found["kind"], found["metadata"]["uid"], found["metadata"]["labels"]) == ("Task", "b", {"batch": "daily"})
    assert [each["message"] for each in found["status"]["attempts"]] == ["no 1", "no 2"]
    listed = yaml.safe_load(ask("history", "-n", "ns", "-o", "yaml").out)
    assert [each["metadata"]["uid"] for each in listed["items"]] == ["b", "d", "a"]
    first = listed["items"][2]
    assert first["spec"] == TASK["spec"]
    assert (first["status"]["result"], first["status"]["cost"]) == ({"lines": 3}, 0.5)
    assert first["status"]["attempts"][0]["endedAt"] == "2026-11-01T08:00:02Z"


def test_what_is_not_there_is_said(ask: Any) -> None:
    done = ask("history", "a", "zz", "-o", "name")
    assert (done.code, done.out.split()) == (1, ["a"])
    assert "the archive has no Task zz" in done.err
    assert "the archive has no Task zz" in ask("rerun", "zz").err


def test_rerun_creates_it_again_with_changes(dsn: str) -> None:
    cluster = MemoryCluster()
    done = call(cluster, "rerun", "b", "--set", "payload.path=b.py", "--priority", "High", "--dsn", dsn)
    assert (done.code, done.out) == (0, "task.taskdist.dev/t-b-x7k2p created\n")
    assert "left out, as meant for the first run: deadline" in done.err
    (made_again,) = [obj for (kind, _, _), obj in cluster.objects.items() if kind == str(TASKS)]
    assert made_again["spec"] == {
        **TASK["spec"],
        "payload": {"path": "b.py"},
        "tenant": "blue",
        "priority": "High",
    }
    assert made_again["metadata"]["labels"] == {"batch": "daily", "taskdist.dev/rerun-of": "b"}
    assert cluster.targets[0].namespace == "ns", "where the first one was"


def test_rerun_takes_the_last_of_a_name_and_can_be_looked_at_first(ask: Any, dsn: str) -> None:
    body = yaml.safe_load(ask("rerun", "t-a", "--dry-run").out)
    assert body["metadata"]["labels"] == {"taskdist.dev/rerun-of": "d"}
    assert "is not kept: refused" in ask("rerun", "bare").err


def test_a_database_that_gives_no_answer_is_said(postgres: Postgres) -> None:
    name = f"t{secrets.token_hex(4)}"
    with psycopg.connect(postgres.dsn, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
    empty = call(MemoryCluster(), "history", "--dsn", postgres.dsn.replace("/postgres", f"/{name}"))
    assert (empty.code, "none was ever started on it" in empty.err) == (1, True)
    away = call(MemoryCluster(), "history", "--dsn", "postgresql://tester:secret@127.0.0.1:1/x")
    assert away.code == 1
    assert "the archive's database gives no answer" in away.err
    assert "secret" not in away.err
