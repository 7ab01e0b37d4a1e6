"""How Tasks that fail go on and end: retries, dead letters and redrives, deaths of agents, limits of an attempt."""

from __future__ import annotations

import os
import signal
from datetime import datetime
from functools import partial
from pathlib import Path

import pytest

from integration.controller.room import Object, Room, beats, overlaps
from patience import until


def when(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def dead(room: Room, name: str) -> Object:
    return room.in_phase(name, "DeadLettered")


@pytest.fixture(scope="module")
def letters(apart: Room) -> Room:
    """Queue `letters`: one retry, then a dead letter."""
    apart.queue("letters", retry={"initialSeconds": 0.4, "jitter": 0.5, "limit": 1, "onExhausted": "DeadLetter"})
    return apart


def test_retries_are_spread_then_a_dead_letter_is_kept_redriven_and_succeeds(letters: Room, tmp_path: Path) -> None:
    file = tmp_path / "missing"
    letters.task("tried", "fail-without", {"file": str(file)}, queue="letters")
    status = dead(letters, "tried")
    assert (status["reason"], status["failures"]) == ("RetriesExhausted", 2)
    assert "misses its file" in status["message"]
    history = status["attempts"]
    assert [(each["attempt"], each["reason"]) for each in history] == [(1, "HandlerError"), (2, "HandlerError")]
    assert [each["message"] for each in history] == [f"FileNotFoundError: attempt {n} misses its file" for n in (1, 2)]
    for each in history:
        assert each["agent"]
        assert when(each["startedAt"]) <= when(each["endedAt"])
    gap = when(history[1]["startedAt"]) - when(history[0]["endedAt"])
    assert gap >= 0.2, "back-off of 0.4 s, at most half of it taken off"

    letters.kubectl("wait", "--for=condition=DeadLettered", "tasks.taskdist.dev/tried", "--timeout=10s")
    assert {c["type"] for c in status["conditions"]} == {"DeadLettered"}
    note = letters.event("Task", "tried", "DeadLettered")
    assert "spec.redrive" in note["note"]

    file.touch()
    letters.kubectl("patch", "tasks.taskdist.dev/tried", "--type=merge", "-p", '{"spec":{"redrive":1}}')
    status = letters.ended("tried")[0]
    assert (status["phase"], status["attempt"], status["redrives"]) == ("Succeeded", 3, 1)
    assert (status["failures"], status["result"]) == (0, {"attempt": 3})
    assert [each["attempt"] for each in status["attempts"]] == [1, 2], "the history stays"
    assert {c["type"]: c["status"] for c in status["conditions"]} == {
        "Complete": "True",
        "Failed": "False",
        "DeadLettered": "False",
    }
    assert status["startedAt"] <= status["finishedAt"]


@pytest.mark.parametrize("dispatch", ["Strict", "Lazy"])
def test_status_tells_what_all_attempts_have_cost(apart: Room, tmp_path: Path, dispatch: str) -> None:
    """A pool of two slots that costs 1 a second, and takes 2 Wh: a Task of one slot half of that."""
    name = f"priced-{dispatch.lower()}"
    apart.pool(name, slots=2, replicas=1, ready=1, costPerHour=3600, wattsBusy=7200)
    apart.queue(name, pools=[name], dispatch=dispatch, retry={"initialSeconds": 3, "jitter": 0})
    file = tmp_path / "missing"
    apart.task(name, "fail-without", {"file": str(file)}, queue=name)
    status = until(lambda: (s := apart.status("tasks", name)).get("failures") and s, "its first attempt has failed")
    assert (status["phase"], "route" in status) == ("Pending", False)
    failed = status["attempts"][0]
    ran = when(failed["endedAt"]) - when(failed["startedAt"])
    first = status["cost"]
    created = when(apart.get("tasks", name)["metadata"]["creationTimestamp"])
    assert ran / 2 <= first * 1.0001
    assert first <= (when(failed["endedAt"]) - created) / 2
    file.touch()
    status = apart.ended(name)[0]
    held = when(status["finishedAt"]) - when(status["assignedAt"])
    assert (status["phase"], status["attempt"]) == ("Succeeded", 2)
    assert status["cost"] == pytest.approx(first + held / 2, rel=1e-3)
    assert status["energyWh"] == pytest.approx(2 * status["cost"], rel=1e-4)
    assert f"Cost: {status['cost']:g}" in " ".join(apart.taskdist("explain", name).split())
    wide = apart.kubectl("get", f"tasks.taskdist.dev/{name}", "-o", "wide")
    assert "COST" in wide
    assert f"{status['cost']:g}" in wide
    apart.delete("agentpools", name)


def test_a_dead_letter_holds_nothing_and_is_redriven_as_often_as_asked(letters: Room, tmp_path: Path) -> None:
    letters.task("again", "fail-without", {"file": str(tmp_path / "never")}, queue="letters")
    assert dead(letters, "again")["attempt"] == 2
    until(lambda: not letters.status("taskqueues", "letters").get("leased"), "nothing is leased")
    letters.patch("tasks", "again", redrive=2)
    status = until(
        lambda: (s := letters.status("tasks", "again"))["phase"] == "DeadLettered" and s.get("redrives") == 2 and s,
        "it is a dead letter again",
    )
    assert (status["attempt"], status["failures"], len(status["attempts"])) == (4, 2, 4), "once, up to the number asked"


def test_a_dead_letter_can_be_cancelled_and_deleted(letters: Room) -> None:
    for name in ("cancelled-letter", "deleted-letter"):
        letters.task(name, "fail-permanently", queue="letters")
    status = dead(letters, "cancelled-letter")
    assert (status["reason"], status["attempt"]) == ("HandlerError", 1)
    letters.patch("tasks", "cancelled-letter", cancel=True)
    status = letters.ended("cancelled-letter")[0]
    assert (status["phase"], status["reason"]) == ("Cancelled", "Cancelled")
    dead(letters, "deleted-letter")
    letters.delete("tasks", "deleted-letter")
    letters.task("after-the-letters", queue="letters")
    assert letters.ended("after-the-letters")[0]["phase"] == "Succeeded"


def test_reasons_that_are_not_named_are_not_tried_again(apart: Room) -> None:
    apart.queue("choosy", retry={"initialSeconds": 0.05, "reasons": ["HandlerCrashed"]})
    apart.task("crashes-once", "crash-once", queue="choosy")
    apart.task("raises", "fail", queue="choosy")
    crashed, raised = apart.ended("crashes-once")[0], apart.ended("raises")[0]
    assert (crashed["phase"], crashed["failures"]) == ("Succeeded", 1)
    assert (raised["phase"], raised["reason"], raised["attempt"]) == ("Failed", "HandlerError", 1)
    assert "retry.reasons" in raised["message"]


def test_a_task_that_agents_die_of_is_poisoned(room: Room, tmp_path: Path) -> None:
    retry = {"initialSeconds": 0.1, "limit": 0, "agentDeaths": 2, "onExhausted": "DeadLetter"}
    room.queue("deadly", leaseSeconds=3, retry=retry)
    room.pool(slots=1, replicas=2, ready=2)
    file = tmp_path / "beats"

    def runs(attempt: int) -> bool:
        return file.exists() and ("poison", attempt) in beats(file)

    room.task("poison", "trace", {"file": str(file), "until": str(tmp_path / "never")}, queue="deadly")
    died = []
    for attempt in (1, 2):
        until(partial(runs, attempt), f"attempt {attempt} runs")
        pod = room.pod_of("poison")
        died.append(pod["metadata"]["uid"])
        for pid in room.processes(pod):
            os.kill(pid, signal.SIGKILL)
    status = dead(room, "poison")
    assert (status["reason"], status.get("failures", 0)) == ("Poisoned", 0), "deaths are counted apart"
    assert status["lostAgents"] == died
    assert [each["reason"] for each in status["attempts"]] == ["AgentLost"] * 2
    assert overlaps(beats(file)) == []
    room.ready(2)
    room.task("afterwards", queue="deadly")
    assert room.ended("afterwards")[0]["phase"] == "Succeeded"


@pytest.fixture(scope="module")
def timed(apart: Room) -> Room:
    """Queue `timed`: attempts run for at most a second; one retry."""
    apart.queue("timed", timeouts={"executionSeconds": 1}, retry={"initialSeconds": 0.1, "limit": 1})
    return apart


@pytest.mark.parametrize("polite", [True, False], ids=["a-handler-that-listens", "one-that-has-to-be-killed"])
def test_what_runs_too_long_is_stopped_and_tried_again(timed: Room, tmp_path: Path, polite: bool) -> None:
    name, file = f"long-{polite}".lower(), tmp_path / "beats"
    payload = {"file": str(file), "until": str(tmp_path / "never"), "polite": polite}
    timed.task(name, "trace", payload, queue="timed")
    status = timed.ended(name)[0]
    assert (status["phase"], status["reason"], status["failures"]) == ("Failed", "RetriesExhausted", 2)
    assert [each["reason"] for each in status["attempts"]] == ["ExecutionTimedOut"] * 2
    assert "1 s" in status["attempts"][0]["message"]
    spans = beats(file)
    assert spans.keys() == {(name, 1), (name, 2)}
    assert overlaps(spans) == []
    for first, last in spans.values():
        assert 0.7 <= last - first <= 3.0
    size = file.stat().st_size
    timed.task(f"after-{name}", queue="timed")
    timed.ended(f"after-{name}")
    assert file.stat().st_size == size, "it runs no more"


def test_a_result_after_the_limit_does_not_count(timed: Room, tmp_path: Path) -> None:
    timed.task("too-late", "trace", {"file": str(tmp_path / "beats"), "seconds": 1.3}, queue="timed")
    assert timed.ended("too-late")[0]["phase"] == "Failed"


def test_the_task_s_own_limit_goes_before_the_queue_s(timed: Room, tmp_path: Path) -> None:
    own = {"executionSeconds": 30}
    timed.task("patient-long", "trace", {"file": str(tmp_path / "beats"), "seconds": 2}, queue="timed", timeouts=own)
    status = timed.ended("patient-long")[0]
    assert (status["phase"], status["attempt"]) == ("Succeeded", 1)
    assert when(status["finishedAt"]) - when(status["startedAt"]) >= 1.9


def test_silence_ends_an_attempt_and_reports_of_progress_do_not(apart: Room, tmp_path: Path) -> None:
    apart.queue("watched", timeouts={"progressSeconds": 1}, retry={"initialSeconds": 0.1, "limit": 0})
    apart.task("silent", "trace", {"file": str(tmp_path / "beats"), "seconds": 20}, queue="watched")
    apart.task("talking", "lively", {"seconds": 3}, queue="watched")
    silent, talking = apart.ended("silent")[0], apart.ended("talking")[0]
    assert silent["phase"] == "Failed"
    assert silent["attempts"][0]["reason"] == "ProgressTimedOut"
    assert (talking["phase"], talking["attempt"]) == ("Succeeded", 1)


def test_at_most_once_runs_once_even_if_it_takes_too_long(apart: Room, tmp_path: Path) -> None:
    file = tmp_path / "beats"
    apart.queue("once", delivery="AtMostOnce", timeouts={"executionSeconds": 1}, retry={"initialSeconds": 0.1})
    apart.task("only-once", "trace", {"file": str(file), "seconds": 20}, queue="once")
    status = apart.ended("only-once")[0]
    assert (status["phase"], status["reason"], status["attempt"]) == ("Failed", "ExecutionTimedOut", 1)
    assert "at most once" in status["message"]
    assert list(beats(file)) == [("only-once", 1)]


def test_an_agent_that_is_frozen_past_a_limit_is_found_out(room: Room, tmp_path: Path) -> None:
    """Its lease ends before it could say that the time was over: nothing of it runs, and the Task goes on elsewhere."""
    room.queue("q", leaseSeconds=3, timeouts={"executionSeconds": 2}, retry={"initialSeconds": 0.1, "limit": 1})
    room.pool(slots=1, replicas=2, ready=2)
    file, done = tmp_path / "beats", tmp_path / "done"
    room.task("frozen-limit", "trace", {"file": str(file), "until": str(done)})
    until(lambda: file.exists() and file.read_text().count("\n") > 2, "it runs")
    supervisor = room.processes(room.pod_of("frozen-limit"))[0]
    os.kill(supervisor, signal.SIGSTOP)
    try:
        until(lambda: ("frozen-limit", 2) in beats(file), "another agent runs it")
        done.touch()
        status = room.ended("frozen-limit")[0]
    finally:
        os.kill(supervisor, signal.SIGCONT)
    assert (status["phase"], status["attempt"]) == ("Succeeded", 2)
    assert overlaps(beats(file)) == []
