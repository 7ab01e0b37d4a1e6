"""What the API server takes and what it refuses: each refusal names the field and the fix."""

import copy
from dataclasses import dataclass, field
from typing import Any

import pytest

from taskdist.kube import ApiError
from taskdist.local.rest import MERGE_PATCH, Client

pytestmark = pytest.mark.usefixtures("crds")

Object = dict[str, Any]

GOOD: dict[str, Object] = {
    "tasks": {"queue": "q", "type": "analyse"},
    "taskqueues": {"pools": ["p"]},
    "agentpools": {"template": {"spec": {"containers": [{"name": "agent", "image": "taskdist", "command": ["a"]}]}}},
    "tasksources": {"task": {"queue": "q", "type": "analyse"}, "cron": {"schedule": "0 3 * * *"}},
}
RABBIT = {"host": "rabbit", "queue": "orders", "secretName": "login", "deadLetterExchange": "dead"}
KAFKA = {"bootstrap": ["kafka:9093"], "topics": ["orders"], "group": "g", "deadLetterTopic": "orders-dead"}
HOOK = {"format": "JSON", "secretName": "login", "signature": {"header": "X-Signature"}}
SQS = {"queueUrl": "https://sqs.eu-central-1.amazonaws.com/123456789012/orders.fifo", "region": "eu-central-1"}
KINDS = {"tasks": "Task", "taskqueues": "TaskQueue", "agentpools": "AgentPool", "tasksources": "TaskSource"}


def path(namespace: str, plural: str, name: str = "", subresource: str = "") -> str:
    parts = ["/apis/taskdist.dev/v1alpha1/namespaces", namespace, plural, name, subresource]
    return "/".join(part for part in parts if part)


def create(cluster: Client, namespace: str, plural: str, spec: Object, name: str = "one") -> Object:
    body = {
        "apiVersion": "taskdist.dev/v1alpha1",
        "kind": KINDS[plural],
        "metadata": {"name": name},
        "spec": {**copy.deepcopy(GOOD[plural]), **spec},
    }
    query = {"fieldValidation": "Strict"}
    created: Object = cluster.request("POST", path(namespace, plural), body, query=query)
    return created


def patch(cluster: Client, where: str, body: Object) -> Object:
    patched: Object = cluster.request("PATCH", where, body, content_type=MERGE_PATCH)
    return patched


@dataclass(frozen=True)
class Bad:
    """A spec that is refused at creation, and what the refusal says of field and fix."""

    plural: str
    spec: Object
    says: tuple[str, ...]
    name: str = "one"


POD = GOOD["agentpools"]["template"]["spec"]["containers"][0]


def containers(*each: Object) -> Object:
    return {"template": {"spec": {"containers": list(each)}}}


def selector(**requirement: Any) -> Object:
    return {"agentSelector": {"matchExpressions": [requirement]}}


def templated(**fields: Any) -> Object:
    return {"task": {"queue": "q", "type": "analyse", **fields}}


REF: Object = {"uri": "s3://bucket/tasks/team/payloads/x", "size": 70_000, "sha256": "a" * 64}
BAD: dict[str, Bad] = {
    "task without queue": Bad("tasks", {"queue": None}, ("spec.queue: Required value",)),
    "task without type": Bad("tasks", {"type": None}, ("spec.type: Required value",)),
    "queue is no name": Bad("tasks", {"queue": "Not A Name"}, ("spec.queue", "should match")),
    "type too long": Bad("tasks", {"type": "a" * 64}, ("spec.type", "Too long", "63")),
    "payload is a list": Bad("tasks", {"payload": [1]}, ("spec.payload", "must be of type object")),
    "payload is text": Bad("tasks", {"payload": "x"}, ("spec.payload", "must be of type object")),
    "unknown level": Bad(
        "tasks", {"priority": "Urgent"}, ("spec.priority", "Unsupported value", '"Emergency"', '"Low"')
    ),
    "level as a number": Bad("tasks", {"priority": 5}, ("spec.priority", "must be of type string")),
    "tenant is no word": Bad("tasks", {"tenant": "a b"}, ("spec.tenant", "should match")),
    "deadline is no time": Bad("tasks", {"deadline": "tomorrow"}, ("spec.deadline", "must be of type date-time")),
    "notBefore is no time": Bad("tasks", {"notBefore": "10m"}, ("spec.notBefore", "must be of type date-time")),
    "deadline before notBefore": Bad(
        "tasks",
        {"notBefore": "2030-01-01T00:00:00Z", "deadline": "2029-12-31T23:59:59Z"},
        ("spec.notBefore must be before spec.deadline", "change one of them"),
    ),
    "deadline at notBefore, in another zone": Bad(
        "tasks",
        {"notBefore": "2030-01-01T01:00:00+01:00", "deadline": "2030-01-01T00:00:00Z"},
        ("spec.notBefore must be before spec.deadline",),
    ),
    "no time to wait": Bad(
        "tasks",
        {"timeouts": {"waitingSeconds": 0}},
        ("spec.timeouts.waitingSeconds", "raise it, it must be at least 0.001"),
    ),
    "no time to run": Bad(
        "tasks",
        {"timeouts": {"executionSeconds": 0}},
        ("spec.timeouts.executionSeconds", "raise it, it must be at least 0.001"),
    ),
    "no time without progress": Bad(
        "tasks", {"timeouts": {"progressSeconds": -1}}, ("spec.timeouts.progressSeconds", "greater than or equal to")
    ),
    "negative time to live": Bad(
        "tasks", {"ttlSecondsAfterFinished": -1}, ("spec.ttlSecondsAfterFinished", "greater than or equal to 0")
    ),
    "empty concurrency key": Bad("tasks", {"concurrencyKey": ""}, ("spec.concurrencyKey", "at least 1 chars long")),
    "ordering key too long": Bad("tasks", {"orderingKey": "a" * 254}, ("spec.orderingKey", "Too long", "253")),
    "empty idempotency key": Bad("tasks", {"idempotencyKey": ""}, ("spec.idempotencyKey", "at least 1 chars long")),
    "depends on itself": Bad(
        "tasks",
        {"dependsOn": [{"name": "a"}, {"name": "one"}]},
        ("spec.dependsOn names the Task itself", "leave it out"),
    ),
    "depends twice on one": Bad(
        "tasks", {"dependsOn": [{"name": "a"}, {"name": "a"}]}, ("spec.dependsOn[1]", "Duplicate value")
    ),
    "depends on nobody": Bad("tasks", {"dependsOn": [{}]}, ("spec.dependsOn[0].name: Required value",)),
    "depends on too many": Bad(
        "tasks", {"dependsOn": [{"name": f"t{i}"} for i in range(33)]}, ("spec.dependsOn", "at most 32")
    ),
    "unknown answer to a failed dependency": Bad(
        "tasks", {"onDependencyFailure": "Wait"}, ("spec.onDependencyFailure", "Unsupported value", '"Skip"')
    ),
    "negative redrive": Bad("tasks", {"redrive": -1}, ("spec.redrive", "greater than or equal to 0")),
    "no slots": Bad("tasks", {"slots": 0}, ("spec.slots", "greater than or equal to 1")),
    "a skill twice": Bad("tasks", {"skills": ["a", "a"]}, ("spec.skills[1]", "Duplicate value")),
    "too many skills": Bad("tasks", {"skills": [f"s{i}" for i in range(33)]}, ("spec.skills", "at most 32")),
    "resource name": Bad("tasks", {"resources": {"a b": 1}}, ("spec.resources", "rename the keys")),
    "resource name too long": Bad("tasks", {"resources": {"a" * 64: 1}}, ("spec.resources", "shorten the keys")),
    "half a resource": Bad("tasks", {"resources": {"gpu": 0.5}}, ("spec.resources.gpu", "must be of type integer")),
    "In without values": Bad(
        "tasks",
        selector(key="zone", operator="In"),
        ("spec.agentSelector.matchExpressions[0].values", "name the label's values, or use Exists"),
    ),
    "Exists with values": Bad(
        "tasks",
        selector(key="zone", operator="Exists", values=["a"]),
        ("spec.agentSelector.matchExpressions[0].values", "remove values, or use In or NotIn"),
    ),
    "unknown operator": Bad(
        "tasks",
        selector(key="zone", operator="Near"),
        ("spec.agentSelector.matchExpressions[0].operator", "Unsupported value", '"In"'),
    ),
    "misspelt field of a task": Bad("tasks", {"prioritty": 1}, ("unknown field", "spec.prioritty")),
    "queue without pools": Bad("taskqueues", {"pools": []}, ("spec.pools", "at least 1")),
    "queue name too long": Bad(
        "taskqueues", {}, ("metadata.name must be at most 50", "choose another name"), name="q" * 51
    ),
    "lazy and at most once": Bad(
        "taskqueues",
        {"dispatch": "Lazy", "delivery": "AtMostOnce"},
        ("spec.dispatch", "set spec.dispatch to Strict, or spec.delivery to AtLeastOnce"),
    ),
    "hold shorter than lease": Bad("taskqueues", {"leaseSeconds": 600}, ("spec.holdSeconds", "raise spec.holdSeconds")),
    "back-off upside down": Bad(
        "taskqueues", {"retry": {"initialSeconds": 500}}, ("spec.retry.initialSeconds", "raise spec.retry.maxSeconds")
    ),
    "low water above high water": Bad(
        "taskqueues",
        {"overflow": {"highWater": 10, "lowWater": 11}},
        ("spec.overflow.lowWater must not be more than spec.overflow.highWater", "set it to"),
    ),
    "half an overflow": Bad("taskqueues", {"overflow": {"highWater": 10}}, ("spec.overflow.lowWater: Required value",)),
    "spill to nowhere": Bad(
        "taskqueues",
        {"overflow": {"highWater": 10, "lowWater": 8, "action": "Spill"}},
        ("spec.overflow.spillTo", "set both, or neither"),
    ),
    "spill that is not asked for": Bad(
        "taskqueues",
        {"overflow": {"highWater": 10, "lowWater": 8, "spillTo": "other"}},
        ("spec.overflow.spillTo", "set both, or neither"),
    ),
    "spill to itself": Bad(
        "taskqueues",
        {"overflow": {"highWater": 10, "lowWater": 8, "action": "Spill", "spillTo": "one"}},
        ("spec.overflow.spillTo names the queue itself", "choose another queue"),
    ),
    "a first step that waits": Bad(
        "taskqueues",
        {"routes": [{"name": "r", "steps": [{"pools": ["p"], "afterSeconds": 1}]}]},
        ("spec.routes[0].steps", "afterSeconds of the first step must be 0", "leave it out"),
    ),
    "a route for no size": Bad(
        "taskqueues",
        {"routes": [{"name": "r", "match": {"minSlots": 3, "maxSlots": 2}, "steps": [{"pools": ["p"]}]}]},
        ("spec.routes[0].match.minSlots", "minSlots must not be more than maxSlots"),
    ),
    "two routes of a name": Bad(
        "taskqueues",
        {"routes": [{"name": "r", "steps": [{"pools": ["p"]}]}] * 2},
        ("spec.routes[1]", "Duplicate value"),
    ),
    "a route without steps": Bad("taskqueues", {"routes": [{"name": "r", "steps": []}]}, ("spec.routes[0].steps",)),
    "a route by a label without values": Bad(
        "taskqueues",
        {
            "routes": [
                {
                    "name": "r",
                    "match": {"matchExpressions": [{"key": "a", "operator": "In"}]},
                    "steps": [{"pools": ["p"]}],
                }
            ]
        },
        ("spec.routes[0].match.matchExpressions[0].values", "values must not be empty"),
    ),
    "a budget without a limit": Bad(
        "taskqueues",
        {"budgets": [{"name": "b", "kind": "Concurrent"}]},
        ("spec.budgets[0].limit", "set limit only"),
    ),
    "a budget of two kinds": Bad(
        "taskqueues",
        {"budgets": [{"name": "b", "kind": "Rate", "perSecond": 1, "burst": 2, "limit": 3}]},
        ("spec.budgets[0].perSecond", "set these two only"),
    ),
    "a budget by a path": Bad("tasks", {"budgets": [{"name": "a/b/c"}]}, ("spec.budgets[0].name",)),
    "nothing of a budget": Bad(
        "tasks", {"budgets": [{"name": "b", "amount": 0}]}, ("spec.budgets[0].amount", "greater than or equal to 1")
    ),
    "no weight": Bad("taskqueues", {"weight": 0}, ("spec.weight", "greater than or equal to 1")),
    "unknown policy": Bad("taskqueues", {"order": {"policy": "Lifo"}}, ("spec.order.policy", '"DeadlineFirst"')),
    "unknown level of a queue": Bad("taskqueues", {"order": {"level": "low"}}, ("spec.order.level", '"Low"')),
    "a tenant with two weights": Bad(
        "taskqueues",
        {"tenants": {"weights": [{"name": "a", "weight": 1}, {"name": "a", "weight": 2}]}},
        ("spec.tenants.weights[1]", "Duplicate value"),
    ),
    "a tenant without a weight": Bad(
        "taskqueues", {"tenants": {"weights": [{"name": "a"}]}}, ("spec.tenants.weights[0].weight: Required value",)
    ),
    "no default weight": Bad("taskqueues", {"tenants": {"defaultWeight": 0}}, ("spec.tenants.defaultWeight",)),
    "a tenant twice in emergency": Bad(
        "taskqueues", {"tenants": {"emergency": ["a", "a"]}}, ("spec.tenants.emergency[1]", "Duplicate value")
    ),
    "no emergency Task at all": Bad(
        "taskqueues", {"tenants": {"emergencyLeased": 0}}, ("spec.tenants.emergencyLeased",)
    ),
    "negative aging": Bad("taskqueues", {"aging": {"stepSeconds": -1}}, ("spec.aging.stepSeconds", "greater than or")),
    "unknown answer to a hopeless deadline": Bad(
        "taskqueues", {"deadlines": {"onHopeless": "Cancel"}}, ("spec.deadlines.onHopeless", '"DeadLetter"')
    ),
    "no queue time": Bad("taskqueues", {"deadlines": {"maxQueueSeconds": 0}}, ("spec.deadlines.maxQueueSeconds",)),
    "hardly any service time": Bad(
        "taskqueues",
        {"expectedServiceSeconds": 0.0001},
        ("spec.expectedServiceSeconds", "greater than or equal to 0.001"),
    ),
    "no service time": Bad("taskqueues", {"expectedServiceSeconds": 0}, ("spec.expectedServiceSeconds",)),
    "unknown strategy": Bad("taskqueues", {"strategy": "Fastest"}, ("spec.strategy", "Adaptive")),
    "unknown strategy of a step": Bad(
        "taskqueues",
        {"routes": [{"name": "r", "steps": [{"pools": ["p"], "strategy": "Fastest"}]}]},
        ("spec.routes[0].steps[0].strategy", "Adaptive"),
    ),
    "quality above 1": Bad("agentpools", {"quality": 1.5}, ("spec.quality",)),
    "negative cost": Bad("agentpools", {"costPerHour": -1}, ("spec.costPerHour",)),
    "more watts when idle": Bad(
        "agentpools", {"wattsIdle": 2, "wattsBusy": 1}, ("spec.wattsIdle", "raise spec.wattsBusy")
    ),
    "empty zone": Bad("tasks", {"zones": [""]}, ("spec.zones[0]",)),
    "negative cost ceiling": Bad("tasks", {"maxCostPerHour": -0.1}, ("spec.maxCostPerHour",)),
    "quality floor above 1": Bad("tasks", {"minQuality": 2}, ("spec.minQuality",)),
    "preference of no weight": Bad(
        "tasks", {"preferred": [{"weight": 0, "selector": {}}]}, ("spec.preferred[0].weight",)
    ),
    "preference without values": Bad(
        "tasks",
        {"preferred": [{"selector": {"matchExpressions": [{"key": "zone", "operator": "In"}]}}]},
        ("spec.preferred[0].selector.matchExpressions[0].values",),
    ),
    "payload by value and by reference": Bad(
        "tasks",
        {"payload": {"a": 1}, "payloadRef": REF},
        ("spec.payload and spec.payloadRef both say the input", "set one of the two"),
    ),
    "payload in a store of another kind": Bad(
        "tasks", {"payloadRef": REF | {"uri": "https://b/x"}}, ("spec.payloadRef.uri", "s3://")
    ),
    "payload by reference without bytes": Bad(
        "tasks", {"payloadRef": REF | {"size": 0}}, ("spec.payloadRef.size", "greater than or equal to 2")
    ),
    "payload by reference without its hash": Bad(
        "tasks", {"payloadRef": {"uri": REF["uri"], "size": 2}}, ("spec.payloadRef.sha256", "Required")
    ),
    "wait for nothing": Bad("tasks", {"waitForPreferredSeconds": 5}, ("spec", "waits for what spec.preferred names")),
    "negative hold": Bad("taskqueues", {"largeTasks": {"holdAfterSeconds": -1}}, ("spec.largeTasks.holdAfterSeconds",)),
    "a quota of none": Bad("taskqueues", {"quota": {"leased": 0}}, ("spec.quota.leased", "greater than or equal to 1")),
    "a tenant's quota of none": Bad(
        "taskqueues", {"quota": {"perTenant": {"slots": 0}}}, ("spec.quota.perTenant.slots",)
    ),
    "a rate of nothing": Bad("taskqueues", {"rate": {"queue": {"perSecond": 0}}}, ("spec.rate.queue.perSecond",)),
    "a rate without a number": Bad(
        "taskqueues", {"rate": {"perTenant": {"burst": 2}}}, ("spec.rate.perTenant.perSecond: Required value",)
    ),
    "no concurrency": Bad("taskqueues", {"concurrencyLimit": 0}, ("spec.concurrencyLimit",)),
    "negative life of dead letters": Bad("taskqueues", {"deadLetterTtlSeconds": -1}, ("spec.deadLetterTtlSeconds",)),
    "no room for the archive": Bad("taskqueues", {"archiveBacklog": 0}, ("spec.archiveBacklog",)),
    "jitter above the whole": Bad(
        "taskqueues", {"retry": {"jitter": 1.5}}, ("spec.retry.jitter", "less than or equal")
    ),
    "unknown reason to retry": Bad(
        "taskqueues", {"retry": {"reasons": ["Whatever"]}}, ("spec.retry.reasons[0]", "Unsupported", '"HandlerError"')
    ),
    "no death allowed": Bad("taskqueues", {"retry": {"agentDeaths": 0}}, ("spec.retry.agentDeaths",)),
    "unknown end of retries": Bad("taskqueues", {"retry": {"onExhausted": "Drop"}}, ("spec.retry.onExhausted",)),
    "unknown dispatch": Bad("taskqueues", {"dispatch": "Soon"}, ("spec.dispatch", "Unsupported value", '"Strict"')),
    "source without a template": Bad("tasksources", {"task": None}, ("spec.task: Required value",)),
    "source without a source": Bad("tasksources", {"cron": None}, ("names no source", "set spec.cron")),
    "source name too long": Bad("tasksources", {}, ("metadata.name must be at most 50",), name="s" * 51),
    "a descent, which has no bound": Bad(
        "tasksources", templated(tenant="{$..tenant}"), ("spec.task.tenant", "{$.order.id}, {headers.tenant}")
    ),
    "a brace that is not closed": Bad(
        "tasksources", templated(type="a{$.b"), ("spec.task.type", "a brace itself twice")
    ),
    "a label without a path": Bad(
        "tasksources", templated(labels={"a": "{}"}), ("spec.task.labels", "write one such as")
    ),
    "an empty identity": Bad("tasksources", templated(identity=""), ("spec.task.identity", "at least 1 chars")),
    "two deadlines": Bad(
        "tasksources",
        templated(deadline="{time}", deadlineSeconds=5),
        ("spec.task.deadlineSeconds", "set one of the two"),
    ),
    "a nickname of a schedule": Bad(
        "tasksources", {"cron": {"schedule": "@midnight"}}, ("spec.cron.schedule", "write one such as 0 3 * * *")
    ),
    "six fields": Bad("tasksources", {"cron": {"schedule": "0 0 3 * * *"}}, ("spec.cron.schedule", "five fields")),
    "a path for a time zone": Bad(
        "tasksources", {"cron": {"schedule": "0 3 * * *", "timeZone": "../etc"}}, ("spec.cron.timeZone", "should match")
    ),
    "unknown end of missed runs": Bad(
        "tasksources", {"cron": {"schedule": "0 3 * * *", "missed": "Last"}}, ("spec.cron.missed", '"One"')
    ),
    "two sources in one": Bad("tasksources", {"rabbitmq": RABBIT}, ("more than one", "set spec.cron or spec.rabbitmq")),
    "nowhere for dead letters": Bad(
        "tasksources",
        {"cron": None, "rabbitmq": {**RABBIT, "deadLetterExchange": None}},
        ("spec.rabbitmq.deadLetterExchange: Required",),
    ),
    "an address for a host": Bad(
        "tasksources", {"cron": None, "rabbitmq": {**RABBIT, "host": "amqp://a"}}, ("spec.rabbitmq.host", "match")
    ),
    "nothing in hand": Bad(
        "tasksources", {"cron": None, "rabbitmq": {**RABBIT, "prefetch": 0}}, ("spec.rabbitmq.prefetch",)
    ),
    "dead letters that are read again": Bad(
        "tasksources",
        {"cron": None, "kafka": {**KAFKA, "deadLetterTopic": "orders"}},
        ("spec.kafka.deadLetterTopic", "name another topic"),
    ),
    "a password from nowhere": Bad(
        "tasksources",
        {"cron": None, "kafka": {**KAFKA, "sasl": "PLAIN"}},
        ("spec.kafka.secretName", "name a Secret"),
    ),
    "a broker without its port": Bad(
        "tasksources", {"cron": None, "kafka": {**KAFKA, "bootstrap": ["kafka"]}}, ("spec.kafka.bootstrap[0]", "match")
    ),
    "a topic twice": Bad(
        "tasksources", {"cron": None, "kafka": {**KAFKA, "topics": ["a", "a"]}}, ("spec.kafka.topics", "Duplicate")
    ),
    "unknown start": Bad(
        "tasksources", {"cron": None, "kafka": {**KAFKA, "startFrom": "Now"}}, ("spec.kafka.startFrom", '"Earliest"')
    ),
    "a schedule and a webhook": Bad("tasksources", {"webhook": HOOK}, ("more than one", "spec.webhook")),
    "nothing tells deliveries apart": Bad(
        "tasksources", {"cron": None, "webhook": HOOK}, ("spec.task.identity", "which tells one delivery from another")
    ),
    "a webhook without a Secret": Bad(
        "tasksources", {"cron": None, "webhook": {**HOOK, "secretName": None}}, ("spec.webhook.secretName: Required",)
    ),
    "a format of its own": Bad(
        "tasksources", {"cron": None, "webhook": {**HOOK, "format": "XML"}}, ("spec.webhook.format", '"CloudEvents"')
    ),
    "a hash that is broken": Bad(
        "tasksources",
        {"cron": None, "webhook": {**HOOK, "signature": {"header": "S", "algorithm": "SHA1"}}},
        ("spec.webhook.signature.algorithm", '"SHA256"'),
    ),
    "signed without a path": Bad(
        "tasksources",
        {"cron": None, "webhook": {**HOOK, "signature": {"header": "S", "content": "{body}"}}},
        ("spec.webhook.signature.content", "a brace itself twice"),
    ),
    "a header that is none": Bad(
        "tasksources", {"cron": None, "webhook": {**HOOK, "signature": {"header": "a: b"}}}, ("header", "should match")
    ),
    "deliveries beyond what is read": Bad(
        "tasksources", {"cron": None, "webhook": {**HOOK, "maxBytes": 2**20 + 1}}, ("spec.webhook.maxBytes",)
    ),
    "another region than the queue's": Bad(
        "tasksources", {"cron": None, "sqs": {**SQS, "region": "us-east-1"}}, ("spec.sqs.region", "write that one")
    ),
    "dead letters that are received again": Bad(
        "tasksources",
        {"cron": None, "sqs": {**SQS, "deadLetterQueueUrl": SQS["queueUrl"]}},
        ("spec.sqs.deadLetterQueueUrl", "name another queue"),
    ),
    "a queue without its address": Bad(
        "tasksources",
        {"cron": None, "sqs": {**SQS, "queueUrl": "arn:aws:sqs:::orders"}},
        ("spec.sqs.queueUrl", "match"),
    ),
    "hidden for too short a time": Bad(
        "tasksources", {"cron": None, "sqs": {**SQS, "visibilitySeconds": 9}}, ("spec.sqs.visibilitySeconds",)
    ),
    "pool without template": Bad("agentpools", {"template": None}, ("spec.template: Required value",)),
    "pool without containers": Bad("agentpools", containers(), ("spec.template.spec.containers", "at least 1")),
    "container without name": Bad("agentpools", containers({}), ("spec.template.spec.containers[0].name: Required",)),
    "containers of one name": Bad(
        "agentpools", containers(POD, POD), ("spec.template.spec.containers[1]", "Duplicate value")
    ),
    "pod with a name": Bad(
        "agentpools",
        {"template": {**containers(POD)["template"], "metadata": {"name": "mine"}}},
        ("unknown field", "spec.template.metadata.name"),
    ),
    "pool name with a dot": Bad("agentpools", {}, ("metadata.name must be", "choose another name"), name="a.b"),
    "minimum above maximum": Bad(
        "agentpools",
        {"scaling": {"minReplicas": 3, "maxReplicas": 2}},
        ("spec.scaling.minReplicas", "raise spec.scaling.maxReplicas"),
    ),
    "breaker open for longer than it may": Bad(
        "agentpools",
        {"breaker": {"openSeconds": 60, "maxOpenSeconds": 30}},
        ("spec.breaker.openSeconds", "raise spec.breaker.maxOpenSeconds"),
    ),
    "breakers that may hold all": Bad(
        "agentpools",
        {"breaker": {"maxOpenPercent": 100}},
        ("spec.breaker.maxOpenPercent", "less than or equal to 90"),
    ),
    "scaling without maximum": Bad("agentpools", {"scaling": {}}, ("spec.scaling.maxReplicas: Required value",)),
    "negative replicas": Bad("agentpools", {"replicas": -1}, ("spec.replicas", "greater than or equal to 0")),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_bad_manifest_is_refused_with_field_and_fix(bad: Bad, cluster: Client, namespace: str) -> None:
    with pytest.raises(ApiError) as refusal:
        create(cluster, namespace, bad.plural, bad.spec, bad.name)
    assert refusal.value.status in (400, 422)
    for words in bad.says:
        assert words in str(refusal.value)


GOOD_SPECS: dict[str, tuple[str, Object]] = {
    "task": ("tasks", {}),
    "task with everything": (
        "tasks",
        {
            "payload": {"text": "ä", "none": None, "list": [1, {"a": None}], "nested": {"b": [True, 0.5]}},
            "priority": "Background",
            "tenant": "acme",
            "deadline": "2030-01-01T01:30:00+01:00",
            "notBefore": "2030-01-01T00:00:00.5Z",
            "timeouts": {"waitingSeconds": 0.5, "executionSeconds": 3, "progressSeconds": 1},
            "ttlSecondsAfterFinished": 0,
            "concurrencyKey": "host 1/ä",
            "stickyKey": "host 1/ä",
            "zones": ["a", "b"],
            "regions": ["eu"],
            "maxCostPerHour": 0,
            "minQuality": 0.5,
            "preferred": [{"weight": 100, "selector": {"matchLabels": {"disk": "ssd"}}}],
            "waitForPreferredSeconds": 2.5,
            "orderingKey": "account:7",
            "idempotencyKey": "2030-01-01/report",
            "dependsOn": [{"name": f"parent-{i}"} for i in range(32)],
            "onDependencyFailure": "Skip",
            "redrive": 2,
            "pool": "p",
            "agent": "p-1",
            "budgets": [{"name": "b", "amount": 1}, {"name": "other-queue/b", "amount": 1_000_000_000}],
            "slots": 2,
            "resources": {"gpu": 1, "licence.x": 1_000_000_000},
            "skills": ["a", "B_2"],
            "agentSelector": {
                "matchLabels": {"example.com/zone": "a", "empty": ""},
                "matchExpressions": [
                    {"key": "a", "operator": "In", "values": ["b"]},
                    {"key": "c", "operator": "DoesNotExist"},
                ],
            },
            "suspend": True,
        },
    ),
    "task with its payload by reference": (
        "tasks",
        {"payloadRef": REF | {"uri": "s3://my.bucket-1/" + "k" * 900, "contentType": "application/json"}},
    ),
    "source with everything": (
        "tasksources",
        {
            "suspend": True,
            "task": {
                "queue": "{$.queue?q}",
                "type": "{headers.x-type}",
                "payload": {"a": [{"b": "{$.b}"}, None, 1.5], "c": "{text}"},
                "priority": "{$.priority?Normal}",
                "tenant": "{properties.appId}",
                "deadlineSeconds": 60,
                "notBefore": "{$['not before']?}",
                "orderingKey": '{$["a b"][-1].c}',
                "concurrencyKey": "{{{key}}}",
                "labels": {"example.com/a": "{key?none}", "b": "{$.ä}"},
                "identity": "{hash}",
            },
            "cron": {
                "schedule": "*/5 0-6,22 L jan,JUL-SEP mon-fri",
                "timeZone": "America/Argentina/Buenos_Aires",
                "startingDeadlineSeconds": 86_400,
                "missed": "All",
                "mostMissed": 1000,
            },
        },
    ),
    "source of messages with everything": (
        "tasksources",
        {
            "cron": None,
            "rabbitmq": {
                **RABBIT,
                "host": "2001:db8::1",
                "port": 5673,
                "virtualHost": "a/b c",
                "queue": "a b.c",
                "tls": False,
                "prefetch": 1000,
                "deadLetterRoutingKey": "d",
            },
        },
    ),
    "source of Kafka with everything": (
        "tasksources",
        {
            "cron": None,
            "kafka": {
                **KAFKA,
                "bootstrap": ["[2001:db8::1]:9092", "a.b:65535"],
                "topics": ["a", "b_C.d-e"],
                "startFrom": "Latest",
                "tls": False,
                "sasl": "SCRAM-SHA-512",
                "secretName": "login",
                "prefetch": 1000,
            },
        },
    ),
    "webhook as Standard Webhooks says": (
        "tasksources",
        {
            "cron": None,
            "webhook": {
                "format": "CloudEvents",
                "secretName": "login",
                "secretKeys": ["secret"],
                "toleranceSeconds": 300,
                "maxBytes": 1024,
            },
        },
    ),
    "webhook with everything": (
        "tasksources",
        {
            "cron": None,
            "task": {"queue": "q", "type": "t", "identity": "{hash}"},
            "webhook": {
                "format": "JSON",
                "secretName": "login",
                "secretKeys": ["new", "old.key"],
                "signature": {
                    "header": "X-Slack-Signature",
                    "algorithm": "SHA512",
                    "encoding": "Base64",
                    "prefix": "v0=",
                    "content": "v0:{headers.x-slack-request-timestamp}:{{{text}}}",
                    "timestamp": "{headers.x-slack-request-timestamp}",
                },
                "toleranceSeconds": 86_400,
                "maxBytes": 2**20,
            },
        },
    ),
    "source of SQS with everything": (
        "tasksources",
        {
            "cron": None,
            "sqs": {
                **SQS,
                "endpoint": "http://127.0.0.1:9324",
                "secretName": "login",
                "prefetch": 1000,
                "visibilitySeconds": 3600,
                "deadLetterQueueUrl": "http://[::1]:9324/000000000000/orders_dead.fifo",
            },
        },
    ),
    "source of SQS elsewhere": (
        "tasksources",
        {
            "cron": None,
            "sqs": {
                "queueUrl": "http://localhost:9324/queue/orders",
                "region": "elasticmq",
                "prefetch": 1,
                "visibilitySeconds": 10,
            },
        },
    ),
    "queue": ("taskqueues", {}),
    "lazy queue": ("taskqueues", {"dispatch": "Lazy", "reclaim": "Fast", "leaseSeconds": 2, "holdSeconds": 10}),
    "queue with everything": (
        "taskqueues",
        {
            "paused": True,
            "drained": True,
            "weight": 1000,
            "order": {"policy": "DeadlineFirst", "level": "Critical", "criticalPathFirst": True},
            "tenants": {
                "weights": [{"name": f"t{i}", "weight": 1 + i} for i in range(256)],
                "defaultWeight": 2,
                "emergency": ["t0", "t1"],
                "emergencyLeased": 1,
            },
            "aging": {"stepSeconds": 0},
            "deadlines": {"onHopeless": "Fail", "maxQueueSeconds": 60.5},
            "expectedServiceSeconds": 0.25,
            "largeTasks": {"holdAfterSeconds": 0},
            "strategy": "ConsistentHash",
            "quota": {
                "waiting": 5,
                "leased": 4,
                "slots": 3,
                "payloadBytes": 1_000_000,
                "perTenant": {"waiting": 1, "leased": 1, "slots": 1, "payloadBytes": 1},
            },
            "rate": {"queue": {"perSecond": 0.5, "burst": 3}, "perTenant": {"perSecond": 100, "burst": 1}},
            "concurrencyLimit": 2,
            "overflow": {"highWater": 5, "lowWater": 5, "action": "Spill", "spillTo": "other"},
            "timeouts": {"waitingSeconds": 5, "executionSeconds": 6.5, "progressSeconds": 7},
            "routes": [
                {
                    "name": f"r{number}",
                    "match": {
                        "matchLabels": {f"l{each}": "x" for each in range(8)},
                        "matchExpressions": [{"key": f"k{each}", "operator": "Exists"} for each in range(8)],
                        "types": ["a", "b"],
                        "levels": ["Emergency", "Background"],
                        "tenants": ["t"],
                        "minSlots": 2,
                        "maxSlots": 2,
                    },
                    "steps": [
                        {"pools": [f"p{step}"], "afterSeconds": step / 2, "strategy": "Pack"} for step in range(8)
                    ],
                }
                for number in range(16)
            ],
            "budgets": [
                {"name": "held", "kind": "Concurrent", "limit": 1},
                *({"name": f"s{each}", "kind": "Rate", "perSecond": 0.5, "burst": 2} for each in range(31)),
            ],
            "ttlSecondsAfterFinished": 60,
            "deadLetterTtlSeconds": 3600,
            "archive": True,
            "archiveBacklog": 1,
            "delivery": "AtMostOnce",
            "retry": {
                "limit": 0,
                "initialSeconds": 0,
                "factor": 1.5,
                "maxSeconds": 0,
                "throttledSeconds": 0,
                "jitter": 1,
                "reasons": ["HandlerError", "ProgressTimedOut"],
                "agentDeaths": 16,
                "onExhausted": "DeadLetter",
            },
        },
    ),
    "pool": ("agentpools", {}),
    "pool with everything": (
        "agentpools",
        {
            "scaling": {"maxReplicas": 5},
            "slots": 4,
            "resources": {"gpu": 2},
            "skills": ["a"],
            "reportedLabels": ["zone"],
            "breaker": {
                "enabled": False,
                "failureRatio": 0.5,
                "minAttempts": 3,
                "windowSeconds": 60,
                "openSeconds": 5,
                "maxOpenSeconds": 50,
                "probes": 1,
                "maxOpenPercent": 20,
            },
            "slowStartSeconds": 60,
            "costPerHour": 0.5,
            "wattsBusy": 60,
            "wattsIdle": 20.5,
            "quality": 0.9,
            "template": {
                "metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}},
                "spec": {"nodeSelector": {"e": "f"}, "volumes": [], "containers": [POD, {"name": "side"}]},
            },
        },
    ),
}


@pytest.mark.parametrize(("plural", "spec"), GOOD_SPECS.values(), ids=GOOD_SPECS)
def test_a_good_manifest_is_kept_as_written(plural: str, spec: Object, cluster: Client, namespace: str) -> None:
    create(cluster, namespace, plural, spec)
    kept = cluster.get(path(namespace, plural, "one"))["spec"]
    for name, value in {**GOOD[plural], **spec}.items():
        if name != "scaling":
            assert kept.get(name) == value


NEW = {"phase": "Pending", "attempt": 0, "epoch": 0, "failures": 0, "redrives": 0, "droppedAttempts": 0}

QUEUE_DEFAULTS: Object = {
    **GOOD["taskqueues"],
    "paused": False,
    "drained": False,
    "weight": 1,
    "order": {"policy": "Priority", "level": "Normal", "criticalPathFirst": False},
    "tenants": {"defaultWeight": 1, "emergencyLeased": 10},
    "aging": {"stepSeconds": 300},
    "deadlines": {"onHopeless": "Run", "maxQueueSeconds": 3600},
    "expectedServiceSeconds": 10,
    "largeTasks": {"holdAfterSeconds": 60},
    "strategy": "Adaptive",
    "quota": {},
    "rate": {},
    "concurrencyLimit": 1,
    "timeouts": {},
    "dispatch": "Strict",
    "delivery": "AtLeastOnce",
    "reclaim": "Lease",
    "leaseSeconds": 15,
    "holdSeconds": 120,
    "archive": False,
    "archiveBacklog": 10000,
    "retry": {
        "limit": 3,
        "initialSeconds": 1,
        "factor": 2,
        "maxSeconds": 300,
        "throttledSeconds": 3600,
        "jitter": 0.1,
        "agentDeaths": 3,
        "onExhausted": "Fail",
    },
}


def test_defaults_are_filled_in(cluster: Client, namespace: str) -> None:
    task = create(cluster, namespace, "tasks", {})
    assert task["spec"] == {
        **GOOD["tasks"],
        "priority": "Normal",
        "onDependencyFailure": "Fail",
        "slots": 1,
        "suspend": False,
        "cancel": False,
        "redrive": 0,
        "minQuality": 0,
        "waitForPreferredSeconds": 0,
    }
    assert task["status"] == NEW
    queue = create(cluster, namespace, "taskqueues", {})["spec"]
    assert queue == QUEUE_DEFAULTS
    source = create(cluster, namespace, "tasksources", {})["spec"]
    assert source["suspend"] is False
    assert source["cron"] == {
        "schedule": "0 3 * * *",
        "timeZone": "UTC",
        "startingDeadlineSeconds": 60,
        "missed": "One",
        "mostMissed": 100,
    }
    hook = {"cron": None, "webhook": HOOK, "task": {"queue": "q", "type": "t", "identity": "{hash}"}}
    assert create(cluster, namespace, "tasksources", hook, name="hook")["spec"]["webhook"] == {
        "format": "JSON",
        "secretName": "login",
        "secretKeys": ["secret"],
        "signature": {"header": "X-Signature", "algorithm": "SHA256", "encoding": "Hex", "content": "{text}"},
        "toleranceSeconds": 300,
        "maxBytes": 262_144,
    }
    pool = create(cluster, namespace, "agentpools", {"scaling": {"maxReplicas": 2}})
    assert pool["spec"]["replicas"] == 1
    worth = {name: pool["spec"][name] for name in ("costPerHour", "wattsBusy", "wattsIdle", "quality")}
    assert worth == {"costPerHour": 0, "wattsBusy": 0, "wattsIdle": 0, "quality": 1}
    assert pool["spec"]["slowStartSeconds"] == 0
    assert pool["spec"]["breaker"] == {
        "enabled": True,
        "failureRatio": 0.8,
        "minAttempts": 5,
        "windowSeconds": 600,
        "openSeconds": 30,
        "maxOpenSeconds": 1800,
        "probes": 3,
        "maxOpenPercent": 50,
    }
    assert pool["spec"]["scaling"] == {
        "minReplicas": 0,
        "maxReplicas": 2,
        "scaleDownDelaySeconds": 60,
        "scaleUpStabilizationSeconds": 0,
        "targetQueueSeconds": 0,
    }


def test_a_status_sent_at_creation_is_not_taken(cluster: Client, namespace: str) -> None:
    body = {
        "apiVersion": "taskdist.dev/v1alpha1",
        "kind": "Task",
        "metadata": {"name": "one"},
        "spec": GOOD["tasks"],
        "status": {"phase": "Succeeded", "attempt": 7, "result": {"forged": True}},
    }
    created = cluster.create(path(namespace, "tasks"), body)
    assert created["status"] == NEW


@dataclass(frozen=True)
class Change:
    """A change of a Task's or pool's spec; it is refused if `says` is not empty."""

    spec: Object
    says: tuple[str, ...] = ()
    before: Object = field(default_factory=dict)


IMMUTABLE = "cannot be changed after creation: delete the Task and create another"
PAYLOAD: Object = {"payload": {"a": 1, "deep": {"list": [1, {"x": 2}]}}}

TASK_CHANGES: dict[str, Change] = {
    "suspend": Change({"suspend": True}),
    "suspend taken back": Change({"suspend": False}, before={"suspend": True}),
    "cancel": Change({"cancel": True}),
    "priority": Change({"priority": "High"}),
    "priority left out": Change({"priority": None}, before={"priority": "High"}),
    "tenant": Change({"tenant": "b"}, (f"spec.tenant {IMMUTABLE}",), {"tenant": "a"}),
    "tenant left out": Change({"tenant": None}, (f"spec.tenant {IMMUTABLE}",), {"tenant": "a"}),
    "deadline": Change({"deadline": "2030-01-01T00:00:00Z"}, (f"spec.deadline {IMMUTABLE}",)),
    "notBefore left out": Change(
        {"notBefore": None}, (f"spec.notBefore {IMMUTABLE}",), {"notBefore": "2030-01-01T00:00:00Z"}
    ),
    "timeouts": Change({"timeouts": {"executionSeconds": 1}}, (f"spec.timeouts {IMMUTABLE}",)),
    "one of the timeouts": Change(
        {"timeouts": {"executionSeconds": 1}}, (f"spec.timeouts {IMMUTABLE}",), {"timeouts": {"executionSeconds": 2}}
    ),
    "time to live": Change({"ttlSecondsAfterFinished": 0}, (f"spec.ttlSecondsAfterFinished {IMMUTABLE}",)),
    "zones": Change({"zones": ["b"]}, (f"spec.zones {IMMUTABLE}",), {"zones": ["a"]}),
    "preferred": Change({"preferred": [{"selector": {}}]}, (f"spec.preferred {IMMUTABLE}",)),
    "cost ceiling": Change({"maxCostPerHour": 2}, (f"spec.maxCostPerHour {IMMUTABLE}",), {"maxCostPerHour": 1}),
    "sticky key": Change({"stickyKey": "b"}, (f"spec.stickyKey {IMMUTABLE}",), {"stickyKey": "a"}),
    "concurrency key": Change({"concurrencyKey": "b"}, (f"spec.concurrencyKey {IMMUTABLE}",), {"concurrencyKey": "a"}),
    "ordering key": Change({"orderingKey": None}, (f"spec.orderingKey {IMMUTABLE}",), {"orderingKey": "a"}),
    "idempotency key": Change({"idempotencyKey": "a"}, (f"spec.idempotencyKey {IMMUTABLE}",)),
    "a dependency more": Change(
        {"dependsOn": [{"name": "a"}, {"name": "b"}]}, (f"spec.dependsOn {IMMUTABLE}",), {"dependsOn": [{"name": "a"}]}
    ),
    "no dependency any more": Change(
        {"dependsOn": None}, (f"spec.dependsOn {IMMUTABLE}",), {"dependsOn": [{"name": "a"}]}
    ),
    "no dependencies are none": Change({"dependsOn": []}),
    "answer to a failed dependency": Change({"onDependencyFailure": "Run"}, (f"spec.onDependencyFailure {IMMUTABLE}",)),
    "redrive of what is no dead letter": Change(
        {"redrive": 1}, ("spec.redrive can only be raised, and only while status.phase is DeadLettered",)
    ),
    "redrive lowered": Change({"redrive": 1}, ("spec.redrive can only be raised",), {"redrive": 2}),
    "pool": Change({"pool": "other"}),
    "agent": Change({"agent": "other"}),
    "agent left out": Change({"agent": None}, before={"agent": "other"}),
    "budgets": Change(
        {"budgets": [{"name": "b", "amount": 2}]}, (f"spec.budgets {IMMUTABLE}",), {"budgets": [{"name": "b"}]}
    ),
    "pool left out": Change({"pool": None}, before={"pool": "other"}),
    "empty skills are none": Change({"skills": []}),
    "empty resources are none": Change({"resources": {}}),
    "slots said as by default": Change({"slots": 1}),
    "cancel taken back": Change({"cancel": False}, ("spec.cancel cannot be taken back",), {"cancel": True}),
    "cancel left out": Change({"cancel": None}, ("spec.cancel cannot be taken back",), {"cancel": True}),
    "queue": Change({"queue": "other"}, (f"spec.queue {IMMUTABLE}",)),
    "type": Change({"type": "other"}, (f"spec.type {IMMUTABLE}",)),
    "slots": Change({"slots": 2}, (f"spec.slots {IMMUTABLE}",)),
    "slots left out": Change({"slots": None}, (f"spec.slots {IMMUTABLE}",), {"slots": 2}),
    "resources": Change({"resources": {"gpu": 1}}, (f"spec.resources {IMMUTABLE}",)),
    "resources left out": Change({"resources": None}, (f"spec.resources {IMMUTABLE}",), {"resources": {"gpu": 1}}),
    "skills": Change({"skills": ["a", "b"]}, (f"spec.skills {IMMUTABLE}",), {"skills": ["a"]}),
    "skills left out": Change({"skills": None}, (f"spec.skills {IMMUTABLE}",), {"skills": ["a"]}),
    "selector": Change({"agentSelector": {"matchLabels": {"a": "b"}}}, (f"spec.agentSelector {IMMUTABLE}",)),
    "selector left out": Change(
        {"agentSelector": None}, (f"spec.agentSelector {IMMUTABLE}",), {"agentSelector": {"matchLabels": {"a": "b"}}}
    ),
    "payload value": Change({"payload": {"a": 2}}, (f"spec.payload {IMMUTABLE}",), PAYLOAD),
    "payload value deep inside": Change(
        {"payload": {"deep": {"list": [1, {"x": 3}]}}}, (f"spec.payload {IMMUTABLE}",), PAYLOAD
    ),
    "payload key more": Change({"payload": {"b": 1}}, (f"spec.payload {IMMUTABLE}",), PAYLOAD),
    "payload key less": Change({"payload": {"a": None}}, (f"spec.payload {IMMUTABLE}",), PAYLOAD),
    "payload key for another": Change({"payload": {"a": None, "b": 1}}, (f"spec.payload {IMMUTABLE}",), PAYLOAD),
    "payload left out": Change({"payload": None}, (f"spec.payload {IMMUTABLE}",), PAYLOAD),
    "payload put in": Change({"payload": {"a": 1}}, (f"spec.payload {IMMUTABLE}",)),
    "payload with a change that is allowed": Change(
        {"payload": {"a": 2}, "priority": "Low"}, (f"spec.payload {IMMUTABLE}",), PAYLOAD
    ),
}


@pytest.mark.parametrize("change", TASK_CHANGES.values(), ids=TASK_CHANGES)
def test_changes_of_a_task(change: Change, cluster: Client, namespace: str) -> None:
    _try_change(change, "tasks", cluster, namespace)


SCALED = {"scaling": {"minReplicas": 1, "maxReplicas": 3}, "replicas": 2}
USELESS = ("spec.replicas has no effect while spec.scaling is set: change spec.scaling.minReplicas instead",)

POOL_CHANGES: dict[str, Change] = {
    "replicas of a fixed pool": Change({"replicas": 3}),
    "bounds": Change({"scaling": {"minReplicas": 2}}, before=SCALED),
    "scaling taken away, with replicas": Change({"scaling": None, "replicas": 3}, before=SCALED),
    "scaling put in, with replicas": Change({**SCALED, "replicas": 1}),
    "replicas of a scaled pool": Change({"replicas": 3}, USELESS, SCALED),
    "replicas of a scaled pool left out": Change({"replicas": None}, USELESS, SCALED),
}


@pytest.mark.parametrize("change", POOL_CHANGES.values(), ids=POOL_CHANGES)
def test_changes_of_a_pool(change: Change, cluster: Client, namespace: str) -> None:
    _try_change(change, "agentpools", cluster, namespace)


def _try_change(change: Change, plural: str, cluster: Client, namespace: str) -> None:
    create(cluster, namespace, plural, change.before)
    where = path(namespace, plural, "one")
    if not change.says:
        patch(cluster, where, {"spec": change.spec})
        return
    with pytest.raises(ApiError) as refusal:
        patch(cluster, where, {"spec": change.spec})
    assert refusal.value.status == 422
    for words in change.says:
        assert words in str(refusal.value)


def test_the_scale_subresource_sizes_a_fixed_pool_and_refuses_a_scaled_one(cluster: Client, namespace: str) -> None:
    create(cluster, namespace, "agentpools", {}, "fixed")
    create(cluster, namespace, "agentpools", SCALED, "scaled")
    assert cluster.get(path(namespace, "agentpools", "fixed", "scale"))["spec"]["replicas"] == 1
    patch(cluster, path(namespace, "agentpools", "fixed", "scale"), {"spec": {"replicas": 4}})
    assert cluster.get(path(namespace, "agentpools", "fixed"))["spec"]["replicas"] == 4
    with pytest.raises(ApiError, match=r"change spec\.scaling\.minReplicas instead"):
        patch(cluster, path(namespace, "agentpools", "scaled", "scale"), {"spec": {"replicas": 4}})


def test_tasks_are_selected_by_queue_and_phase(cluster: Client, namespace: str) -> None:
    create(cluster, namespace, "tasks", {"queue": "a"}, "one")
    create(cluster, namespace, "tasks", {"queue": "b"}, "two")
    patch(cluster, path(namespace, "tasks", "two", "status"), {"status": {"phase": "Cancelled", "reason": "Cancelled"}})
    for wanted, name in {"spec.queue=a": "one", "status.phase=Cancelled": "two", "status.phase=Pending": "one"}.items():
        items = cluster.get(path(namespace, "tasks"), fieldSelector=wanted)["items"]
        assert [item["metadata"]["name"] for item in items] == [name]
