"""The operator dies, is replaced, or is there twice: nothing is lost, nothing runs twice, one leads."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from integration.controller.room import Object, Room, beats, metrics
from patience import until
from taskdist.local.controlplane import free_ports
from taskdist.local.rest import MERGE_PATCH, Client
from taskdist.local.stack import OPERATOR_NAMESPACE, OperatorProcess

LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{OPERATOR_NAMESPACE}/leases/taskdist"
POOL = "taskdist.dev/pool"


def leads(operator: OperatorProcess) -> bool:
    return metrics(operator)["taskdist_leader"] == 1


def run_through(room: Room, file: Path, count: int, disturb: Callable[[], None]) -> None:
    """Have so many Tasks run, disturb when a quarter has ended, and check that each ran once and has its own result."""
    names = [f"t{i:02d}" for i in range(count)]
    for name in names:
        room.task(name, "trace", {"file": str(file), "seconds": 0.2})

    def a_quarter_has_ended() -> bool:
        phases = [(t.get("status") or {}).get("phase") for t in room.items("tasks")]
        return phases.count("Succeeded") >= count // 4

    until(a_quarter_has_ended, "a quarter of the Tasks has ended")
    before = {p["metadata"]["uid"] for p in room.pods()}
    disturb()
    room.ended(timeout=90)
    assert {p["metadata"]["uid"] for p in room.pods()} == before, "the agents went on"
    restarts = [status.get("restartCount") for pod in room.pods() for status in pod["status"]["containerStatuses"]]
    assert set(restarts) == {0}, "nor did their containers start anew"
    spans = beats(file)
    for name in names:
        status = room.status("tasks", name)
        assert status["phase"] == "Succeeded", status
        ran = [attempt for task, attempt in spans if task == name]
        assert ran == [status["attempt"]], f"{name} ran as attempts {ran}, and {status['attempt']} was accepted"
        assert status["result"]["attempt"] == status["attempt"]


def test_a_killed_operator_s_successor_completes_the_job_and_no_task_runs_twice(room: Room, tmp_path: Path) -> None:
    stack = room.stack
    room.queue()
    room.pool(replicas=2, ready=2)
    epoch = metrics(stack.operators[0])["taskdist_leader_epoch"]

    def kill_and_start_anew() -> None:
        victim = stack.operators.pop(0)
        victim.process.kill()
        victim.process.wait()
        stack.start_operator()

    run_through(room, tmp_path / "beats", 60, kill_and_start_anew)
    after = metrics(stack.operators[0])
    assert after["taskdist_leader_epoch"] > epoch
    assert after["taskdist_conservation_error"] == 0


def test_agents_take_an_operator_whose_lease_was_made_anew(room: Room, cluster: Client) -> None:
    """As after a new installation, or a restore: agents have seen leaderships that neither Lease nor Tasks know of."""
    stack = room.stack
    room.queue()
    room.pool(replicas=1, ready=1)
    uid = room.pods()[0]["metadata"]["uid"]

    def starts_anew(change_lease: Callable[[], object]) -> None:
        operator = stack.operators.pop(0)
        operator.process.kill()
        operator.process.wait()
        change_lease()
        stack.start_operator()

    many = {"spec": {"leaseTransitions": 1000, "holderIdentity": ""}}
    starts_anew(lambda: cluster.request("PATCH", LEASE, many, content_type=MERGE_PATCH))
    room.task("before")
    (status,) = room.ended("before")
    former = status["epoch"]
    assert former > 1000
    room.delete("tasks", "before")

    def raised() -> dict[str, Object]:
        events = cluster.get("/apis/events.k8s.io/v1/events")["items"]
        return {e["metadata"]["uid"]: e for e in events if e["reason"] == "EpochRaised"}

    # It is told on the pool of the agent that says so first: of another namespace, if other tests have left any.
    pods = cluster.get("/api/v1/pods", labelSelector=POOL)["items"]
    pools = {("AgentPool", p["metadata"]["namespace"], p["metadata"]["labels"][POOL]) for p in pods}
    before = raised()
    starts_anew(lambda: cluster.delete(LEASE))
    new = until(lambda: [e for e in raised().values() if e["metadata"]["uid"] not in before], "an Event EpochRaised")
    assert {tuple(e["regarding"][key] for key in ("kind", "namespace", "name")) for e in new} <= pools
    told = re.match(r"the agent has seen epoch (\d+) of another leadership, this one has (\d+): ", new[0]["note"])
    assert told is not None, new[0]["note"]
    # The same number under another leadership is as good as a higher one.
    assert int(told[2]) <= int(told[1]) <= former
    room.task("t")
    (status,) = room.ended("t")
    assert (status["phase"], status["agentUid"]) == ("Succeeded", uid)
    assert status["epoch"] > former


BROKEN = """
import asyncio
from taskdist.controller import main, settings, wiring

async def breaks(metrics):
    while "kopf" not in {thread.name for thread in __import__("threading").enumerate()}:
        await asyncio.sleep(0.01)
    raise RuntimeError("as the test wants it")

wiring.measure_loop_lag = breaks
raise SystemExit(main.run(settings.Settings.from_env()))
"""


def test_an_operator_of_which_a_part_fails_ends(room: Room) -> None:
    link, metrics_port, health = free_ports(3)
    env = {
        "PATH": os.environ["PATH"],
        "KUBECONFIG": str(room.stack.kubeconfig),
        "TASKDIST_NAMESPACE": room.namespace,
        "TASKDIST_WATCH_NAMESPACES": room.namespace,
        "TASKDIST_HOST": "127.0.0.1",
        "TASKDIST_LINK_PORT": str(link),
        "TASKDIST_METRICS_PORT": str(metrics_port),
        "TASKDIST_HEALTH_PORT": str(health),
    }
    done = subprocess.run([sys.executable, "-c", BROKEN], env=env, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1, done.stderr
    assert "as the test wants it" in done.stdout + done.stderr


def test_two_operators_one_leads_and_hands_over_when_it_is_told_to_end(
    room: Room, tmp_path: Path, cluster: Client, record_property: Callable[[str, object], None]
) -> None:
    stack = room.stack
    room.queue()
    room.pool(replicas=2, ready=2)
    first = stack.operators[0]
    second = stack.start_operator("operator-2")
    assert not first.unready()
    assert not second.unready()
    assert [leads(first), leads(second)] == [True, False]

    def hand_over() -> None:
        idle = metrics(second)
        writes = [k for k, v in idle.items() if k.startswith("taskdist_api_requests_total") and "tasks" in k and v]
        assert writes, "it lists them"
        assert not [k for k in writes if "patch" in k or "put" in k], "only the leader writes"
        assert idle["taskdist_link_sessions"] == 0
        assert [leads(first), leads(second)] == [True, False]
        assert not second.unready()
        first.process.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        until(lambda: leads(second), "the other one leads", timeout=10)
        record_property("hand_over_s", round(time.monotonic() - begun, 2))
        assert first.process.wait(timeout=10) == 0
        stack.operators.remove(first)
        holder = cluster.get(LEASE)["spec"].get("holderIdentity") or ""
        assert not holder or holder.startswith("operator-2"), "it gave its Lease back"

    run_through(room, tmp_path / "beats", 60, hand_over)
    assert metrics(second)["taskdist_conservation_error"] == 0
    said = [json.loads(line) for line in second.log.read_text().splitlines() if line.startswith("{")]
    assert "info" in {line.get("level") for line in said}
    assert not [line for line in said if line.get("level") == "error"], "nothing went wrong in its log"


def test_what_was_held_back_of_events_is_said_before_the_operator_ends(room: Room) -> None:
    stack = room.stack
    room.pool(replicas=0)
    room.event("AgentPool", "p", "FixedSize")
    # A repeat within a minute is held back, to go as one with those that follow.
    room.patch("agentpools", "p", replicas=1)
    until(lambda: room.status("agentpools", "p").get("desiredReplicas") == 1, "the operator has seen the change")
    said = len(room.events("AgentPool", "p"))
    operator = stack.operators.pop(0)
    try:
        operator.stop()
        assert operator.process.returncode == 0
        assert len(room.events("AgentPool", "p")) > said
    finally:
        stack.start_operator()
