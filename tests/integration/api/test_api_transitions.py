"""What may become of a Task's status: tried on the real API server, through the status subresource."""

from typing import Any

import pytest

from taskdist.api import Phase
from taskdist.kube import ApiError
from taskdist.local.rest import MERGE_PATCH, Client

pytestmark = pytest.mark.usefixtures("crds")

Object = dict[str, Any]

ASSIGNED: Object = {"phase": "Assigned", "reason": "Assigned", "attempt": 1, "epoch": 3, "agent": "a", "agentUid": "u1"}
DONE: Object = {
    **ASSIGNED,
    "phase": "Succeeded",
    "reason": "Completed",
    "result": {"lines": 3, "deep": {"x": [1]}},
    "finishedAt": "2030-01-01T00:00:00.123456Z",
}
DEAD: Object = {
    **ASSIGNED,
    "phase": "DeadLettered",
    "reason": "RetriesExhausted",
    "failures": 4,
    "finishedAt": "2030-01-01T00:00:00Z",
}
REDRIVEN: Object = {"phase": "Pending", "reason": "Redriven", "failures": 0, "lostAgents": None, "redrives": 1}
WAITING: Object = {"phase": "Pending", "reason": "BackingOff", "attempt": 1, "epoch": 3, "failures": 1}


class Tasks:
    """Tasks of one namespace, and writes of their status."""

    def __init__(self, cluster: Client, namespace: str) -> None:
        self._cluster = cluster
        self._path = f"/apis/taskdist.dev/v1alpha1/namespaces/{namespace}/tasks"

    def create(self, *statuses: Object) -> Object:
        task = {
            "apiVersion": "taskdist.dev/v1alpha1",
            "kind": "Task",
            "metadata": {"name": "one"},
            "spec": {"queue": "q", "type": "t"},
        }
        created: Object = self._cluster.create(self._path, task)
        for status in statuses:
            created = self.patch({"status": status})
        return created

    def patch(self, body: Object, subresource: str = "/status") -> Object:
        answer: Object = self._cluster.request(
            "PATCH", f"{self._path}/one{subresource}", body, content_type=MERGE_PATCH
        )
        return answer

    def put(self, body: Object) -> Object:
        answer: Object = self._cluster.request("PUT", f"{self._path}/one/status", body)
        return answer

    def get(self) -> Object:
        task: Object = self._cluster.get(f"{self._path}/one")
        return task


@pytest.fixture
def tasks(cluster: Client, namespace: str) -> Tasks:
    return Tasks(cluster, namespace)


def status_in(phase: Phase, attempt: int) -> Object:
    return {"phase": phase.value, "attempt": attempt, "epoch": 1, "agentUid": f"u{attempt}", "reason": "Queued"}


@pytest.mark.parametrize("after", Phase)
@pytest.mark.parametrize("before", Phase)
def test_phases(before: Phase, after: Phase, tasks: Tasks) -> None:
    tasks.create(status_in(before, 1))
    change = {"phase": after.value}
    if after is Phase.ASSIGNED and before is Phase.PENDING:
        change |= status_in(after, 2)
    if before is Phase.DEAD_LETTERED and after not in (before, Phase.CANCELLED):
        words = "set it to spec.redrive" if after is Phase.PENDING else "can only become Pending or Cancelled"
        with pytest.raises(ApiError, match=words if after is not Phase.ASSIGNED else "status.attempt must grow"):
            tasks.patch({"status": change})
        assert tasks.get()["status"]["phase"] == before
    elif before.terminal and after is not before:
        with pytest.raises(ApiError, match=r"status\.phase is final once status\.phase is Succeeded, Failed or"):
            tasks.patch({"status": change})
        assert tasks.get()["status"]["phase"] == before
    else:
        assert tasks.patch({"status": change})["status"]["phase"] == after


FINAL = "is final once status.phase is Succeeded, Failed or Cancelled: leave it as it is"

REFUSED: dict[str, tuple[list[Object], Object, str]] = {
    "attempt decreases": ([ASSIGNED], {"phase": "Pending", "attempt": 0}, "status.attempt must never decrease"),
    "attempt left out": ([WAITING], {"attempt": None}, "status.attempt must never decrease"),
    "epoch decreases": ([ASSIGNED], {"epoch": 2}, "status.epoch must never decrease: a newer leader"),
    "epoch left out": ([ASSIGNED], {"epoch": None}, "status.epoch must never decrease: a newer leader"),
    "assigned without an attempt": ([], {"phase": "Assigned"}, "status.attempt must grow when status.phase becomes"),
    "assigned again without one": ([WAITING], {"phase": "Assigned"}, "status.attempt must grow when"),
    "another agent in one attempt": ([ASSIGNED], {"agentUid": "u2"}, "status.agentUid cannot change within an attempt"),
    "agent left out": ([ASSIGNED], {"agentUid": None}, "status.agentUid cannot change within an attempt"),
    "a dead letter is assigned": (
        [DEAD],
        {"phase": "Assigned", "attempt": 2},
        "status.phase of a dead letter can only become Pending or Cancelled: redrive it by raising spec.redrive",
    ),
    "a dead letter waits again by itself": (
        [DEAD],
        {"phase": "Pending"},
        "status.redrives must grow when a dead letter",
    ),
    "a dead letter waits again unasked": (
        [DEAD],
        REDRIVEN,
        "status.redrives must never decrease, nor be more than spec.redrive: set it to spec.redrive",
    ),
    "spilled elsewhere": ([{"spilledTo": "a"}], {"spilledTo": "b"}, "status.spilledTo is set once"),
    "spilled back": ([{"spilledTo": "a"}], {"spilledTo": None}, "status.spilledTo is set once"),
    "duplicate of another": ([{"duplicateOf": "a"}], {"duplicateOf": "b"}, "status.duplicateOf is set once"),
    "pinned to another parent": (
        [{"dependencies": [{"name": "a", "uid": "u1"}]}],
        {"dependencies": [{"name": "a", "uid": "u2"}]},
        "status.dependencies[0].uid",
    ),
    "too many agents lost": ([], {"lostAgents": [f"u{i}" for i in range(17)]}, "status.lostAgents: Too many"),
    "unknown phase": ([], {"phase": "Lost"}, "status.phase: Unsupported value"),
    "unknown reason": ([], {"reason": "Because"}, "status.reason: Unsupported value"),
    "result is a list": ([], {"result": [1]}, "status.result: Invalid value"),
    "message too long": ([], {"message": "x" * 4097}, "status.message: Too long"),
    "final phase left out": ([DONE], {"phase": None}, f"status.phase {FINAL}"),
    "final reason": ([DONE], {"reason": "HandlerError"}, f"status.reason {FINAL}"),
    "final reason left out": ([DONE], {"reason": None}, f"status.reason {FINAL}"),
    "final attempt": ([DONE], {"attempt": 2}, f"status.attempt {FINAL}"),
    "final failures": ([DONE], {"failures": 1}, f"status.failures {FINAL}"),
    "final time": ([DONE], {"finishedAt": "2031-01-01T00:00:00Z"}, f"status.finishedAt {FINAL}"),
    "final result": ([DONE], {"result": {"lines": 4}}, f"status.result {FINAL}"),
    "final result deep inside": ([DONE], {"result": {"deep": {"x": [2]}}}, f"status.result {FINAL}"),
    "final result, a key for another": ([DONE], {"result": {"lines": None, "l": 3}}, f"status.result {FINAL}"),
    "final result left out": ([DONE], {"result": None}, f"status.result {FINAL}"),
    "a result put in at the end": (
        [{**DONE, "phase": "Failed", "result": None}],
        {"result": {"late": True}},
        f"status.result {FINAL}",
    ),
}


@pytest.mark.parametrize(("before", "change", "says"), REFUSED.values(), ids=REFUSED)
def test_refused(before: list[Object], change: Object, says: str, tasks: Tasks) -> None:
    stood = tasks.create(*before).get("status")
    with pytest.raises(ApiError) as refusal:
        tasks.patch({"status": change})
    assert refusal.value.status == 422
    assert says in str(refusal.value)
    assert tasks.get()["status"] == stood


def test_leaving_status_out_gets_round_nothing(tasks: Tasks) -> None:
    task = tasks.create(ASSIGNED, DONE)
    del task["status"]
    with pytest.raises(ApiError, match=r"status\.phase is final"):
        tasks.put(task)
    with pytest.raises(ApiError, match=r"status\.phase is final"):
        tasks.patch({"status": None})


TAKEN: dict[str, tuple[list[Object], Object]] = {
    "waits for a reason": ([], {"reason": "NoAgent", "message": "no agent is ready"}),
    "is assigned": ([], ASSIGNED),
    "waits to be tried again": ([ASSIGNED], WAITING),
    "is assigned again": ([ASSIGNED, WAITING], {**ASSIGNED, "attempt": 2, "agentUid": "u2"}),
    "goes over to another agent at once": ([ASSIGNED], {**ASSIGNED, "attempt": 2, "agentUid": "u2"}),
    "is kept by a newer leader": ([ASSIGNED], {"epoch": 4}),
    "reports progress": ([ASSIGNED], {"progress": {"fraction": 0.5, "message": "half"}}),
    "ends": ([ASSIGNED], DONE),
    "ends without having been recorded as assigned": ([], DONE),
    "is written the same again": ([ASSIGNED, DONE], DONE),
    "gets conditions after the end": ([DONE], {"conditions": [{"type": "Complete", "status": "True"}]}),
    "becomes a dead letter": ([ASSIGNED], DEAD),
    "becomes a dead letter while it waits": ([WAITING], {"phase": "DeadLettered", "reason": "DeadlineHopeless"}),
    "is cancelled as a dead letter": ([DEAD], {"phase": "Cancelled", "reason": "Cancelled"}),
    "gets a condition as a dead letter": ([DEAD], {"conditions": [{"type": "DeadLettered", "status": "True"}]}),
    "is spilled": ([], {"spilledTo": "other"}),
    "ends as a duplicate": ([], {"phase": "Succeeded", "reason": "Duplicate", "duplicateOf": "other"}),
    "sees a parent, then its end": (
        [{"dependencies": [{"name": "a"}]}, {"dependencies": [{"name": "a", "uid": "u1"}]}],
        {"dependencies": [{"name": "a", "uid": "u1", "phase": "Failed"}]},
    ),
    "keeps a result of nothing but null": ([ASSIGNED], {**DONE, "result": {"list": [None]}}),
}


@pytest.mark.parametrize(("before", "change"), TAKEN.values(), ids=TAKEN)
def test_taken(before: list[Object], change: Object, tasks: Tasks) -> None:
    tasks.create(*before)
    status = tasks.patch({"status": change})["status"]
    assert {name: status[name] for name in change if name != "progress"} == {
        name: value for name, value in change.items() if name != "progress"
    }


def test_status_is_not_written_with_the_spec(tasks: Tasks) -> None:
    tasks.create(ASSIGNED)
    after = tasks.patch({"spec": {"priority": "Low"}, "status": {"phase": "Succeeded"}}, subresource="")
    assert after["status"]["phase"] == "Assigned"
    assert after["spec"]["priority"] == "Low"


def test_a_dead_letter_is_redriven_as_often_as_is_asked_and_no_more(tasks: Tasks) -> None:
    tasks.create(DEAD)
    with pytest.raises(ApiError, match=r"spec\.redrive can only be raised"):
        tasks.patch({"spec": {"redrive": -1}}, subresource="")
    tasks.patch({"spec": {"redrive": 3}}, subresource="")
    with pytest.raises(ApiError, match=r"nor be more than spec\.redrive"):
        tasks.patch({"status": REDRIVEN | {"redrives": 4}})
    redriven = tasks.patch({"status": REDRIVEN | {"redrives": 3}})["status"]
    assert (redriven["phase"], redriven["attempt"], "lostAgents" in redriven) == ("Pending", 1, False)
    with pytest.raises(ApiError, match=r"only while status\.phase is DeadLettered"):
        tasks.patch({"spec": {"redrive": 4}}, subresource="")
    tasks.patch({"status": {**DEAD, "attempt": 2}})
    with pytest.raises(ApiError, match=r"status\.redrives must grow when a dead letter becomes Pending"):
        tasks.patch({"status": {"phase": "Pending"}})
    with pytest.raises(ApiError, match=r"status\.redrives must never decrease"):
        tasks.patch({"status": {"redrives": 2}})
