"""The pods of a pool: names, injected parts, refused templates."""

import re
from typing import Any

import pytest

from taskdist.api import POOL_LABEL, TEMPLATE_LABEL, AgentPool
from taskdist.controller.pods import (
    InvalidTemplate,
    LinkInfo,
    build_pod,
    check_template,
    free_names,
)
from taskdist.protocol.convert import template_hash

LINK = LinkInfo("taskdist.system.svc:7443", "taskdist.system.svc", "taskdist.dev/system/one")


def make_pool(pod_spec: dict[str, Any] | None = None, **spec: Any) -> AgentPool:
    return AgentPool.model_validate(
        {
            "metadata": {"name": "p", "namespace": "ns", "uid": "u-1", "generation": 3},
            "spec": {
                "template": {
                    "metadata": {"labels": {"team": "red", POOL_LABEL: "forged"}, "annotations": {"a": "b"}},
                    "spec": pod_spec or {"containers": [{"name": "agent", "image": "x"}]},
                },
                **spec,
            },
        }
    )


def environment(pod: dict[str, Any], container: int = 0) -> dict[str, Any]:
    return {v["name"]: v.get("value", v.get("valueFrom")) for v in pod["spec"]["containers"][container]["env"]}


def test_pod_belongs_to_its_pool_and_says_which_template_made_it() -> None:
    pool = make_pool()
    pod = build_pod(pool, "p-3-0", LINK)
    (owner,) = pod["metadata"]["ownerReferences"]
    assert (owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == ("u-1", True, False)
    labels = pod["metadata"]["labels"]
    assert labels[POOL_LABEL] == "p"  # whatever the template says
    assert labels["team"] == "red"
    assert labels[TEMPLATE_LABEL] == template_hash(pool)


def test_pod_gets_token_and_authorities_and_no_api_access() -> None:
    pod = build_pod(make_pool({"containers": [{"name": "a"}], "automountServiceAccountToken": True}), "p-3-0", LINK)
    assert pod["spec"]["automountServiceAccountToken"] is False
    token, bundle = pod["spec"]["volumes"][0]["projected"]["sources"]
    assert token["serviceAccountToken"]["audience"] == LINK.audience
    assert bundle["configMap"]["name"] == "taskdist-ca"
    (mount,) = pod["spec"]["containers"][0]["volumeMounts"]
    assert mount["readOnly"] is True
    # A subPath mount would never see a rotated authority.
    assert "subPath" not in mount


def test_environment_speaks_of_the_pool() -> None:
    pod = build_pod(make_pool(slots=4, skills=["gpu", "io"], resources={"mem": 7, "cpu": 2}), "p-3-0", LINK)
    env = environment(pod)
    assert env["TASKDIST_ADDRESS"] == "taskdist.system.svc:7443"
    assert env["TASKDIST_SERVER_NAME"] == "taskdist.system.svc"
    assert (env["TASKDIST_SLOTS"], env["TASKDIST_SKILLS"], env["TASKDIST_RESOURCES"]) == ("4", "gpu,io", "cpu=2,mem=7")
    assert env["TASKDIST_HEALTH_HOST"] == {"fieldRef": {"fieldPath": "status.podIP"}}
    # The agent must have given its work back before the kubelet kills it.
    assert int(env["TASKDIST_GRACE_SECONDS"]) < pod["spec"]["terminationGracePeriodSeconds"]


@pytest.mark.parametrize(
    ("container", "path"),
    [
        pytest.param({}, "/dev/termination-log", id="where it is by default"),
        pytest.param({"terminationMessagePath": "/run/end"}, "/run/end", id="where the template says"),
        pytest.param({"terminationMessagePolicy": "FallbackToLogsOnError"}, None, id="kept empty for the log's end"),
    ],
)
def test_the_agent_leaves_its_name_where_the_kubelet_looks(container: dict[str, Any], path: str | None) -> None:
    pod = build_pod(make_pool({"containers": [{"name": "agent", **container}]}), "p-3-0", LINK)
    assert environment(pod).get("TASKDIST_TERMINATION_LOG") == path


def test_what_the_template_sets_itself_stands() -> None:
    container = {
        "name": "agent",
        "env": [{"name": "TASKDIST_SLOTS", "value": "1"}, {"name": "TASKDIST_HEALTH_PORT", "value": "9000"}],
        "livenessProbe": {"exec": {"command": ["true"]}},
    }
    pod = build_pod(make_pool({"containers": [container]}, slots=4), "p-3-0", LINK)
    agent = pod["spec"]["containers"][0]
    assert environment(pod)["TASKDIST_SLOTS"] == "1"
    assert agent["livenessProbe"] == {"exec": {"command": ["true"]}}
    assert agent["readinessProbe"]["httpGet"]["port"] == 9000


def test_the_container_named_agent_is_the_agent() -> None:
    pod = build_pod(make_pool({"containers": [{"name": "sidecar"}, {"name": "agent"}]}), "p-3-0", LINK)
    assert "env" not in pod["spec"]["containers"][0]
    assert "TASKDIST_ADDRESS" in environment(pod, 1)


def test_building_leaves_the_pool_alone() -> None:
    pool = make_pool()
    before = pool.model_dump()
    build_pod(pool, "p-3-0", LINK)
    assert pool.model_dump() == before


@pytest.mark.parametrize(
    ("pod_spec", "names"),
    [
        pytest.param({"containers": []}, "containers is empty", id="no container"),
        pytest.param({"containers": [{}], "restartPolicy": "Never"}, "restartPolicy", id="an agent that ends"),
        pytest.param(
            {"containers": [{}], "volumes": [{"name": "taskdist-link"}]}, "rename the volume", id="our volume"
        ),
        pytest.param(
            {"containers": [{"volumeMounts": [{"mountPath": "/var/run/taskdist/"}]}]}, "elsewhere", id="our mount"
        ),
        pytest.param(
            {"containers": [{"env": [{"name": "TASKDIST_TOKEN_FILE", "value": "/x"}]}]}, "remove it", id="our variable"
        ),
        pytest.param({"containers": {"a": 1}}, r"containers must be a list", id="containers that are no list"),
        pytest.param({"containers": ["agent"]}, r"containers\[0\] must be an object", id="a container that is a word"),
        pytest.param(
            {"containers": [{"name": "a"}, {"name": "agent", "env": ["A=B"]}]},
            r"containers\[1\]\.env\[0\] must be an object, and is text",
            id="variables as the shell has them",
        ),
        pytest.param({"containers": [{"env": {"A": "B"}}]}, r"env must be a list", id="variables as an object"),
        pytest.param({"containers": [{}], "volumes": {"a": "b"}}, "volumes must be a list", id="volumes as an object"),
        pytest.param({"containers": [{"volumeMounts": [None]}]}, r"volumeMounts\[0\]", id="a mount that is nothing"),
        pytest.param(
            {"containers": [{}], "terminationGracePeriodSeconds": "5"}, "is '5': write a number", id="seconds in quotes"
        ),
        pytest.param(
            {"containers": [{}], "terminationGracePeriodSeconds": True}, "write a number", id="seconds that are true"
        ),
        *(
            pytest.param(
                {"containers": [{"env": [{"name": "TASKDIST_HEALTH_PORT", "value": port}]}]},
                "TASKDIST_HEALTH_PORT is",
                id=f"health port {port!r}",
            )
            for port in ("http", "", "0", "65536", "-1", "8088 ", "9" * 5000)
        ),
    ],
)
def test_template_that_clashes_is_refused_with_the_fix(pod_spec: dict[str, Any], names: str) -> None:
    with pytest.raises(InvalidTemplate, match=names):
        check_template(make_pool(pod_spec))


@pytest.mark.parametrize(
    ("field", "key"),
    [
        ("annotations", "taskdist.dev/removed-by"),
        ("annotations", "taskdist.dev/pool"),
        ("annotations", "held.taskdist.dev/x"),
        ("annotations", "other.taskdist.dev/x"),
        ("labels", "taskdist.dev/other"),
    ],
)
def test_what_only_the_operator_writes_on_pods_is_refused_and_never_copied(field: str, key: str) -> None:
    pool = make_pool()
    pool.spec.template.metadata = {field: {"mine.dev/x": "1", "nottaskdist.dev/x": "1", "taskdist.dev": "1"}}
    check_template(pool)
    users = dict(pool.spec.template.metadata[field])
    pool.spec.template.metadata[field][key] = "7"
    with pytest.raises(InvalidTemplate, match=rf"^spec\.template\.metadata\.{field}: {re.escape(key)} is"):
        check_template(pool)
    copied = build_pod(pool, "p-3-0", LINK)["metadata"][field]
    assert key not in copied
    assert users.items() <= copied.items()


def test_metadata_of_another_form_is_refused() -> None:
    pool = make_pool()
    pool.spec.template.metadata = {"annotations": ["a"]}
    with pytest.raises(InvalidTemplate, match="annotations must be an object, and is a list"):
        check_template(pool)


@pytest.mark.parametrize(
    "said",
    [
        pytest.param({"volumes": None, "terminationGracePeriodSeconds": None, "restartPolicy": None}, id="nothing"),
        pytest.param({"volumes": [], "terminationGracePeriodSeconds": 0}, id="as little as there can be"),
        pytest.param(
            {"initContainers": "x", "affinity": 3, "tolerations": {}}, id="what only the API server can judge"
        ),
    ],
)
@pytest.mark.parametrize(
    "container",
    [
        pytest.param({"env": None, "volumeMounts": None, "name": 3}, id="nulls"),
        pytest.param({"env": [{}, {"name": "TASKDIST_HEALTH_PORT"}, {"name": {}, "value": {}}]}, id="half a variable"),
        pytest.param({"env": [{"name": "TASKDIST_HEALTH_PORT", "value": 9000}], "ports": "http"}, id="a number"),
    ],
)
def test_a_pod_can_be_built_of_every_template_that_passes(said: dict[str, Any], container: dict[str, Any]) -> None:
    pool = make_pool({"containers": [container], **said})
    check_template(pool)
    build_pod(pool, "p-3-0", LINK)


def test_names_follow_from_the_pool_alone() -> None:
    pool = make_pool()
    assert free_names(pool, [], 2) == ["p-3-0", "p-3-1"]
    assert free_names(pool, ["p-3-1", "p-2-0"], 2) == ["p-3-0", "p-3-2"]


@pytest.mark.parametrize(
    ("change", "same"),
    [
        pytest.param({"slots": 2}, False, id="slots shape the pod"),
        pytest.param({"skills": ["x"]}, False, id="skills shape the pod"),
        pytest.param({"pod_spec": {"containers": [{"name": "agent", "image": "y"}]}}, False, id="image"),
        pytest.param({"replicas": 9}, True, id="size does not"),
        pytest.param({"scaling": {"maxReplicas": 9}}, True, id="bounds do not"),
    ],
)
def test_template_hash_changes_with_what_shapes_a_pod(change: dict[str, Any], same: bool) -> None:
    assert (template_hash(make_pool(**change)) == template_hash(make_pool())) is same


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        pytest.param({}, [("topology.kubernetes.io/zone", "ScheduleAnyway")], id="evenly-over-zones"),
        pytest.param({"topologySpreadConstraints": []}, [], id="an-empty-list-says-none"),
        pytest.param(
            {"topologySpreadConstraints": [{"topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}]},
            [("rack", "DoNotSchedule")],
            id="whoever-says-it-says-all-of-it",
        ),
    ],
)
def test_pods_of_a_pool_are_spread(said: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    pod = build_pod(make_pool({"containers": [{"name": "agent"}], **said}), "p-3-0", LINK)
    found = pod["spec"]["topologySpreadConstraints"]
    assert [(each["topologyKey"], each["whenUnsatisfiable"]) for each in found] == expected
    if not said:
        assert found[0]["labelSelector"] == {"matchLabels": {POOL_LABEL: "p"}}
        assert found[0]["maxSkew"] == 1
