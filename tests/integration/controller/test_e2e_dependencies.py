"""Tasks that wait for other Tasks: chains with results, each way in which a parent can fail, duplicates."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from integration.controller.room import Object, Room
from patience import until


def on(*names: str) -> list[Object]:
    return [{"name": name} for name in names]


def why(room: Room, task: str) -> str:
    """The reason why the Task waits, as the command says it."""
    return str(json.loads(room.taskdist("explain", task, "-o", "json"))["reason"])


def block(room: Room, name: str, directory: Path) -> Path:
    """Have a Task run until the returned file exists."""
    file, done = directory / name, directory / f"{name}.done"
    room.task(name, "trace", {"file": str(file), "until": str(done), "polite": True})
    until(file.exists, f"{name} runs")
    return done


def test_a_chain_runs_in_order_and_passes_results_on(apart: Room) -> None:
    apart.task("chain-c", "parents", dependsOn=on("chain-b"))
    apart.task("chain-b", "parents", dependsOn=on("chain-a"))
    until(lambda: why(apart, "chain-b") == "DependencyNotFound", "the parent is reported missing")
    apart.task("chain-a", payload={"lines": 3, "word": "é", "none": None})
    a, b, c = (apart.ended(f"chain-{n}")[0] for n in "abc")
    assert [each["phase"] for each in (a, b, c)] == ["Succeeded"] * 3
    assert a["finishedAt"] <= b["assignedAt"] <= b["finishedAt"] <= c["assignedAt"]
    assert b["result"] == {"chain-a": {"phase": "Succeeded", "result": {"lines": 3, "word": "é", "none": None}}}
    assert c["result"] == {"chain-b": {"phase": "Succeeded", "result": b["result"]}}
    uid = apart.get("tasks", "chain-a")["metadata"]["uid"]
    assert b["dependencies"] == [{"name": "chain-a", "uid": uid, "phase": "Succeeded"}]


def test_a_parent_that_ended_long_ago_is_found_and_large_results_come_by_reference(apart: Room) -> None:
    for name in ("large-a", "large-b"):
        apart.task(name, "large", {"bytes": 40_000})
    apart.task("small")
    apart.ended("large-a", "large-b", "small")
    apart.task("joined", "parents", dependsOn=on("large-a", "large-b", "small"))
    got = apart.ended("joined")[0]
    # The join itself returns what it got, which is within bounds only because one of them is a reference.
    assert got["phase"] == "Succeeded", got
    assert len(got["result"]["large-a"]["result"]["x"]) == 40_000
    assert got["result"]["large-b"]["result"] == {"$ref": "task/large-b"}
    assert got["result"]["small"]["result"] == {}


@pytest.mark.parametrize(
    ("policy", "phase", "reason"),
    [
        ("Fail", "Failed", "DependencyFailed"),
        ("Skip", "Cancelled", "Skipped"),
        ("Run", "Succeeded", "Completed"),
    ],
)
def test_a_parent_fails(apart: Room, policy: str, phase: str, reason: str) -> None:
    name = policy.lower()
    apart.task(f"bad-for-{name}", "fail-permanently")
    apart.task(f"after-{name}", "parents", dependsOn=on(f"bad-for-{name}"), onDependencyFailure=policy)
    apart.task(f"last-{name}", "parents", dependsOn=on(f"after-{name}"), onDependencyFailure=policy)
    status = apart.ended(f"after-{name}")[0]
    assert (status["phase"], status["reason"]) == (phase, reason)
    if policy == "Run":
        assert status["result"][f"bad-for-{name}"]["phase"] == "Failed"
    else:
        assert f"bad-for-{name} (Failed)" in status["message"]
        assert not status.get("attempt")
    assert apart.ended(f"last-{name}")[0]["phase"] == phase


def test_a_parent_that_is_deleted_counts_as_failed(apart: Room) -> None:
    apart.task("doomed", suspend=True)
    apart.task("bereft", dependsOn=on("doomed"))
    until(lambda: apart.status("tasks", "bereft").get("dependencies"), "the parent is pinned")
    assert why(apart, "bereft") == "Dependency"
    apart.delete("tasks", "doomed")
    apart.task("doomed")
    status = apart.ended("bereft")[0]
    assert (status["phase"], status["reason"]) == ("Failed", "DependencyFailed")
    assert "doomed (deleted)" in status["message"], "the pin is not the new one's"


def test_a_cycle_is_named_and_ends_with_one_of_its_members(apart: Room) -> None:
    apart.task("ring-a", dependsOn=on("ring-b"))
    apart.task("ring-b", dependsOn=on("ring-c"))
    apart.task("ring-c", dependsOn=on("ring-a"))
    until(lambda: apart.status("tasks", "ring-a").get("dependencies"), "the last one is pinned")
    told = json.loads(apart.taskdist("explain", "ring-a", "-o", "json"))
    assert told["reason"] == "DependencyCycle"
    assert "ring-a → ring-b → ring-c → ring-a" in told["message"]
    apart.patch("tasks", "ring-b", cancel=True)
    assert [each["reason"] for each in apart.ended("ring-a", "ring-c")] == ["DependencyFailed"] * 2


def test_a_child_lifts_its_parent_before_others(apart: Room, tmp_path: Path) -> None:
    apart.queue("narrow-line", pools=["narrow-line"])
    apart.pool("narrow-line", slots=1, replicas=1, ready=1)
    done = tmp_path / "done"
    apart.task("holder", "trace", {"file": str(tmp_path / "holder"), "until": str(done)}, queue="narrow-line")
    until((tmp_path / "holder").exists, "the only slot is taken")
    apart.task("other", queue="narrow-line", priority="High")
    apart.task("parent", queue="narrow-line", priority="Low")
    apart.task("urgent", queue="narrow-line", priority="Critical", dependsOn=on("parent"))
    until(lambda: apart.status("tasks", "urgent").get("dependencies"), "the parent is pinned")
    done.touch()
    apart.ended("other", "parent", "urgent")
    started = {name: apart.status("tasks", name)["assignedAt"] for name in ("other", "parent", "urgent")}
    assert sorted(started, key=started.__getitem__) == ["parent", "urgent", "other"]


def test_a_change_of_leader_keeps_dependents(apart: Room, tmp_path: Path) -> None:
    done = block(apart, "slow", tmp_path)
    apart.task("patient", "parents", dependsOn=on("slow"))
    until(lambda: apart.status("tasks", "patient").get("dependencies"), "the parent is pinned")
    victim = apart.stack.operators.pop(0)
    victim.process.kill()
    victim.process.wait()
    done.touch()
    apart.stack.start_operator()
    status = apart.ended("patient")[0]
    assert status["phase"] == "Succeeded"
    assert status["result"]["slow"]["phase"] == "Succeeded"


def test_a_duplicate_waits_and_ends_as_the_first(apart: Room, tmp_path: Path) -> None:
    file, done = tmp_path / "beats", tmp_path / "done"
    payload = {"file": str(file), "until": str(done)}
    apart.task("first", "trace", payload, idempotencyKey="order 7")
    until(file.exists, "the first runs")
    apart.task("second", "trace", payload, idempotencyKey="order 7")
    until(lambda: why(apart, "second") == "Duplicate", "the second waits")
    done.touch()
    first, second = apart.ended("first")[0], apart.ended("second")[0]
    assert (second["phase"], second["reason"], second["duplicateOf"]) == ("Succeeded", "Duplicate", "first")
    assert second["result"] == first["result"]
    assert not second.get("attempt")
    apart.delete("tasks", "first")
    apart.task("third", "echo", {"again": 1}, idempotencyKey="order 7")
    assert apart.ended("third")[0]["result"] == {"again": 1}, "the key is free again"


def test_the_command_submits_once(apart: Room) -> None:
    submit = ("submit", "q", "--type", "echo", "--payload", '{"n": 1}', "--idempotency-key", "once")
    assert "created" in apart.taskdist(*submit)
    assert json.loads(apart.taskdist(*submit, "--wait")) == {"n": 1}
    assert "exists already (Succeeded)" in apart.taskdist(*submit)
    keyed = [task for task in apart.items("tasks") if task["spec"].get("idempotencyKey") == "once"]
    assert len(keyed) == 1
    with pytest.raises(subprocess.CalledProcessError):
        apart.taskdist(*submit, "--name", "x")
