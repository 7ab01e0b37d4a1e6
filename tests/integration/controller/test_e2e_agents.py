"""Agents crash, die and freeze: their work goes to others, never overlaps, and a late word of theirs is refused."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from integration.controller.room import Object, Room, beats, overlaps
from patience import until


@pytest.fixture(scope="module")
def two(shared: Room) -> Room:
    """Queue `pair` and its pool of two agents of one slot each; leases are short."""
    shared.queue("pair", pools=["pair"], leaseSeconds=3, retry={"initialSeconds": 0.1})
    shared.pool("pair", slots=1, replicas=2, ready=2)
    return shared


def start(room: Room, name: str, file: Path, **payload: object) -> Object:
    """Have a Task run; return the pod that runs it."""
    room.ready(2, "pair")
    room.task(name, "trace", {"file": str(file), **{k: str(v) for k, v in payload.items()}}, queue="pair")
    until(lambda: file.exists() and file.read_text().count("\n") > 2, f"{name} runs")
    return room.pod_of(name)


def stalled(file: Path) -> bool:
    """Whether nothing was written for a moment."""
    size = file.stat().st_size
    try:
        until(lambda: file.stat().st_size != size, "", timeout=0.3)
    except AssertionError:
        return True
    return False


def test_a_handler_that_crashes_costs_one_attempt_and_is_told(two: Room) -> None:
    two.task("crashes", "crash-once")
    status = two.ended("crashes")[0]
    assert (status["phase"], status["attempt"], status["failures"]) == ("Succeeded", 2, 1)
    assert status["attempts"][0]["reason"] == "HandlerCrashed"
    note = two.event("Task", "crashes", "HandlerCrashed")
    assert note["type"] == "Warning"
    restarts = [s["restartCount"] for p in two.pods() for s in p["status"]["containerStatuses"]]
    assert set(restarts) == {0}, "the agent itself goes on"


def test_a_handler_that_keeps_failing_exhausts_its_retries(two: Room) -> None:
    two.queue("stern", retry={"initialSeconds": 0.05, "limit": 2})
    two.task("fails", "fail", queue="stern")
    status = two.ended("fails")[0]
    assert (status["phase"], status["reason"], status["failures"]) == ("Failed", "RetriesExhausted", 3)
    assert [a["reason"] for a in status["attempts"]] == ["HandlerError"] * 3
    assert "as asked" in status["message"]


def test_the_task_of_a_killed_agent_goes_to_another_without_overlap(two: Room, tmp_path: Path) -> None:
    file, done = tmp_path / "beats", tmp_path / "done"
    pod = start(two, "orphaned", file, until=done)
    for pid in two.processes(pod):
        os.kill(pid, signal.SIGKILL)
    until(lambda: ("orphaned", 2) in beats(file), "a second attempt runs")
    done.touch()
    status = two.ended("orphaned")[0]
    assert (status["phase"], status["attempt"]) == ("Succeeded", 2)
    assert status["attempts"][0]["reason"] in ("AgentLost", "LeaseExpired")
    assert overlaps(beats(file)) == []


def test_the_task_of_a_deleted_pod_goes_to_another_without_overlap(two: Room, tmp_path: Path) -> None:
    file, done = tmp_path / "beats", tmp_path / "done"
    pod = start(two, "evicted", file, until=done)
    two.delete("pods", pod["metadata"]["name"])
    until(lambda: ("evicted", 2) in beats(file), "a second attempt runs")
    done.touch()
    status = two.ended("evicted")[0]
    assert status["phase"] == "Succeeded"
    assert status["agent"] != pod["metadata"]["name"]
    assert overlaps(beats(file)) == []
    two.ready(2, "pair")


def test_a_frozen_agent_s_work_is_killed_before_another_begins_it(two: Room, tmp_path: Path) -> None:
    file, done = tmp_path / "beats", tmp_path / "done"
    pod = start(two, "frozen", file, until=done)
    supervisor = two.processes(pod)[0]
    os.kill(supervisor, signal.SIGSTOP)
    try:
        until(lambda: ("frozen", 2) in beats(file), "another agent runs it")
        done.touch()
        status = two.ended("frozen")[0]
    finally:
        os.kill(supervisor, signal.SIGCONT)
    assert (status["phase"], status["attempt"]) == ("Succeeded", 2)
    assert status["agent"] != pod["metadata"]["name"]
    assert overlaps(beats(file)) == []
    two.ready(2, "pair")


def test_the_result_of_a_frozen_agent_comes_too_late(two: Room, tmp_path: Path) -> None:
    file, done = tmp_path / "beats", tmp_path / "done"
    pod = start(two, "late", file, until=done)
    supervisor = two.processes(pod)[0]
    os.kill(supervisor, signal.SIGSTOP)
    try:
        done.touch()  # the work ends within its lease, and nobody hears of it
        until(lambda: stalled(file), "the first attempt has ended")
        done.unlink()
        until(lambda: ("late", 2) in beats(file), "another agent runs it")
    finally:
        os.kill(supervisor, signal.SIGCONT)
    two.ready(2, "pair")  # it is back, and has said what it had to say
    assert two.phase("late") == "Assigned", "its word counts no more"
    done.touch()
    status = two.ended("late")[0]
    assert status["result"]["attempt"] == 2
    assert overlaps(beats(file)) == []
    # It kept nothing: it can take work again, and the books are right.
    for i in range(2):
        two.task(f"afterwards-{i}", queue="pair")
    assert {s["phase"] for s in two.ended("afterwards-0", "afterwards-1")} == {"Succeeded"}
