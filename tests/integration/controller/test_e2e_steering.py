"""What a user can steer: cancel, suspend, delete, priority, pause, sizes of pools."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from integration.controller.room import Room, beats, container, overlaps
from patience import until
from taskdist.local.stack import StackError


@pytest.fixture(scope="module")
def one(shared: Room) -> Room:
    """Queue `narrow` and its pool of one agent of one slot."""
    shared.queue("narrow", pools=["narrow"])
    shared.pool("narrow", slots=1, replicas=1, ready=1)
    return shared


def block(room: Room, name: str, file: Path, *, polite: bool = True, **spec: Any) -> Path:
    """Have a Task run until the returned file exists, or, if it is `polite`, it is cancelled."""
    done = file.with_suffix(".done")
    room.task(name, "trace", {"file": str(file), "until": str(done), "polite": polite}, **spec)
    until(lambda: file.exists() and file.read_text().count("\n") > 2, f"{name} runs")
    return done


def test_cancel_while_it_waits(shared: Room) -> None:
    shared.task("waiting", suspend=True)
    shared.patch("tasks", "waiting", cancel=True)
    status = shared.ended("waiting")[0]
    assert (status["phase"], status["reason"]) == ("Cancelled", "Cancelled")
    assert not status.get("attempt")


@pytest.mark.parametrize("polite", [True, False], ids=["a-handler-that-listens", "one-that-has-to-be-killed"])
def test_cancel_while_it_runs_stops_the_handler(shared: Room, tmp_path: Path, polite: bool) -> None:
    file = tmp_path / "beats"
    name, other = f"running-{polite}".lower(), f"meanwhile-{polite}".lower()
    block(shared, name, file, polite=polite)
    shared.patch("tasks", name, cancel=True)
    status = shared.ended(name)[0]
    assert (status["phase"], status["reason"]) == ("Cancelled", "Cancelled")
    size = file.stat().st_size
    shared.task(other, "trace", {"file": str(tmp_path / "other"), "seconds": 0.3})
    shared.ended(other)
    assert file.stat().st_size == size, "it runs no more"


def test_cancel_after_the_end_changes_nothing(shared: Room) -> None:
    shared.task("over")
    before = shared.ended("over")[0]
    shared.patch("tasks", "over", cancel=True)
    shared.task("later")
    shared.ended("later")
    assert shared.status("tasks", "over") == before


def test_a_suspended_task_waits_and_runs_when_it_is_resumed(shared: Room) -> None:
    shared.task("held", suspend=True)
    assert "Suspended" in shared.taskdist("explain", "held")
    assert shared.phase("held") == "Pending"
    shared.patch("tasks", "held", suspend=False)
    assert shared.ended("held")[0]["phase"] == "Succeeded"


def test_suspending_a_running_task_stops_it_and_costs_no_retry(shared: Room, tmp_path: Path) -> None:
    file = tmp_path / "beats"
    done = block(shared, "paused", file)
    shared.patch("tasks", "paused", suspend=True)
    shared.in_phase("paused", "Pending")
    assert shared.status("tasks", "paused")["reason"] == "Suspended"
    done.touch()
    shared.patch("tasks", "paused", suspend=False)
    status = shared.ended("paused")[0]
    assert (status["phase"], status["attempt"], status.get("failures", 0)) == ("Succeeded", 2, 0)
    assert overlaps(beats(file)) == []


def test_deleting_a_running_task_stops_its_handler_and_frees_its_slot(one: Room, tmp_path: Path) -> None:
    file = tmp_path / "beats"
    block(one, "deleted", file, queue="narrow")
    one.delete("tasks", "deleted")
    one.task("next", queue="narrow")
    assert one.ended("next")[0]["phase"] == "Succeeded", "the slot is free again"
    size = file.stat().st_size
    one.task("next-but-one", queue="narrow")
    one.ended("next-but-one")
    assert file.stat().st_size == size, "it runs no more"


def test_priority_decides_who_goes_next(one: Room, tmp_path: Path) -> None:
    file = tmp_path / "beats"
    done = block(one, "first", tmp_path / "blocker", queue="narrow")
    for name, priority in (("low", "Low"), ("middle", "Normal"), ("high", "High"), ("raised", "Background")):
        one.task(name, "trace", {"file": str(file)}, queue="narrow", priority=priority)
    one.patch("tasks", "raised", priority="Critical")
    until(lambda: one.status("taskqueues", "narrow").get("waiting") == 4, "all wait")
    done.touch()
    one.ended("low", "middle", "high", "raised")
    spans = beats(file)
    assert [name for name, _ in sorted(spans, key=lambda each: spans[each])] == ["raised", "high", "middle", "low"]


def test_a_paused_queue_keeps_its_tasks_and_hands_them_out_later(shared: Room) -> None:
    shared.queue("quiet", paused=True)
    shared.task("patient", queue="quiet")
    until(lambda: shared.status("taskqueues", "quiet").get("waiting") == 1, "it waits")
    assert "paused" in shared.condition("taskqueues", "quiet", "Ready")["message"]
    assert "QueuePaused" in shared.taskdist("explain", "patient")
    shared.patch("taskqueues", "quiet", paused=False)
    assert shared.ended("patient")[0]["phase"] == "Succeeded"


def test_a_queue_whose_pool_is_missing_says_so_until_it_is_there(shared: Room) -> None:
    shared.queue("unserved", pools=["nowhere"])
    until(lambda: shared.condition("taskqueues", "unserved", "Stalled").get("status") == "True", "it is stalled")
    assert "create an AgentPool" in shared.condition("taskqueues", "unserved", "Stalled")["message"]
    shared.pool("nowhere", replicas=0)
    until(lambda: shared.condition("taskqueues", "unserved", "Ready").get("status") == "True", "it is ready")


def test_a_pool_grows_from_zero_and_shrinks_to_it_but_never_takes_a_busy_agent(shared: Room, tmp_path: Path) -> None:
    shared.queue("burst", pools=["elastic"])
    scaling = {"minReplicas": 0, "maxReplicas": 2, "scaleDownDelaySeconds": 0}
    shared.pool("elastic", slots=1, scaling=scaling, ready=0)
    shared.kubectl("wait", "--for=condition=Ready", "ap/elastic", "--timeout=10s")
    assert shared.pods("elastic") == []
    done = {}
    for name in ("short", "long"):
        done[name] = tmp_path / f"{name}.done"
        payload = {"file": str(tmp_path / name), "until": str(done[name])}
        shared.task(name, "trace", payload, queue="burst")
    until(lambda: all((tmp_path / name).exists() for name in done), "both run")
    assert len(shared.pods("elastic")) == 2
    note = shared.event("AgentPool", "elastic", "WorkWaiting")
    assert (note["type"], note["action"]) == ("Normal", "Scale")
    busy = shared.status("tasks", "long")["agent"]
    done["short"].touch()
    until(lambda: [p["metadata"]["name"] for p in shared.pods("elastic")] == [busy], "the idle one went")
    done["long"].touch()
    status = shared.ended("long")[0]
    assert (status["phase"], status["attempt"]) == ("Succeeded", 1)
    until(lambda: not shared.pods("elastic"), "the pool is empty")
    until(lambda: shared.status("agentpools", "elastic").get("readyReplicas") == 0, "and says so")


def test_kubectl_scale_sets_a_fixed_pool_and_is_refused_for_an_elastic_one(shared: Room) -> None:
    shared.pool("fixed", slots=1, replicas=0)
    shared.kubectl("scale", "ap/fixed", "--replicas=1")
    shared.ready(1, "fixed")
    assert shared.kubectl("get", "ap/fixed", "-o", "jsonpath={.status.replicas}") == "1"
    shared.kubectl("scale", "ap/fixed", "--replicas=0")
    until(lambda: not shared.pods("fixed"), "its agent went")
    shared.pool("stretchy", scaling={"minReplicas": 0, "maxReplicas": 1})
    with pytest.raises(StackError, match=r"change spec\.scaling\.minReplicas instead"):
        shared.kubectl("scale", "ap/stretchy", "--replicas=3")


def test_a_changed_template_replaces_agents_one_by_one_and_no_task_notices(shared: Room, tmp_path: Path) -> None:
    shared.queue("steady", pools=["rolling"])
    shared.pool("rolling", slots=1, replicas=2, ready=2)
    old = {p["metadata"]["uid"] for p in shared.pods("rolling")}
    done = block(shared, "through", tmp_path / "beats", queue="steady")
    busy = shared.pod_of("through")["metadata"]["uid"]
    changed = {
        "metadata": {"labels": {"revision": "two"}},
        "spec": {"containers": [container()], "terminationGracePeriodSeconds": 5},
    }
    shared.patch("agentpools", "rolling", template=changed)

    def idle_one_is_replaced() -> bool:
        present = {p["metadata"]["uid"] for p in shared.pods("rolling")}
        return present & old == {busy} and len(present) == 3

    until(idle_one_is_replaced, "the idle agent has gone, and the busy one has its successor")
    reconciling = shared.condition("agentpools", "rolling", "Reconciling")
    assert reconciling["status"] == "True"
    assert shared.phase("through") == "Assigned"
    done.touch()
    status = shared.ended("through")[0]
    assert (status["phase"], status["attempt"]) == ("Succeeded", 1)

    def all_are_new() -> bool:
        return [p["metadata"]["labels"].get("revision") for p in shared.pods("rolling")] == ["two", "two"]

    until(all_are_new, "both are new")
    shared.kubectl("wait", "--for=condition=Ready", "ap/rolling", "--timeout=20s")


def test_what_status_says_of_a_spec_was_never_true_of_the_one_before_alone(shared: Room, tmp_path: Path) -> None:
    """Who waits for `observedGeneration`, as Helm and Argo CD do, may believe the rest of the status."""
    nobody = {"spec": {"schedulerName": "nobody", "containers": [{"name": "agent", "image": "none"}]}}
    shared.pool("sized", replicas=0, template=nobody)
    shared.queue("door", pools=["sized"])
    pools, queues = tmp_path / "pools", tmp_path / "queues"
    of_pool = "{.metadata.generation} {.status.observedGeneration} {.spec.replicas} {.status.desiredReplicas}"
    of_queue = "{.metadata.generation} {.status.observedGeneration} {.spec.drained} {.status.accepting}"
    with (
        watched(shared, "agentpools", "sized", of_pool, pools),
        watched(shared, "taskqueues", "door", of_queue, queues),
    ):
        for count in range(1, 26):
            shared.patch("agentpools", "sized", replicas=count % 2)
            shared.patch("taskqueues", "door", drained=bool(count % 2))
            for file in (pools, queues):
                until(partial(current, file, count + 1), f"{file.name} say so")
    for file, agree in ((pools, {("0", "0"), ("1", "1")}), (queues, {("false", "true"), ("true", "false")})):
        said = {tuple(line[2:]) for line in lines(file) if line[0] == line[1] and line[0] != "1"}
        assert said == agree, file.name


@contextmanager
def watched(room: Room, plural: str, name: str, template: str, file: Path) -> Iterator[None]:
    """Within, each state of the object becomes a line of the file."""
    arguments = ("-n", room.namespace, "get", plural, name, "-w", "-o", f'jsonpath={template}{{"\\n"}}')
    with file.open("w") as out, subprocess.Popen([*room.stack.kubectl_command, *arguments], stdout=out) as process:
        try:
            until(lambda: lines(file), f"the watch of {name} runs")
            yield
        finally:
            process.terminate()


def lines(file: Path) -> list[list[str]]:
    return [words for line in file.read_text().splitlines() if len(words := line.split()) == 4]


def current(file: Path, generation: int) -> bool:
    return any(line[:2] == [str(generation)] * 2 for line in lines(file))
