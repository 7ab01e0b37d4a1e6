"""Which types are said to be handled by no agent, and which failures of requests are which errors."""

from __future__ import annotations

from typing import Any

import pytest

from taskdist.client import InvalidTask, NotAllowed, QueueFull, TaskdistError, TaskNotFound, Unavailable
from taskdist.client.creating import declared_types, unhandled
from taskdist.client.errors import of_kube
from taskdist.kube import ApiError, ConfigurationError, KubeError, Unanswered, Unreachable

QUEUE: dict[str, Any] = {"metadata": {"name": "q"}, "spec": {"pools": ["p"]}}


def pool(name: str = "p", run: tuple[str, ...] = (), **container: Any) -> dict[str, Any]:
    spec = {"template": {"spec": {"containers": [{"name": "agent", **container}]}}}
    return {
        "metadata": {"name": name},
        "spec": spec,
        "status": {"performance": [{"type": each} for each in run]},
    }


@pytest.mark.parametrize(
    ("container", "types"),
    [
        pytest.param({}, None, id="nothing-said-is-any-type"),
        pytest.param({"env": [{"name": "TASKDIST_TYPES", "value": "a, b"}]}, {"a", "b"}, id="variable"),
        pytest.param({"env": [{"name": "TASKDIST_TYPES", "valueFrom": {}}]}, None, id="a-variable-from-elsewhere"),
        pytest.param({"command": ["taskdist", "agent", "m:a", "--types", "a,b"]}, {"a", "b"}, id="option"),
        pytest.param({"command": ["taskdist"], "args": ["agent", "--types=a"]}, {"a"}, id="option-in-one-word"),
        pytest.param({"args": ["--types"]}, None, id="half-an-option"),
    ],
)
def test_what_a_template_says_of_types(container: dict[str, Any], types: set[str] | None) -> None:
    assert declared_types(pool(**container)) == types


LISTED = pool(env=[{"name": "TASKDIST_TYPES", "value": "analyse,count"}])
OPEN = pool(run=("analyse", "count"))


@pytest.mark.parametrize(
    ("type", "pools", "said"),
    [
        pytest.param("analyse", [LISTED], "", id="listed"),
        pytest.param("analyze", [LISTED], "handles type 'analyze'; did you mean 'analyse'?", id="nearly-listed"),
        pytest.param("paint", [LISTED], "handles type 'paint'; they handle: analyse, count.", id="not-listed"),
        pytest.param("analyse", [OPEN], "", id="was-run"),
        pytest.param("analyze", [OPEN], "has run a Task of type 'analyze' yet; did you mean", id="nearly-run"),
        pytest.param("paint", [OPEN], "", id="a-new-type-of-a-pool-that-lists-none"),
        pytest.param("paint", [LISTED, pool("other")], "handles type 'paint'", id="another-pool-does-not-count"),
        pytest.param("paint", [], "", id="no-pool-is-another-warning"),
    ],
)
def test_a_type_that_no_agent_handles(type: str, pools: list[dict[str, Any]], said: str) -> None:
    found = unhandled({"queue": "q", "type": type}, QUEUE, pools)
    assert said in found
    assert bool(found) is bool(said)


def test_routes_and_a_pool_that_the_task_names_count() -> None:
    routes = [{"name": "r", "steps": [{"pools": ["other"]}]}]
    queue = {"metadata": {"name": "q"}, "spec": {"pools": ["p"], "routes": routes}}
    both = [LISTED, pool("other", env=[{"name": "TASKDIST_TYPES", "value": "paint"}])]
    assert unhandled({"queue": "q", "type": "paint"}, queue, both) == ""
    said = unhandled({"queue": "q", "type": "paint", "pool": "p"}, queue, both)
    assert said.startswith("no agent of pool p handles type 'paint'")
    assert unhandled({"queue": "q", "type": "count", "pool": "p"}, None, both) == ""


FULL = (
    "tasks.taskdist.dev \"a\" is forbidden: ValidatingAdmissionPolicy 'x' with binding 'x' denied request: "
    "TaskQueue q takes no new Tasks now; 5 wait in it. Submit again later."
)
CAUSES = {"causes": [{"reason": "FieldValueInvalid", "field": "spec.slots"}, {"field": "spec.type"}]}


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        pytest.param(ApiError(404, "NotFound", "no a", {"name": "a"}), TaskNotFound, "no a", id="not-there"),
        pytest.param(ApiError(404, "NotFound", "404 page"), Unavailable, "install taskdist first", id="no-such-kind"),
        pytest.param(ApiError(403, "Forbidden", "user may not"), NotAllowed, "may not", id="no-right"),
        pytest.param(ApiError(401, "Unauthorized", "who?"), NotAllowed, "who?", id="nobody"),
        pytest.param(ApiError(403, "Forbidden", FULL), QueueFull, "takes no new Tasks now", id="full"),
        pytest.param(
            ApiError(403, "Forbidden", "policy x denied request: not on Sundays"), NotAllowed, "Sundays", id="a-policy"
        ),
        pytest.param(ApiError(422, "Invalid", "bad", CAUSES), InvalidTask, "bad", id="invalid"),
        pytest.param(ApiError(413, "TooLarge", "too large"), InvalidTask, "too large", id="too-large"),
        pytest.param(ApiError(503, "Down", "later"), Unavailable, "later", id="server-fault"),
        pytest.param(ApiError(429, "Busy", "later"), Unavailable, "later", id="throttled"),
        pytest.param(ApiError(409, "Conflict", "changed"), TaskdistError, "changed", id="conflict"),
        pytest.param(Unreachable("no route"), Unavailable, "cannot be reached: no route.", id="unreachable"),
        pytest.param(Unanswered("cut"), Unavailable, "may have been done or not", id="unanswered"),
        pytest.param(ConfigurationError("no kubeconfig"), Unavailable, "no kubeconfig", id="no-configuration"),
    ],
)
def test_each_failure_is_one_error(error: KubeError, kind: type[TaskdistError], said: str) -> None:
    found = of_kube(error)
    assert type(found) is kind
    assert said in str(found)


def test_errors_carry_what_to_act_on() -> None:
    invalid = of_kube(ApiError(422, "Invalid", "bad", CAUSES))
    assert isinstance(invalid, InvalidTask)
    assert invalid.field == "spec.slots"
    strict = of_kube(ApiError(400, "BadRequest", 'strict decoding error: unknown field "spec.slot"'))
    assert isinstance(strict, InvalidTask)
    assert strict.field == "spec.slot"
    full = of_kube(ApiError(403, "Forbidden", FULL))
    assert isinstance(full, QueueFull)
    assert (full.queue, full.retry_after) == ("q", 30.0)
