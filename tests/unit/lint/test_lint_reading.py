"""From text to findings: lines, lists, slips of YAML, the schema; and nothing that anybody writes breaks the review."""

import copy
import json
import re
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lint_sets import NOW, Obj, by_id, cap, container, flaws, manifests, pool, queue, task
from taskdist.api import rules
from taskdist.lint import Manifest, Unreadable, live, read, review
from taskdist.lint.schema import problems, schemas
from taskdist.lint.setup import Setup

TEXT = """\
# two of them
apiVersion: taskdist.dev/v1alpha1
kind: TaskQueue
metadata: {name: q}
spec:
  pools:
    - p
    - missing
  overflow: {highWater: 5, lowWater: 5}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: other}
---
---
just: a mapping
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("spec", 5),
        ("spec.pools[1]", 8),
        ("spec.overflow.lowWater", 9),
        ("spec.retry.limit", 5),
        ("metadata.name", 4),
        ("", 2),
    ],
)
def test_a_field_is_found_on_its_line_or_on_that_of_what_holds_it(path: str, line: int) -> None:
    (found,) = read(TEXT, "a.yaml")
    assert found.place(path) == f"a.yaml:{line}"


def test_documents_of_others_are_passed_over() -> None:
    assert [each.title for each in read(TEXT, "a.yaml")] == ["TaskQueue q"]
    assert read("", "empty.yaml") == []
    assert [each.kind for each in manifests(cap("10"))] == ["ResourceQuota"]


def test_a_list_is_its_items() -> None:
    text = yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": [queue(), pool()]})
    found = read(text, "list.yaml", "team")
    assert [each.title for each in found] == ["TaskQueue team/q", "AgentPool team/p"]
    assert found[1].place("spec.template") != found[0].place("spec")
    assert read(json.dumps(queue()), "queue.json")[0].name == "q"


def test_times_stay_text() -> None:
    (found,) = read("apiVersion: taskdist.dev/v1alpha1\nkind: Task\nspec: {deadline: 2030-01-01T00:00:00Z}", "a.yaml")
    assert found.body["spec"]["deadline"] == "2030-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        pytest.param("a: 1\nb: [1, 2\n", 3, id="a-bracket-that-stays-open"),
        pytest.param("a: 1\n\tb: 2\n", 2, id="a-tab"),
        pytest.param("a: !!int x\n", 1, id="a-word-that-is-no-number"),
        pytest.param("a: 1\nb: {x: .nan}\n", 2, id="no-number-of-json"),
        pytest.param("a: 1\nb: &a {x: *a}\n", 2, id="what-holds-itself"),
        pytest.param('{"a": 1,\n"b": True}\n', 2, id="json-that-is-python"),
        pytest.param("a: 1\nb: \x07\n", 2, id="a-bell"),
        pytest.param("[" * 5000, 1, id="thousands-of-brackets"),
    ],
)
def test_what_is_no_yaml_is_said_with_its_line(text: str, line: int) -> None:
    with pytest.raises(Unreadable) as caught:
        read(text, "a.yaml")
    assert caught.value.line == line
    assert str(caught.value)


def test_many_of_one_generated_name_are_all_reviewed() -> None:
    one = {**task(slots=9), "metadata": {"generateName": "work-"}}
    found = flaws("larger-than-any-agent", one, one, queue(), pool())
    assert [each.at.title for each in found] == ["Task work-…", "Task work-…"]
    assert flaws("defined-twice", one, one) == []


def test_a_tag_of_another_language_makes_nothing() -> None:
    head = "apiVersion: taskdist.dev/v1alpha1\nkind: Task\nspec: "
    (found,) = read(f"{head}{{type: !!python/object/apply:os.getcwd x}}", "a.yaml")
    assert found.body["spec"] == {"type": "x"}


def test_a_list_of_one_kind_says_it_once() -> None:
    text = (
        "apiVersion: taskdist.dev/v1alpha1\nkind: TaskQueueList\nitems:\n- metadata: {name: q}\n  spec: {weight: 0}\n"
    )
    (found,) = read(text, "a.yaml")
    assert (found.title, found.place("spec.weight")) == ("TaskQueue q", "a.yaml:5")


def test_keys_of_maps_are_judged_as_the_models_do() -> None:
    (found,) = flaws("invalid-value", task(resources={"g p u": 1}))
    assert found.path.startswith("spec.resources")


# What is there already.


def as_live(obj: Obj, **status: Any) -> Manifest:
    metadata = {"namespace": "ns", "uid": "u", "resourceVersion": "7", "creationTimestamp": "2023-11-14T22:00:00Z"}
    body = {**obj, "metadata": {**obj["metadata"], **metadata}, "status": status}
    del body["apiVersion"], body["kind"]
    return live(body, obj["kind"], obj["apiVersion"])


def ids(*objects: Manifest) -> set[str]:
    return {each.rule for each in review(objects, NOW, whole=True)}


def test_a_task_that_has_ended_is_there_and_judged_no_further() -> None:
    child, parent = task("c", dependsOn=[{"name": "a"}]), task("a", slots=9)
    there = [as_live(queue()), as_live(pool()), as_live(child)]
    assert ids(*there) == {"parent-not-found"}
    assert ids(*there, as_live(parent, phase="Succeeded")) == set()
    assert ids(*there, as_live(parent, phase="Pending")) == {"larger-than-any-agent"}


def test_a_parent_that_was_seen_is_not_missed() -> None:
    child = as_live(task("c", dependsOn=[{"name": "a"}]), dependencies=[{"name": "a", "uid": "1", "phase": "Failed"}])
    assert ids(as_live(queue()), as_live(pool()), child) == set()


def test_a_running_task_is_not_told_that_it_is_late() -> None:
    late = task(deadline="2023-11-14T22:13:21Z")
    there = [as_live(queue()), as_live(pool())]
    assert ids(*there, as_live(late, phase="Pending")) == {"deadline-too-tight"}
    assert ids(*there, as_live(late, phase="Assigned", attempt=1, agent="a")) == set()


def test_a_live_object_has_no_file() -> None:
    (found,) = (each for each in review([as_live(queue()), as_live(pool(replicas=0))], NOW) if each.source == "")
    assert found.object == "AgentPool ns/p"


# The schema.


def rich() -> list[Obj]:
    return [
        queue(
            order={"policy": "Fifo", "level": "High"},
            tenants={"weights": [{"name": "a", "weight": 2}], "emergency": ["b"]},
            quota={"leased": 5, "perTenant": {"slots": 2}},
            rate={"queue": {"perSecond": 1.5, "burst": 2}},
            overflow={"highWater": 9, "lowWater": 5, "action": "Spill", "spillTo": "r"},
            timeouts={"executionSeconds": 60, "waitingSeconds": 9},
            retry={"reasons": ["HandlerError"], "jitter": 0.5},
            dispatch="Lazy",
        ),
        pool(
            scaling={"minReplicas": 0, "maxReplicas": 3},
            skills=["a"],
            resources={"gpu": 1},
            labels={"zone": "a"},
            pod={"containers": [container(args=["agent", "--http", "x"], env=[{"name": "A", "value": "b"}])]},
        ),
        task(
            deadline="2030-01-01T00:00:00Z",
            notBefore="2029-01-01T00:00:00Z",
            agentSelector={"matchLabels": {"zone": "a"}, "matchExpressions": [{"key": "k", "operator": "Exists"}]},
            dependsOn=[{"name": "u"}],
            resources={"gpu": 1},
            skills=["a"],
            payload={"x": [1, None]},
            timeouts={"progressSeconds": 3},
            orderingKey="k",
            idempotencyKey="i",
        ),
        cap("10k"),
    ]


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(each for key, below in inner for each in places(below, (*path, key)))]


PLACES = [(number, *path) for number, obj in enumerate(rich()) for path in places(obj)[1:]]
JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 200_000)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "a", "A-1", "p", "Fifo", "2030-01-01T00:00:00Z", "10", "ü", "a" * 400]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "a", "key", ""]), inner),
    max_leaves=5,
)


@st.composite
def broken(draw: st.DrawFn) -> list[Obj]:
    objects = copy.deepcopy(rich())
    for where in draw(st.lists(st.sampled_from(PLACES), min_size=1, max_size=3)):
        here: Any = objects
        for step in where[:-1]:
            if (isinstance(here, dict) and step in here) or (isinstance(here, list) and step in range(len(here))):
                here = here[step]  # type: ignore[index]
        if isinstance(here, dict) and isinstance(where[-1], str):
            here[where[-1]] = draw(JUNK)
        elif isinstance(here, list) and where[-1] in range(len(here)):
            here[where[-1]] = draw(JUNK)  # type: ignore[index]
    return [each for each in objects if isinstance(each, dict)]


@settings(deadline=None)  # A loaded machine is no failure.
@given(broken())
def test_nothing_that_anybody_writes_breaks_the_review(objects: list[Obj]) -> None:
    found = review(manifests(*objects), NOW)
    assert all(each.message and each.mend and each.object for each in found)


def test_what_the_property_starts_from_is_understood() -> None:
    setup = Setup(manifests(*rich()), NOW)
    assert (len(setup.queues), len(setup.pools), len(setup.tasks), len(setup.caps)) == (1, 1, 1, 1)
    assert not setup.problems


def standard(schema: Obj) -> Any:
    """A validator by the book, but that 1.0 is no integer."""
    checker = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    )
    extend: Callable[..., Any] = jsonschema.validators.extend  # published without types
    return extend(jsonschema.Draft202012Validator, type_checker=checker)(schema)


def nulls(value: Any) -> bool:
    if isinstance(value, dict):
        return any(each is None or nulls(each) for each in value.values())
    return isinstance(value, list) and any(each is None or nulls(each) for each in value)


@settings(deadline=None)  # A loaded machine is no failure.
@given(broken())
def test_types_and_bounds_are_those_of_json_schema(objects: list[Obj]) -> None:
    for each in objects:
        known = schemas().get(str(each.get("kind")))
        if known is None or nulls(each):
            continue
        # What only Kubernetes says: unknown fields, uniqueness, formats.
        own = [
            problem
            for problem in problems(known, each)
            if not problem.unknown and "twice" not in problem.message and "is no time" not in problem.message
        ]
        assert bool(own) == (not standard(dict(known)).is_valid(each)), own


# Rules of the API server, by words of their messages, and ours that say the same.
SAME = {
    "metadata.name must be at most": "bad-name",
    "spec.dispatch Lazy may run": "lazy-at-most-once",
    "spec.holdSeconds must not be less": "lease-above-hold",
    "spec.retry.initialSeconds must not": "backoff-above-bound",
    "spec.overflow.lowWater must not": "water-marks-crossed",
    "spec.overflow.spillTo": "spill-without-target",
    "spec.scaling.minReplicas must not": "scaling-bounds-crossed",
    "spec.breaker.openSeconds must not": "breaker-bounds-crossed",
    "spec.wattsIdle must not": "idle-above-busy",
    "spec.waitForPreferredSeconds waits": "wait-without-preference",
    "spec.notBefore must be before": "deadline-before-start",
    "spec.dependsOn names the Task itself": "depends-on-itself",
    "spec.payload and spec.payloadRef both": "payload-said-twice",
    "spec.array has neither": "array-without-items",
    "spec.array.completions": "array-completions",
    "spec.array.items are the payloads": "array-payload",
    "spec.orderingKey would have": "array-in-order",
    "values must": "selector-values",
}


def test_each_rule_of_the_api_server_on_new_objects_is_said_here_too() -> None:
    # Those that compare with the former object can only be broken by a change.
    messages = [
        each["message"]
        for each in [*rules.queue_rules(), *rules.pool_rules(), *rules.NESTED["SelectorRequirement"]]
        if "oldSelf" not in each["rule"]
    ]
    messages += [each.message for each in rules.creation_checks()]
    assert len(messages) > 10
    for message in messages:
        ours = [rule for words, rule in SAME.items() if message.startswith(words)]
        assert len(ours) == 1, message
        assert by_id(ours[0]).severity == "error"


def test_the_paths_of_the_findings_are_paths() -> None:
    step = r"[A-Za-z0-9./_-]+(\[\d+\])*"
    found = review(manifests(*rich()), NOW)
    assert found
    for each in found:
        assert re.fullmatch(rf"{step}(\.{step})*", each.path)
