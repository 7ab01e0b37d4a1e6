"""Each field of the API objects arrives where the core looks for it, whatever is left out."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskdist.api import AgentPool, Delivery, Dispatch, Phase, Reason, Reclaim
from taskdist.core.model import Pool, Queue, Requirement, RetryPolicy, Task
from taskdist.protocol import convert
from taskdist.protocol.convert import template_hash
from taskdist.protocol.observations import PodRecord, TaskRecord

META = {"uid": "u1", "namespace": "ns", "name": "a", "resourceVersion": "42"}


def task(spec: dict[str, Any] | None = None, status: Any = None, **meta: Any) -> dict[str, Any]:
    obj: dict[str, Any] = {"metadata": META | meta, "spec": {"queue": "q", "type": "t"} | (spec or {})}
    return obj if status is None else obj | {"status": status}


def plain(**fields: Any) -> Task:
    return Task(**({"uid": "u1", "namespace": "ns", "name": "a", "queue": "q", "type": "t", "created": 0.0} | fields))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(None, 0.0, id="absent"),
        pytest.param("1970-01-01T00:00:10Z", 10.0, id="seconds"),
        pytest.param("1970-01-01T00:00:10.000001Z", 10.000001, id="microseconds"),
        pytest.param("1970-01-01T00:00:10.000001999Z", 10.000001, id="finer-is-cut"),
        pytest.param("1970-01-01T01:00:10+01:00", 10.0, id="offset"),
        pytest.param("1970-01-01T00:00:10", 10.0, id="no-zone-is-utc"),
    ],
)
def test_time(text: str | None, expected: float) -> None:
    assert convert.seconds(text) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        pytest.param(task(), TaskRecord(task=plain(), resource_version=42, payload_bytes=2), id="as-small-as-can-be"),
        pytest.param(
            task(
                {
                    "payload": {"a": 1},
                    "priority": 5,
                    "pool": "p",
                    "slots": 2,
                    "resources": {"gpu": 1, "disk": 3},
                    "skills": ["b", "a"],
                    "suspend": True,
                    "cancel": True,
                },
                creationTimestamp="1970-01-01T00:01:40Z",
                deletionTimestamp="1970-01-01T00:01:50Z",
            ),
            TaskRecord(
                task=plain(
                    created=100.0,
                    priority=5,
                    pool="p",
                    slots=2,
                    resources=(("disk", 3), ("gpu", 1)),
                    skills=frozenset({"a", "b"}),
                    suspended=True,
                ),
                resource_version=42,
                cancel=True,
                payload_bytes=len('{"a":1}'),
                deleting=True,
            ),
            id="whole-spec",
        ),
        pytest.param(
            task(
                status={
                    "phase": "Assigned",
                    "reason": "Assigned",
                    "attempt": 3,
                    "epoch": 7,
                    "failures": 2,
                    "agent": "p-0",
                    "agentUid": "au",
                    "pool": "p",
                    "assignedAt": "1970-01-01T00:00:10.500000Z",
                    "retryAfter": "1970-01-01T00:00:09Z",
                    "attempts": [{"attempt": 1, "reason": "HandlerError"}],
                }
            ),
            TaskRecord(
                task=plain(failures=2, not_before=9.0),
                resource_version=42,
                phase=Phase.ASSIGNED,
                reason=Reason.ASSIGNED,
                attempt=3,
                epoch=7,
                failures=2,
                agent_uid="au",
                agent_name="p-0",
                pool="p",
                assigned_at=10.5,
                payload_bytes=2,
                attempts=({"attempt": 1, "reason": "HandlerError"},),
            ),
            id="whole-status",
        ),
        pytest.param(
            task(status={"phase": "Failed", "reason": "OfALaterRelease"}),
            TaskRecord(task=plain(), resource_version=42, phase=Phase.FAILED, payload_bytes=2),
            id="reason-of-a-later-release",
        ),
        pytest.param(
            task({"pool": None, "skills": None, "payload": None, "agentSelector": None}, {"retryAfter": None}),
            TaskRecord(task=plain(), resource_version=42, payload_bytes=2),
            id="nulls-are-absent",
        ),
    ],
)
def test_task(obj: dict[str, Any], expected: TaskRecord) -> None:
    assert convert.task_record(obj) == expected


def test_an_unknown_phase_is_neither_run_again_nor_lost() -> None:
    with pytest.raises(ValueError, match=r"ns/a.*'Lost'"):
        convert.task_record(task(status={"phase": "Lost"}))


def test_a_selector_reads_the_same_in_any_order() -> None:
    labels = {"matchLabels": {"zone": "a", "arch": "arm"}}
    expressions = {
        "matchExpressions": [
            {"key": "disk", "operator": "NotIn", "values": ["hdd", "tape"]},
            {"key": "spot", "operator": "DoesNotExist"},
        ]
    }
    one = convert.task_record(task({"agentSelector": labels | expressions})).task.selector
    turned = {
        "matchLabels": dict(reversed(labels["matchLabels"].items())),
        "matchExpressions": list(reversed(expressions["matchExpressions"])),
    }
    assert one == (
        Requirement("arch", "In", frozenset({"arm"})),
        Requirement("disk", "NotIn", frozenset({"hdd", "tape"})),
        Requirement("spot", "DoesNotExist"),
        Requirement("zone", "In", frozenset({"a"})),
    )
    assert convert.task_record(task({"agentSelector": turned})).task.selector == one


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), JSON))
def test_the_payload_survives_and_its_size_is_that_of_its_bytes(value: dict[str, Any]) -> None:
    obj = task({"payload": value})
    body = convert.payload(obj)
    assert json.loads(body) == value
    assert convert.task_record(obj).payload_bytes == len(body)


def test_a_payload_that_is_no_utf8_stops_nothing() -> None:
    assert json.loads(convert.payload(task({"payload": {"a": "\ud800"}}))) == {"a": "?"}


def test_queue_defaults_are_the_api_s() -> None:
    obj = {"metadata": {"namespace": "ns", "name": "q"}, "spec": {"pools": ["b", "a"]}}
    assert convert.queue(obj) == Queue("ns", "q", pools=("b", "a"))


def test_queue() -> None:
    spec = {
        "pools": ["p"],
        "paused": True,
        "dispatch": "Lazy",
        "delivery": "AtMostOnce",
        "reclaim": "Fast",
        "leaseSeconds": 5,
        "holdSeconds": 20,
        "retry": {"limit": 1, "initialSeconds": 0.5, "factor": 3, "maxSeconds": 9},
    }
    assert convert.queue({"metadata": {"namespace": "ns", "name": "q"}, "spec": spec}) == Queue(
        "ns",
        "q",
        pools=("p",),
        paused=True,
        dispatch=Dispatch.LAZY,
        delivery=Delivery.AT_MOST_ONCE,
        reclaim=Reclaim.FAST,
        lease_seconds=5,
        hold_seconds=20,
        retry=RetryPolicy(1, 0.5, 3, 9),
    )


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param({}, {}, id="one-agent"),
        pytest.param({"replicas": 4}, {"minimum": 4, "maximum": 4}, id="fixed"),
        pytest.param(
            {"replicas": 4, "scaling": {"minReplicas": 0, "maxReplicas": 9, "scaleDownDelaySeconds": 5}},
            {"elastic": True, "minimum": 0, "maximum": 9, "scale_down_delay": 5},
            id="scaling-goes-before-replicas",
        ),
        pytest.param(
            {"slots": 3, "resources": {"b": 1, "a": 2}, "skills": ["x"], "reportedLabels": ["gpu"]},
            {
                "slots": 3,
                "resources": (("a", 2), ("b", 1)),
                "skills": frozenset({"x"}),
                "reported_labels": frozenset({"gpu"}),
            },
            id="offer",
        ),
    ],
)
def test_pool(spec: dict[str, Any], expected: dict[str, Any]) -> None:
    template = {"metadata": {"labels": {"zone": "a"}}, "spec": {"containers": [{"name": "agent"}]}}
    obj = {"metadata": {"namespace": "ns", "name": "p"}, "spec": {"template": template} | spec}
    base: dict[str, Any] = {
        "labels": (("taskdist.dev/pool", "p"), ("zone", "a")),
        "scale_down_delay": 0.0,
        "template": template_hash(AgentPool.model_validate(obj)),
    }
    assert convert.pool(obj) == Pool("ns", "p", **(base | expected))


def pod(containers: list[str], statuses: list[dict[str, Any]], **status: Any) -> dict[str, Any]:
    return {
        "metadata": META
        | {
            "labels": {"taskdist.dev/pool": "p", "taskdist.dev/template": "abc"},
            "creationTimestamp": "1970-01-01T00:00:05Z",
        },
        "spec": {"containers": [{"name": name} for name in containers]},
        "status": {"containerStatuses": statuses} | status,
    }


RUNNING = {"state": {"running": {"startedAt": "x"}}}
DEAD = {"terminated": {"exitCode": 137, "finishedAt": "1970-01-01T00:01:00Z"}}


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        pytest.param(pod(["agent"], []), {}, id="just-created"),
        pytest.param(
            pod(
                ["agent"],
                [{"name": "agent", "restartCount": 0} | RUNNING],
                phase="Running",
                conditions=[{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}],
            ),
            {"ready": True, "agent_running": True},
            id="ready",
        ),
        pytest.param(
            pod(["agent"], [], conditions=[{"type": "Ready", "status": "False"}]), {}, id="condition-says-not-ready"
        ),
        pytest.param(
            pod(["agent"], [{"name": "agent", "restartCount": 0, "state": DEAD}]),
            {"restarts": 1, "agent_finished": 60.0},
            id="just-ended",
        ),
        pytest.param(
            pod(["agent"], [{"name": "agent", "restartCount": 0, "state": {"waiting": {}}, "lastState": DEAD}]),
            {"restarts": 1, "agent_finished": 60.0},
            id="waits-for-restart",
        ),
        pytest.param(
            pod(["agent"], [{"name": "agent", "restartCount": 1, "lastState": DEAD} | RUNNING]),
            {"restarts": 1, "agent_running": True, "agent_finished": 60.0},
            id="restarted-is-the-same-count",
        ),
        pytest.param(
            pod(["side", "agent"], [{"name": "agent", "restartCount": 0} | RUNNING, {"name": "side", "state": DEAD}]),
            {"agent_running": True},
            id="agent-by-name",
        ),
        pytest.param(
            pod(["worker", "side"], [{"name": "side", "state": DEAD}, {"name": "worker", "restartCount": 0} | RUNNING]),
            {"agent_running": True},
            id="agent-is-the-first-of-the-spec",
        ),
        pytest.param(pod(["agent"], [], phase="Failed"), {"ended": True}, id="failed"),
        pytest.param(pod(["agent"], [], phase="Succeeded"), {"ended": True}, id="succeeded"),
    ],
)
def test_pod(obj: dict[str, Any], expected: dict[str, Any]) -> None:
    assert convert.pod_record(obj) == PodRecord(
        **({"uid": "u1", "namespace": "ns", "name": "a", "pool": "p", "created": 5.0, "template": "abc"} | expected)
    )


def test_a_pod_without_status_or_labels() -> None:
    obj = {"metadata": META | {"deletionTimestamp": "1970-01-01T00:00:05Z"}}
    assert convert.pod_record(obj) == PodRecord("u1", "ns", "a", "", 0.0, deleting=True)
