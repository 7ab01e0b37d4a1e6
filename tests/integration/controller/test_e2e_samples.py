"""The samples apply as they are, and what they teach comes true."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from integration.controller.room import SCRIPT, Object, Room
from patience import until
from taskdist.local.stack import StackError

SAMPLES = Path(__file__).parents[3] / "manifests" / "samples"
# Held back on purpose, or no Python on purpose.
NOT_DONE = {"held": "Pending", "broken": "DeadLettered"}


def samples() -> list[Object]:
    """With the agent's own path: there is no image here."""
    objects = [each for file in sorted(SAMPLES.glob("*.yaml")) for each in yaml.safe_load_all(file.read_text())]
    for each in objects:
        if each["kind"] == "AgentPool":
            (container,) = each["spec"]["template"]["spec"]["containers"]
            container["command"] = [SCRIPT, "agent", f"{SAMPLES / 'agents' / 'analyse.py'}:agent"]
            # The node of the tests runs processes, not containers.
            container.pop("securityContext")
    return objects


def test_samples_end_well_and_a_quota_is_the_hard_cap(room: Room) -> None:
    objects = samples()
    room.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))
    tasks = {each["metadata"]["name"]: each["spec"] for each in objects if each["kind"] == "Task"}
    ends = dict.fromkeys(tasks, "Succeeded") | NOT_DONE

    def phases() -> dict[str, str]:
        return {name: room.phase(name) for name in tasks}

    try:
        until(lambda: phases() == ends, "all but two succeeded")
    except AssertionError as error:
        raise AssertionError(f"{error}: {phases()}") from None
    statuses = {name: room.status("tasks", name) for name in tasks}
    assert {each["name"] for each in statuses["report"]["dependencies"]} == {"parse", "lint"}
    last = max(statuses[name]["finishedAt"] for name in ("parse", "lint"))
    assert statuses["report"]["assignedAt"] >= last
    assert statuses["customer-7-first"]["attempt"] == statuses["customer-7-second"]["attempt"] == 1
    until(lambda: room.status("taskqueues", "reports").get("deadLettered") == 1, "the queue counts its dead letter")
    _one_too_many(room, len(tasks))


def _one_too_many(room: Room, count: int) -> None:
    quota = yaml.safe_load((SAMPLES / "hard-cap" / "resourcequota.yaml").read_text())
    (resource,) = quota["spec"]["hard"]
    quota["spec"]["hard"][resource] = str(count + 1)
    room.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(quota))
    until(lambda: room.status("resourcequotas", "tasks").get("used"), "the quota is in force")
    task = {"apiVersion": "taskdist.dev/v1alpha1", "kind": "Task", "spec": {"queue": "analysis", "type": "analyse"}}
    room.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(task | {"metadata": {"name": "last"}}))
    with pytest.raises(StackError, match=rf"exceeded quota: tasks, requested: {resource}=1"):
        room.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(task | {"metadata": {"name": "one-too-many"}}))
