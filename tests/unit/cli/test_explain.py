"""The snapshot reaches the engine whole; what it says reaches the user, and so does what only the operator knows."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from memory_cluster import ASSIGNED, FAILED_STATUS, SUCCEEDED, MemoryCluster, call
from taskdist.api import Priority
from taskdist.api.view import Changes, Course, ExpectedStart, Explanation, LevelCount, Limit, Outside, QueueView, WhatIf
from taskdist.cli.explaining import changed
from taskdist.cli.run import FAILED, OK, USAGE
from taskdist.client.explaining import Snapshot, events, why
from taskdist.core.events import AgentReady, PodSeen, PoolApplied, QueueApplied, TaskHeld, TaskLeased, TaskWaiting
from taskdist.kube import AGENTPOOLS, LEASES, PODS, TASKQUEUES, ApiError
from taskdist.protocol.task_status import ARRAYS_SKILL


def queue(cluster: MemoryCluster, **spec: Any) -> None:
    cluster.add(TASKQUEUES, {"metadata": {"name": "q"}, "spec": {"pools": ["p"]} | spec})


def pool(cluster: MemoryCluster, **spec: Any) -> None:
    template = {"metadata": {"labels": {"zone": "a"}}, "spec": {"containers": [{"name": "agent"}]}}
    cluster.add(AGENTPOOLS, {"metadata": {"name": "p"}, "spec": {"template": template} | spec})


def pod(cluster: MemoryCluster, name: str = "p-0", *, ready: bool = True, **status: Any) -> None:
    conditions = [{"type": "Ready", "status": str(ready)}]
    cluster.add(
        PODS,
        {
            "metadata": {"name": name, "labels": {"taskdist.dev/pool": "p", "zone": "a"}},
            "spec": {"containers": [{"name": "agent"}]},
            "status": {"phase": "Running", "conditions": conditions} | status,
        },
    )


@pytest.fixture
def cluster() -> MemoryCluster:
    """A queue, a pool, one ready agent, and a Task that waits."""
    made = MemoryCluster()
    queue(made)
    pool(made)
    pod(made)
    made.task("a")
    return made


def explain(cluster: MemoryCluster, name: str = "a") -> dict[str, Any]:
    outcome = call(cluster, "explain", name, "-o", "json")
    assert outcome.code == OK, outcome
    story: dict[str, Any] = json.loads(outcome.out)
    return story


@pytest.mark.parametrize(
    ("status", "reason", "told"),
    [
        pytest.param("True", "InvalidTemplate", "AgentPool p: InvalidTemplate, no such field", id="it is stalled"),
        pytest.param("False", "AgentsReady", None, id="it is not"),
        pytest.param("True", "PodsFailing", None, id="what its pods show is said of them"),
    ],
)
def test_a_pool_that_is_stalled_says_so(cluster: MemoryCluster, status: str, reason: str, told: str | None) -> None:
    condition = {"type": "Stalled", "status": status, "reason": reason, "message": "no such field"}
    made = cluster.objects[(str(AGENTPOOLS), cluster.namespace, "p")]
    cluster.add(AGENTPOOLS, made | {"status": {"conditions": [condition]}})
    assert explain(cluster).get("stalled") == told
    cluster.task("elsewhere", pool="another")
    assert "stalled" not in explain(cluster, "elsewhere")


def test_pods_that_do_not_come_up_are_told_with_the_command_that_tells_more(cluster: MemoryCluster) -> None:
    ended = {"exitCode": 3, "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:01Z"}
    waiting = {"waiting": {"reason": "CrashLoopBackOff"}}
    agent = {"name": "agent", "restartCount": 1, "state": waiting, "lastState": {"terminated": ended}}
    pod(cluster, ready=False, containerStatuses=[agent])
    story = explain(cluster)
    assert story["reason"] == "NoAgent"
    assert "p-0 fails: CrashLoopBackOff" in story["message"]
    assert "exit code 3" in story["message"]
    assert story["command"] == "kubectl logs p-0 -n ns --previous -c agent"


@pytest.mark.parametrize(
    ("arrange", "reason", "words"),
    [
        pytest.param(lambda c: c.task("a", queue="x"), "QueueNotFound", "x", id="no-queue"),
        pytest.param(lambda c: queue(c, paused=True), "QueuePaused", "q", id="paused"),
        pytest.param(lambda c: queue(c, pools=["elsewhere"]), "PoolNotFound", "elsewhere", id="no-pool"),
        pytest.param(lambda c: pod(c, ready=False), "NoAgent", "p", id="no-agent"),
        pytest.param(lambda c: c.task("a", suspend=True), "Suspended", "", id="suspended"),
        pytest.param(lambda c: c.task("a", skills=["gpu"]), "SkillMissing", "gpu", id="skill"),
        pytest.param(lambda c: c.task("a", slots=5), "TooLarge", "5", id="too-large"),
        pytest.param(
            lambda c: c.task("a", agentSelector={"matchLabels": {"zone": "b"}}), "LabelsMismatch", "zone", id="labels"
        ),
        pytest.param(
            lambda c: c.task("a", {"failures": 1, "retryAfter": "2999-01-01T00:00:00Z"}),
            "BackingOff",
            "",
            id="backing-off",
        ),
        pytest.param(lambda c: c.task("b", ASSIGNED | {"agentUid": "uid-p-0"}), "Queued", "busy", id="all-busy"),
        pytest.param(
            lambda c: [c.task("b"), c.task("a", dependsOn=[{"name": "b"}])], "Dependency", "depends on b", id="parent"
        ),
        pytest.param(lambda c: c.task("a", dependsOn=[{"name": "b"}]), "DependencyNotFound", "b", id="no-parent"),
        pytest.param(
            lambda c: [c.task(name, idempotencyKey="k") for name in ("a", "0")], "Duplicate", "same", id="duplicate"
        ),
    ],
)
def test_why_it_waits(cluster: MemoryCluster, arrange: Any, reason: str, words: str) -> None:
    arrange(cluster)
    story = explain(cluster)
    assert (story["phase"], story["reason"]) == ("Pending", reason)
    assert words in story["message"]
    assert story["message"]


def test_what_could_run_now_points_at_the_operator(cluster: MemoryCluster) -> None:
    story = explain(cluster)
    assert "Agent p-0 has room for it now" in story["message"]
    assert "the agent is not connected" in story["unblock"]
    assert "position" not in story


def lease(cluster: MemoryCluster, seconds_ago: float, **fields: Any) -> None:
    spec = {"holderIdentity": "taskdist-0", "leaseDurationSeconds": 5, "renewTime": past(seconds_ago)}
    cluster.add(LEASES, {"metadata": {"name": "taskdist", "namespace": "taskdist-system"}, "spec": spec | fields})


@pytest.mark.parametrize("fields", [{}, {"holderIdentity": "", "leaseDurationSeconds": 1}], ids=["over", "let go"])
def test_that_nobody_leads_is_said_first_and_since_when(cluster: MemoryCluster, fields: dict[str, Any]) -> None:
    lease(cluster, 300, **fields)
    cluster.task("a", skills=["gpu"])
    story = explain(cluster)
    assert story["reason"] == "NoLeader"
    assert "Lease taskdist-system/taskdist was last renewed at" in story["message"]
    assert "5m ago" in story["message"]
    assert "Besides: No agent of pool p has skill gpu" in story["message"]
    assert story["command"] == "kubectl get pods -n taskdist-system -l app.kubernetes.io/component=operator"
    assert story["operator"]["leads"] is False
    assert "position" not in story


def test_a_leader_is_not_mentioned_to_people(cluster: MemoryCluster) -> None:
    lease(cluster, 1)
    cluster.task("b", ASSIGNED | {"agentUid": "uid-p-0"})
    story = explain(cluster)
    assert (story["reason"], story["operator"]["leads"]) == ("Queued", True)
    assert "Unknown" not in call(cluster, "explain", "a").out


def test_whether_somebody_leads_is_called_unknown_where_it_is(cluster: MemoryCluster) -> None:
    cluster.task("b", ASSIGNED | {"agentUid": "uid-p-0"})
    assert "there is no Lease taskdist-system/taskdist" in call(cluster, "explain", "a").out
    cluster.errors[f"get {LEASES}"] = ApiError(403, "Forbidden", "no")
    outcome = call(cluster, "explain", "a")
    assert "you may not read Lease taskdist-system/taskdist" in outcome.out
    assert outcome.code == OK


def test_the_agents_tell_whose_lease_it_is(cluster: MemoryCluster) -> None:
    """The installation is named in the audience of their tokens; the chart's own name may be part of the Lease's."""
    token = {"serviceAccountToken": {"audience": "taskdist.dev/ops/blue"}}
    pod(cluster)
    cluster.objects[(str(PODS), "ns", "p-0")]["spec"]["volumes"] = [{"projected": {"sources": [token]}}]
    spec = {"holderIdentity": "x", "leaseDurationSeconds": 5, "renewTime": past(60)}
    cluster.add(LEASES, {"metadata": {"name": "blue-taskdist", "namespace": "ops"}, "spec": spec})
    assert "Lease ops/blue-taskdist" in explain(cluster)["message"]


def test_position_counts_those_ahead(cluster: MemoryCluster) -> None:
    queue(cluster, aging={"stepSeconds": 0})  # the cluster's Tasks are all very old
    cluster.task("b", ASSIGNED | {"agentUid": "uid-p-0"})
    cluster.task("first", priority="High")
    cluster.task("last", priority="Low")
    assert [explain(cluster, name)["position"] for name in ("first", "a", "last")] == [1, 2, 3]
    # Neither those of other queues that other agents serve.
    cluster.add(TASKQUEUES, {"metadata": {"name": "far"}, "spec": {"pools": ["elsewhere"]}})
    cluster.task("far", queue="far")
    assert "2 of 3 that wait for the same agents" in call(cluster, "why", "a").out


def test_what_can_never_run_has_no_position(cluster: MemoryCluster) -> None:
    specs: dict[str, dict[str, Any]] = {"a": {"skills": ["gpu"]}, "b": {"slots": 99}, "c": {"queue": "x"}}
    for name, spec in specs.items():
        cluster.task(name, **spec)
        story = explain(cluster, name)
        assert "position" not in story
        assert "expected_start" not in story


@pytest.mark.parametrize(
    ("reason", "message"),
    [("NoHandler", "no agent handles type t"), ("Unfenced", "agents cannot be fenced"), ("Recovering", "until 12:00")],
)
def test_what_only_the_operator_knows_is_taken_from_it(cluster: MemoryCluster, reason: str, message: str) -> None:
    cluster.task("a", {"reason": reason, "message": message})
    story = explain(cluster)
    assert (story["reason"], story["message"]) == (reason, message)


def test_what_the_operator_recorded_earlier_gives_way_to_what_is_so_now(cluster: MemoryCluster) -> None:
    cluster.task("a", {"reason": "NoAgent", "message": "none was ready"}, skills=["gpu"])
    assert explain(cluster)["reason"] == "SkillMissing"


def test_a_running_task(cluster: MemoryCluster) -> None:
    cluster.task("a", ASSIGNED | {"progress": {"fraction": 0.25, "message": "page 1"}})
    story = explain(cluster)
    assert (story["agent"], story["pool"], story["attempt"]) == ("p-0", "p", 1)
    assert story["progress"] == "25% page 1"


@pytest.mark.parametrize(
    ("route", "line"),
    [
        ({"rule": "r", "step": 2, "strategy": "Pack", "score": -0.5}, "r, step 2: pool p by Pack, score -0.5"),
        ({"rule": "", "step": 0, "strategy": "Adaptive", "score": 0}, "pool p by Adaptive, score 0"),
        ({"rule": "", "step": 0}, "pool p"),
    ],
    ids=["by a step", "without a route", "of another release"],
)
def test_the_way_to_the_agent(cluster: MemoryCluster, route: dict[str, Any], line: str) -> None:
    way = {**route, "pool": "p"}
    cluster.task("a", ASSIGNED | {"route": way})
    cluster.task("b", SUCCEEDED | {"route": way})
    assert explain(cluster)["route"] == explain(cluster, "b")["route"] == way
    for name in "ab":
        (told,) = [each for each in call(cluster, "explain", name).out.splitlines() if each.startswith("Route")]
        assert told.endswith(line)


def test_what_it_has_cost(cluster: MemoryCluster) -> None:
    costs = {"cost": 0.0125, "energyWh": 3.0}
    cluster.task("a", SUCCEEDED | costs)
    cluster.task("b", {"attempt": 1, **costs})
    for name in "ab":
        story = explain(cluster, name)
        assert (story["cost"], story["energy_wh"]) == (0.0125, 3.0)
        lines = [line.split() for line in call(cluster, "explain", name).out.splitlines()]
        assert [line for line in lines if line[0] in ("Cost:", "Energy:")] == [
            ["Cost:", "0.0125"],
            ["Energy:", "3", "Wh"],
        ]
    cluster.task("c", SUCCEEDED)
    assert not {"cost", "energy_wh"} & explain(cluster, "c").keys()


def test_a_dead_letter_says_why_it_is_one(cluster: MemoryCluster) -> None:
    cluster.task("a", FAILED_STATUS | {"phase": "DeadLettered"})
    story = explain(cluster)
    assert (story["phase"], story["reason"], story["message"]) == ("DeadLettered", "RetriesExhausted", "failed 2 times")


def test_an_ended_task(cluster: MemoryCluster) -> None:
    cluster.task("a", SUCCEEDED)
    cluster.task("b", FAILED_STATUS)
    assert explain(cluster)["reason"] == "Completed"
    outcome = call(cluster, "explain", "b")
    assert "failed 2 times" in outcome.out
    assert "attempt 1 on p-0: HandlerError: boom" in outcome.out


def test_an_invalid_neighbour_stops_nothing(cluster: MemoryCluster) -> None:
    cluster.add(TASKQUEUES, {"metadata": {"name": "broken"}, "spec": {}})
    cluster.add(AGENTPOOLS, {"metadata": {"name": "broken"}, "spec": {}})
    outcome = call(cluster, "explain", "a", "-o", "json")
    assert outcome.code == OK
    assert "warning: TaskQueue broken is invalid and left out" in outcome.err
    assert "warning: AgentPool broken is invalid and left out" in outcome.err


def test_the_snapshot_as_events() -> None:
    made = MemoryCluster()
    queue(made)
    pool(made, slots=2, skills=["gpu"])
    pod(made, "p-0")
    pod(made, "p-1", ready=False)
    pod(made, "p-2", phase="Failed")
    made.task("a")
    made.task("b", ASSIGNED | {"agentUid": "uid-p-0"})
    made.task("c", {"reason": "Recovering"})
    made.task("d", SUCCEEDED)
    of = {
        kind: [o for (k, _, _), o in made.objects.items() if k.startswith(kind)]
        for kind in ("tasks.", "taskq", "agent", "pods")
    }
    happened, skipped = events(Snapshot(of["tasks."], of["taskq"], of["agent"], of["pods"]), 0.0)
    assert not skipped
    assert [type(event) for event in happened] == [
        QueueApplied,
        PoolApplied,
        PodSeen,
        AgentReady,
        PodSeen,
        TaskWaiting,
        TaskLeased,
        TaskHeld,
    ]
    (ready,) = [event.agent for event in happened if isinstance(event, AgentReady)]
    assert (ready.uid, ready.slots, ready.types) == ("uid-p-0", 2, None)
    assert ready.skills == {"gpu", ARRAYS_SKILL}
    assert dict(ready.labels)["zone"] == "a"
    (leased,) = [event for event in happened if isinstance(event, TaskLeased)]
    assert (leased.task.name, leased.agent_uid) == ("b", "uid-p-0")


def past(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


@pytest.fixture
def busy() -> MemoryCluster:
    """Two busy slots, three Tasks that wait for them, and twenty that took ten seconds each."""
    made = MemoryCluster()
    queue(made)
    pool(made, slots=2)
    pod(made)
    for number in range(20):
        times = {"startedAt": past(400 - number), "finishedAt": past(390 - number)}
        made.task(f"done-{number}", SUCCEEDED | times)
    for number in range(2):
        made.task(f"runs-{number}", ASSIGNED | {"agentUid": "uid-p-0", "startedAt": past(4)})
    for number in range(3):
        # Not so long that they were lifted as high as they can be.
        made.task(f"waits-{number}")["metadata"]["creationTimestamp"] = past(60 - number)
    return made


def test_the_expected_start_is_learnt_from_tasks_that_ended(busy: MemoryCluster) -> None:
    story = explain(busy, "waits-2")
    assert (story["position"], story["position_exact"], story["waiting"]) == (3, True, 3)
    expected = {key: datetime.fromisoformat(value) for key, value in story["expected_start"].items()}
    # Three Tasks of ten seconds on two slots.
    assert 10 < (expected["at"] - datetime.now(UTC)).total_seconds() < 20
    assert expected["earliest"] < expected["at"] < expected["latest"]
    words = call(busy, "explain", "waits-2").out
    assert "3 of 3 that wait for the same agents" in words
    assert "in about 1" in words
    assert "four times in five" in words


def test_without_history_there_is_no_expected_start(cluster: MemoryCluster) -> None:
    cluster.task("b", ASSIGNED | {"agentUid": "uid-p-0"})
    assert explain(cluster)["expected_start"] == "unknown"
    assert "unknown: nothing tells yet" in call(cluster, "explain", "a").out


def test_agents_that_may_not_run_it_are_counted_by_why(cluster: MemoryCluster) -> None:
    cluster.task("a", skills=["gpu"])
    pod(cluster, "p-1")
    story = explain(cluster)
    assert story["rejections"] == [{"agents": 2, "why": "without the skills"}]
    assert story["command"] == ""
    assert "2       without the skills" in call(cluster, "explain", "a").out


def test_names_may_be_written_as_kubectl_has_them(cluster: MemoryCluster) -> None:
    plain = call(cluster, "explain", "a", "--json").out
    assert call(cluster, "why", "task/a", "-o", "json").out == plain
    assert call(cluster, "why", "pod/a").code != OK


def test_what_if(busy: MemoryCluster) -> None:
    outcome = call(busy, "explain", "waits-2", "--json", "--what-if", "priority=High")
    played = json.loads(outcome.out)["what_if"]
    assert played["as_it_is"]["starts"] == played["changed"]["starts"] == 1
    assert played["changed"]["expected_start"]["at"] < played["as_it_is"]["expected_start"]["at"]
    words = call(busy, "explain", "waits-2", "--what-if", "agents=+1").out
    assert "as it is  in about 1" in words
    assert "changed   " in words


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        (["priority=High"], Changes(priority=Priority.HIGH)),
        (["pool=x", "priority=Emergency"], Changes(priority=Priority.EMERGENCY, pool="x")),
        (["agents=+3"], Changes(more_agents=3)),
        (["agents.x=2", "agents.y=-1"], Changes(agents={"x": 2, "y": -1})),
    ],
)
def test_changes_as_they_are_written(words: list[str], changes: Changes) -> None:
    assert changed(words) == changes


@pytest.mark.parametrize(
    "word",
    ["priority=Highest", "priority", "pool=", "pool=../x", "agents=many", "agents=+99999", "agents.X=1", "slots=3", ""],
)
def test_what_is_no_change_is_refused_with_what_is_one(cluster: MemoryCluster, word: str) -> None:
    outcome = call(cluster, "explain", "a", "--what-if", word)
    assert outcome.code == USAGE
    assert "is no change" in outcome.err


def test_only_what_waits_can_start_otherwise(cluster: MemoryCluster) -> None:
    cluster.task("a", SUCCEEDED)
    outcome = call(cluster, "explain", "a", "--what-if", "agents=+1")
    assert outcome.code != OK
    assert "is Succeeded: a what-if is for Tasks that wait" in outcome.err


def test_a_pool_that_is_not_there_cannot_grow(busy: MemoryCluster) -> None:
    outcome = call(busy, "explain", "waits-0", "--what-if", "agents.none=+1")
    assert outcome.code != OK
    assert "none: no such AgentPool" in outcome.err


def test_a_task_that_can_never_run_is_not_said_to_be_queued(cluster: MemoryCluster) -> None:
    cluster.task("a", deadline="2030-02-30T00:00:00Z")
    assert explain(cluster)["reason"] == "InvalidSpec"


def limited(cluster: MemoryCluster, seconds_ago: float | None, level: float = 0.0, **spec: Any) -> None:
    """One Task of a queue of one start in ten seconds; its level as told so long ago, or not at all."""
    queue(cluster, rate={"queue": {"perSecond": 0.1, "burst": 5}}, **spec)
    if seconds_ago is not None:
        told = {"name": "rate.queue", "level": level, "capacity": 5, "perSecond": 0.1, "at": past(seconds_ago)}
        cluster.objects[(str(TASKQUEUES), "ns", "q")]["status"] = {"limits": [told]}


def test_a_rate_is_played_on_from_what_the_operator_told(cluster: MemoryCluster) -> None:
    limited(cluster, 4.0)
    story = explain(cluster)
    assert story["reason"] == "RateLimited"
    assert "Queue q may start 0.1 attempts a second, 5 at once; the next in" in story["message"]
    assert "start at once" not in story["message"]
    limited(cluster, 11.0)
    assert "it should start at once" in explain(cluster)["message"]


def test_what_was_assigned_since_has_taken_its_part(cluster: MemoryCluster) -> None:
    limited(cluster, 30.0, level=1.0)
    pool(cluster, slots=9)
    for number in range(5):
        cluster.task(f"b{number}", ASSIGNED | {"agentUid": "uid-p-0", "assignedAt": past(20)})
    assert explain(cluster)["reason"] == "RateLimited"


def test_the_expected_start_does_not_move_with_the_clock(busy: MemoryCluster) -> None:
    pool(busy, slots=9)
    limited(busy, 2.0)
    first = datetime.fromisoformat(explain(busy, "waits-2")["expected_start"]["at"])
    # Asked again later, with the same words of the operator: the third token is there 30 s after those.
    told = busy.objects[(str(TASKQUEUES), "ns", "q")]["status"]["limits"][0]
    told["at"] = (datetime.fromisoformat(told["at"]) - timedelta(seconds=3)).isoformat()
    again = datetime.fromisoformat(explain(busy, "waits-2")["expected_start"]["at"])
    assert (first - again).total_seconds() == pytest.approx(3.0, abs=1.5)
    played = json.loads(call(busy, "explain", "waits-2", "--json", "--what-if", "priority=High").out)["what_if"]
    assert (datetime.fromisoformat(played["as_it_is"]["expected_start"]["at"]) - first).total_seconds() < 5
    changed = datetime.fromisoformat(played["changed"]["expected_start"]["at"])
    assert (changed - datetime.now(UTC)).total_seconds() > 3


def test_a_level_that_nobody_told_is_called_unknown(cluster: MemoryCluster) -> None:
    limited(cluster, None)
    story = explain(cluster)
    assert "How much is left of spec.rate.queue of TaskQueue q is not known" in story["message"]
    assert "it should start at once" not in story["message"]
    assert "expected_start" not in story
    outcome = call(cluster, "explain", "a", "--what-if", "agents=+1")
    assert "how much is left of spec.rate.queue of TaskQueue q is not known" in outcome.err


def test_odd_levels_are_as_good_as_none(cluster: MemoryCluster) -> None:
    queue(cluster, rate={"queue": {"perSecond": 0.1, "burst": 5}})
    odd = [
        {"name": "rate.queue", "level": 1, "capacity": 5},
        {"name": "rate.none", "level": 1, "capacity": 5, "at": None},
    ]
    cluster.objects[(str(TASKQUEUES), "ns", "q")]["status"] = {"limits": odd}
    assert "is not known" in explain(cluster)["message"]


async def test_who_waits_for_a_task_hears_that_nobody_leads(cluster: MemoryCluster) -> None:
    lease(cluster, 300)
    reason, message = await why(cluster, cluster.task("a"))
    assert reason == "NoLeader"
    assert "5m ago" in message


# --- who is asked ---


def of_leader() -> Explanation:
    since = datetime(2026, 1, 1, tzinfo=UTC)
    return Explanation(
        task="ns/a", queue="q", phase="Pending", since=since, reason="AgentHeld", message="p-0 is held", holder="op-0"
    )


def test_the_leader_is_asked_first(cluster: MemoryCluster) -> None:
    cluster.view.explanations["a"] = of_leader()
    outcome = call(cluster, "explain", "a")
    assert "p-0 is held" in outcome.out
    assert outcome.err == ""
    story = explain(cluster)
    assert story["operator"] == {"leads": True, "lease": "taskdist-system/taskdist", "holder": "op-0"}


def test_where_the_leader_cannot_be_asked_one_line_says_so(cluster: MemoryCluster) -> None:
    outcome = call(cluster, "explain", "a")
    assert "Agent p-0 has room for it now" in outcome.out
    assert outcome.err.splitlines() == [
        "the leader cannot be asked: there is none here; found out from the cluster's objects instead"
    ]


def test_who_is_asked_can_be_said(cluster: MemoryCluster) -> None:
    refused = call(cluster, "explain", "a", "--from", "leader")
    assert (refused.code, refused.out) == (FAILED, "")
    assert "error: the leader cannot be asked: there is none here" in refused.err
    cluster.view.explanations["a"] = of_leader()
    by_objects = call(cluster, "explain", "a", "--from", "cluster")
    assert "Agent p-0 has room for it now" in by_objects.out
    assert by_objects.err == ""


def test_what_if_is_asked_of_the_leader_and_played_here_where_it_does_not_say(busy: MemoryCluster) -> None:
    words = ["explain", "waits-2", "--what-if", "priority=High", "--what-if", "agents=+2"]
    alone = call(busy, *words)
    assert "found out from the cluster's objects instead" in alone.err
    assert "changed   " in alone.out
    assert call(busy, *words, "--from", "leader").code == FAILED
    busy.view.explanations["waits-2"] = of_leader()
    at = datetime(2999, 1, 1, tzinfo=UTC)
    start = ExpectedStart(at=at, earliest=at, latest=at)
    told = WhatIf(as_it_is=Course(starts=0.0), changed=Course(expected_start=start, starts=1.0))
    busy.view.answers["/v1/namespaces/ns/tasks/waits-2/what-if"] = told
    asked = call(busy, *words, "-o", "json")
    assert asked.err == ""
    played = json.loads(asked.out)["what_if"]
    assert played["as_it_is"] == {"expected_start": "unknown", "starts": 0.0}
    assert played["changed"]["expected_start"]["at"] == "2999-01-01T00:00:00Z"
    assert json.loads(busy.view.asked[-1].body or b"") == {"priority": "High", "moreAgents": 2}


def test_a_queue_is_explained_with_what_waits_outside(cluster: MemoryCluster) -> None:
    oldest = datetime.now(UTC) - timedelta(hours=3)
    cluster.view.answers["/v1/namespaces/ns/queues/q"] = QueueView(
        name="q",
        namespace="ns",
        accepting=True,
        waiting=3,
        pools=["p"],
        outside=Outside(messages=1204, source="orders", oldest=oldest),
        levels=[LevelCount(level="High", waiting=3, leased=0)],
        limits=[Limit(name="rate.queue", left=0.5, capacity=4, per_second=0.1)],
    )
    told = call(cluster, "explain", "queue/q")
    assert (told.code, told.err) == (OK, "")
    assert (
        "Outside:    1204 messages without a Task yet; the oldest, at source orders, was published 3h ago" in told.out
    )
    assert "Waiting:    3 (3 High)" in told.out
    assert "0.1 a second" in told.out
    story = json.loads(call(cluster, "explain", "taskqueue/q", "-o", "json").out)
    assert (story["outside"]["messages"], story["outside"]["source"]) == (1204, "orders")


def test_a_queue_that_the_leader_does_not_tell_of_is_read(cluster: MemoryCluster) -> None:
    told = call(cluster, "explain", "queue/q")
    assert "found out from the cluster's objects instead" in told.err
    assert "Accepting:" in told.out
    missing = call(cluster, "explain", "queue/none-such")
    assert (missing.code, "none-such" in missing.err) == (FAILED, True)
    assert call(cluster, "explain", "queue/q", "--what-if", "priority=High").code == USAGE
