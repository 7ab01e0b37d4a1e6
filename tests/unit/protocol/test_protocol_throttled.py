"""An attempt that says it is throttled: put off without a retry being spent, within its queue's bound, and told."""

from dataclasses import replace
from typing import Any

import pytest

from taskdist.api import Reason
from taskdist.core.model import RetryPolicy
from taskdist.link import codec, parts
from taskdist.link.proto import link_pb2 as pb
from taskdist.protocol import convert
from taskdist.protocol.messages import Failure
from taskdist.protocol.observations import Notice, Written
from unit.protocol.desk import A1, QUEUE, Desk, assigned, record

BOUNDED = replace(QUEUE, retry=RetryPolicy(3, throttled_seconds=60.0))


def throttled(after: float, put_off: float = 0.0) -> Desk:
    """A Task that was put off for some seconds before runs, and says that it is throttled."""
    view = record()
    desk = Desk(BOUNDED, replace(view, task=replace(view.task, put_off=put_off)))
    desk.connect(1)
    now = assigned()
    desk.answer(Written(replace(now, task=replace(now.task, put_off=put_off)), b"{}"))
    desk.says(1, Failure(A1, Reason.THROTTLED, "429 of the provider", retry_after=after))
    return desk


def test_it_waits_as_long_as_asked_and_spends_no_retry() -> None:
    desk = throttled(30.0, 10.0)
    status = desk.write().status
    assert {key: status[key] for key in ("phase", "reason", "failures", "throttledSeconds")} == {
        "phase": "Pending",
        "reason": "Throttled",
        "failures": 0,
        "throttledSeconds": 40.0,
    }
    assert status["attempts"][-1]["reason"] == "Throttled"
    assert status["retryAfter"] is not None
    assert "429 of the provider" in status["message"]
    # It is no failure: no Event is worth it.
    assert not [action for action in desk.out if isinstance(action, Notice)]


def test_beyond_the_bound_it_is_a_failure_like_any_other() -> None:
    desk = throttled(30.0, 40.0)
    status = desk.write().status
    assert (status["phase"], status["failures"]) == ("Pending", 1)
    assert "throttledSeconds" not in status
    assert "longer than the 60 s of its queue" in status["message"]


def stored(**status: Any) -> dict[str, Any]:
    metadata = {"uid": "u", "namespace": "ns", "name": "t", "resourceVersion": "1"}
    return {"metadata": metadata, "spec": {"queue": "q", "type": "t"}, "status": status}


ATTEMPT = {"attempt": 1, "reason": "Throttled"}


@pytest.mark.parametrize(
    ("status", "throttled", "put_off"),
    [
        pytest.param({}, False, 0.0, id="new"),
        pytest.param(
            {"retryAfter": "2030-01-01T00:00:00Z", "attempts": [ATTEMPT], "throttledSeconds": 90},
            True,
            90.0,
            id="put-off",
        ),
        pytest.param(
            {
                "retryAfter": "2030-01-01T00:00:00Z",
                "attempts": [ATTEMPT, {"attempt": 2, "reason": "HandlerError"}],
                "throttledSeconds": 90,
            },
            False,
            90.0,
            id="failed-since",
        ),
        pytest.param({"attempts": [ATTEMPT], "throttledSeconds": 90}, False, 90.0, id="redriven-or-assigned"),
    ],
)
def test_a_new_leader_reads_it_from_status(status: dict[str, Any], throttled: bool, put_off: float) -> None:
    task = convert.observed_task(stored(**status)).task
    assert (task.throttled, task.put_off) == (throttled, put_off)


@pytest.mark.parametrize(
    ("said", "kept"),
    [(30.0, 30.0), (0.0, 1.0), (-5.0, 1.0), (float("nan"), 1.0), (1e12, parts.MAX_RETRY_AFTER)],
)
def test_what_is_asked_for_is_bounded_on_the_link(said: float, kept: float) -> None:
    lease = pb.LeaseName(task_uid="u", attempt=1, epoch=1)
    wire = pb.Failure(lease=lease, reason=pb.FAILURE_REASON_THROTTLED, retry_after=said)
    decoded = codec.decode_from_agent(pb.FromAgent(failure=wire))
    assert isinstance(decoded, Failure)
    assert (decoded.reason, decoded.retry_after) == (Reason.THROTTLED, kept)
