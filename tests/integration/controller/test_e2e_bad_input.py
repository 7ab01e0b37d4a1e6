"""Bad input: each is refused or explained in words that say what to do, and nothing else suffers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from integration.controller.room import Object, Room, container
from patience import until
from taskdist.api import AgentPool
from taskdist.controller.pods import LinkInfo, build_pod
from taskdist.local.rest import MERGE_PATCH, Client
from taskdist.local.stack import OPERATOR_NAMESPACE
from unit.link.client import dial

AUDIENCE = f"taskdist.dev/{OPERATOR_NAMESPACE}/taskdist"


def test_an_unknown_queue_is_waited_for(shared: Room) -> None:
    shared.task("early-bird", queue="later")
    said = shared.taskdist("explain", "early-bird")
    assert "QueueNotFound" in said
    assert "later" in said
    assert shared.phase("early-bird") == "Pending"
    shared.queue("later")
    assert shared.ended("early-bird")[0]["phase"] == "Succeeded"


def test_an_unknown_skill_is_explained(shared: Room) -> None:
    shared.task("skilled", skills=["welding"])
    said = shared.taskdist("explain", "skilled")
    assert "SkillMissing" in said
    assert "welding" in said
    shared.patch("tasks", "skilled", cancel=True)
    assert shared.ended("skilled")[0]["phase"] == "Cancelled"


@pytest.mark.parametrize(
    ("name", "type", "payload", "reason", "words"),
    [
        pytest.param("malformed", "order", {"amount": "many"}, "InvalidPayload", "amount", id="malformed-payload"),
        pytest.param("missing", "order", {}, "InvalidPayload", "amount", id="missing-field"),
        pytest.param("oversized", "echo", {"x": "y" * 70_000}, "PayloadTooLarge", "reference", id="oversized-payload"),
        pytest.param("large-result", "large", {"bytes": 70_000}, "ResultTooLarge", "bytes", id="oversized-result"),
        pytest.param("hopeless", "fail-permanently", {}, "HandlerError", "for good", id="failure-for-good"),
    ],
)
def test_a_task_that_cannot_succeed_fails_with_words(
    shared: Room, name: str, type: str, payload: Object, reason: str, words: str
) -> None:
    shared.task(name, type, payload)
    shared.kubectl("wait", "--for=condition=Failed", f"task/{name}", "--timeout=30s")
    status = shared.status("tasks", name)
    assert (status["phase"], status["reason"]) == ("Failed", reason)
    assert words in status["message"]
    assert "result" not in status
    assert status.get("attempt", 0) == (0 if reason == "PayloadTooLarge" else 1), "it is not tried again"


def test_an_oversized_payload_never_reaches_an_agent(shared: Room) -> None:
    shared.task("too-much", payload={"x": "y" * 70_000})
    status = shared.ended("too-much")[0]
    assert not status.get("agent")
    assert "assignedAt" not in status


@pytest.mark.parametrize(
    ("name", "bad", "words"),
    [
        pytest.param("no-image", {"name": "agent", "command": ["true"]}, "image", id="the-api-server-refuses-it"),
        pytest.param(
            "misspelt", container(comand=["x"]), 'unknown field "spec.containers[0].comand"', id="a-misspelt-field"
        ),
        pytest.param("typed", container(ports="http"), "spec.containers.ports", id="a-field-of-the-wrong-type"),
        pytest.param("shell", container(env=["A=B"]), "containers[0].env[0] must be an object", id="what-we-add-to"),
        pytest.param(
            "own-env",
            container(env=[{"name": "TASKDIST_ADDRESS", "value": "elsewhere"}]),
            "TASKDIST_ADDRESS is set by the operator",
            id="it-clashes-with-the-operator-s-part",
        ),
    ],
)
def test_an_invalid_template_stalls_its_pool_until_it_is_mended(
    shared: Room, name: str, bad: Object, words: str
) -> None:
    shared.pool(name, replicas=1, template={"spec": {"containers": [bad]}})
    until(lambda: shared.condition("agentpools", name, "Stalled").get("status") == "True", "the pool is stalled")
    stalled = shared.condition("agentpools", name, "Stalled")
    assert stalled["reason"] == "InvalidTemplate"
    assert words in stalled["message"]
    assert words in shared.event("AgentPool", name, "InvalidTemplate")["note"]
    assert shared.pods(name) == []
    shared.patch("agentpools", name, replicas=0, template={"spec": {"containers": [container()]}})
    until(lambda: shared.condition("agentpools", name, "Ready").get("status") == "True", "the pool is ready")
    assert shared.condition("agentpools", name, "Stalled")["status"] == "False"


def test_a_pool_in_the_operator_s_namespace_is_refused(shared: Room, cluster: Client) -> None:
    there = Room(shared.stack, cluster, OPERATOR_NAMESPACE)
    there.pool("intruder", replicas=1)
    try:
        until(lambda: there.condition("agentpools", "intruder", "Stalled").get("status") == "True", "it is stalled")
        stalled = there.condition("agentpools", "intruder", "Stalled")
        assert stalled["reason"] == "ForbiddenNamespace"
        assert "another namespace" in stalled["message"]
        assert there.pods("intruder") == []
    finally:
        there.delete("agentpools", "intruder")


def test_pods_that_a_quota_refuses_are_made_once_it_is_gone(room: Room) -> None:
    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    room.client.create(room.path("resourcequotas"), quota)
    until(lambda: room.status("resourcequotas", "none").get("hard"), "the quota is in force")
    room.pool(replicas=1)
    until(lambda: room.condition("agentpools", "p", "Ready").get("reason") == "CreateRefused", "it says so")
    assert "quota" in room.condition("agentpools", "p", "Ready")["message"]
    assert room.condition("agentpools", "p", "Stalled")["status"] == "True"
    room.event("AgentPool", "p", "CreateRefused")
    room.delete("resourcequotas", "none")
    room.ready(1)
    until(lambda: room.condition("agentpools", "p", "Stalled").get("status") == "False", "it is not stalled any more")


def test_a_pool_whose_pods_crash_says_why_is_not_grown_and_goes_on_once_mended(shared: Room) -> None:
    crash, scaling = {"containers": [container(["sh", "-c", "exit 3"])]}, {"minReplicas": 1, "maxReplicas": 3}
    shared.queue("crash", pools=["crash"])
    shared.pool("crash", template={"spec": crash}, scaling=scaling)
    until(lambda: shared.condition("agentpools", "crash", "Stalled").get("reason") == "PodsFailing", "it says so")
    stalled = shared.condition("agentpools", "crash", "Stalled")
    helps = f"kubectl logs crash-1-0 -n {shared.namespace} --previous -c agent"
    assert stalled["status"] == "True"
    assert "crash-1-0 fails: CrashLoopBackOff" in stalled["message"]
    assert "exit code 3" in stalled["message"]
    assert helps in stalled["message"]
    assert "exit code 3" in shared.event("AgentPool", "crash", "PodsFailing")["note"]
    names = [f"crash-{number}" for number in range(6)]
    for name in names:
        shared.task(name, queue="crash")
    until(lambda: shared.status("taskqueues", "crash").get("waiting") == 6, "all of them wait")
    until(lambda: shared.status("agentpools", "crash")["scalingReason"] == "PodsFailing", "it is not grown for that")
    assert shared.status("agentpools", "crash")["desiredReplicas"] == 1
    said = shared.taskdist("explain", "crash-0")
    assert "exit code 3" in said
    assert helps in said
    shared.patch("agentpools", "crash", template={"spec": {"containers": [container()]}})
    assert {each["phase"] for each in shared.ended(*names)} == {"Succeeded"}
    until(lambda: shared.condition("agentpools", "crash", "Stalled")["status"] == "False", "it is not stalled any more")


def test_a_pod_that_only_has_the_label_is_neither_counted_nor_deleted(shared: Room) -> None:
    made = stranger(shared, "claimant", labels={"taskdist.dev/pool": "p"})
    shared.task("after-the-claim")
    assert shared.ended("after-the-claim")[0]["phase"] == "Succeeded"
    assert shared.status("agentpools", "p")["replicas"] == 2
    there = shared.get("pods", "claimant")
    assert there["metadata"]["uid"] == made["metadata"]["uid"]
    assert "deletionTimestamp" not in there["metadata"]
    shared.delete("pods", "claimant")


# -- agents that are none ------------------------------------------------------------------------------------------


def token(room: Room, pod: Object | None, audience: str = AUDIENCE) -> str:
    spec: Object = {"audiences": [audience], "expirationSeconds": 600}
    if pod is not None:
        spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Pod"} | {k: pod["metadata"][k] for k in ("name", "uid")}
    answer = room.client.create(f"{room.path('serviceaccounts', 'default')}/token", {"spec": spec})
    return str(answer["status"]["token"])


def stranger(room: Room, name: str, **metadata: Any) -> Object:
    """A pod that no node runs and that no pool made."""
    metadata["name"] = name
    spec = {"schedulerName": "nobody", "containers": [{"name": "agent", "image": "none"}]}
    made: Object = room.client.create(room.path("pods"), {"metadata": metadata, "spec": spec})
    return made


def garbage(room: Room) -> str:
    return "not.a.token"


def for_another_audience(room: Room) -> str:
    return token(room, room.pods()[0], "somebody-else")


def bound_to_no_pod(room: Room) -> str:
    return token(room, None)


def of_a_pod_without_a_pool(room: Room) -> str:
    return token(room, stranger(room, "stray"))


def of_a_pod_that_claims_the_pool(room: Room) -> str:
    owner = {"apiVersion": "taskdist.dev/v1alpha1", "kind": "AgentPool", "name": "p", "controller": True}
    owner["uid"] = "00000000-0000-0000-0000-000000000000"
    # The garbage collector may want it gone before there is a token for it.
    pod = stranger(room, "impostor", ownerReferences=[owner], finalizers=["test.taskdist.dev/token"])
    made = token(room, pod)
    freed = {"metadata": {"finalizers": None}}
    room.client.request("PATCH", room.path("pods", "impostor"), freed, content_type=MERGE_PATCH)
    return made


def of_a_deleted_pod(room: Room) -> str:
    pod = stranger(room, "late")
    made = token(room, pod)
    room.client.delete(room.path("pods", "late"), grace_seconds=0)
    return made


@pytest.mark.parametrize(
    ("make", "code", "advice"),
    [
        (garbage, "UNAUTHENTICATED", "use the projected token"),
        (for_another_audience, "UNAUTHENTICATED", f"audience: {AUDIENCE}"),
        (bound_to_no_pod, "PERMISSION_DENIED", "mount a projected serviceAccountToken volume"),
        (of_a_pod_without_a_pool, "PERMISSION_DENIED", "let a pool create it"),
        # By then the garbage collector may have been there: the pod is ending, or deleted.
        (of_a_pod_that_claims_the_pool, "PERMISSION_DENIED", "delete|is ending"),
        (of_a_deleted_pod, "PERMISSION_DENIED", "deleted"),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
async def test_who_is_no_agent_of_a_pool_is_turned_away(shared: Room, make: Any, code: str, advice: str) -> None:
    bundle = shared.get("configmaps", "taskdist-ca")["data"]["ca.crt"].encode()
    async with dial(shared.stack.link_port, bundle, make(shared)) as stream:
        got, message = await stream.status()
    assert got == grpc.StatusCode[code]
    assert re.search(advice, message)


@pytest.fixture
def unowned(shared: Room) -> Iterator[Object]:
    """A pod that runs the agent as a pool's would, but that nobody's pool made."""
    pool = AgentPool.model_validate(shared.get("agentpools", "p"))
    pod = build_pod(pool, "unowned", LinkInfo(f"127.0.0.1:{shared.stack.link_port}", "127.0.0.1", AUDIENCE))
    del pod["metadata"]["ownerReferences"], pod["metadata"]["labels"]
    yield shared.client.create(shared.path("pods"), pod)
    shared.client.delete(shared.path("pods", "unowned"))


def test_an_agent_that_is_turned_away_says_why_and_stays_unready(shared: Room, unowned: Object) -> None:
    log = shared.stack.directory / "pods" / "logs" / shared.namespace / "unowned" / "agent.log"
    until(lambda: log.exists() and "belongs to no AgentPool" in log.read_text(), "its log says why")

    def ready() -> list[str]:
        conditions = shared.status("pods", "unowned").get("conditions") or []
        return [c["status"] for c in conditions if c["type"] == "Ready"]

    until(lambda: ready() == ["False"], "its status says that it is not ready")


def test_the_operator_serves_on_after_all_of_this(shared: Room) -> None:
    shared.task("after-all", payload={"still": "here"})
    assert shared.ended("after-all")[0]["result"] == {"still": "here"}
