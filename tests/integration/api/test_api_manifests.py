"""What the API server takes and what it refuses: each refusal names the field and the fix."""

import copy
from dataclasses import dataclass, field
from typing import Any

import pytest

from taskdist.local.rest import MERGE_PATCH, ApiError, Client

pytestmark = pytest.mark.usefixtures("crds")

Object = dict[str, Any]

GOOD: dict[str, Object] = {
    "tasks": {"queue": "q", "type": "analyse"},
    "taskqueues": {"pools": ["p"]},
    "agentpools": {"template": {"spec": {"containers": [{"name": "agent", "image": "taskdist", "command": ["a"]}]}}},
}
KINDS = {"tasks": "Task", "taskqueues": "TaskQueue", "agentpools": "AgentPool"}


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


BAD: dict[str, Bad] = {
    "task without queue": Bad("tasks", {"queue": None}, ("spec.queue: Required value",)),
    "task without type": Bad("tasks", {"type": None}, ("spec.type: Required value",)),
    "queue is no name": Bad("tasks", {"queue": "Not A Name"}, ("spec.queue", "should match")),
    "type too long": Bad("tasks", {"type": "a" * 64}, ("spec.type", "Too long", "63")),
    "payload is a list": Bad("tasks", {"payload": [1]}, ("spec.payload", "must be of type object")),
    "payload is text": Bad("tasks", {"payload": "x"}, ("spec.payload", "must be of type object")),
    "priority out of bounds": Bad("tasks", {"priority": 1001}, ("spec.priority", "less than or equal to 1000")),
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
    "unknown dispatch": Bad("taskqueues", {"dispatch": "Soon"}, ("spec.dispatch", "Unsupported value", '"Strict"')),
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
    "scaling without maximum": Bad("agentpools", {"scaling": {}}, ("spec.scaling.maxReplicas: Required value",)),
    "negative replicas": Bad("agentpools", {"replicas": -1}, ("spec.replicas", "greater than or equal to 0")),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_bad_manifest_is_refused_with_field_and_fix(bad: Bad, cluster: Client, namespace: str) -> None:
    with pytest.raises(ApiError) as refusal:
        create(cluster, namespace, bad.plural, bad.spec, bad.name)
    assert refusal.value.code in (400, 422)
    for words in bad.says:
        assert words in str(refusal.value)


GOOD_SPECS: dict[str, tuple[str, Object]] = {
    "task": ("tasks", {}),
    "task with everything": (
        "tasks",
        {
            "payload": {"text": "ä", "none": None, "list": [1, {"a": None}], "nested": {"b": [True, 0.5]}},
            "priority": -1000,
            "pool": "p",
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
    "queue": ("taskqueues", {}),
    "lazy queue": ("taskqueues", {"dispatch": "Lazy", "reclaim": "Fast", "leaseSeconds": 2, "holdSeconds": 10}),
    "pool": ("agentpools", {}),
    "pool with everything": (
        "agentpools",
        {
            "scaling": {"maxReplicas": 5},
            "slots": 4,
            "resources": {"gpu": 2},
            "skills": ["a"],
            "reportedLabels": ["zone"],
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
            assert kept[name] == value


def test_defaults_are_filled_in(cluster: Client, namespace: str) -> None:
    task = create(cluster, namespace, "tasks", {})
    assert task["spec"] == {**GOOD["tasks"], "priority": 0, "slots": 1, "suspend": False, "cancel": False}
    assert task["status"] == {"phase": "Pending", "attempt": 0, "epoch": 0, "failures": 0}
    queue = create(cluster, namespace, "taskqueues", {})["spec"]
    assert queue["retry"] == {"limit": 3, "initialSeconds": 1, "factor": 2, "maxSeconds": 300}
    assert (queue["dispatch"], queue["delivery"], queue["reclaim"]) == ("Strict", "AtLeastOnce", "Lease")
    pool = create(cluster, namespace, "agentpools", {"scaling": {"maxReplicas": 2}})
    assert pool["spec"]["replicas"] == 1
    assert pool["spec"]["scaling"] == {"minReplicas": 0, "maxReplicas": 2, "scaleDownDelaySeconds": 60}


def test_a_status_sent_at_creation_is_not_taken(cluster: Client, namespace: str) -> None:
    body = {
        "apiVersion": "taskdist.dev/v1alpha1",
        "kind": "Task",
        "metadata": {"name": "one"},
        "spec": GOOD["tasks"],
        "status": {"phase": "Succeeded", "attempt": 7, "result": {"forged": True}},
    }
    created = cluster.create(path(namespace, "tasks"), body)
    assert created["status"] == {"phase": "Pending", "attempt": 0, "epoch": 0, "failures": 0}


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
    "priority": Change({"priority": 5}),
    "priority left out": Change({"priority": None}, before={"priority": 5}),
    "pool": Change({"pool": "other"}),
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
        {"payload": {"a": 2}, "priority": 3}, (f"spec.payload {IMMUTABLE}",), PAYLOAD
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
    assert refusal.value.code == 422
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
