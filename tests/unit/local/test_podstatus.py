"""Phases, restarts across nodes' lives, conditions' times, and the counting of probes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from taskdist.local.container import Stop
from taskdist.local.environment import Missing
from taskdist.local.podstatus import Container, compose, condition, phase, resumed
from taskdist.local.probes import ProbeTally, port_of


def container(state: str) -> Container:
    """`waiting`, `running`, `crashed` (waiting again) or an exit code."""
    made = Container("c", "i")
    if state == "waiting":
        return made
    made.run("process://1", "t1")
    if state == "running":
        return made
    made.end(7 if state == "crashed" else int(state), "t2")
    if state == "crashed":
        made.wait("CrashLoopBackOff")
    return made


@pytest.mark.parametrize(
    ("policy", "inits", "containers", "stopping", "expected"),
    [
        ("Always", [], ["waiting"], False, "Pending"),
        ("Always", ["running"], ["waiting"], False, "Pending"),
        ("Always", [], ["running", "waiting"], False, "Running"),
        ("Always", [], ["0"], False, "Running"),
        ("Always", [], ["crashed"], False, "Running"),
        ("OnFailure", [], ["0", "0"], False, "Succeeded"),
        ("OnFailure", [], ["0", "1"], False, "Running"),
        ("Never", [], ["0", "1"], False, "Failed"),
        ("Never", [], ["0", "running"], False, "Running"),
        ("Never", ["1"], ["waiting"], False, "Failed"),
        ("Always", ["1"], ["waiting"], False, "Pending"),
        ("Always", [], ["0"], True, "Succeeded"),
        ("Always", [], ["-15"], True, "Failed"),
        ("Always", [], ["running"], True, "Running"),
        ("Always", [], ["waiting"], True, "Failed"),
    ],
)
def test_phases(policy: str, inits: list[str], containers: list[str], stopping: bool, expected: str) -> None:
    made = phase(policy, [container(each) for each in inits], [container(each) for each in containers], stopping)
    assert made == expected


def test_a_signal_is_told_as_such() -> None:
    ended = container("-9").terminated
    assert ended is not None
    assert (ended["exitCode"], ended["signal"], ended["reason"], ended["startedAt"]) == (137, 9, "Error", "t1")


EARLIER = {"name": "c", "containerID": "process://1", "restartCount": 2}


@pytest.mark.parametrize(
    ("state", "policy", "restarts", "ended"),
    [
        pytest.param({"running": {}}, "Always", 3, None, id="it ran and runs again"),
        pytest.param({"running": {}}, "Never", 2, 137, id="it ran and may not run again"),
        pytest.param({"terminated": {"exitCode": 0}}, "OnFailure", 2, 0, id="it was done"),
        pytest.param({"terminated": {"exitCode": 4}}, "OnFailure", 3, None, id="it had failed"),
    ],
)
def test_a_new_life_of_the_node_goes_on_from_the_status(
    state: dict[str, Any], policy: str, restarts: int, ended: int | None
) -> None:
    rule = {"Always": lambda code: True, "Never": lambda code: False, "OnFailure": lambda code: code != 0}[policy]
    made = resumed("c", "i", [EARLIER | {"state": state}], rule)
    assert made.restarts == restarts
    assert (made.terminated or {}).get("exitCode") == ended
    if ended is None:
        assert "terminated" in made.last_state


def test_a_container_that_never_ran_begins_at_nought() -> None:
    assert resumed("c", "i", [{"name": "c", "restartCount": 0, "state": {}}], lambda code: True).restarts == 0


def test_a_conditions_time_is_that_of_its_last_change() -> None:
    earlier = [condition("Ready", True, "", "", (), "t1")]
    assert condition("Ready", True, "", "", earlier, "t2")["lastTransitionTime"] == "t1"
    assert condition("Ready", False, "", "", earlier, "t2")["lastTransitionTime"] == "t2"


def test_ready_means_every_container_is() -> None:
    one, two = container("running"), container("running")
    one.ready = True
    for ready, expected in ((False, "False"), (True, "True")):
        two.ready = ready
        status = compose(
            {"spec": {}}, [], [one, two], address="127.64.0.1", started_at="t", stopping=False, earlier=(), now="t"
        )
        assert {each["type"]: each["status"] for each in status["conditions"]}["Ready"] == expected


@pytest.mark.parametrize(
    ("failures", "successes", "results", "verdicts"),
    [
        (1, 1, "+-+", [True, False, True]),
        (3, 1, "---", [None, None, False]),
        (3, 1, "+--+--", [True] * 6),
        (3, 1, "+---", [True, True, True, False]),
        (1, 2, "-+-++", [False, False, False, False, True]),
    ],
)
def test_a_verdict_changes_at_its_threshold(
    failures: int, successes: int, results: str, verdicts: list[bool | None]
) -> None:
    tally = ProbeTally(failures, successes)
    assert [tally.add(result == "+") for result in results] == verdicts


def test_ports_go_by_number_or_name() -> None:
    spec = {"name": "c", "ports": [{"name": "http", "containerPort": 80}]}
    assert [port_of(port, spec) for port in (8080, "http", "81")] == [8080, 80, 81]
    with pytest.raises(Missing, match="no port named 'x'"):
        port_of("x", spec)


async def test_an_order_to_stop_can_be_tightened_but_not_loosened() -> None:
    stop = Stop()
    stop.within(1000)
    waiting = asyncio.create_task(stop.overdue())
    await asyncio.sleep(0)
    stop.within(0)
    stop.within(1000)
    await asyncio.wait_for(waiting, 5)
    assert await stop.sleep(1000)
