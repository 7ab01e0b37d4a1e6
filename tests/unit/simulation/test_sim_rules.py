"""All rules at once, played by the core and judged from the log alone: no inversion, no limit passed, nothing lost."""

from collections import Counter
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sim_worlds import played, stream

from taskdist.api import Strategy
from taskdist.core.model import EMERGENCY
from taskdist.simulation.figures import figures
from taskdist.simulation.record import Outcome, Record, Step
from taskdist.simulation.workload import EPOCH

LEVELS = ("Background", "Low", "Normal", "High", "Critical", "Emergency")


def chosen(values: tuple[Any, ...]) -> dict[str, Any]:
    return {"choose": [{"value": value} for value in values]}


@st.composite
def worlds(draw: st.DrawFn) -> dict[str, Any]:
    """Two queues that share a pool, with any of the rules."""

    def maybe(**fields: Any) -> dict[str, Any]:
        return {name: value for name, value in fields.items() if draw(st.booleans())}

    def queue(name: str) -> dict[str, Any]:
        policy = draw(st.sampled_from(["Priority", "Priority", "Fifo", "DeadlineFirst"]))
        spec: dict[str, Any] = {
            "pools": ["p"],
            "order": {"policy": policy, "level": draw(st.sampled_from(LEVELS[:5]))},
            "weight": draw(st.integers(1, 3)),
            "aging": {"stepSeconds": draw(st.sampled_from([0, 2, 7]))},
            "tenants": {"weights": [{"name": "a", "weight": 3}], "emergency": ["a"], "emergencyLeased": 1},
            "retry": {"limit": 2, "initialSeconds": 0.5, "agentDeaths": 2},
            "expectedServiceSeconds": draw(st.sampled_from([0.5, 4])),
            "concurrencyLimit": draw(st.integers(1, 2)),
            "largeTasks": {"holdAfterSeconds": draw(st.sampled_from([0, 3]))},
        }
        spec["strategy"] = draw(st.sampled_from([each.value for each in Strategy]))
        spec["quota"] = maybe(leased=2, slots=4, perTenant={"leased": 1})
        spec["rate"] = maybe(queue={"perSecond": 2, "burst": 2}, perTenant={"perSecond": 1})
        spec["timeouts"] = maybe(waitingSeconds=15, executionSeconds=6)
        spec["deadlines"] = {"onHopeless": draw(st.sampled_from(["Run", "Fail", "DeadLetter"]))}
        return {"metadata": {"name": name}, "spec": spec}

    def tasks(queue: str) -> dict[str, Any]:
        task: dict[str, Any] = {
            "queue": queue,
            "priority": chosen(LEVELS if draw(st.booleans()) else LEVELS[:5]),
            "tenant": chosen(("a", "b", "c")),
            "slots": chosen((1, 1, 2)),
        }
        if draw(st.booleans()):
            near = [{"selector": {"matchLabels": {"topology.kubernetes.io/zone": "a"}}}]
            task |= {"preferred": near, "waitForPreferredSeconds": draw(st.sampled_from([0, 3, 40]))}
        task |= maybe(zones=chosen((["a", "b"], ["a"])), stickyKey=chosen(("s", "t")))
        task |= maybe(concurrencyKey=chosen(("k", "l")), orderingKey=chosen(("o", "p", "q")))
        return task

    first = stream(
        {"poisson": {"perSecond": draw(st.sampled_from([1.0, 4.0]))}},
        {"exponential": {"mean": 1}},
        30,
        name="first",
        task=tasks("q"),
        deadline={"slack": {"exponential": {"mean": 4}}},
    )
    second = stream({"poisson": {"perSecond": 1.0}}, {"uniform": {"low": 0.2, "high": 3}}, 20, task=tasks("r"))
    if draw(st.booleans()):
        second |= {"after": {"stream": "first", "each": 1}}
        second["task"] |= {"queue": "q", "onDependencyFailure": draw(st.sampled_from(["Fail", "Skip", "Run"]))}
    if draw(st.booleans()):
        second |= {"notBefore": {"uniform": {"high": 5}}, "cancel": {"probability": 0.3, "after": 4}}
    return {
        "queues": [queue("q"), queue("r")],
        "pools": [{"metadata": {"name": "p"}, "spec": {"replicas": draw(st.integers(1, 3)), "slots": 3}}],
        "agents": {"p": {"zones": ["a", "b"]}},
        "workload": {"streams": [first, second]},
        "faults": maybe(
            attemptFailure={"probability": 0.2},
            agentDeath={"every": 5, "replaceAfter": 1, "detectAfter": 0.4},
        ),
        "until": 500,
    }


def passed_limits(record: Record) -> list[str]:
    """Quotas, keys and turns that were passed, recounted start by start."""
    found: list[str] = []
    leased: Counter[Any] = Counter()
    running: dict[Any, set[str]] = {}
    for at, step, life, _ in record.log:
        if step not in (Step.STARTS, Step.STOPS):
            continue
        task, queue = life.task, record.queues[life.task.queue_key]
        sign = 1 if step is Step.STARTS else -1
        bounds = [
            (("leased", queue.key), 1, queue.quota.leased),
            (("slots", queue.key), task.slots, queue.quota.slots),
            (("leased", queue.key, task.tenant), 1, queue.tenant_quota.leased),
        ]
        if task.concurrency_key is not None:
            bounds.append((("key", queue.key, task.concurrency_key), 1, queue.concurrency_limit))
        for name, amount, most in bounds:
            leased[name] += sign * amount
            if most is not None and leased[name] > most:
                found.append(f"{at}: {name} is {leased[name]} of {most}")
        if task.ordering_key is not None:
            there = running.setdefault((queue.key, task.ordering_key), set())
            if sign > 0 and there:
                found.append(f"{at}: {task.uid} and {there} of one ordering key")
            there.add(task.uid) if sign > 0 else there.discard(task.uid)
        if sign > 0 and at < max(task.not_before if not life.retries else 0.0, task.created):
            found.append(f"{at}: {task.uid} before its time")
    return found


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(worlds(), st.integers(1, 1_000))
def test_whatever_the_rules_none_is_broken(given: dict[str, Any], seed: int) -> None:
    record = played(given, seed)
    found = figures(record)
    assert found["priority_inversions"] == 0
    assert found["lost"] == 0
    assert passed_limits(record) == []
    # All come to an end, but who may not use Emergency, who waits behind such a Task, and children of dead letters.
    assert record.ended < EPOCH + 500
    for life in record.tasks:
        if life.outcome in (Outcome.WAITING, Outcome.RUNNING):
            assert life.task.priority == EMERGENCY or life.task.ordering_key is not None or life.task.parents
