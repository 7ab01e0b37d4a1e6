"""Each field of the API objects arrives where the core looks for it, whatever is left out."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskdist.api import (
    AgentPool,
    Delivery,
    Dispatch,
    OnDependencyFailure,
    OnExhausted,
    OnHopeless,
    OnOverflow,
    OrderPolicy,
    Phase,
    Priority,
    Reason,
    Reclaim,
    Strategy,
    Unreadable,
)
from taskdist.api.nesting import MAX_DEPTH, loads
from taskdist.api.task import MAX_PAYLOAD_BYTES
from taskdist.core.agents.performance import TypePerformance
from taskdist.core.cost import Spent
from taskdist.core.model import (
    Breaker,
    Budget,
    Match,
    Overflow,
    Parent,
    Placement,
    Pool,
    Preference,
    Queue,
    Quota,
    Requirement,
    RetryPolicy,
    Route,
    RouteStep,
    Task,
    Timeouts,
    TokenRate,
)
from taskdist.protocol import convert
from taskdist.protocol.convert import template_hash
from taskdist.protocol.messages import ObjectRef, by_value
from taskdist.protocol.observations import ObservedPod, ObservedTask

META = {"uid": "u1", "namespace": "ns", "name": "a", "resourceVersion": "42"}


def task(spec: dict[str, Any] | None = None, status: Any = None, **meta: Any) -> dict[str, Any]:
    obj: dict[str, Any] = {"metadata": META | meta, "spec": {"queue": "q", "type": "t"} | (spec or {})}
    return obj if status is None else obj | {"status": status}


def plain(**fields: Any) -> Task:
    base: dict[str, Any] = {"uid": "u1", "namespace": "ns", "name": "a", "queue": "q", "type": "t", "created": 0.0}
    # The account is the namespace's if the Task names none; an absent payload is that of an empty object.
    return Task(**(base | {"tenant": "ns", "payload_bytes": 2} | fields))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(None, 0.0, id="absent"),
        pytest.param("1970-01-01T00:00:10Z", 10.0, id="seconds"),
        pytest.param("1970-01-01T00:00:10.000001Z", 10.000001, id="microseconds"),
        pytest.param("1970-01-01T00:00:10.000001999Z", 10.000001, id="finer-is-cut"),
        pytest.param("1970-01-01T01:00:10+01:00", 10.0, id="offset"),
        pytest.param("1970-01-01T00:00:10", 10.0, id="no-zone-is-utc"),
        pytest.param("1970-01-01t00:00:10z", 10.0, id="lower case"),
        pytest.param("1970-01-01t00:00:10.5z", 10.5, id="lower case with a fraction"),
        pytest.param("1970-01-01T00:00:10+99:99", 0.0, id="no offset is that large"),
        pytest.param("0000-01-01T00:00:00Z", 0.0, id="there is no year 0"),
        pytest.param("9999-12-31T23:59:59-23:59", 253370764800.0, id="beyond what can be written again"),
    ],
)
def test_time(text: str | None, expected: float) -> None:
    assert convert.seconds(text) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        pytest.param(task(), ObservedTask(task=plain(), resource_version=42, payload_bytes=2), id="as-small-as-can-be"),
        pytest.param(
            task(
                {
                    "payload": {"a": 1},
                    "priority": "High",
                    "tenant": "acme",
                    "deadline": "1970-01-01T00:10:00Z",
                    "notBefore": "1970-01-01T00:03:00Z",
                    "timeouts": {"waitingSeconds": 30, "executionSeconds": 5},
                    "concurrencyKey": "host-1",
                    "orderingKey": "account-7",
                    "dependsOn": [{"name": "b"}, {"name": "c"}],
                    "onDependencyFailure": "Run",
                    "pool": "p",
                    "slots": 2,
                    "resources": {"gpu": 1, "disk": 3},
                    "skills": ["b", "a"],
                    "zones": ["z", "a"],
                    "regions": ["r"],
                    "maxCostPerHour": 2,
                    "minQuality": 0.5,
                    "preferred": [
                        {"weight": 3, "selector": {"matchLabels": {"disk": "ssd"}}},
                        {"selector": {"matchExpressions": [{"key": "gpu", "operator": "Exists"}]}},
                    ],
                    "waitForPreferredSeconds": 4,
                    "stickyKey": "k",
                    "suspend": True,
                    "cancel": True,
                    "agent": "p-1",
                    "budgets": [{"name": "b"}, {"name": "a/b", "amount": 3}, {"name": "q/b", "amount": 2}],
                },
                labels={"z": "1", "a": "2"},
                creationTimestamp="1970-01-01T00:01:40Z",
                deletionTimestamp="1970-01-01T00:01:50Z",
            ),
            ObservedTask(
                task=plain(
                    created=100.0,
                    priority=Priority.HIGH.level,
                    tenant="acme",
                    deadline=600.0,
                    not_before=180.0,
                    waiting_limit=30,
                    concurrency_key="host-1",
                    ordering_key="account-7",
                    parents=(Parent("b"), Parent("c")),
                    on_parent_failure=OnDependencyFailure.RUN,
                    payload_bytes=len('{"a":1}'),
                    pool="p",
                    slots=2,
                    resources=(("disk", 3), ("gpu", 1)),
                    skills=frozenset({"a", "b"}),
                    placement=Placement(
                        ("z", "a"),
                        ("r",),
                        2.0,
                        0.5,
                        (
                            Preference(3, (Requirement("disk", "In", frozenset({"ssd"})),)),
                            Preference(1, (Requirement("gpu", "Exists"),)),
                        ),
                        4.0,
                    ),
                    sticky_key="k",
                    suspended=True,
                    labels=(("a", "2"), ("z", "1")),
                    agent="p-1",
                    budgets=(("a", "b", 3), ("q", "b", 3)),
                ),
                resource_version=42,
                cancel=True,
                payload_bytes=len('{"a":1}'),
                deleting=True,
                execution_limit=5,
            ),
            id="whole-spec",
        ),
        pytest.param(
            task({"minQuality": 0, "waitForPreferredSeconds": 0, "zones": [], "preferred": []}),
            ObservedTask(task=plain(), resource_version=42, payload_bytes=2),
            id="defaults-say-nothing-of-the-place",
        ),
        pytest.param(
            task(status={"cost": 1.5, "energyWh": 2}),
            ObservedTask(task=plain(), resource_version=42, payload_bytes=2, spent=Spent(1.5, 2.0)),
            id="what-it-has-cost",
        ),
        pytest.param(
            task(status={"energyWh": 2}),
            ObservedTask(task=plain(), resource_version=42, payload_bytes=2, spent=Spent(None, 2.0)),
            id="of-a-pool-that-says-no-price",
        ),
        pytest.param(
            task({"maxCostPerHour": 0}),
            ObservedTask(task=plain(placement=Placement(max_cost=0.0)), resource_version=42, payload_bytes=2),
            id="only-what-costs-nothing",
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
                    "startedAt": "1970-01-01T00:00:11Z",
                    "lostAgents": ["x", "y"],
                    "spilledTo": "overflow",
                }
            ),
            ObservedTask(
                task=plain(
                    failures=2, not_before=9.0, attempted=True, deaths=("x", "y"), spilled=True, queue="overflow"
                ),
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
            ObservedTask(task=plain(), resource_version=42, phase=Phase.FAILED, payload_bytes=2),
            id="reason-of-a-later-release",
        ),
        pytest.param(
            task(
                {"dependsOn": [{"name": "b"}, {"name": "c"}]},
                {"dependencies": [{"name": "b", "uid": "ub", "phase": "Succeeded"}, {"name": "c", "uid": "uc"}]},
            ),
            ObservedTask(
                task=plain(parents=(Parent("b", "ub", Phase.SUCCEEDED), Parent("c", "uc"))),
                resource_version=42,
                payload_bytes=2,
            ),
            id="parents-as-they-are-pinned",
        ),
        pytest.param(
            task({"notBefore": "1970-01-01T00:00:20Z"}, {"retryAfter": "1970-01-01T00:00:09Z"}),
            ObservedTask(task=plain(not_before=20.0), resource_version=42, payload_bytes=2),
            id="the-later-of-not-before-and-back-off",
        ),
        pytest.param(
            task({"priority": "Urgent"}),
            ObservedTask(task=plain(), resource_version=42, payload_bytes=2),
            id="level-of-another-release",
        ),
        pytest.param(
            task({"pool": None, "skills": None, "payload": None, "agentSelector": None}, {"retryAfter": None}),
            ObservedTask(task=plain(), resource_version=42, payload_bytes=2),
            id="nulls-are-absent",
        ),
    ],
)
def test_task(obj: dict[str, Any], expected: ObservedTask) -> None:
    assert convert.observed_task(obj) == expected


ODD_TIMES = ("2030-01-01T00:00:00+99:99", "0000-01-01T00:00:00Z", "2030-01-01T00:00:00x5Z", "2030-02-30T00:00:00Z", "x")


@pytest.mark.parametrize("field", ["deadline", "notBefore"])
@pytest.mark.parametrize("text", ODD_TIMES)
def test_a_time_that_no_release_can_read_is_what_its_task_ends_with(field: str, text: str) -> None:
    record = convert.observed_task(task({field: text}))
    assert record.fault is not None
    assert record.fault.reason is Reason.INVALID_SPEC
    assert f"spec.{field} {text!r}" in record.fault.message
    assert (record.task.deadline, record.task.not_before) == (None, 0.0)


@pytest.mark.parametrize("levels", [MAX_DEPTH, 400, 1200, 9990])
def test_a_payload_that_is_too_deep_is_what_its_task_ends_with(levels: int) -> None:
    text = '{"a":' * levels + "1" + "}" * levels
    obj = task({"payload": {"x": loads(text)}})
    record = convert.observed_task(obj)
    assert record.fault is not None
    assert record.fault.reason is Reason.PAYLOAD_TOO_DEEP
    with pytest.raises(Unreadable):
        convert.payload(obj)


def test_a_payload_of_as_many_levels_as_are_allowed_is_sent() -> None:
    text = '{"a":' * MAX_DEPTH + "1" + "}" * MAX_DEPTH
    obj = task({"payload": json.loads(text)})
    assert convert.observed_task(obj).fault is None
    assert convert.payload(obj) == text.encode()


def test_a_payload_that_is_too_large_is_what_its_task_ends_with() -> None:
    fault = convert.observed_task(task({"payload": {"a": "x" * MAX_PAYLOAD_BYTES}})).fault
    assert fault is not None
    assert fault.reason is Reason.PAYLOAD_TOO_LARGE


def test_a_result_that_is_too_deep_is_no_result() -> None:
    assert convert.result(task(status={"result": loads('{"a":' * 500 + "1" + "}" * 500)})) == b""


@pytest.mark.parametrize(
    ("obj", "words"),
    [
        pytest.param(task(status={"phase": "Paused"}), "status.phase 'Paused'", id="phase"),
        pytest.param(
            task({"agentSelector": {"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}}),
            "an operator of matchExpressions 'Gt'",
            id="operator of a selector",
        ),
    ],
)
def test_a_word_of_a_newer_release_sets_a_task_aside(obj: dict[str, Any], words: str) -> None:
    with pytest.raises(Unreadable, match=words) as caught:
        convert.observed_task(obj)
    assert caught.value.reason is Reason.UNKNOWN_VALUE


@pytest.mark.parametrize(
    ("spec", "reason", "field"),
    [
        ({"dispatch": "Eager"}, Reason.UNKNOWN_VALUE, "spec.dispatch"),
        ({"order": {"policy": "Lifo"}}, Reason.UNKNOWN_VALUE, "spec.order.policy"),
        (
            {"routes": [{"name": "r", "steps": [{"pools": ["p"], "strategy": "Magic"}]}]},
            Reason.UNKNOWN_VALUE,
            "spec.routes.0.steps.0",
        ),
        ({"weight": "many"}, Reason.UNREADABLE, "spec.weight"),
        ({"leaseSeconds": 10**9}, Reason.UNREADABLE, "spec.leaseSeconds"),
    ],
)
def test_a_queue_of_a_newer_release_is_set_aside_by_its_field(spec: dict[str, Any], reason: Reason, field: str) -> None:
    with pytest.raises(Unreadable, match=field) as caught:
        convert.queue({"metadata": META, "spec": {"pools": ["p"]} | spec})
    assert caught.value.reason is reason


POD = {"spec": {"containers": [{"name": "agent"}]}}


def test_a_template_that_is_too_deep_sets_its_pool_aside() -> None:
    deep = loads('{"a":' * 5000 + "1" + "}" * 5000)
    template = {"spec": {"containers": [{"name": "agent", "x": deep}]}}
    with pytest.raises(Unreadable, match=r"spec\.template") as caught:
        convert.pool({"metadata": META, "spec": {"template": template}})
    assert caught.value.reason is Reason.INVALID_TEMPLATE


STATUSES: list[Any] = [
    {"scalingReason": "Magic"},
    {"performance": [{"type": "t"}, {"type": 1, "count": "x"}, "y"]},
    {"conditions": [{"type": "Ready", "status": "Perhaps"}]},
    {"breakers": [{"agent": "a", "state": "Ajar"}]},
]


@pytest.mark.parametrize("status", STATUSES)
def test_a_status_of_another_release_keeps_nobody_from_reading_the_spec(status: Any) -> None:
    pool = {"metadata": META, "spec": {"template": POD, "slots": 3}, "status": status}
    assert convert.pool(pool).slots == 3
    assert convert.performance(pool) == ()
    queue = {"metadata": META, "spec": {"pools": ["p"], "weight": 3}, "status": {"conditions": "odd"}}
    assert convert.queue(queue).weight == 3


def test_an_unknown_phase_is_neither_run_again_nor_lost() -> None:
    with pytest.raises(Unreadable, match=r"status.phase 'Lost'"):
        convert.observed_task(task(status={"phase": "Lost"}))


def test_a_selector_reads_the_same_in_any_order() -> None:
    labels = {"matchLabels": {"zone": "a", "arch": "arm"}}
    expressions = {
        "matchExpressions": [
            {"key": "disk", "operator": "NotIn", "values": ["hdd", "tape"]},
            {"key": "spot", "operator": "DoesNotExist"},
        ]
    }
    one = convert.observed_task(task({"agentSelector": labels | expressions})).task.selector
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
    assert convert.observed_task(task({"agentSelector": turned})).task.selector == one


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), JSON))
def test_the_payload_survives_and_its_size_is_that_of_its_bytes(value: dict[str, Any]) -> None:
    obj = task({"payload": value})
    body = by_value(convert.payload(obj))
    assert json.loads(body) == value
    assert convert.observed_task(obj).payload_bytes == len(body)


def test_a_payload_that_is_no_utf8_stops_nothing() -> None:
    assert json.loads(by_value(convert.payload(task({"payload": {"a": "\ud800"}})))) == {"a": "?"}


REF = {"uri": "s3://bucket/tasks/team/payloads/x", "size": 70_000, "sha256": "a" * 64}


def test_a_payload_by_reference_is_passed_on_and_takes_nothing_of_a_queue_s_bytes() -> None:
    obj = task({"payloadRef": REF})
    assert convert.payload(obj) == ObjectRef(REF["uri"], 70_000, "a" * 64)  # type: ignore[arg-type]
    record = convert.observed_task(obj)
    assert (record.payload_bytes, record.task.objects, record.fault) == (0, True, None)
    assert not convert.observed_task(task({"payload": {}})).task.objects


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        pytest.param({"uri": "gs://b/x"}, "uri", id="a store of another release sets the Task aside"),
        pytest.param({"size": "many"}, "size", id="a size that is no number sets it aside"),
        pytest.param({"sha256": "short"}, "sha256", id="a hash that is none sets it aside"),
    ],
)
def test_a_reference_that_cannot_be_read_sets_its_task_aside(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(Unreadable, match=rf"spec\.payloadRef .*{named}") as refused:
        convert.observed_task(task({"payloadRef": REF | changes}))
    assert refused.value.reason is Reason.UNREADABLE


def test_a_result_by_reference_is_passed_on_and_one_that_cannot_be_read_is_none() -> None:
    assert convert.result({"status": {"resultRef": REF}}) == ObjectRef(REF["uri"], 70_000, "a" * 64)  # type: ignore[arg-type]
    assert convert.result({"status": {"resultRef": {"uri": 3}}}) == b""


def test_queue_defaults_are_the_api_s() -> None:
    obj = {"metadata": {"namespace": "ns", "name": "q"}, "spec": {"pools": ["b", "a"]}}
    # But for the jitter: where the queue is gone, the core retries without chance.
    assert convert.queue(obj) == Queue("ns", "q", pools=("b", "a"), retry=RetryPolicy(jitter=0.1))


def test_queue() -> None:
    spec = {
        "pools": ["p"],
        "paused": True,
        "dispatch": "Lazy",
        "delivery": "AtMostOnce",
        "reclaim": "Fast",
        "leaseSeconds": 5,
        "holdSeconds": 20,
        "retry": {
            "limit": 1,
            "initialSeconds": 0.5,
            "factor": 3,
            "maxSeconds": 9,
            "jitter": 0.5,
            "reasons": ["HandlerError"],
            "agentDeaths": 2,
            "onExhausted": "DeadLetter",
        },
        "drained": True,
        "weight": 3,
        "order": {"policy": "Fifo", "level": "Low", "criticalPathFirst": True},
        "tenants": {
            "weights": [{"name": "b", "weight": 2}, {"name": "a", "weight": 4}],
            "defaultWeight": 5,
            "emergency": ["a"],
            "emergencyLeased": 7,
        },
        "aging": {"stepSeconds": 8},
        "deadlines": {"onHopeless": "DeadLetter", "maxQueueSeconds": 11},
        "expectedServiceSeconds": 12,
        "largeTasks": {"holdAfterSeconds": 13},
        "quota": {"waiting": 1, "leased": 2, "slots": 3, "payloadBytes": 4, "perTenant": {"leased": 5}},
        "rate": {"queue": {"perSecond": 6, "burst": 7}, "perTenant": {"perSecond": 0.5}},
        "concurrencyLimit": 14,
        "strategy": "Pack",
        "overflow": {"highWater": 16, "lowWater": 15, "action": "Spill", "spillTo": "other"},
        "timeouts": {"waitingSeconds": 17, "executionSeconds": 18, "progressSeconds": 19},
        "routes": [
            {
                "name": "r",
                "match": {
                    "matchLabels": {"b": "c"},
                    "matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["x"]}],
                    "types": ["work"],
                    "levels": ["High"],
                    "tenants": ["t"],
                    "minSlots": 2,
                    "maxSlots": 3,
                },
                "steps": [{"pools": ["z", "y"]}, {"pools": ["x"], "afterSeconds": 1.5, "strategy": "Spread"}],
            },
            {"name": "all", "steps": [{"pools": ["z"]}]},
        ],
        "budgets": [
            {"name": "held", "kind": "Concurrent", "limit": 5},
            {"name": "spent", "kind": "Rate", "perSecond": 0.5, "burst": 6},
        ],
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
        retry=RetryPolicy(1, 0.5, 3, 9, 0.5, frozenset({"HandlerError"}), 2, OnExhausted.DEAD_LETTER),
        drained=True,
        weight=3,
        policy=OrderPolicy.FIFO,
        level=Priority.LOW.level,
        critical_path_first=True,
        tenant_weights=(("a", 4), ("b", 2)),
        tenant_weight=5,
        emergency=frozenset({"a"}),
        emergency_leased=7,
        aging_step=8,
        on_hopeless=OnHopeless.DEAD_LETTER,
        max_queue_seconds=11,
        expected_service=12,
        hold_after=13,
        quota=Quota(1, 2, 3, 4),
        tenant_quota=Quota(leased=5),
        rate=TokenRate(6, 7),
        tenant_rate=TokenRate(0.5),
        concurrency_limit=14,
        overflow=Overflow(16, 15, OnOverflow.SPILL, "other"),
        timeouts=Timeouts(17, 18, 19),
        routes=(
            Route(
                "r",
                (RouteStep(("z", "y")), RouteStep(("x",), 1.5, Strategy.SPREAD)),
                Match(
                    (Requirement("a", "NotIn", frozenset({"x"})), Requirement("b", "In", frozenset({"c"}))),
                    frozenset({"work"}),
                    frozenset({Priority.HIGH.level}),
                    frozenset({"t"}),
                    2,
                    3,
                ),
            ),
            Route("all", (RouteStep(("z",)),)),
        ),
        budgets=(Budget("held", 5), Budget("spent", rate=TokenRate(0.5, 6))),
        strategy=Strategy.PACK,
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
        pytest.param(
            {"costPerHour": 0.5, "wattsBusy": 60, "wattsIdle": 20, "quality": 0.75},
            {"cost_per_hour": 0.5, "watts_busy": 60.0, "watts_idle": 20.0, "quality": 0.75},
            id="worth",
        ),
        pytest.param({"breaker": {"enabled": False}}, {"breaker": None}, id="without-breaker"),
        pytest.param(
            {
                "slowStartSeconds": 60,
                "breaker": {
                    "failureRatio": 0.5,
                    "minAttempts": 3,
                    "windowSeconds": 4,
                    "openSeconds": 5.5,
                    "maxOpenSeconds": 6,
                    "probes": 7,
                    "maxOpenPercent": 8,
                },
            },
            {"slow_start": 60, "breaker": Breaker(0.5, 3, 4, 5.5, 6, 7, 8)},
            id="guard",
        ),
    ],
)
def test_pool(spec: dict[str, Any], expected: dict[str, Any]) -> None:
    template = {"metadata": {"labels": {"zone": "a"}}, "spec": {"containers": [{"name": "agent"}]}}
    obj = {"metadata": {"namespace": "ns", "name": "p"}, "spec": {"template": template} | spec}
    base: dict[str, Any] = {
        "labels": (("taskdist.dev/pool", "p"), ("zone", "a")),
        "scale_down_delay": 0.0,
        "breaker": Breaker(),
        "template": template_hash(AgentPool.model_validate(obj)),
    }
    assert convert.pool(obj) == Pool("ns", "p", **(base | expected))


def test_what_a_pool_s_status_tells_of_types() -> None:
    full = {"type": "a", "count": 3, "meanSeconds": 1, "deviationSeconds": 0.5, "successRate": 0.25}
    failed = {"type": "b", "count": 1, "successRate": 0}
    obj = {"metadata": {}, "status": {"performance": [full, failed]}}
    assert convert.performance(obj) == (
        TypePerformance("a", 3, 1.0, 0.5, 0.25),
        TypePerformance("b", 1, 0.0, 0.0, 0.0),
    )
    assert convert.performance({"metadata": {}}) == ()


OWNER = {"apiVersion": "taskdist.dev/v1alpha1", "kind": "AgentPool", "name": "p", "uid": "u", "controller": True}


def pod(containers: list[str], statuses: list[dict[str, Any]], **status: Any) -> dict[str, Any]:
    return {
        "metadata": META
        | {
            "labels": {"taskdist.dev/pool": "p", "taskdist.dev/template": "abc"},
            "creationTimestamp": "1970-01-01T00:00:05Z",
            "ownerReferences": [OWNER],
        },
        "spec": {"containers": [{"name": name} for name in containers]},
        "status": {"containerStatuses": statuses} | status,
    }


RUNNING = {"state": {"running": {"startedAt": "x"}}}
DEAD = {
    "terminated": {"exitCode": 137, "finishedAt": "1970-01-01T00:01:00Z", "message": "taskdist agent instance 1f\n"}
}


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
            {"ready": True},
            id="ready",
        ),
        pytest.param(
            pod(["agent"], [], conditions=[{"type": "Ready", "status": "False"}]), {}, id="condition-says-not-ready"
        ),
        pytest.param(
            pod(["agent"], [{"name": "agent", "restartCount": 0, "state": DEAD}]),
            {"ended_instances": ("1f",)},
            id="just-ended",
        ),
        pytest.param(
            pod(["agent"], [{"name": "agent", "restartCount": 0, "state": {"waiting": {}}, "lastState": DEAD}]),
            {"ended_instances": ("1f",)},
            id="waits-for-restart",
        ),
        pytest.param(
            pod(["agent"], [{"name": "agent", "restartCount": 1, "lastState": DEAD} | RUNNING]),
            {"ended_instances": ("1f",)},
            id="restarted",
        ),
        pytest.param(
            pod(
                ["agent"],
                [
                    {
                        "name": "agent",
                        "restartCount": 1,
                        "state": {"terminated": {"exitCode": 1, "message": "taskdist agent instance 2f\nwhy"}},
                        "lastState": DEAD,
                    }
                ],
            ),
            {"ended_instances": ("2f", "1f")},
            id="ended-twice",
        ),
        *(
            pytest.param(
                pod(["agent"], [{"name": "agent", "state": {"terminated": {"exitCode": 1, "message": message}}}]),
                {},
                id=f"last-words-that-name-none-{n}",
            )
            for n, message in enumerate((None, "", "out of memory", "taskdist agent instance ", "x" * 4096, 7))
        ),
        pytest.param(
            pod(["side", "agent"], [{"name": "agent", "restartCount": 0} | RUNNING, {"name": "side", "state": DEAD}]),
            {},
            id="agent-by-name",
        ),
        pytest.param(
            pod(["worker", "side"], [{"name": "side", "state": DEAD}, {"name": "worker", "restartCount": 0} | RUNNING]),
            {},
            id="agent-is-the-first-of-the-spec",
        ),
        pytest.param(pod(["agent"], [], phase="Failed"), {"ended": True}, id="failed"),
        pytest.param(pod(["agent"], [], phase="Succeeded"), {"ended": True}, id="succeeded"),
    ],
)
def test_pod(obj: dict[str, Any], expected: dict[str, Any]) -> None:
    plain = ObservedPod(uid="u1", namespace="ns", name="a", pool="p", created=5.0, template="abc", may_run=False)
    assert convert.observed_pod(obj) == replace(plain, **expected)


@pytest.mark.parametrize(
    ("owners", "foreign"),
    [
        pytest.param([OWNER], False, id="its pool made it"),
        pytest.param([OWNER | {"name": "another"}], True, id="another pool made it"),
        pytest.param([OWNER | {"controller": False}], True, id="the pool is an owner beside another"),
        pytest.param([OWNER | {"kind": "ReplicaSet"}], True, id="what made it is no pool"),
        pytest.param([], True, id="nobody made it"),
    ],
)
def test_a_pod_that_only_has_a_pools_label_is_foreign(owners: list[dict[str, Any]], foreign: bool) -> None:
    obj = pod(["agent"], [])
    obj["metadata"] = obj["metadata"] | {"ownerReferences": owners}
    assert convert.observed_pod(obj).foreign is foreign


def test_a_pod_says_where_it_is() -> None:
    labels = {"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r", "zone": "other"}
    obj = {"metadata": META | {"labels": labels}}
    assert convert.observed_pod(obj).topology == (
        ("topology.kubernetes.io/zone", "z"),
        ("topology.kubernetes.io/region", "r"),
    )


def test_a_pod_without_status_or_labels() -> None:
    obj = {"metadata": META | {"deletionTimestamp": "1970-01-01T00:00:05Z"}}
    assert convert.observed_pod(obj) == ObservedPod("u1", "ns", "a", "", 0.0, deleting=True, may_run=False)


OWN_PROBE = {"httpGet": {"path": "/readyz", "port": 8088}, "periodSeconds": 1}
UNREADY = [{"type": "Ready", "status": "False"}]


@pytest.mark.parametrize(
    ("probe", "change", "ready"),
    [
        pytest.param(OWN_PROBE, {}, True, id="unready only as the agent is not connected"),
        pytest.param({"exec": {"command": ["warm"]}}, {}, False, id="a probe of the user's own"),
        pytest.param({"httpGet": {"path": "/", "port": 1}}, {}, False, id="the user's own, over HTTP"),
        pytest.param(None, {}, False, id="no probe"),
        pytest.param(OWN_PROBE, {"side": {"ready": False}}, False, id="another container is not ready"),
        pytest.param(OWN_PROBE, {"side": None}, False, id="nothing is known of another container"),
        pytest.param(OWN_PROBE, {"agent": {"started": False}}, False, id="it has not passed its start"),
        pytest.param(OWN_PROBE, {"agent": {"state": {"waiting": {}}}}, False, id="it does not run"),
        pytest.param(OWN_PROBE, {"gates": [{"conditionType": "in-service"}]}, False, id="a gate is closed"),
    ],
)
def test_what_the_agent_says_itself_is_not_waited_for_from_its_probe(
    probe: dict[str, Any] | None, change: dict[str, Any], ready: bool
) -> None:
    obj = pod(["side", "agent"], [], conditions=UNREADY)
    statuses = {
        "agent": {"name": "agent", "restartCount": 0, "ready": False, "started": True} | RUNNING,
        "side": {"name": "side", "restartCount": 0, "ready": True} | RUNNING,
    }
    for name in ("agent", "side"):
        if name in change and change[name] is None:
            del statuses[name]
        else:
            statuses[name] |= change.get(name, {})
    obj["status"]["containerStatuses"] = list(statuses.values())
    agent = obj["spec"]["containers"][1]
    if probe is not None:
        agent["readinessProbe"] = probe
    if "gates" in change:
        obj["spec"]["readinessGates"] = change["gates"]
    assert convert.observed_pod(obj).ready is ready
