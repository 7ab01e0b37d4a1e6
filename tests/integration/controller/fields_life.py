"""Cases of the fields that say how a Task runs, fails, is tried again, ends and is removed."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest

from integration.controller.lab import PLAIN, Lab, Register
from integration.controller.room import SCRIPT, WORKER, Object, container, metrics
from object_server import BUCKET, PREFIX, ObjectServer
from patience import until
from taskdist.kube import ApiError, archived
from taskdist.local.rest import AsyncClient, access_of
from taskdist.local.stack import OPERATOR_NAMESPACE

case = Register()


def ended_at(status: Object) -> list[datetime]:
    return [datetime.fromisoformat(each["endedAt"]) for each in status["attempts"]]


def gaps(status: Object) -> list[float]:
    """Seconds from the end of each failed attempt to the end of the next, which took hardly any time itself."""
    times = ended_at(status)
    return [(later - earlier).total_seconds() for earlier, later in pairwise(times)]


@contextmanager
def own_pool(lab: Lab, suffix: str, **spec: Any) -> Iterator[str]:
    """A pool that the case may disturb: one agent of one slot, if it says no other."""
    name = f"{lab.name}-{suffix}"
    spec = {"slots": 1, "replicas": 1} | spec
    lab.room.pool(name, ready=spec["replicas"], **spec)
    yield name
    lab.room.delete("agentpools", name)


# -- what it is and needs --------------------------------------------------------------------------------------------


@case("Task.type", "Task.payload")
def the_type_picks_the_handler_and_the_payload_is_its_input(lab: Lab) -> None:
    assert lab.end(lab.task("echo", PLAIN, "echo", {"a": [1, None]}))["result"] == {"a": [1, None]}
    assert lab.end(lab.task("order", PLAIN, "order", {"amount": 3}))["result"] == {"amount": 3}


@case("Task.payloadRef.uri", "Task.payloadRef.size", "Task.payloadRef.sha256", "Task.payloadRef.contentType")
def a_payload_in_an_object_store_is_fetched_and_held_to_what_was_said_of_it(lab: Lab) -> None:
    body = b'{"a": [1, null]}'
    sound: Object = {"size": len(body), "sha256": hashlib.sha256(body).hexdigest(), "contentType": "application/json"}
    with ObjectServer() as server:
        key = f"{PREFIX}/{lab.room.namespace}/payloads/{sound['sha256']}"
        server.store().put(key, body)
        sound["uri"] = f"s3://{BUCKET}/{key}"
        env = [{"name": name, "value": value} for name, value in server.env().items()]
        pod = {"containers": [container(env=env)], "terminationGracePeriodSeconds": 5}
        with own_pool(lab, "store", template={"spec": pod}) as pool:
            queue = lab.queue(pools=[pool], retry={"limit": 0})
            assert lab.end(lab.task("sound", queue, "echo", payloadRef=sound))["result"] == {"a": [1, None]}
            wrongs: dict[str, tuple[Object, str]] = {
                "elsewhere": ({"uri": f"{sound['uri']}0"}, "ObjectNotFound"),
                "longer": ({"size": len(body) + 1}, "ObjectMismatch"),
                "another": ({"sha256": "0" * 64}, "ObjectMismatch"),
            }
            for name, (wrong, reason) in wrongs.items():
                end = lab.end(lab.task(name, queue, "echo", payloadRef=sound | wrong))
                assert end["attempts"][-1]["reason"] == reason, name
    # Of what is no JSON the API server takes no reference.
    with pytest.raises(ApiError, match="contentType"):
        lab.task("text", PLAIN, "echo", payloadRef=sound | {"contentType": "text/plain"})


@case(
    "Task.slots",
    "Task.resources",
    "Task.skills",
    "Task.agentSelector.matchLabels",
    "Task.agentSelector.matchExpressions[].key",
    "Task.agentSelector.matchExpressions[].operator",
    "Task.agentSelector.matchExpressions[].values",
)
def what_an_agent_must_offer(lab: Lab) -> None:
    pod = {"containers": [container()], "terminationGracePeriodSeconds": 5}
    template = {"metadata": {"labels": {"zone": "a"}}, "spec": pod}
    with own_pool(lab, "rich", slots=3, resources={"gpu": 1}, skills=["welding"], template=template) as pool:
        queue = lab.queue(pools=[pool, "p"])
        needs: dict[str, Object] = {
            "slots": {"slots": 3},
            "resources": {"resources": {"gpu": 1}},
            "skills": {"skills": ["welding"]},
            "labels": {"agentSelector": {"matchLabels": {"zone": "a"}}},
            "words": {"agentSelector": {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]}},
        }
        for name, need in needs.items():
            assert lab.end(lab.task(name, queue, **need))["pool"] == pool, name
        absent: Object = {"agentSelector": {"matchExpressions": [{"key": "zone", "operator": "DoesNotExist"}]}}
        assert lab.end(lab.task("absent", queue, **absent))["pool"] == "p"
        _, done = lab.busy("taken", queue, resources={"gpu": 1})
        second = lab.task("second", queue, resources={"gpu": 1})
        lab.passed_over(second)
        done.touch()
        lab.room.ended(second)


# -- steering --------------------------------------------------------------------------------------------------------


@case("Task.suspend")
def a_suspended_task_waits(lab: Lab) -> None:
    held = lab.task("held", lab.queue(), suspend=True)
    lab.passed_over(held)
    lab.room.patch("tasks", held, suspend=False)
    assert lab.end(held)["phase"] == "Succeeded"


@case("Task.cancel")
def a_cancelled_task_ends(lab: Lab) -> None:
    running, _ = lab.busy("running", lab.queue())
    lab.room.patch("tasks", running, cancel=True)
    assert lab.end(running)["phase"] == "Cancelled"


@case("Task.redrive", "TaskQueue.retry.onExhausted", "TaskQueue.retry.limit")
def a_dead_letter_is_kept_and_redriven(lab: Lab) -> None:
    queue = lab.queue(retry={"limit": 1, "initialSeconds": 0.05, "onExhausted": "DeadLetter"})
    task = lab.task("fails", queue, "fail")
    status = lab.room.in_phase(task, "DeadLettered")
    assert (status["attempt"], status["failures"]) == (2, 2)
    until(lambda: lab.room.status("taskqueues", queue).get("deadLettered") == 1, "the queue counts it")
    lab.room.taskdist("redrive", task)
    until(lambda: lab.room.status("tasks", task).get("redrives") == 1, "it is redriven")
    until(lambda: lab.room.status("tasks", task)["attempt"] == 4, "it was tried as often again")
    assert lab.room.in_phase(task, "DeadLettered")["failures"] == 2
    lab.room.patch("tasks", task, cancel=True)
    assert lab.end(task)["phase"] == "Cancelled"


# -- retention -------------------------------------------------------------------------------------------------------


@case("TaskQueue.archive", "TaskQueue.archiveBacklog")
def an_ended_task_stays_until_it_is_archived(lab: Lab) -> None:
    queue = lab.queue(archive=True, archiveBacklog=1, ttlSecondsAfterFinished=0)
    lab.end(lab.task("kept", queue))
    lab.accepting(queue, False)
    assert "spec.archiveBacklog is 1" in lab.refused(queue)
    assert lab.room.phase(f"{lab.name}-kept") == "Succeeded"
    version = lab.room.get("tasks", f"{lab.name}-kept")["metadata"]["resourceVersion"]
    word = archived.body("taskdist-archive", {lab.room.namespace: int(version)})
    lab.room.client.apply(f"/api/v1/namespaces/{OPERATOR_NAMESPACE}/configmaps/taskdist-archive", word)
    lab.gone(f"{lab.name}-kept")
    lab.accepting(queue, True)


# -- retry -----------------------------------------------------------------------------------------------------------


@case("TaskQueue.retry.initialSeconds", "TaskQueue.retry.factor", "TaskQueue.retry.maxSeconds")
def retries_back_off(lab: Lab) -> None:
    retry = {"limit": 3, "initialSeconds": 0.3, "factor": 4, "maxSeconds": 1.5, "jitter": 0}
    status = lab.end(lab.task("fails", lab.queue(retry=retry), "fail"))
    first, second, third = gaps(status)
    assert first >= 0.3
    assert second >= 1.2
    assert 1.5 <= third < 4.8, "not 0.3 × 4²"


@case("TaskQueue.retry.throttledSeconds")
def who_is_throttled_is_put_off_within_bounds(lab: Lab) -> None:
    patient = lab.queue(retry={"limit": 0, "throttledSeconds": 10})
    task = lab.task("put-off", patient, "throttled", {"after": 1.5})
    until(lambda: lab.room.status("tasks", task).get("reason") == "Throttled", "it is put off")
    status = lab.end(task)
    assert (status["phase"], status["result"], status["throttledSeconds"]) == ("Succeeded", {"attempt": 2}, 1.5)
    assert (datetime.fromisoformat(status["startedAt"]) - ended_at(status)[0]).total_seconds() >= 1.5
    status = lab.end(lab.task("too-long", patient, "throttled", {"after": 11}))
    assert (status["phase"], status["reason"], status["failures"]) == ("Failed", "RetriesExhausted", 1)


@case("TaskQueue.retry.jitter")
def retries_spread_out(lab: Lab) -> None:
    queue = lab.queue(retry={"limit": 1, "initialSeconds": 2, "maxSeconds": 2, "jitter": 1})
    names = [lab.task(f"t{i}", queue, "fail") for i in range(8)]
    waits = [gaps(status)[0] for status in lab.room.ended(*names)]
    assert min(waits) < 1.5, "something is taken off"
    assert max(waits) - min(waits) > 0.3, "and not from all alike"


@case("TaskQueue.retry.reasons")
def only_what_is_named_is_tried_again(lab: Lab) -> None:
    queue = lab.queue(retry={"limit": 2, "initialSeconds": 0.05, "reasons": ["HandlerCrashed"]})
    failed = lab.end(lab.task("fails", queue, "fail"))
    assert (failed["phase"], failed["attempt"]) == ("Failed", 1)
    crashed = lab.end(lab.task("crashes", queue, "crash-once"))
    assert (crashed["phase"], crashed["attempt"]) == ("Succeeded", 2)


@case("TaskQueue.retry.agentDeaths")
def a_task_that_kills_agents_is_over(lab: Lab) -> None:
    with own_pool(lab, "frail") as pool:
        queue = lab.queue(pools=[pool], retry={"agentDeaths": 1, "initialSeconds": 0.05})
        task, _ = lab.busy("poison", queue)
        for process in lab.room.processes(lab.room.pod_of(task)):
            os.kill(process, signal.SIGKILL)
        status = lab.end(task)
        assert (status["phase"], status["reason"]) == ("Failed", "Poisoned")
        assert len(status["lostAgents"]) == 1


# -- time ------------------------------------------------------------------------------------------------------------


@case("TaskQueue.timeouts.waitingSeconds", "Task.timeouts.waitingSeconds")
def waiting_has_an_end(lab: Lab) -> None:
    queue = lab.queue(paused=True, timeouts={"waitingSeconds": 1})
    its_own = lab.task("its-own", lab.queue("endless", paused=True), timeouts={"waitingSeconds": 1.5})
    patient = lab.task("patient", queue, timeouts={"waitingSeconds": 600})
    of_the_queue = lab.task("of-the-queue", queue)
    for name in (its_own, of_the_queue):
        status = lab.end(name)
        assert (status["phase"], status["reason"]) == ("Failed", "WaitedTooLong")
    lab.passed_over(patient)


@case("TaskQueue.timeouts.executionSeconds", "Task.timeouts.executionSeconds")
def running_has_an_end(lab: Lab) -> None:
    queue = lab.queue(timeouts={"executionSeconds": 1}, retry={"limit": 0})
    of_the_queue = lab.work("of-the-queue", queue, 60)
    its_own = lab.work("its-own", lab.queue("endless", retry={"limit": 0}), 60, timeouts={"executionSeconds": 1})
    longer = lab.work("longer", queue, 2, timeouts={"executionSeconds": 30})
    for name in (of_the_queue, its_own):
        status = lab.end(name)
        assert [each["reason"] for each in status["attempts"]] == ["ExecutionTimedOut"]
    assert lab.end(longer)["phase"] == "Succeeded"


@case("TaskQueue.timeouts.progressSeconds", "Task.timeouts.progressSeconds")
def silence_has_an_end(lab: Lab) -> None:
    queue = lab.queue(timeouts={"progressSeconds": 1}, retry={"limit": 0})
    of_the_queue = lab.work("of-the-queue", queue, 60)
    its_own = lab.work("its-own", lab.queue("endless", retry={"limit": 0}), 60, timeouts={"progressSeconds": 1})
    lively = lab.task("lively", queue, "lively", {"seconds": 2.5})
    for name in (of_the_queue, its_own):
        status = lab.end(name)
        assert [each["reason"] for each in status["attempts"]] == ["ProgressTimedOut"]
    assert lab.end(lively)["phase"] == "Succeeded"


@case("TaskQueue.ttlSecondsAfterFinished", "Task.ttlSecondsAfterFinished")
def ended_tasks_are_removed(lab: Lab) -> None:
    queue = lab.queue(ttlSecondsAfterFinished=0)
    of_the_queue = lab.task("of-the-queue", queue)
    its_own = lab.task("its-own", PLAIN, ttlSecondsAfterFinished=0)
    kept = lab.task("kept", queue, ttlSecondsAfterFinished=600)
    lab.gone(of_the_queue)
    lab.gone(its_own)
    assert lab.end(kept)["phase"] == "Succeeded"


@case("TaskQueue.deadLetterTtlSeconds")
def dead_letters_are_removed_too(lab: Lab) -> None:
    retry = {"limit": 0, "onExhausted": "DeadLetter"}
    brief, long = lab.queue("brief", retry=retry, deadLetterTtlSeconds=0), lab.queue("long", retry=retry)
    kept = lab.task("kept", long, "fail")
    lab.gone(lab.task("brief", brief, "fail"))
    lab.room.in_phase(kept, "DeadLettered")


# -- leases ----------------------------------------------------------------------------------------------------------


@case("TaskQueue.dispatch")
def a_lazy_queue_does_not_record_what_is_over_soon(lab: Lab) -> None:
    strict, lazy = lab.queue("strict"), lab.queue("lazy", dispatch="Lazy")

    async def phases(name: str, queue: str) -> list[str]:
        kubeconfig = lab.room.stack.kubeconfig
        assert kubeconfig is not None
        client = await AsyncClient(access_of(kubeconfig)).open()
        seen: list[str] = []
        try:
            version = (await client.request("GET", lab.room.path("tasks")))["metadata"]["resourceVersion"]
            full = await asyncio.to_thread(lab.task, name, queue)
            async with asyncio.timeout(30), aclosing(client.watch(lab.room.path("tasks"), version)) as events:
                async for event in events:
                    task = event["object"]
                    if task["metadata"].get("name") == full:
                        seen.append(task["status"]["phase"])
                        if seen[-1] == "Succeeded":
                            break
        finally:
            await client.close()
            # The end of a TLS connection takes an exchange, for which aiohttp does not wait: the loop must outlast it.
            await asyncio.sleep(0.25)
        return seen

    assert asyncio.run(phases("strict", strict)) == ["Pending", "Assigned", "Succeeded"]
    assert asyncio.run(phases("lazy", lazy)) == ["Pending", "Succeeded"]


@case("TaskQueue.delivery")
def at_most_once_is_not_tried_again(lab: Lab) -> None:
    queue = lab.queue(delivery="AtMostOnce")
    status = lab.end(lab.task("crashes", queue, "crash-once"))
    assert (status["phase"], status["attempt"]) == ("Failed", 1)


@case("TaskQueue.reclaim")
def only_a_queue_that_allows_it_uses_agents_that_cannot_be_fenced(lab: Lab) -> None:
    command = (SCRIPT, "agent", f"{WORKER}:agent", "--in-process")
    pod = {"containers": [container(command)], "terminationGracePeriodSeconds": 5}
    with own_pool(lab, "unfenced", template={"spec": pod}) as pool:
        queues = {word: lab.queue(word.lower(), pools=[pool], reclaim=word) for word in ("Lease", "Confirmed", "Fast")}
        tasks = {word: lab.task(word.lower(), queue) for word, queue in queues.items()}
        assert lab.end(tasks["Confirmed"])["phase"] == "Succeeded"
        assert lab.end(tasks["Fast"])["phase"] == "Succeeded"
        lab.passed_over(tasks["Lease"])


@case("TaskQueue.leaseSeconds")
def a_silent_agent_loses_its_task_after_the_lease(lab: Lab) -> None:
    with own_pool(lab, "frozen") as pool:
        queue = lab.queue(pools=[pool], leaseSeconds=2, retry={"limit": 0})
        task, _ = lab.busy("runs", queue)
        supervisor = lab.room.processes(lab.room.pod_of(task))[0]
        os.kill(supervisor, signal.SIGSTOP)
        try:
            status = lab.room.ended(task, timeout=10)[0]
        finally:
            os.kill(supervisor, signal.SIGCONT)
        assert [each["reason"] for each in status["attempts"]] == ["LeaseExpired"]


@case("TaskQueue.holdSeconds")
def a_new_leader_waits_for_agents_as_long_as_the_queue_says(lab: Lab) -> None:
    stack = lab.room.stack
    with own_pool(lab, "frozen") as pool:
        queue = lab.queue(pools=[pool], leaseSeconds=5, holdSeconds=10, retry={"limit": 0})
        task, _ = lab.busy("runs", queue)
        supervisor = lab.room.processes(lab.room.pod_of(task))[0]
        os.kill(supervisor, signal.SIGSTOP)
        try:
            victim = stack.operators.pop(0)
            victim.process.kill()
            victim.process.wait()
            stack.start_operator()
            until(lambda: metrics(stack.operators[0])["taskdist_leader"] == 1, "another leads")
            assert lab.room.phase(task) == "Assigned", "its agent may yet come back"
            status = lab.room.ended(task, timeout=30)[0]
        finally:
            os.kill(supervisor, signal.SIGCONT)
        assert status["phase"] == "Failed"
