"""For each rule: a set with the flaw, the field that is named, words of the message, and the nearest set without it."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from lint_sets import NOW, Obj, cap, container, made, pool, queue, sink, source, task


def at(seconds: float) -> str:
    """A time so many seconds from now."""
    return datetime.fromtimestamp(NOW + seconds, UTC).isoformat().replace("+00:00", "Z")


@dataclass(frozen=True)
class Case:
    """`changes` says whether the mend is a change to paste; it then has to mend."""

    rule: str
    bad: tuple[Obj, ...]
    path: str
    words: str
    good: tuple[Obj, ...]
    changes: bool = True
    severity: str = ""
    name: str = ""

    @property
    def id(self) -> str:
        return f"{self.rule}: {self.name}" if self.name else self.rule


def http(**fields: Any) -> Obj:
    return pool(pod={"containers": [container(command=["taskdist", "agent", "--http", "http://x"], **fields)]})


def depends(*names: str) -> list[Obj]:
    return [{"name": name} for name in names]


REF: Obj = {"uri": "s3://tasks/team/payloads/x", "size": 70_000, "sha256": "a" * 64}
LAZY: Obj = {"dispatch": "Lazy", "expectedServiceSeconds": 0.5}
SCALING = {"minReplicas": 0, "maxReplicas": 3}

WRITING = [
    Case(
        "invalid-value",
        ({**task(), "metadata": {"name": "t", "labels": {"build": 123}}},),
        "metadata.labels.build",
        "123 is an integer, not a string",
        ({**task(), "metadata": {"name": "t", "labels": {"build": "123"}}},),
        changes=False,
        name="label",
    ),
    Case(
        "unknown-kind",
        (made("TaskQeue", "q", {}),),
        "kind",
        "no kind TaskQeue",
        (queue(), {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}}),
        changes=False,
    ),
    Case(
        "unknown-kind",
        ({**queue(), "apiVersion": "taskdist.dev/v1"},),
        "apiVersion",
        "serves taskdist.dev/v1alpha1",
        (queue(),),
        name="version",
    ),
    Case("unknown-field", (queue(pool="p"),), "spec.pool", "no such field", (queue(),), changes=False),
    Case(
        "unknown-field",
        (task(timeouts={"executionSecond": 3}),),
        "spec.timeouts.executionSecond",
        "no such field",
        (task(timeouts={"executionSeconds": 3}, payload={"any": {"thing": 1}}),),
        changes=False,
        name="nested",
    ),
    Case("invalid-value", (task(slots=0),), "spec.slots", "less than 1", (task(slots=1),), changes=False),
    Case(
        "invalid-value",
        (task(priority="Urgent"),),
        "spec.priority",
        "there is no 'Urgent'",
        (task(priority="High"),),
        changes=False,
        name="enum",
    ),
    Case(
        "invalid-value",
        (task(queue=None),),
        "spec.queue",
        "is missing",
        (task(),),
        changes=False,
        name="missing",
    ),
    Case(
        "invalid-value",
        (queue(leaseSeconds="15"),),
        "spec.leaseSeconds",
        "is a string, not an integer",
        (queue(leaseSeconds=15),),
        changes=False,
        name="type",
    ),
    Case(
        "invalid-value",
        (queue(retry={"reasons": ["Cancelled"]}),),
        "spec.retry.reasons[0]",
        "there is no 'Cancelled'",
        (queue(retry={"reasons": ["HandlerError"]}),),
        changes=False,
        name="a-word-that-only-the-server-refuses",
    ),
    Case(
        "invalid-value",
        (queue(pools=["p", "p"]),),
        "spec.pools[1]",
        "p is there twice",
        (queue(pools=["p", "r"]),),
        changes=False,
        name="twice-in-a-set",
    ),
    Case(
        "invalid-value",
        (task(deadline="2030-01-01"),),
        "spec.deadline",
        "is no time",
        (task(deadline="2030-01-01T00:00:00Z"),),
        changes=False,
        name="time",
    ),
    Case(
        "invalid-value",
        (queue(pools=["p", None]),),
        "spec.pools[1]",
        "it is null",
        (task(slots=None, skills=None, payload={"x": [None]}),),
        changes=False,
        name="null-in-a-list",
    ),
    Case("bad-name", (queue("Q_1"),), "metadata.name", "DNS label", (queue("q-1"),), changes=False),
    Case("bad-name", (queue(""),), "metadata.name", "is missing", (task("t.1"),), changes=False, name="missing"),
    Case("bad-name", (pool("p" * 51),), "metadata.name", "too long", (pool("p" * 50),), changes=False, name="too-long"),
    Case(
        "defined-twice",
        (queue(), queue(weight=2)),
        "metadata.name",
        "one of this name already at set.yaml:1",
        (queue(), queue("r"), pool("q")),
        changes=False,
    ),
    Case(
        "lazy-at-most-once",
        (queue(dispatch="Lazy", delivery="AtMostOnce"),),
        "spec.dispatch",
        "exclude each other",
        (queue(dispatch="Lazy"), queue("r", delivery="AtMostOnce")),
    ),
    Case(
        "lease-above-hold",
        (queue(leaseSeconds=60, holdSeconds=30),),
        "spec.holdSeconds",
        "less than leaseSeconds",
        (queue(leaseSeconds=30, holdSeconds=30),),
    ),
    Case(
        "backoff-above-bound",
        (queue(retry={"initialSeconds": 400}),),
        "spec.retry.initialSeconds",
        "more than maxSeconds, 300",
        (queue(retry={"initialSeconds": 400, "maxSeconds": 400}),),
    ),
    Case(
        "water-marks-crossed",
        (queue(overflow={"highWater": 10, "lowWater": 11}),),
        "spec.overflow.lowWater",
        "more than highWater",
        (queue(overflow={"highWater": 10, "lowWater": 10}),),
    ),
    Case(
        "spill-without-target",
        (queue(overflow={"highWater": 10, "lowWater": 5, "action": "Spill"}),),
        "spec.overflow.action",
        "names no queue",
        (queue(overflow={"highWater": 10, "lowWater": 5, "action": "Spill", "spillTo": "r"}),),
    ),
    Case(
        "spill-without-target",
        (queue(overflow={"highWater": 10, "lowWater": 5, "spillTo": "r"}),),
        "spec.overflow.spillTo",
        "not used",
        (queue(overflow={"highWater": 10, "lowWater": 5}),),
        name="reject",
    ),
    Case(
        "spill-without-target",
        (queue(overflow={"highWater": 10, "lowWater": 5, "action": "Spill", "spillTo": "q"}),),
        "spec.overflow.spillTo",
        "itself",
        (queue(),),
        name="itself",
    ),
    Case(
        "scaling-bounds-crossed",
        (pool(scaling={"minReplicas": 4, "maxReplicas": 3}),),
        "spec.scaling.minReplicas",
        "more than maxReplicas",
        (pool(scaling={"minReplicas": 3, "maxReplicas": 3}),),
    ),
    Case(
        "breaker-bounds-crossed",
        (pool(breaker={"openSeconds": 60, "maxOpenSeconds": 30}),),
        "spec.breaker.openSeconds",
        "more than maxOpenSeconds",
        (pool(breaker={"openSeconds": 30, "maxOpenSeconds": 30}),),
    ),
    Case(
        "selector-values",
        (task(agentSelector={"matchExpressions": [{"key": "zone", "operator": "In"}]}),),
        "spec.agentSelector.matchExpressions[0].values",
        "needs values",
        (task(agentSelector={"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}),),
        changes=False,
    ),
    Case(
        "selector-values",
        (task(agentSelector={"matchExpressions": [{"key": "zone", "operator": "Exists", "values": ["a"]}]}),),
        "spec.agentSelector.matchExpressions[0].values",
        "takes no values",
        (task(agentSelector={"matchExpressions": [{"key": "zone", "operator": "Exists"}]}),),
        changes=False,
        name="exists",
    ),
    Case(
        "idle-above-busy",
        (pool(wattsIdle=60, wattsBusy=50),),
        "spec.wattsIdle",
        "60 is more than wattsBusy, 50",
        (pool(wattsIdle=60, wattsBusy=60),),
    ),
    Case(
        "wait-without-preference",
        (task(waitForPreferredSeconds=5),),
        "spec.waitForPreferredSeconds",
        "nothing is preferred",
        (task(waitForPreferredSeconds=0),),
    ),
    Case(
        "selector-values",
        (task(preferred=[{"selector": {"matchExpressions": [{"key": "zone", "operator": "In"}]}}]),),
        "spec.preferred[0].selector.matchExpressions[0].values",
        "needs values",
        (task(preferred=[{"selector": {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}}]),),
        name="preferred",
        changes=False,
    ),
    Case(
        "array-without-items", (task(array={}),), "spec.array", "neither count nor items", (task(array={"count": 1}),)
    ),
    Case(
        "array-without-items",
        (task(array={"count": 2, "items": [{}]}),),
        "spec.array",
        "neither count nor items, or both",
        (task(array={"items": [{}]}),),
        name="both",
    ),
    Case(
        "array-completions",
        (task(array={"count": 2, "completions": 3}),),
        "spec.array.completions",
        "it has 2 items",
        (task(array={"count": 2, "completions": 2}),),
    ),
    Case(
        "array-payload",
        (task(array={"items": [{}]}, payload={"a": 1}),),
        "spec.payload",
        "a payload of its own",
        (task(array={"items": [{}]}, payload={}),),
    ),
    Case(
        "array-payload",
        (task(array={"items": [{}]}, payloadRef=REF),),
        "spec.payloadRef",
        "a payload of its own",
        (task(array={"items": [{}]}),),
        name="by-reference",
    ),
    Case(
        "array-in-order",
        (task(array={"count": 2}, orderingKey="k"),),
        "spec.orderingKey",
        "an array cannot have one",
        (task(array={"count": 2}),),
    ),
    Case(
        "depends-on-itself",
        (task(dependsOn=depends("a", "t")), task("a")),
        "spec.dependsOn[1].name",
        "the Task itself",
        (task(dependsOn=depends("a")), task("a")),
    ),
    Case(
        "deadline-before-start",
        (task(notBefore=at(60), deadline=at(60)),),
        "spec.notBefore",
        "not before the deadline",
        (task(notBefore=at(60), deadline=at(61)),),
    ),
    Case(
        "payload-said-twice",
        (task(payload={"x": 1}, payloadRef=REF),),
        "spec.payloadRef",
        "spec.payload says the input, too",
        (task(payloadRef=REF),),
    ),
]


def way(name: str, *steps: Obj, **match: Any) -> Obj:
    return {"name": name, **({"match": match} if match else {}), "steps": list(steps)}


def held(name: str, limit: int) -> Obj:
    return {"name": name, "kind": "Concurrent", "limit": limit}


SPENT = {"name": "b", "kind": "Rate", "perSecond": 2, "burst": 4}
WRITING += [
    Case(
        "route-begins-late",
        (queue(routes=[way("r", {"pools": ["p"], "afterSeconds": 5})]),),
        "spec.routes[0].steps",
        "first step is not 0",
        (queue(routes=[way("r", {"pools": ["p"]}, {"pools": ["o"], "afterSeconds": 5})]),),
    ),
    Case(
        "route-sizes-crossed",
        (queue(routes=[way("r", {"pools": ["p"]}, minSlots=3, maxSlots=2)]),),
        "spec.routes[0].match.minSlots",
        "3 is more than maxSlots, 2",
        (queue(routes=[way("r", {"pools": ["p"]}, minSlots=2, maxSlots=2)]),),
    ),
    Case(
        "budget-of-two-kinds",
        (queue(budgets=[{"name": "b", "kind": "Concurrent"}]),),
        "spec.budgets[0].limit",
        "Concurrent has a limit",
        (queue(budgets=[held("b", 1)]),),
    ),
    Case(
        "budget-of-two-kinds",
        (queue(budgets=[SPENT | {"limit": 3}]),),
        "spec.budgets[0].perSecond",
        "Rate has perSecond and burst",
        (queue(budgets=[SPENT]),),
        name="rate",
    ),
]
ROUTING = [
    Case(
        "route-pool-not-found",
        (queue(routes=[way("r", {"pools": ["fast"]}, {"pools": ["p"], "afterSeconds": 5})]), pool()),
        "spec.routes[0].steps[0].pools[0]",
        "no AgentPool fast",
        (queue(routes=[way("r", {"pools": ["fast"]}, {"pools": ["p"]})]), pool(), pool("fast")),
        severity="warning",
    ),
    Case(
        "route-pool-not-found",
        (queue(routes=[way("r", {"pools": ["fast"]})]), pool()),
        "spec.routes[0].steps[0].pools[0]",
        "no AgentPool fast",
        (queue(routes=[way("r", {"pools": ["p"]})]), pool()),
        severity="error",
        name="none-of-the-route",
    ),
    Case(
        "route-never-taken",
        (queue(routes=[way("all", {"pools": ["p"]}), way("r", {"pools": ["p"]}, types=["work"])]), pool()),
        "spec.routes[1]",
        "r is never reached",
        (queue(routes=[way("r", {"pools": ["p"]}, types=["work"]), way("all", {"pools": ["p"]})]), pool()),
    ),
    Case(
        "step-never-reached",
        (queue(routes=[way("r", {"pools": ["p", "o"]}, {"pools": ["o"], "afterSeconds": 5})]), pool(), pool("o")),
        "spec.routes[0].steps[1]",
        "earlier steps of r have all of its pools: o",
        (queue(routes=[way("r", {"pools": ["p"]}, {"pools": ["o", "p"], "afterSeconds": 5})]), pool(), pool("o")),
    ),
    Case(
        "step-never-reached",
        (
            queue(
                routes=[way("r", {"pools": ["p"]}, {"pools": ["o"], "afterSeconds": 60})],
                timeouts={"waitingSeconds": 60},
            ),
        ),
        "spec.routes[0].steps[1].afterSeconds",
        "opens after 60 s, and Tasks wait 60 s at most",
        (
            queue(
                routes=[way("r", {"pools": ["p"]}, {"pools": ["o"], "afterSeconds": 59})],
                timeouts={"waitingSeconds": 60},
            ),
        ),
        name="too-late",
    ),
    Case(
        "budget-not-found",
        (queue(budgets=[held("seats", 1)]), task(budgets=[{"name": "seat"}])),
        "spec.budgets",
        "queue q has no budget seat",
        (queue(budgets=[held("seats", 1)]), task(budgets=[{"name": "seats"}])),
        changes=False,
    ),
    Case(
        "budget-not-found",
        (queue(), task(budgets=[{"name": "other/b"}])),
        "spec.budgets",
        "no TaskQueue other",
        (queue(), queue("other", budgets=[held("b", 1)]), task(budgets=[{"name": "other/b"}])),
        changes=False,
        severity="warning",
        name="queue",
    ),
    Case(
        "task-above-budget",
        (queue(budgets=[held("b", 2)]), task(budgets=[{"name": "b", "amount": 3}])),
        "spec.budgets",
        "3 of the budget q/b; its limit is 2",
        (queue(budgets=[held("b", 3)]), task(budgets=[{"name": "b", "amount": 3}])),
    ),
    Case(
        "task-above-budget",
        (queue(budgets=[held("a", 1), SPENT]), task(budgets=[{"name": "q/b", "amount": 5}])),
        "spec.budgets",
        "5 of the budget q/b; its burst is 4",
        (queue(budgets=[SPENT]), task(budgets=[{"name": "b", "amount": 4}])),
        name="rate",
    ),
]

SERVING = [
    Case("pool-not-found", (queue(pools=["fast"]), pool()), "spec.pools[0]", "no AgentPool fast", (queue(), pool())),
    Case(
        "pool-not-found",
        (queue(pools=["analysys"]), pool("analysis")),
        "spec.pools[0]",
        "no AgentPool analysys",
        (queue(pools=["analysis"]), pool("analysis")),
        name="a-slip-of-the-pen",
    ),
    Case(
        "pool-not-found",
        (queue(pools=["p", "fast"]), pool()),
        "spec.pools[1]",
        "no AgentPool fast",
        (queue(pools=["p", "r"]), pool(), pool("r")),
        severity="warning",
        name="others-are-there",
    ),
    Case(
        "pool-not-found",
        (queue(),),
        "spec.pools[0]",
        "may be in the cluster already",
        (queue(), pool()),
        severity="warning",
        name="no-pools-in-the-set",
    ),
    Case(
        "pool-unused",
        (queue(), pool(), pool("idle")),
        "metadata.name",
        "no TaskQueue",
        (queue(), pool(), pool("bound"), task(pool="bound")),
    ),
    Case(
        "pool-without-agents",
        (queue(), pool(replicas=0)),
        "spec.replicas",
        "0 agents",
        (queue(), pool(scaling=SCALING), pool("unused", replicas=0)),
    ),
    Case(
        "queue-not-found",
        (task(queue="nightli"), queue("nightly")),
        "spec.queue",
        "no TaskQueue nightli",
        (task(), queue()),
        name="a-slip-of-the-pen",
    ),
    Case(
        "queue-not-found",
        (task(queue="nightly"), queue(), pool()),
        "spec.queue",
        "no TaskQueue nightly",
        (task(), queue(), pool()),
    ),
    Case(
        "queue-not-found",
        (task(),),
        "spec.queue",
        "may be in the cluster already",
        (task(), queue()),
        changes=False,
        severity="warning",
        name="no-queues-in-the-set",
    ),
    Case(
        "queue-closed",
        (task(), queue(drained=True)),
        "spec.queue",
        "drained",
        (task(), queue(), queue("r", drained=True)),
    ),
    Case("queue-closed", (task(), queue(paused=True)), "spec.queue", "paused", (task(), queue()), name="paused"),
    Case(
        "task-pool-not-found",
        (task(pool="fast"), pool()),
        "spec.pool",
        "no AgentPool fast",
        (task(pool="p"), pool()),
    ),
    Case(
        "no-capable-pool",
        (task(skills=["cuda"]), queue(), pool(skills=["python"])),
        "spec.skills",
        "has skill cuda; they offer: python",
        (task(skills=["cuda"]), queue(pools=["p", "r"]), pool(), pool("r", skills=["cuda"])),
    ),
    Case(
        "no-capable-pool",
        (task(agentSelector={"matchLabels": {"zone": "a"}}), queue(), pool(labels={"zone": "b"})),
        "spec.agentSelector",
        "zone In (a)",
        (task(agentSelector={"matchLabels": {"zone": "a"}}), queue(), pool(labels={"zone": "a"})),
        name="labels",
    ),
    Case(
        "no-capable-pool",
        (task(zones=["z1"]), queue(), pool(labels={"topology.kubernetes.io/zone": "z2"})),
        "spec.zones",
        "is in zone z1; they are in: z2",
        # Where its nodes are is not known before there are any.
        (task(zones=["z1"]), queue(), pool()),
        name="zones",
        changes=False,
    ),
    Case(
        "no-capable-pool",
        (task(maxCostPerHour=1), queue(), pool(costPerHour=2)),
        "spec.maxCostPerHour",
        "costs 1 an hour or less; the cheapest costs 2",
        (task(maxCostPerHour=2), queue(), pool(costPerHour=2)),
        name="cost",
        changes=False,
    ),
    Case(
        "no-capable-pool",
        (task(minQuality=0.9), queue(), pool(quality=0.5)),
        "spec.minQuality",
        "a quality of 0.9 or more; the best has 0.5",
        (task(minQuality=0.5), queue(), pool(quality=0.5)),
        name="quality",
        changes=False,
    ),
    Case(
        "no-capable-pool",
        (
            task(agentSelector={"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["b"]}]}),
            queue(),
            pool(labels={"zone": "b"}),
        ),
        "spec.agentSelector",
        "zone NotIn (b)",
        (task(agentSelector={"matchLabels": {"disk": "ssd"}}), queue(), pool(reportedLabels=["disk"])),
        changes=False,
        name="labels-that-agents-may-report",
    ),
    Case(
        "no-capable-pool",
        (
            task(type="train"),
            queue(),
            pool(pod={"containers": [container(args=["agent", "--command", "./x", "--types", "work"])]}),
        ),
        "spec.type",
        "handler for type train",
        (
            task(),
            queue(),
            pool(pod={"containers": [container(args=["agent", "--command", "./x", "--types=rest,work"])]}),
        ),
        changes=False,
        name="types",
    ),
    Case(
        "no-capable-pool",
        (task(pool="r", skills=["cuda"]), queue(), pool(skills=["cuda"]), pool("r")),
        "spec.skills",
        "of pool r has skill cuda",
        # Emergency may use any pool of the namespace that can.
        (
            task(priority="Emergency", tenant="acme", skills=["cuda"]),
            queue(pools=["r"], tenants={"emergency": ["acme"]}),
            pool(skills=["cuda"]),
            pool("r"),
        ),
        name="bound-to-a-pool",
    ),
    Case(
        "larger-than-any-agent",
        (task(slots=5), queue(pools=["p", "r"]), pool(slots=4), pool("r", slots=2)),
        "spec.slots",
        "has 5 slots in all; the largest has 4",
        (task(slots=4), queue(), pool(slots=4)),
    ),
    Case(
        "larger-than-any-agent",
        (task(resources={"gpu": 2}), queue(), pool(resources={"gpu": 1})),
        "spec.resources",
        "has 2 gpu (the most is 1)",
        (task(resources={"gpu": 2}), queue(), pool(resources={"gpu": 2})),
        name="resources",
    ),
    Case(
        "object-store-not-set",
        (task(payloadRef=REF), queue(), pool()),
        "spec.payloadRef",
        "no agent of p is told where its object store is",
        (
            task(payloadRef=REF),
            queue(),
            pool(pod={"containers": [container(env=[{"name": "TASKDIST_OBJECTS_URL", "value": "s3://tasks"}])]}),
        ),
    ),
    Case(
        "object-store-not-set",
        (task(payloadRef=REF), queue(), pool()),
        "spec.payloadRef",
        "no agent of p is told",
        (task(payloadRef=REF), queue(), pool(pod={"containers": [container(envFrom=[{"secretRef": {"name": "s"}}])]})),
        name="it may come from a Secret",
    ),
    Case(
        "agents-without-a-fence",
        (queue(), http()),
        "spec.reclaim",
        "cannot be fenced",
        (queue(reclaim="Confirmed"), http()),
        severity="error",
    ),
    Case(
        "agents-without-a-fence",
        (queue(pools=["p", "r"]), http(), pool("r")),
        "spec.reclaim",
        "agents of p cannot be fenced",
        (queue(), pool(pod={"containers": [container(args=["serve", "--http", "x"])]})),
        name="other-agents-can",
    ),
    Case(
        "agents-without-a-fence",
        (queue(), pool(pod={"containers": [container(env=[{"name": "TASKDIST_IN_PROCESS", "value": "true"}])]})),
        "spec.reclaim",
        "cannot be fenced",
        (queue(), pool(pod={"containers": [container(env=[{"name": "TASKDIST_IN_PROCESS", "value": "0"}])]})),
        severity="error",
        name="by-a-variable",
    ),
    Case(
        "spill-target-not-found",
        (queue(overflow={"highWater": 9, "lowWater": 5, "action": "Spill", "spillTo": "more"}), queue("r")),
        "spec.overflow.spillTo",
        "no TaskQueue more",
        (queue(overflow={"highWater": 9, "lowWater": 5, "action": "Spill", "spillTo": "r"}), queue("r")),
    ),
    Case(
        "spill-target-not-found",
        (queue(overflow={"highWater": 9, "lowWater": 5, "action": "Spill", "spillTo": "more"}),),
        "spec.overflow.spillTo",
        "may be in the cluster already",
        (queue(),),
        severity="warning",
        name="the-only-queue-of-the-set",
    ),
    Case(
        "spill-chain",
        (
            queue("a", overflow={"highWater": 9, "lowWater": 5, "action": "Spill", "spillTo": "b"}),
            queue("b", overflow={"highWater": 9, "lowWater": 5, "action": "Spill", "spillTo": "a"}),
        ),
        "spec.overflow.spillTo",
        "a → b → a: they spill to each other",
        (queue("a", overflow={"highWater": 9, "lowWater": 5, "action": "Spill", "spillTo": "b"}), queue("b")),
    ),
    Case(
        "spill-chain",
        (
            queue("a", overflow={"highWater": 9, "lowWater": 5, "action": "Spill", "spillTo": "b"}),
            queue("b", overflow={"highWater": 9, "lowWater": 5, "action": "Spill", "spillTo": "c"}),
            queue("c"),
        ),
        "spec.overflow.spillTo",
        "nothing of a comes to c",
        (queue("a"), queue("b"), queue("c")),
        severity="hint",
        name="three-in-a-row",
    ),
    Case(
        "spill-unserved",
        (
            task(skills=["cuda"]),
            queue(overflow={"highWater": 9, "lowWater": 5, "action": "Spill", "spillTo": "r"}),
            queue("r", pools=["plain"]),
            pool(skills=["cuda"]),
            pool("plain"),
        ),
        "spec.queue",
        "may spill to r, where no agent of pool plain has skill cuda",
        (
            task(),
            queue(overflow={"highWater": 9, "lowWater": 5, "action": "Spill", "spillTo": "r"}),
            queue("r", pools=["plain"]),
            pool(skills=["cuda"]),
            pool("plain"),
        ),
    ),
]

TIMES = [
    Case(
        "deadline-too-tight",
        (task(deadline=at(5)), queue()),
        "spec.deadline",
        "5 s from now",
        (task(deadline=at(10)), queue()),
    ),
    Case(
        "deadline-too-tight",
        (task(deadline=at(-300)), queue()),
        "spec.deadline",
        "over 5 min ago",
        (task(deadline=at(5)), queue(expectedServiceSeconds=5)),
        name="over",
    ),
    Case(
        "deadline-too-tight",
        (task(notBefore=at(100), deadline=at(105)), queue()),
        "spec.deadline",
        "5 s from notBefore",
        (task(notBefore=at(100), deadline=at(110)), queue()),
        name="from-not-before",
    ),
    Case(
        "deadline-too-tight",
        (task(deadline=at(5), timeouts={"executionSeconds": 7}), queue()),
        "spec.deadline",
        "takes about 7 s",
        # No attempt takes longer than its limit.
        (task(deadline=at(5), timeouts={"executionSeconds": 4}), queue()),
        name="execution-limit",
    ),
    Case(
        "execution-limit-above-deadline",
        (task(deadline=at(60), timeouts={"executionSeconds": 61}), queue()),
        "spec.timeouts.executionSeconds",
        "may run for 61 s, and the deadline leaves 60 s",
        (task(deadline=at(60), timeouts={"executionSeconds": 60}), queue()),
    ),
    Case(
        "execution-limit-above-deadline",
        (task(deadline=at(60)), queue(timeouts={"executionSeconds": 61})),
        "spec.deadline",
        "its queue says so",
        (task(deadline=at(60)), queue()),
        severity="hint",
        name="the-queue's",
    ),
    Case(
        "execution-limit-below-service",
        (queue(expectedServiceSeconds=30, timeouts={"executionSeconds": 20}),),
        "spec.timeouts.executionSeconds",
        "less than expectedServiceSeconds, 30 s",
        (queue(expectedServiceSeconds=30, timeouts={"executionSeconds": 30}),),
    ),
    Case(
        "execution-limit-below-service",
        (queue(timeouts={"executionSeconds": 3}),),
        "spec.timeouts.executionSeconds",
        "(the default)",
        (queue(expectedServiceSeconds=1, timeouts={"executionSeconds": 3}),),
        name="the-default",
    ),
    Case(
        "progress-limit-without-effect",
        (queue(timeouts={"executionSeconds": 60, "progressSeconds": 60}),),
        "spec.timeouts.progressSeconds",
        "not less than executionSeconds",
        (queue(timeouts={"executionSeconds": 60, "progressSeconds": 59}),),
    ),
    Case(
        "progress-limit-without-effect",
        (task(timeouts={"progressSeconds": 90}), queue(timeouts={"executionSeconds": 60})),
        "spec.timeouts.progressSeconds",
        "90 s without progress",
        (task(timeouts={"progressSeconds": 90, "executionSeconds": 100}), queue(timeouts={"executionSeconds": 60})),
        name="a-Task's",
    ),
    Case(
        "waiting-limit-before-start",
        (task(notBefore=at(600), timeouts={"waitingSeconds": 300}),),
        "spec.timeouts.waitingSeconds",
        "may only after 10 min",
        (task(notBefore=at(600), timeouts={"waitingSeconds": 900}),),
    ),
    Case(
        "waiting-limit-before-start",
        (task(notBefore=at(600)), queue(timeouts={"waitingSeconds": 300})),
        "spec.timeouts.waitingSeconds",
        "must have started after 5 min",
        (task(notBefore=at(200)), queue(timeouts={"waitingSeconds": 300})),
        name="the-queue's",
    ),
    Case(
        "waiting-limit-after-deadline",
        (task(deadline=at(60), timeouts={"waitingSeconds": 90}),),
        "spec.timeouts.waitingSeconds",
        "given up after 90 s, and late after 60 s",
        (task(deadline=at(60), timeouts={"waitingSeconds": 60}),),
    ),
    Case(
        "backoff-outlasts-deadline",
        (task(deadline=at(60)), queue(retry={"initialSeconds": 100})),
        "spec.deadline",
        "the first back-off takes 90 s",
        (task(deadline=at(60)), queue(retry={"initialSeconds": 100, "jitter": 1})),
    ),
    Case(
        "retries-without-a-pause",
        (queue(retry={"initialSeconds": 0}),),
        "spec.retry.initialSeconds",
        "3 retries, one right after the other",
        (queue(retry={"initialSeconds": 0, "limit": 0}), queue("r", retry={"initialSeconds": 0.1})),
    ),
]

LIMITS = [
    Case(
        "tenant-limit-above-queue",
        (queue(quota={"leased": 4, "perTenant": {"leased": 5}}),),
        "spec.quota.perTenant.leased",
        "5 is more than the queue's, 4",
        (queue(quota={"leased": 4, "perTenant": {"leased": 4}}),),
    ),
    Case(
        "tenant-limit-above-queue",
        (queue(rate={"queue": {"perSecond": 2}, "perTenant": {"perSecond": 3}}),),
        "spec.rate.perTenant.perSecond",
        "3 is more than the queue's, 2",
        (queue(rate={"queue": {"perSecond": 3}, "perTenant": {"perSecond": 3}}),),
        name="rate",
    ),
    Case(
        "task-above-quota",
        (task(slots=3), queue(quota={"slots": 2})),
        "spec.slots",
        "quota.slots is 2",
        (task(slots=2), queue(quota={"slots": 2})),
    ),
    Case(
        "task-above-quota",
        (task(slots=3), queue(quota={"perTenant": {"slots": 2}})),
        "spec.slots",
        "quota.perTenant.slots is 2",
        (task(slots=3), queue(quota={"perTenant": {"slots": 3}})),
        name="of-a-tenant",
    ),
    Case(
        "task-above-quota",
        (task(payload={"a": "x" * 100}), queue(quota={"payloadBytes": 100})),
        "spec.payload",
        "bytes",
        (task(payload={"a": "x" * 80}), queue(quota={"payloadBytes": 100})),
        name="payload",
    ),
    Case(
        "key-limit-above-quota",
        (queue(concurrencyLimit=5, quota={"leased": 4}),),
        "spec.concurrencyLimit",
        "5 is more than the queue's quota.leased, 4",
        (queue(concurrencyLimit=4, quota={"leased": 4}),),
    ),
    Case(
        "emergency-cap-above-quota",
        (queue(quota={"perTenant": {"leased": 4}}, tenants={"emergency": ["acme"]}),),
        "spec.tenants.emergencyLeased",
        "10 is more than quota.leased, 4",
        (queue(quota={"perTenant": {"leased": 4}}),),
    ),
    Case(
        "rate-without-a-burst",
        (queue(rate={"queue": {"perSecond": 20}}),),
        "spec.rate.queue.burst",
        "1 at once, at 20 a second",
        (queue(rate={"queue": {"perSecond": 20, "burst": 2}, "perTenant": {"perSecond": 5}}),),
    ),
    Case(
        "high-water-above-quota",
        (queue(quota={"waiting": 50}),),
        "spec.overflow.highWater",
        "100 is more than quota.waiting, 50",
        (queue(quota={"waiting": 100}),),
    ),
    Case(
        "water-marks-equal",
        (queue(overflow={"highWater": 10, "lowWater": 10}),),
        "spec.overflow.lowWater",
        "it is highWater, 10",
        (queue(overflow={"highWater": 10, "lowWater": 9}),),
    ),
    Case(
        "hard-cap-too-low",
        (cap("150"), queue(), queue("r")),
        "spec.hard.count/tasks.taskdist.dev",
        "150 is less than the queues may hold waiting: q 100, r 100",
        (cap("1k"), queue(), queue("r")),
    ),
    Case(
        "queue-without-a-bound",
        (queue(overflow=None),),
        "spec.overflow",
        "neither overflow nor quota.waiting",
        (queue(overflow=None), cap("100")),
    ),
]

ORDER = [
    Case(
        "emergency-not-allowed",
        (task(priority="Emergency", tenant="umbra"), queue(tenants={"emergency": ["acme"]})),
        "spec.priority",
        "lets acme use Emergency, not tenant umbra",
        (task(priority="Emergency", tenant="acme"), queue(tenants={"emergency": ["acme"]})),
    ),
    Case(
        "emergency-not-allowed",
        (task(priority="Emergency"), queue()),
        "spec.priority",
        "lets nobody use Emergency",
        # Which namespace it will be, and so which tenant, nobody said.
        (task(priority="Emergency"), queue(tenants={"emergency": ["team-a"]})),
        name="no-tenant",
    ),
    Case(
        "priority-ignored",
        (task(priority="High"), queue(order={"policy": "Fifo"})),
        "spec.priority",
        "queue q is Fifo",
        (task(priority="High"), queue()),
    ),
    Case(
        "deadline-ignored",
        (task(deadline=at(99)), queue(order={"policy": "Fifo"})),
        "spec.deadline",
        "brings nothing forward",
        (task(deadline=at(99)), queue(order={"policy": "DeadlineFirst"})),
    ),
    Case(
        "tenants-ignored",
        (queue(order={"policy": "DeadlineFirst"}, tenants={"weights": [{"name": "acme", "weight": 2}]}),),
        "spec.tenants.weights",
        "the queue is DeadlineFirst",
        (queue(tenants={"weights": [{"name": "acme", "weight": 2}]}),),
    ),
    Case(
        "tenants-ignored",
        (queue(order={"policy": "Fifo"}, tenants={"emergency": ["acme"]}),),
        "spec.tenants.emergency",
        "the queue is Fifo",
        (queue(order={"policy": "Fifo"}),),
        name="emergency",
    ),
    Case(
        "aging-ignored",
        (queue(order={"policy": "Fifo"}, aging={"stepSeconds": 60}),),
        "spec.aging.stepSeconds",
        "the queue is Fifo",
        # As the API server fills it in.
        (queue(order={"policy": "Fifo"}, aging={"stepSeconds": 300}),),
    ),
    Case(
        "level-ignored",
        (queue(order={"level": "High"}),),
        "spec.order.level",
        "the queue is Priority",
        (queue(order={"level": "High", "policy": "Fifo"}),),
    ),
    Case(
        "level-ignored",
        (queue(order={"level": "Emergency", "policy": "Fifo"}),),
        "spec.order.level",
        "Critical at most",
        (queue(order={"level": "Critical", "policy": "Fifo"}),),
        name="emergency",
    ),
    Case(
        "low-levels-without-aging",
        (task(priority="Background"), queue(aging={"stepSeconds": 0})),
        "spec.aging.stepSeconds",
        "at Background",
        (task(priority="Background"), queue(), task("u", queue="r"), queue("r", aging={"stepSeconds": 0})),
    ),
]

DELIVERY = [
    Case(
        "retries-at-most-once",
        (queue(delivery="AtMostOnce"),),
        "spec.retry.limit",
        "3 retries",
        (queue(delivery="AtMostOnce", retry={"limit": 0}),),
    ),
    Case(
        "keys-in-a-lazy-queue",
        (task(orderingKey="a"), queue(**LAZY)),
        "spec.orderingKey",
        "recorded first",
        (task(orderingKey="a"), queue()),
    ),
    Case(
        "keys-in-a-lazy-queue",
        (task(orderingKey="a", concurrencyKey="b"), queue(**LAZY)),
        "spec.orderingKey",
        "recorded first",
        (task(), queue(**LAZY)),
        name="two",
    ),
    Case(
        "lazy-for-long-work",
        (queue(dispatch="Lazy"),),
        "spec.dispatch",
        "10 s (the default)",
        (queue(**LAZY),),
    ),
    Case(
        "overlap-with-keys",
        (task(concurrencyKey="a"), queue(reclaim="Fast")),
        "spec.concurrencyKey",
        "two agents may hold the key",
        (task(idempotencyKey="a"), queue(reclaim="Fast")),
    ),
    Case(
        "fast-at-most-once",
        (queue(reclaim="Fast", delivery="AtMostOnce"),),
        "spec.reclaim",
        "for good",
        (queue(reclaim="Fast"), queue("r", delivery="AtMostOnce")),
    ),
]

ARRAYS = [
    Case(
        "array-unserved",
        (task(array={"count": 2}), queue(), http()),
        "spec.array",
        "no agent of p takes chunks",
        (task(array={"count": 2}), queue(), pool()),
        changes=False,
        name="an endpoint",
    ),
    Case(
        "array-unserved",
        (
            task(array={"count": 2}),
            queue(),
            pool(pod={"containers": [container(env=[{"name": "TASKDIST_COMMAND", "value": "x"}])]}),
        ),
        "spec.array",
        "no agent of p takes chunks",
        (task(array={"count": 2}), queue(pools=["p", "r"]), http(), pool("r")),
        changes=False,
        name="a command",
    ),
    Case(
        "array-parallelism",
        (task(array={"count": 2, "parallelism": 13}), queue(), pool(slots=4, scaling=SCALING)),
        "spec.array.parallelism",
        "room for 12 at most",
        (task(array={"count": 2, "parallelism": 12}), queue(), pool(slots=4, scaling=SCALING)),
    ),
    Case(
        "array-parallelism",
        (task(array={"count": 2, "parallelism": 5}, slots=2), queue(), pool(slots=5, replicas=2)),
        "spec.array.parallelism",
        "room for 4 at most",
        (task(array={"count": 2}, slots=2), queue(), pool(slots=5, replicas=2)),
        name="Tasks of several slots",
    ),
    Case(
        "array-nearly-full",
        (task(array={"items": [{"text": "x" * 62_000}]}),),
        "spec.array.items",
        "of 65536 at most",
        (task(array={"items": [{"text": "x" * 50_000}]}),),
        changes=False,
    ),
    Case(
        "array-small-chunks",
        (task(array={"count": 1_000_000, "chunk": {"maxItems": 1}}),),
        "spec.array.chunk.maxItems",
        "its writes alone take 17 minutes",
        (task(array={"count": 1_000_000, "chunk": {"maxItems": 2}}),),
    ),
]

KINSHIP = [
    Case(
        "dependency-cycle",
        (task("a", dependsOn=depends("b")), task("b", dependsOn=depends("c")), task("c", dependsOn=depends("a"))),
        "spec.dependsOn",
        "→",
        (task("a", dependsOn=depends("b", "c")), task("b", dependsOn=depends("c")), task("c")),
    ),
    Case(
        "parent-not-found",
        (task("a", dependsOn=depends("b", "c")), task("c")),
        "spec.dependsOn[0].name",
        "no Task b in the set",
        (task("a", dependsOn=depends("c")), task("c")),
    ),
    Case(
        "parent-gone-too-soon",
        (task("a", dependsOn=depends("b")), task("b"), queue(ttlSecondsAfterFinished=5)),
        "spec.dependsOn[0].name",
        "b is deleted 5 s after its end",
        (
            task("a", dependsOn=depends("b")),
            task("b", ttlSecondsAfterFinished=600),
            queue(ttlSecondsAfterFinished=5),
        ),
    ),
    Case(
        "duplicate-key",
        (task("a", idempotencyKey="k", payload={"x": 1}), task("b", idempotencyKey="k", payload={"x": 2})),
        "spec.idempotencyKey",
        "a has it too, and another payload",
        (task("a", idempotencyKey="k"), task("b", queue="r", idempotencyKey="k")),
    ),
    Case(
        "duplicate-key",
        (
            task("a", idempotencyKey="k", payloadRef=REF),
            task("b", idempotencyKey="k", payloadRef=REF | {"sha256": "b" * 64}),
        ),
        "spec.idempotencyKey",
        "a has it too, and another payload",
        (task("a", idempotencyKey="k", payloadRef=REF), task("b", queue="r", idempotencyKey="k", payloadRef=REF)),
        name="by reference",
    ),
    Case(
        "repeats-forgotten",
        (task(idempotencyKey="k"), queue(ttlSecondsAfterFinished=10)),
        "spec.idempotencyKey",
        "for 10 s only",
        (task(idempotencyKey="k"), queue()),
    ),
]

KEEPING = [
    Case(
        "dead-letters-for-ever",
        (queue(retry={"onExhausted": "DeadLetter"}),),
        "spec.deadLetterTtlSeconds",
        "kept for ever",
        (queue(retry={"onExhausted": "DeadLetter"}, deadLetterTtlSeconds=60), queue("r")),
    ),
    Case(
        "dead-letters-for-ever",
        (queue(deadlines={"onHopeless": "DeadLetter"}),),
        "spec.deadLetterTtlSeconds",
        "kept for ever",
        (queue(deadlines={"onHopeless": "Fail"}),),
        name="hopeless",
    ),
    Case(
        "no-dead-letters",
        (queue(deadLetterTtlSeconds=60),),
        "spec.deadLetterTtlSeconds",
        "no dead letters",
        (queue(deadLetterTtlSeconds=60, deadlines={"onHopeless": "DeadLetter"}),),
    ),
    Case(
        "ended-for-ever",
        (queue(ttlSecondsAfterFinished=None),),
        "spec.ttlSecondsAfterFinished",
        "kept for ever",
        (queue(),),
    ),
    Case(
        "ended-for-ever",
        (queue(ttlSecondsAfterFinished=None), cap("1000")),
        "spec.ttlSecondsAfterFinished",
        "fill the ResourceQuota",
        (queue(), cap("1000")),
        severity="warning",
        name="under-a-cap",
    ),
    Case(
        "ended-gone-at-once",
        (queue(ttlSecondsAfterFinished=0),),
        "spec.ttlSecondsAfterFinished",
        "may miss it",
        (queue(ttlSecondsAfterFinished=1),),
    ),
]

AGENTS = [
    Case(
        "pool-that-flaps",
        (pool(scaling={**SCALING, "scaleDownDelaySeconds": 0}),),
        "spec.scaling.scaleDownDelaySeconds",
        "deleted in each pause",
        (pool(scaling={"minReplicas": 1, "maxReplicas": 3, "scaleDownDelaySeconds": 0}), pool("r", scaling=SCALING)),
    ),
    Case(
        "replicas-ignored",
        (pool(scaling=SCALING, replicas=3),),
        "spec.replicas",
        "scaling is set",
        # As the API server fills it in.
        (pool(scaling=SCALING, replicas=1), pool("r", replicas=3)),
    ),
    Case(
        "no-resource-requests",
        (pool(pod={"containers": [container(), container(name="side", resources={"limits": {"cpu": "1"}})]}),),
        "spec.template.spec.containers[1].resources.requests",
        "memory is not requested",
        (pool(pod={"containers": [container(resources={"limits": {"cpu": "1", "memory": "1Gi"}})]}),),
    ),
    Case(
        "grace-below-service",
        (queue(expectedServiceSeconds=30), pool()),
        "spec.template.spec.terminationGracePeriodSeconds",
        "30 s (the default), less 5; work of queue q takes 30 s",
        (queue(expectedServiceSeconds=25), pool()),
    ),
    Case(
        "grace-below-service",
        (queue(), pool(pod={"terminationGracePeriodSeconds": 10})),
        "spec.template.spec.terminationGracePeriodSeconds",
        "10 s, less 5",
        (queue(), pool(pod={"terminationGracePeriodSeconds": 15})),
        name="said",
    ),
    Case(
        "token-asked-for",
        (pool(pod={"automountServiceAccountToken": True}),),
        "spec.template.spec.automountServiceAccountToken",
        "the operator sets it to false",
        (pool(pod={"automountServiceAccountToken": False}),),
    ),
    Case(
        "restart-policy",
        (pool(pod={"restartPolicy": "Never"}),),
        "spec.template.spec.restartPolicy",
        "long-running",
        (pool(pod={"restartPolicy": "Always"}),),
    ),
    Case(
        "image-that-moves",
        (pool(pod={"containers": [container(image="host:5000/agent:latest")]}),),
        "spec.template.spec.containers[0].image",
        "has the tag latest",
        (pool(pod={"containers": [container(image="host:5000/agent@sha256:abc")]}),),
        changes=False,
    ),
    Case(
        "image-that-moves",
        (pool(pod={"containers": [container(image="host:5000/agent")]}),),
        "spec.template.spec.containers[0].image",
        "has no tag",
        (pool(pod={"containers": [container(image="agent:1")]}),),
        changes=False,
        name="no-tag",
    ),
    Case(
        "unknown-pod-field",
        (pool(pod={"terminationGracePeriodSecond": 60}),),
        "spec.template.spec.terminationGracePeriodSecond",
        "no such field",
        (pool(pod={"terminationGracePeriodSeconds": 60, "fieldOfTomorrow": 1}),),
        changes=False,
    ),
    Case(
        "unknown-pod-field",
        (pool(pod={"containers": [container(volumeMount=[])]}),),
        "spec.template.spec.containers[0].volumeMount",
        "no such field",
        (pool(pod={"containers": [container(volumeMounts=[])]}),),
        changes=False,
        name="container",
    ),
    Case(
        "unknown-pod-field",
        (pool(pod={"containers": [container(resources={"request": {"cpu": "1"}})]}),),
        "spec.template.spec.containers[0].resources.request",
        "no such field",
        (pool(pod={"containers": [container(env=[{"name": "A", "valueFrom": {}}])]}),),
        changes=False,
        name="resources",
    ),
    Case(
        "unknown-pod-field",
        (pool(pod={"env": []}),),
        "spec.template.spec.env",
        "no such field",
        (pool(pod={"containers": [container(env=[])]}),),
        changes=False,
        name="of-the-container",
    ),
    Case(
        "pod-value-not-text",
        (pool(pod={"containers": [container(env=[{"name": "A", "value": 8080}])]}),),
        "spec.template.spec.containers[0].env[0].value",
        "8080 is no text",
        (pool(pod={"containers": [container(env=[{"name": "A", "value": "8080"}])]}),),
        changes=False,
    ),
    Case(
        "pod-value-not-text",
        (pool(pod={"initContainers": [container(args=["a", True])]}),),
        "spec.template.spec.initContainers[0].args[1]",
        "true is no text",
        (pool(pod={"initContainers": [container(args=["a", "true"])]}),),
        changes=False,
        name="arguments",
    ),
]

WRITING += [
    Case(
        "source-refused",
        (source(cron=None),),
        "spec",
        "names no source, or more than one",
        (source(),),
        changes=False,
    ),
    Case(
        "source-refused",
        (source(task={"deadline": "{time}", "deadlineSeconds": 60}),),
        "spec.task.deadlineSeconds",
        "deadline says the deadline too",
        (source(task={"deadlineSeconds": 60}),),
        name="two-deadlines",
    ),
    Case(
        "source-refused",
        (source(cron={"schedule": "@midnight"}),),
        "spec.cron.schedule",
        "five fields",
        (source(cron={"schedule": "*/5 0,12 L JAN-MAR mon#2"}),),
        changes=False,
        name="schedule",
    ),
    Case(
        "source-refused",
        (source(task={"tenant": "{$.tenants[*]}"}),),
        "spec.task.tenant",
        "'{$.tenants[*]}' is no path in braces",
        (source(task={"tenant": "{$.tenants[0]['a b']?acme}-{headers.x-y}"}),),
        changes=False,
        name="path",
    ),
    Case(
        "source-refused",
        (source(task={"labels": {"app": "{app}"}}),),
        "spec.task.labels.app",
        "no path in braces",
        (source(task={"labels": {"app": "{key}", "other": "{{key}}{id}"}}),),
        changes=False,
        name="label",
    ),
    Case(
        "bad-name",
        (source("s" * 51),),
        "metadata.name",
        "too long",
        (source("s" * 50),),
        changes=False,
        name="source",
    ),
]

SOURCES = [
    Case(
        "source-unusable",
        (source(cron={"schedule": "0 0 30 2 *"}),),
        "spec.cron.schedule",
        "no schedule of cron: bad day-of-month",
        (source(cron={"schedule": "0 0 28 2 *"}),),
        changes=False,
    ),
    Case(
        "source-unusable",
        (source(cron={"schedule": "0 0 * * *", "timeZone": "Europe/Atlantis"}),),
        "spec.cron.timeZone",
        "no time zone",
        (source(cron={"schedule": "0 0 * * *", "timeZone": "Europe/Lisbon"}),),
        changes=False,
        name="zone",
    ),
    Case(
        "source-unusable",
        (source(task={"payload": {"list": ["{$.a[*]}"]}}),),
        "spec.task.payload.list[0]",
        "no path in braces",
        (source(task={"payload": {"list": ["{$.a[0]}"], "n": None}}),),
        changes=False,
        name="payload",
    ),
    Case(
        "source-unusable",
        (source(task={"priority": "Urgent"}),),
        "spec.task.priority",
        "none of Emergency",
        (source(task={"priority": "{$.priority?Normal}"}),),
        changes=False,
        name="level",
    ),
    Case(
        "source-unusable",
        (source(task={"identity": "always"}),),
        "spec.task.identity",
        "same for all messages",
        (source(task={"identity": "{hash}"}),),
        changes=False,
        name="identity",
    ),
    Case(
        "source-queue-not-found",
        (source(task={"queue": "reprots"}), queue("reports")),
        "spec.task.queue",
        "no TaskQueue reprots",
        (source(task={"queue": "reports"}), source("t", task={"queue": "{$.queue}"}), queue("reports")),
    ),
    Case(
        "source-queue-not-found",
        (source(),),
        "spec.task.queue",
        "may be in the cluster",
        (source(), queue()),
        changes=False,
        severity="warning",
        name="alone",
    ),
    Case(
        "source-forgets",
        (source(), queue(ttlSecondsAfterFinished=60)),
        "spec.task.queue",
        "after 60 s",
        (source(), queue(ttlSecondsAfterFinished=600)),
    ),
]

RABBIT = {"host": "rabbit", "queue": "orders", "secretName": "login", "deadLetterExchange": "dead"}
SOURCES += [
    Case(
        "source-in-clear",
        (source(cron=None, rabbitmq={**RABBIT, "tls": False}), queue()),
        "spec.rabbitmq.tls",
        "go over the network unencrypted",
        (
            source(cron=None, rabbitmq=RABBIT),
            source("t", cron=None, rabbitmq={**RABBIT, "host": "localhost", "tls": False}),
            queue(),
        ),
    ),
    Case(
        "source-in-clear",
        (source(cron=None, rabbitmq={**RABBIT, "port": 5672}), queue()),
        "spec.rabbitmq.port",
        "5672 takes unencrypted connections only, and tls is true",
        (source(cron=None, rabbitmq={**RABBIT, "port": 5671}), queue()),
        name="port",
    ),
]

KAFKA = {"bootstrap": ["kafka:9092"], "topics": ["orders"], "group": "g", "deadLetterTopic": "orders-dead"}
SOURCES += [
    Case(
        "source-in-clear",
        (source(cron=None, kafka={**KAFKA, "tls": False}), queue()),
        "spec.kafka.tls",
        "messages go over the network unencrypted",
        (
            source(cron=None, kafka=KAFKA),
            source("t", cron=None, kafka={**KAFKA, "bootstrap": ["127.0.0.1:1", "[::1]:2"], "tls": False}),
            queue(),
        ),
        name="kafka",
    ),
]
WRITING += [
    Case(
        "source-refused",
        (source(cron=None, kafka={**KAFKA, "sasl": "PLAIN"}), queue()),
        "spec.kafka.secretName",
        "secretName is missing",
        (source(cron=None, kafka={**KAFKA, "sasl": "PLAIN", "secretName": "s"}), queue()),
        changes=False,
        name="a password from nowhere",
    ),
    Case(
        "source-refused",
        (source(cron=None, kafka={**KAFKA, "deadLetterTopic": "orders"}), queue()),
        "spec.kafka.deadLetterTopic",
        "would come again and again",
        (source(cron=None, kafka=KAFKA), queue()),
        changes=False,
        name="dead letters that are read again",
    ),
]

SIGNATURE = {"header": "X-Signature"}
HOOK = {"format": "JSON", "secretName": "login", "signature": SIGNATURE}


def hook(identity: str | None = "{hash}", name: str = "s", signature: Obj | None = None, **more: Any) -> Obj:
    """A webhook for queue `q`; `signature` is what is different about it."""
    spec = HOOK | {"signature": SIGNATURE | (signature or {})} | more
    webhook = {key: value for key, value in spec.items() if value is not None}
    return source(name, cron=None, webhook=webhook, task={} if identity is None else {"identity": identity})


WRITING += [
    Case(
        "source-refused",
        (hook(None),),
        "spec.task.identity",
        "nothing tells one delivery from another",
        (
            hook(),
            hook(None, "t", format="CloudEvents"),
            source("u", cron=None, webhook={"format": "JSON", "secretName": "login"}),
        ),
        name="delivery",
    ),
    Case(
        "source-refused",
        (hook(signature={"content": "{body}"}),),
        "spec.webhook.signature.content",
        "no path in braces",
        (hook(signature={"content": "{text}"}),),
        changes=False,
        name="signed",
    ),
]
SOURCES += [
    Case(
        "source-unusable",
        (hook(signature={"timestamp": "{headers.date}"}),),
        "spec.webhook.signature.timestamp",
        "no part of what is signed",
        (hook(signature={"timestamp": "{headers.date}", "content": "{headers.Date}.{text}"}),),
        changes=False,
        name="signed-time",
    ),
    Case(
        "source-forgets",
        (hook(toleranceSeconds=7200), queue(ttlSecondsAfterFinished=3600)),
        "spec.task.queue",
        "after 3600 s",
        (hook(toleranceSeconds=7200), queue(ttlSecondsAfterFinished=7200)),
        name="tolerance",
    ),
    Case(
        "source-replayable",
        (hook("{headers.x-delivery}"), queue()),
        "spec.task.identity",
        "{headers.x-delivery} is no part of what is signed",
        (
            hook(),
            hook("{$.id}", "t"),
            hook("{headers.x-delivery}", "u", {"content": "{headers.X-Delivery}.{text}"}),
            source("v", cron=None, webhook={"format": "JSON", "secretName": "login"}),
            queue(),
        ),
    ),
]

SQS = {"queueUrl": "https://sqs.eu-central-1.amazonaws.com/123456789012/orders", "region": "eu-central-1"}
SOURCES += [
    Case(
        "source-forgets",
        (source(cron=None, sqs={**SQS, "visibilitySeconds": 3600}), queue(ttlSecondsAfterFinished=3600)),
        "spec.task.queue",
        "after 3600 s",
        (source(cron=None, sqs={**SQS, "visibilitySeconds": 3600}), queue(ttlSecondsAfterFinished=3660)),
        name="hidden for long",
    ),
    Case(
        "source-in-clear",
        (source(cron=None, sqs={**SQS, "endpoint": "http://sqs.internal:9324"}), queue()),
        "spec.sqs.endpoint",
        "messages go over the network unencrypted",
        (
            source(cron=None, sqs=SQS),
            source("t", cron=None, sqs={**SQS, "endpoint": "http://127.0.0.1:9324"}),
            source("u", cron=None, sqs={**SQS, "endpoint": "https://sqs.internal"}),
            queue(),
        ),
        name="sqs",
    ),
    Case(
        "source-in-clear",
        (source(cron=None, sqs={**SQS, "endpoint": "http://[a]b["}), queue()),
        "spec.sqs.endpoint",
        "messages go over the network unencrypted",
        (source(cron=None, sqs={**SQS, "endpoint": "http://[::1]:9324"}), queue()),
        name="sqs at no host",
    ),
    Case(
        "source-refused",
        (source(cron=None, sqs={**SQS, "region": "us-east-1"}), queue()),
        "spec.sqs.region",
        "region is not the one in the queue's address",
        (source(cron=None, sqs=SQS), queue()),
        name="another region than the queue's",
    ),
    Case(
        "source-refused",
        (source(cron=None, sqs={**SQS, "deadLetterQueueUrl": SQS["queueUrl"]}), queue()),
        "spec.sqs.deadLetterQueueUrl",
        "would come again and again",
        (source(cron=None, sqs={**SQS, "deadLetterQueueUrl": f"{SQS['queueUrl']}-dead"}), queue()),
        changes=False,
        name="dead letters that are received again",
    ),
]

RECEIVER = "https://receiver.example"
SINKS = [
    Case("sink-refused", (sink(http=None),), "spec", "names no target", (sink(),), changes=False),
    Case(
        "sink-refused",
        (sink(retry={"initialSeconds": 60, "maxSeconds": 10}),),
        "spec.retry.initialSeconds",
        "more than maxSeconds",
        (sink(retry={"initialSeconds": 10, "maxSeconds": 10}),),
        name="waits",
    ),
    Case(
        "sink-header-left-out",
        (sink(http={"url": RECEIVER, "headers": {"Host": "other"}}),),
        "spec.http.headers",
        "Host is the request's own",
        (sink(http={"url": RECEIVER, "headers": {"X-Host": "other"}}),),
        changes=False,
    ),
    Case(
        "sink-unusable",
        (sink(key="{headers.tenant}"),),
        "spec.key",
        "nothing that an event has",
        (sink(key="{$.data.tenant}"),),
        changes=False,
    ),
    Case(
        "sink-queue-not-found",
        (sink(selector={"queues": ["q", "qq"]}), queue()),
        "spec.selector.queues[1]",
        "there is no TaskQueue qq",
        (sink(), queue()),
        changes=False,
    ),
    Case(
        "sink-forgets",
        (sink(), queue(ttlSecondsAfterFinished=60)),
        "spec.holdSeconds",
        "after 60 s",
        (sink(holdSeconds=540), sink("t", selector={"queues": ["other"]}), queue(ttlSecondsAfterFinished=60)),
    ),
    Case(
        "sink-in-clear",
        (sink(http=None, rabbitmq={"host": "r", "exchange": "e", "secretName": "s", "tls": False}),),
        "spec.rabbitmq.tls",
        "password and results go",
        (sink(http=None, rabbitmq={"host": "r", "exchange": "e", "secretName": "s"}),),
        name="rabbitmq",
    ),
    Case(
        "sink-in-clear",
        (sink(http=None, kafka={"bootstrap": ["k:9092"], "topic": "t", "tls": False}),),
        "spec.kafka.tls",
        "results go",
        (sink(http=None, kafka={"bootstrap": ["k:9092"], "topic": "t"}),),
        name="kafka",
    ),
    Case(
        "sink-refused",
        (sink(http=None, kafka={"bootstrap": ["k:9092"], "topic": "t", "sasl": "PLAIN"}),),
        "spec.kafka.secretName",
        "secretName is missing",
        (sink(http=None, kafka={"bootstrap": ["k:9092"], "topic": "t", "sasl": "PLAIN", "secretName": "s"}),),
        changes=False,
        name="a-password-from-nowhere",
    ),
    Case(
        "sink-refused",
        (sink(http=None, sqs={"queueUrl": "https://sqs.a-1.amazonaws.com/1/q", "region": "b-2"}),),
        "spec.sqs.region",
        "not the one in the queue's address",
        (sink(http=None, sqs={"queueUrl": "https://sqs.a-1.amazonaws.com/1/q", "region": "a-1"}),),
        name="another region than the queue's",
    ),
    Case(
        "sink-in-clear",
        (sink(http=None, sqs={"queueUrl": "https://h/1/q", "region": "a-1", "endpoint": "http://h:1"}),),
        "spec.sqs.endpoint",
        "unencrypted",
        (sink(http=None, sqs={"queueUrl": "https://h/1/q", "region": "a-1", "endpoint": "https://h:1"}),),
        name="sqs",
    ),
    Case(
        "sink-in-clear",
        (sink(http=None, sqs={"queueUrl": "https://h/1/q", "region": "a-1", "endpoint": "http://[]"}),),
        "spec.sqs.endpoint",
        "unencrypted",
        (sink(http=None, sqs={"queueUrl": "https://h/1/q", "region": "a-1", "endpoint": "https://[]"}),),
        name="sqs at no host",
    ),
    Case(
        "sink-in-clear",
        (sink(http={"url": "http://receiver.example"}),),
        "spec.http.url",
        "unencrypted",
        (sink(),),
        changes=False,
    ),
]

# What is refused by the API server as well.
WRITING += [case for case in [*SOURCES, *SINKS] if case.rule in ("source-refused", "sink-refused")]
SOURCES = [case for case in SOURCES if case not in WRITING]
SINKS = [case for case in SINKS if case not in WRITING]

CASES = [
    *WRITING,
    *ROUTING,
    *SERVING,
    *TIMES,
    *LIMITS,
    *ORDER,
    *DELIVERY,
    *ARRAYS,
    *KINSHIP,
    *KEEPING,
    *AGENTS,
    *SOURCES,
    *SINKS,
]
