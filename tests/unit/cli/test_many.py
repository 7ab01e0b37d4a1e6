"""`submit -f`, `wait` and `watch` on a cluster in memory that runs Tasks."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from agents.of_clients import agent
from memory_cluster import MemoryCluster, MemoryView, Outcome
from memory_cluster import call as called
from taskdist.cli.run import FAILED, OK, TIMED_OUT, USAGE
from taskdist.client.testing import FakeBackend
from taskdist.kube import TASKS


class RunningCluster:
    """The fake as commands want it."""

    def __init__(self, fake: FakeBackend) -> None:
        self.fake = fake
        self.options = ""
        self.view = MemoryView()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.fake, name)

    @asynccontextmanager
    async def __call__(self, target: Any) -> AsyncIterator[RunningCluster]:
        yield self


@pytest.fixture
def fake() -> Iterator[FakeBackend]:
    with FakeBackend("ns") as made:
        made.serve(agent)
        made.queue("work", retry={"limit": 0})
        made.queue("other")
        made.queue("paused", paused=True)
        made.queue("shut", drained=True)
        yield made


def call(fake: FakeBackend, *arguments: str, input: str | None = None) -> Outcome:
    return called(cast(MemoryCluster, RunningCluster(fake)), *arguments, input=input)


def lines(*documents: Any) -> str:
    return "".join((each if isinstance(each, str) else json.dumps(each)) + "\n" for each in documents)


def echo(number: int, **more: Any) -> dict[str, Any]:
    return {"queue": "work", "type": "echo", "payload": {"n": number}, **more}


# --- submit -f ---


def test_each_line_is_a_task(fake: FakeBackend, tmp_path: Path) -> None:
    manifest = {
        "apiVersion": "taskdist.dev/v1alpha1",
        "kind": "Task",
        "metadata": {"name": "b", "labels": {"own": "yes"}},
        "spec": echo(2),
    }
    path = tmp_path / "tasks.jsonl"
    path.write_text(lines(echo(1, name="a", priority="High"), "", manifest, {"payload": {"n": 3}, "name": "c"}))
    outcome = call(fake, "submit", "other", "-t", "bill", "-f", str(path), "--label", "batch=1")
    assert (outcome.code, outcome.out) == (OK, "")
    assert outcome.err.startswith("3 submitted, in ")
    made = {each["metadata"]["name"]: each for each in fake.tasks()}
    assert [(name, made[name]["spec"]["queue"], made[name]["spec"]["type"]) for name in "abc"] == [
        ("a", "work", "echo"),
        ("b", "work", "echo"),
        ("c", "other", "bill"),
    ]
    assert made["a"]["spec"]["priority"] == "High"
    assert made["b"]["metadata"]["labels"] == {"own": "yes", "batch": "1"}


def test_with_wait_a_line_of_json_is_printed_for_each(fake: FakeBackend) -> None:
    given = lines(echo(1, name="a"), {"queue": "work", "type": "refuse", "name": "b"}, echo(3, name="c"))
    outcome = call(fake, "submit", "-f", "-", "--wait", "--timeout", "30s", input=given)
    assert outcome.code == FAILED
    told = sorted((json.loads(line) for line in outcome.out.splitlines()), key=lambda each: each["line"])
    assert told == [
        {"line": 1, "name": "a", "phase": "Succeeded", "result": {"n": 1}},
        {
            "line": 2,
            "name": "b",
            "phase": "Failed",
            "reason": "HandlerError",
            "message": "taskdist.agent.sdk.Permanent: never",
        },
        {"line": 3, "name": "c", "phase": "Succeeded", "result": {"n": 3}},
    ]
    assert "line 2: task b is Failed: HandlerError" in outcome.err
    assert "2 Succeeded, 1 failed, in " in outcome.err


def test_names_come_in_the_order_of_the_lines(fake: FakeBackend) -> None:
    outcome = call(fake, "submit", "-f", "-", "-o", "name", input=lines(*(echo(n, name=f"t{n}") for n in range(50))))
    assert outcome.out.split() == [f"task.taskdist.dev/t{n}" for n in range(50)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        pytest.param("{", "line 2: it is not JSON", id="no-json"),
        pytest.param("[1]", "line 2: it is no JSON object", id="no-object"),
        pytest.param({"type": "echo"}, "line 2: it says no queue", id="no-queue"),
        pytest.param({"queue": "work"}, "line 2: it says no type", id="no-type"),
        pytest.param({"kind": "Pod", "spec": {}}, "line 2: its kind is 'Pod'", id="another-kind"),
        pytest.param(echo(1, slots=0), "spec.slots", id="refused-by-the-api-server"),
        pytest.param(echo(1, slot=1), 'unknown field "spec.slot"', id="a-field-that-is-none"),
        pytest.param(echo(1, payload={"n": 2**70}), "line 2: spec.payload would not reach", id="payload"),
        pytest.param(echo(1, queue="shut"), "line 2: TaskQueue shut takes no new Tasks now", id="a-closed-queue"),
        pytest.param({"metadata": {"namespace": "x"}, "spec": echo(1)}, "it is of namespace x, not ns", id="namespace"),
    ],
)
def test_a_line_that_is_wrong_is_told_and_the_others_are_submitted(fake: FakeBackend, line: Any, said: str) -> None:
    outcome = call(fake, "submit", "-f", "-", input=lines(echo(1), line, echo(3)))
    assert outcome.code == FAILED
    assert said in outcome.err
    assert "2 submitted, 1 failed, in " in outcome.err
    assert len(fake.tasks()) == 2


def test_very_many_wrong_lines_are_counted(fake: FakeBackend) -> None:
    outcome = call(fake, "submit", "-f", "-", input="{\n" * 100)
    assert outcome.err.count("it is not JSON") == 20
    assert "and 80 lines more that failed" in outcome.err


def test_a_key_twice_is_one_task(fake: FakeBackend) -> None:
    outcome = call(fake, "submit", "-f", "-", input=lines(*[echo(1, idempotencyKey="k")] * 3))
    assert outcome.err.startswith("1 submitted, 2 there already, in ") or "2 there already" in outcome.err
    assert len(fake.tasks()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-f", "-", "--priority", "High"], "--priority describes one Task"),
        (["-f", "-", "-o", "json"], "--file prints names"),
        (["-f", "-", "--timeout", "1s"], "add --wait"),
        (["work"], "a Task needs a queue and a type"),
        (["-t", "echo"], "a Task needs a queue and a type"),
    ],
)
def test_what_cannot_be_meant_is_refused(fake: FakeBackend, arguments: list[str], said: str) -> None:
    outcome = call(fake, "submit", *arguments, input="")
    assert outcome.code == USAGE
    assert said in outcome.err


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_told(fake: FakeBackend, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "tasks"
    if content is not None:
        path.write_bytes(content)
    outcome = call(fake, "submit", "-f", str(path))
    assert outcome.code == FAILED
    assert ("cannot read" if content is None else "not UTF-8 text") in outcome.err


def test_an_empty_file_is_no_success(fake: FakeBackend) -> None:
    outcome = call(fake, "submit", "-f", "-", input="")
    assert outcome.code == FAILED
    assert outcome.err.startswith("nothing submitted")


# --- wait ---


def submitted(fake: FakeBackend, *names: str, queue: str = "work", type: str = "echo") -> None:
    given = lines(*({"queue": queue, "type": type, "name": name} for name in names))
    assert call(fake, "submit", "-f", "-", "--label", "batch=1", input=given).code == OK


def test_wait_waits_for_all_of_a_label(fake: FakeBackend) -> None:
    submitted(fake, "a", "b")
    submitted(fake, "c", type="refuse")
    outcome = call(fake, "wait", "-l", "batch=1", "--timeout", "30s")
    assert outcome.code == OK
    assert sorted(outcome.out.splitlines()) == [
        "task a: Succeeded",
        "task b: Succeeded",
        "task c: Failed (HandlerError: taskdist.agent.sdk.Permanent: never)",
    ]
    assert call(fake, "wait", "-l", "batch=1", "--for", "succeeded", "--timeout", "30s").code == FAILED
    assert call(fake, "wait", "a", "task/b", "--for=succeeded", "--timeout", "30s").code == OK


def test_wait_costs_no_request_for_each(fake: FakeBackend) -> None:
    fake.hold()
    submitted(fake, *(f"t{n}" for n in range(60)))
    fake.requests.clear()
    outcome = call(fake, "wait", "-l", "batch=1", "--timeout", "300ms")
    assert outcome.code == TIMED_OUT
    assert "60 of 60 have not ended" in outcome.err
    assert fake.requests == {f"list {TASKS}": 3, f"watch {TASKS}": 1}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["-l", "batch=none"], FAILED, "no Tasks in namespace ns match"),
        (["none"], FAILED, "not found"),
        ([], USAGE, "say which"),
        (["a", "-l", "x=y"], USAGE, "say which"),
    ],
)
def test_wait_says_what_is_not_there(fake: FakeBackend, arguments: list[str], code: int, said: str) -> None:
    outcome = call(fake, "wait", *arguments)
    assert outcome.code == code
    assert said in outcome.err


# --- watch ---


def test_watch_follows_one_task_to_its_end(fake: FakeBackend) -> None:
    submitted(fake, "a")
    outcome = call(fake, "watch", "a")
    assert outcome.code == OK
    assert outcome.out.splitlines()[-1].endswith("  task a: Succeeded")
    submitted(fake, "b", type="refuse")
    outcome = call(fake, "watch", "b")
    assert outcome.code == FAILED
    assert "task b is Failed: HandlerError" in outcome.err


def test_watch_tells_of_progress(fake: FakeBackend) -> None:
    fake.handler("steps")(lambda payload, ctx: ctx.progress(0.5, "half way"))
    fake.hold()
    submitted(fake, "a", type="steps")
    seen = call_while(fake, ["watch", "a"])
    assert any("Assigned on fake-0 (attempt 1), 50% half way" in line for line in seen.out.splitlines())


def call_while(fake: FakeBackend, arguments: list[str]) -> Outcome:
    """Let Tasks go once the command watches."""
    import threading

    def release() -> None:
        while not fake.requests.get(f"watch {TASKS}"):
            done.wait(0.01)
        fake.release()

    done = threading.Event()
    other = threading.Thread(target=release)
    other.start()
    try:
        return call(fake, *arguments)
    finally:
        other.join()


def test_watch_refuses_a_name_beside_a_selector(fake: FakeBackend) -> None:
    assert call(fake, "watch", "a", "-l", "x=y").code == USAGE
