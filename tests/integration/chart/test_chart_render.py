"""The chart: linted, rendered equal to the plain install, and refused where its values make no sense."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from taskdist.api import POOL_LABEL
from taskdist.archive.settings import Settings as ArchiveSettings
from taskdist.controller.settings import Settings
from taskdist.gateway.settings import Settings as GatewaySettings
from taskdist.mcp.settings import Settings as McpSettings
from taskdist.outgoing.addresses import parse_allowed
from taskdist.sinks.settings import Settings as SinksSettings
from taskdist.sources.settings import Settings as SourcesSettings

# The first use of helm may build it.
pytestmark = pytest.mark.timeout(1200)

ROOT = Path(__file__).parents[3]
CHART = ROOT / "charts" / "taskdist"

Object = dict[str, Any]
Render = Callable[..., list[Object]]


def of(documents: list[Object], kind: str) -> list[Object]:
    return [document for document in documents if document["kind"] == kind]


def rules(documents: list[Object], *kinds: str) -> list[Object]:
    """All rules of all roles of these kinds. There are some."""
    found = [rule for kind in kinds for role in of(documents, kind) for rule in role["rules"]]
    assert found
    return found


def test_lint(helm: Path) -> None:
    done = subprocess.run([helm, "lint", "--strict", CHART], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("file", "arguments"), [("install", []), ("gateway", ["gateway"])])
def test_the_plain_install_is_what_the_chart_renders(file: str, arguments: list[str], helm: Path) -> None:
    rendered = subprocess.run(
        [ROOT / "manifests" / "render", *arguments],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "HELM": str(helm)},
    ).stdout
    assert (ROOT / "manifests" / f"{file}.yaml").read_text() == rendered, "run make generate"


def test_definitions_are_those_of_crds_and_stay(render: Render) -> None:
    rendered = {crd["metadata"]["name"]: crd for crd in of(render(), "CustomResourceDefinition")}
    source = [yaml.safe_load(file.read_text()) for file in (ROOT / "crds").glob("*.yaml")]
    assert len(source) == 5
    assert rendered.keys() == {crd["metadata"]["name"] for crd in source}
    for crd in source:
        assert rendered[crd["metadata"]["name"]]["spec"] == crd["spec"]
        assert rendered[crd["metadata"]["name"]]["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert of(render("crds.install=false"), "CustomResourceDefinition") == []


def test_no_rule_has_a_wildcard(render: Render) -> None:
    for documents in (render(), render("watchNamespaces={a,b}", "flowSchema.enabled=true")):
        for rule in rules(documents, "ClusterRole", "Role"):
            said = {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
            assert len(said) >= 3
            assert "*" not in said


def test_secrets_and_leases_are_reached_by_name_in_the_own_namespace_only(render: Render) -> None:
    documents = render()
    assert not [rule for rule in rules(documents, "ClusterRole") if {"secrets", "leases"} & {*rule["resources"]}]
    (role,) = of(documents, "Role")
    assert role["metadata"]["namespace"] == "taskdist-system"
    assert {resource for rule in role["rules"] for resource in rule["resources"]} >= {"secrets", "leases"}
    for rule in role["rules"]:
        # Creation cannot be bound to a name.
        assert rule["verbs"] == ["create"] or rule["resourceNames"]


def test_a_list_of_namespaces_takes_rights_there_and_nowhere_else(render: Render) -> None:
    documents = render("watchNamespaces={a,b}")
    operator = [role for role in of(documents, "ClusterRole") if not role["metadata"]["name"].endswith(AGGREGATED)]
    reviews = [["tokenreviews"], ["subjectaccessreviews"]]
    assert [rule["resources"] for role in operator for rule in role["rules"]] == reviews
    everywhere = {role["metadata"]["name"]: role["rules"] for role in of(render(), "ClusterRole")}
    watch, look = everywhere["taskdist-system:taskdist"][2:], everywhere["taskdist-system:taskdist:viewer"]
    roles = {(role["metadata"]["namespace"], role["metadata"]["name"]): role["rules"] for role in of(documents, "Role")}
    assert roles.pop(("taskdist-system", "taskdist"))
    there = {"taskdist-tasks": watch, "taskdist-viewer": look}
    assert roles == {(namespace, name): rules for namespace in "ab" for name, rules in there.items()}
    assert environment(documents)["TASKDIST_WATCH_NAMESPACES"] == "a,b"


AGGREGATED = (":view", ":edit", ":admin")


def test_the_viewer_may_look_and_nothing_else(render: Render) -> None:
    documents = render()
    (role,) = [role for role in of(documents, "ClusterRole") if role["metadata"]["name"].endswith(":viewer")]
    assert [(rule["resources"], rule["verbs"]) for rule in role["rules"]] == [
        (["tasks", "taskqueues", "agentpools"], ["get", "list", "watch"])
    ]
    bound = [b for b in of(documents, "ClusterRoleBinding") if b["roleRef"]["name"] == role["metadata"]["name"]]
    assert [b["subjects"] for b in bound] == [
        [{"kind": "ServiceAccount", "name": "taskdist-viewer", "namespace": "taskdist-system"}]
    ]
    (viewer,) = [a for a in of(documents, "ServiceAccount") if a["metadata"]["name"] == "taskdist-viewer"]
    assert viewer["automountServiceAccountToken"] is False
    left = render("view.viewer.create=false", "view.viewer.proxy=true")
    assert not [each for each in left if "viewer" in each["metadata"]["name"]]


def test_the_way_in_from_outside_is_off_and_leads_to_the_view_alone(render: Render) -> None:
    assert "services/proxy" not in {
        what for rule in rules(render(), "ClusterRole", "Role") for what in rule["resources"]
    }
    documents = render("view.viewer.proxy=true", "view.port=9447", "fullnameOverride=td")
    (role,) = [role for role in of(documents, "Role") if role["metadata"]["name"] == "td-view-proxy"]
    (service,) = [each for each in of(documents, "Service") if each["metadata"]["name"] == "td-view"]
    (port,) = service["spec"]["ports"]
    # As the path of the API server's proxy has it, by the port's name and by its number.
    names = [f"https:td-view:{port['name']}", f"https:td-view:{port['port']}"]
    rule = {"apiGroups": [""], "resources": ["services/proxy"], "resourceNames": names, "verbs": ["get", "create"]}
    assert (role["metadata"]["namespace"], role["rules"]) == (service["metadata"]["namespace"], [rule])
    (bound,) = [each for each in of(documents, "RoleBinding") if each["roleRef"]["name"] == "td-view-proxy"]
    assert bound["subjects"] == [{"kind": "ServiceAccount", "name": "td-viewer", "namespace": "taskdist-system"}]


def environment(documents: list[Object]) -> dict[str, Any]:
    (deployment,) = of(documents, "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}


def test_the_operator_is_told_where_it_is_and_what_it_owns(render: Render) -> None:
    documents = render("nameOverride=other", release="mine")
    told = environment(documents)
    role = next(role for role in of(documents, "Role") if role["metadata"]["namespace"] == "taskdist-system")
    named = {rule["resources"][0]: rule.get("resourceNames") for rule in role["rules"] if rule.get("resourceNames")}
    assert named == {
        "leases": [told["TASKDIST_LEASE"]],
        "secrets": [told["TASKDIST_CA_SECRET"]],
        "configmaps": [f"{told['TASKDIST_LEASE']}-archive"],
    }
    host, _, port = told["TASKDIST_LINK_ADDRESS"].partition(":")
    link = next(service for service in of(documents, "Service") if service["spec"]["ports"][0]["name"] == "link")
    assert host == f"{link['metadata']['name']}.taskdist-system.svc"
    assert port == told["TASKDIST_LINK_PORT"] == str(link["spec"]["ports"][0]["port"])
    view = next(service for service in of(documents, "Service") if service["spec"]["ports"][0]["name"] == "view")
    assert told["TASKDIST_VIEW_ADDRESS"] == f"{view['metadata']['name']}.taskdist-system.svc:9446"
    assert told["TASKDIST_VIEW_PORT"] == str(view["spec"]["ports"][0]["port"]) == "9446"
    assert told["TASKDIST_AUDIENCE"] == "taskdist.dev/taskdist-system/mine"
    assert told["TASKDIST_NAMESPACE"] == {"fieldRef": {"fieldPath": "metadata.namespace"}}


def test_only_pods_of_a_pool_reach_the_link(render: Render) -> None:
    (policy,) = of(render("networkPolicy.enabled=true"), "NetworkPolicy")
    (link,) = [rule for rule in policy["spec"]["ingress"] if rule["ports"] == [{"port": "link"}]]
    assert link["from"] == [
        {"namespaceSelector": {}, "podSelector": {"matchExpressions": [{"key": POOL_LABEL, "operator": "Exists"}]}}
    ]


def test_its_settings_can_be_read(render: Render) -> None:
    told = environment(render("watchNamespaces={a}", "logLevel=debug"))
    env = {name: value if isinstance(value, str) else "from-the-pod" for name, value in told.items()}
    settings = Settings.from_env(env)
    assert settings.watch_namespaces == ("a",)
    assert settings.log_level == "debug"
    assert settings.link_address == told["TASKDIST_LINK_ADDRESS"]


def test_services_and_budget_select_the_pods(render: Render) -> None:
    documents = render("networkPolicy.enabled=true", release="mine")
    (deployment,) = of(documents, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    selectors = [service["spec"]["selector"] for service in of(documents, "Service")]
    selectors += [budget["spec"]["selector"]["matchLabels"] for budget in of(documents, "PodDisruptionBudget")]
    selectors += [policy["spec"]["podSelector"]["matchLabels"] for policy in of(documents, "NetworkPolicy")]
    assert len(selectors) == 5
    assert all(selector.items() <= labels for selector in selectors)


OPTIONS: dict[str, tuple[str, str]] = {
    "network policy": ("networkPolicy.enabled=true", "NetworkPolicy"),
    "flow schema": ("flowSchema.enabled=true", "FlowSchema"),
    "service monitor": ("metrics.serviceMonitor.enabled=true", "ServiceMonitor"),
    "namespace": ("namespace.create=true", "Namespace"),
}

POLICIES = {
    "nothing": ((), {"backpressure"}),
    "old clusters": (("policies.backpressure.enabled=false",), set()),
    "levels": (("policies.priorities.enabled=true",), {"backpressure", "priorities"}),
    "tenants": (("policies.tenants.enabled=true",), {"backpressure", "tenants"}),
}


@pytest.mark.parametrize(("settings", "expected"), POLICIES.values(), ids=POLICIES)
def test_policies_are_those_asked_for_each_with_its_binding(
    settings: tuple[str, ...], expected: set[str], render: Render
) -> None:
    documents = render(*settings)
    names = {policy["metadata"]["name"] for policy in of(documents, "ValidatingAdmissionPolicy")}
    assert names == {f"taskdist-system-taskdist-{each}" for each in expected}
    bindings = of(documents, "ValidatingAdmissionPolicyBinding")
    assert {binding["spec"]["policyName"] for binding in bindings} == names
    guarded = {name for rule in rules(documents, "ClusterRole") if "use" in rule["verbs"] for name in rule["resources"]}
    assert guarded == expected - {"backpressure"}


def test_policies_leave_the_namespaces_of_others_alone(render: Render) -> None:
    settings = ("policies.priorities.enabled=true", "policies.tenants.enabled=true")
    for policy in of(render(*settings), "ValidatingAdmissionPolicy"):
        assert "namespaceSelector" not in policy["spec"]["matchConstraints"]
    policies = of(render("watchNamespaces={a,b}", *settings), "ValidatingAdmissionPolicy")
    assert len(policies) == 3
    for policy in policies:
        (scope,) = policy["spec"]["matchConstraints"]["namespaceSelector"]["matchExpressions"]
        assert scope == {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["a", "b"]}


@pytest.mark.parametrize(("setting", "kind"), OPTIONS.values(), ids=OPTIONS)
def test_options_are_off_until_asked_for(setting: str, kind: str, render: Render) -> None:
    assert of(render(), kind) == []
    assert len(of(render(setting), kind)) == 1


SWITCHES: dict[str, tuple[str, str]] = {
    "budget": ("podDisruptionBudget.enabled=false", "PodDisruptionBudget"),
    "roles": ("rbac.create=false", "ClusterRole"),
}


@pytest.mark.parametrize(("setting", "kind"), SWITCHES.values(), ids=SWITCHES)
def test_switches(setting: str, kind: str, render: Render) -> None:
    assert of(render(), kind)
    assert of(render(setting), kind) == []


REFUSED: dict[str, tuple[list[str], str]] = {
    "no replicas": (["replicas=0"], "replicas"),
    "a value that is not one": (["replica=2"], "replica"),
    "a privileged port": (["link.port=443"], "port"),
    "an unknown level": (["logLevel=loud"], "logLevel"),
    "an address without a port": (["link.address=example.com"], "address"),
    "a namespace twice": (["watchNamespaces={a,a}"], "watchNamespaces"),
    "no account at all": (["serviceAccount.create=false"], "serviceAccount.name: name an existing ServiceAccount"),
}


@pytest.mark.parametrize(("settings", "says"), REFUSED.values(), ids=REFUSED)
def test_values_that_make_no_sense_are_refused_by_name(settings: list[str], says: str, render: Render) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refusal:
        render(*settings)
    assert says in refusal.value.stderr


def test_every_value_is_in_the_schema_and_the_other_way_round() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def names(properties: Object, given: Object, path: str) -> None:
        assert properties.keys() - {"global"} == given.keys(), path
        for name, inner in properties.items():
            if "properties" in inner:
                names(inner["properties"], given[name], f"{path}.{name}")

    names(schema["properties"], values, "")


def test_the_sources_are_off_and_may_make_tasks_and_nothing_more(render: Render) -> None:
    assert not [each for each in render() if each["metadata"]["name"].endswith("-sources")]
    for watched in ((), ("watchNamespaces={a,b}",)):
        documents = render("sources.enabled=true", *watched)
        ours = [each for each in documents if "-sources" in each["metadata"]["name"]]
        granted = {
            (each["metadata"].get("namespace"), *rule["resources"], *rule.get("resourceNames", ()), *rule["verbs"])
            for each in ours
            for rule in each.get("rules", ())
        }
        scopes: tuple[str | None, ...] = ("a", "b") if watched else (None,)
        work = (
            ("tasksources", "get", "list", "watch"),
            ("tasksources/status", "get", "patch"),
            ("tasks", "create"),
            ("taskqueues", "get", "list", "watch"),
        )
        assert granted == {(scope, *each) for scope in scopes for each in work} | {
            ("taskdist-system", "leases", "create"),
            ("taskdist-system", "leases", "taskdist-sources", "get", "update", "patch", "watch"),
        }
        for binding in (each for each in ours if "roleRef" in each):
            assert [(each["name"], each["namespace"]) for each in binding["subjects"]] == [
                ("taskdist-sources", "taskdist-system")
            ]


def test_the_sources_read_secrets_only_where_that_is_said(render: Render) -> None:
    documents = render("sources.enabled=true", "sources.secretNamespaces={a,b}")
    granted = [
        (each["kind"], each["metadata"]["namespace"], rule["verbs"])
        for each in documents
        for rule in each.get("rules") or ()
        if "-sources" in each["metadata"]["name"] and "secrets" in rule["resources"]
    ]
    assert granted == [("Role", "a", ["get"]), ("Role", "b", ["get"])]


def test_the_sinks_are_off_and_may_read_tasks_and_nothing_more(render: Render) -> None:
    assert not [each for each in render() if each["metadata"]["name"].endswith("-sinks")]
    for watched in ((), ("watchNamespaces={a,b}",)):
        documents = render("sinks.enabled=true", "sinks.secretNamespaces={c}", *watched)
        ours = [each for each in documents if "-sinks" in each["metadata"]["name"]]
        granted = {
            (each["metadata"].get("namespace"), *rule["resources"], *rule.get("resourceNames", ()), *rule["verbs"])
            for each in ours
            for rule in each.get("rules", ())
        }
        scopes: tuple[str | None, ...] = ("a", "b") if watched else (None,)
        work = (("tasksinks", "tasks", "get", "list", "watch"), ("tasksinks/status", "get", "patch"))
        assert granted == {(scope, *each) for scope in scopes for each in work} | {
            ("taskdist-system", "leases", "create"),
            ("taskdist-system", "leases", "taskdist-sinks", "get", "update", "patch", "watch"),
            ("c", "secrets", "get"),
        }
        for binding in (each for each in ours if "roleRef" in each):
            assert [(each["name"], each["namespace"]) for each in binding["subjects"]] == [
                ("taskdist-sinks", "taskdist-system")
            ]


def test_the_sinks_have_their_settings(render: Render) -> None:
    documents = render(
        "sinks.enabled=true",
        "sinks.allowed={*.team.svc,10.0.0.0/8}",
        "sinks.identityNamespaces={b}",
        "sinks.serviceAccountAnnotations.eks\\.amazonaws\\.com/role-arn=arn",
        "watchNamespaces={a,b}",
        "networkPolicy.enabled=true",
    )
    (deployment,) = [each for each in of(documents, "Deployment") if each["metadata"]["name"] == "taskdist-sinks"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    given = {each["name"]: each["value"] for each in container["env"] if "value" in each}
    settings = SinksSettings.from_env({**given, "TASKDIST_NAMESPACE": "taskdist-system"})
    assert (settings.watch_namespaces, settings.lease_name) == (("a", "b"), "taskdist-sinks")
    assert settings.allowed == parse_allowed(("*.team.svc", "10.0.0.0/8"))
    assert settings.identity_namespaces == ("b",)
    accounts = {each["metadata"]["name"]: each["metadata"] for each in of(documents, "ServiceAccount")}
    assert accounts["taskdist-sinks"]["annotations"] == {"eks.amazonaws.com/role-arn": "arn"}


@pytest.mark.parametrize("door", ["sinks", "sources"])
def test_an_identity_is_for_namespaces_that_are_watched(render: Render, door: str) -> None:
    given = (f"{door}.enabled=true", f"{door}.identityNamespaces={{*,a,c}}")
    assert render(*given)
    with pytest.raises(subprocess.CalledProcessError) as caught:
        render(*given, "watchNamespaces={a,b}")
    assert f"{door}.identityNamespaces: c is not among watchNamespaces" in caught.value.stderr


def test_the_sources_have_their_settings(render: Render) -> None:
    role = "sources.serviceAccountAnnotations.eks\\.amazonaws\\.com/role-arn=arn"
    documents = render(
        "sources.enabled=true",
        "watchNamespaces={a,b}",
        "networkPolicy.enabled=true",
        "sources.identityNamespaces={b}",
        role,
    )
    (deployment,) = [each for each in of(documents, "Deployment") if each["metadata"]["name"] == "taskdist-sources"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    given = {each["name"]: each["value"] for each in container["env"] if "value" in each}
    settings = SourcesSettings.from_env({**given, "TASKDIST_NAMESPACE": "taskdist-system"})
    assert (settings.watch_namespaces, settings.lease_name) == (("a", "b"), "taskdist-sources")
    assert settings.identity_namespaces == ("b",)
    accounts = {each["metadata"]["name"]: each["metadata"] for each in of(documents, "ServiceAccount")}
    assert accounts["taskdist-sources"]["annotations"] == {"eks.amazonaws.com/role-arn": "arn"}
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    assert ports == {"metrics": settings.metrics_port, "health": settings.health_port}
    policy = next(each for each in of(documents, "NetworkPolicy") if each["metadata"]["name"] == "taskdist-sources")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()


WEBHOOKS = ("gateway.enabled=true", "gateway.webhooks.enabled=true")


def of_gateway(documents: list[Object]) -> set[tuple[str | None, ...]]:
    """Return the gateway's rights, by namespace."""
    return {
        (each["metadata"].get("namespace"), *rule["resources"], *rule.get("resourceNames", ()), *rule["verbs"])
        for each in documents
        if "-gateway" in each["metadata"]["name"]
        for rule in each.get("rules", ())
    }


@pytest.mark.parametrize("watched", [(), ("watchNamespaces={a,b,c}",)], ids=["all namespaces", "some"])
def test_the_gateway_makes_tasks_and_reads_secrets_only_where_webhooks_are_served(
    render: Render, watched: tuple[str, ...]
) -> None:
    without = of_gateway(render("gateway.enabled=true", *watched))
    assert not {"create"} & {verb for _, resource, *verbs in without for verb in verbs if resource == "tasks"}
    documents = render(*WEBHOOKS, "gateway.webhooks.namespaces={a,b}", *watched)
    assert of_gateway(documents) == without | {
        (where, *each)
        for where in ("a", "b")
        for each in (("tasksources", "list", "watch"), ("tasks", "create"), ("secrets", "get"))
    }
    for binding in (each for each in documents if each["metadata"]["name"] == "taskdist-gateway-webhooks"):
        for subject in binding.get("subjects", ()):
            assert (subject["name"], subject["namespace"]) == ("taskdist-gateway", "taskdist-system")


def test_the_gateway_is_told_whose_webhooks_it_serves(render: Render) -> None:
    documents = render(*WEBHOOKS, "gateway.webhooks.namespaces={a,b}", "watchNamespaces={a,b,c}")
    (deployment,) = [each for each in of(documents, "Deployment") if each["metadata"]["name"] == "taskdist-gateway"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    given = {each["name"]: each["value"] for each in container["env"] if "value" in each}
    assert GatewaySettings.from_env(given).webhook_namespaces == ("a", "b")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ((), "gateway.webhooks.namespaces: name the namespaces"),
        (("gateway.webhooks.namespaces={a,c}", "watchNamespaces={a,b}"), "gateway.webhooks.namespaces: c is not among"),
    ],
    ids=["of no namespaces", "of one that is not watched"],
)
def test_webhooks_are_refused(render: Render, values: tuple[str, ...], says: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        render(*WEBHOOKS, *values)
    assert says in caught.value.stderr


ARCHIVE = ("archive.enabled=true", "archive.dsnSecret.name=tasks-db", "archive.keepMonths=12")


def test_the_archive_is_off_and_needs_a_secret(render: Render) -> None:
    assert not [each for each in render() if each["metadata"]["name"].endswith("-archive")]
    with pytest.raises(subprocess.CalledProcessError) as caught:
        render("archive.enabled=true")
    assert "archive.dsnSecret.name: name a Secret" in caught.value.stderr


@pytest.mark.parametrize("watched", [(), ("watchNamespaces={a,b}",)], ids=["all namespaces", "some"])
def test_the_archive_may_read_tasks_and_write_its_word(render: Render, watched: tuple[str, ...]) -> None:
    documents = render(*ARCHIVE, *watched)
    of_archive = [each for each in documents if "-archive" in each["metadata"]["name"]]
    granted = {
        (each["metadata"].get("namespace"), *rule["resources"], *rule.get("resourceNames", ()), *rule["verbs"])
        for each in of_archive
        for rule in each.get("rules", ())
    }
    word = {
        ("taskdist-system", "configmaps", "create"),
        ("taskdist-system", "configmaps", "taskdist-archive", "get", "patch"),
    }
    scopes: tuple[str | None, ...] = ("a", "b") if watched else (None,)
    assert granted == word | {(scope, "tasks", "list", "watch") for scope in scopes}
    for binding in (each for each in of_archive if "roleRef" in each):
        assert [(each["name"], each["namespace"]) for each in binding["subjects"]] == [
            ("taskdist-archive", "taskdist-system")
        ]


def test_the_archive_has_its_settings(render: Render) -> None:
    documents = render(*ARCHIVE, "watchNamespaces={a,b}", "networkPolicy.enabled=true")
    (deployment,) = [each for each in of(documents, "Deployment") if each["metadata"]["name"] == "taskdist-archive"]
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    named = {each["name"]: each for each in container["env"]}
    assert named["TASKDIST_ARCHIVE_DSN"]["valueFrom"]["secretKeyRef"] == {"name": "tasks-db", "key": "dsn"}
    given = {name: each["value"] for name, each in named.items() if "value" in each}
    env = {**given, "TASKDIST_ARCHIVE_DSN": "postgresql://db/x", "TASKDIST_NAMESPACE": "taskdist-system"}
    settings = ArchiveSettings.from_env(env)
    assert (settings.watch_namespaces, settings.keep_months) == (("a", "b"), 12)
    operator = next(each for each in of(documents, "Deployment") if each["metadata"]["name"] == "taskdist")
    lease = {each["name"]: each.get("value") for each in operator["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert settings.installation == lease["TASKDIST_LEASE"], "the operator looks for its word"
    read = [rule for rule in rules(documents, "Role") if "taskdist-archive" in rule.get("resourceNames", ())]
    assert {"get", "list", "watch"} in [{*rule["verbs"]} for rule in read]
    policy = next(each for each in of(documents, "NetworkPolicy") if each["metadata"]["name"] == "taskdist-archive")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()


MCP = ("mcp.enabled=true", "mcp.hosts={mcp.example.com}", "mcp.origins={https://a.example}", "mcp.tlsSecret=tls")


TRUST = {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["taskdist-ca"], "verbs": ["get"]}


@pytest.mark.parametrize("watched", [(), ("watchNamespaces={a,b}",)], ids=["all namespaces", "some"])
def test_the_mcp_door_is_off_and_may_review_tokens_and_read_whom_to_trust(
    render: Render, watched: tuple[str, ...]
) -> None:
    assert not [each for each in render() if each["metadata"]["name"].endswith("-mcp")]
    of_mcp = [each for each in render(*MCP, *watched) if each["metadata"]["name"].endswith("-mcp")]
    reviews = {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]}
    assert rules(of_mcp, "ClusterRole") == ([reviews] if watched else [reviews, TRUST])
    roles = [(each["metadata"]["namespace"], each["rules"]) for each in of(of_mcp, "Role")]
    assert roles == ([("a", [TRUST]), ("b", [TRUST])] if watched else [])
    for binding in [*of(of_mcp, "ClusterRoleBinding"), *of(of_mcp, "RoleBinding")]:
        subjects = [(each["name"], each["namespace"]) for each in binding["subjects"]]
        assert subjects == [("taskdist-mcp", "taskdist-system")]
    assert len(of(of_mcp, "RoleBinding")) == len(roles)


def test_the_mcp_door_has_its_settings(render: Render) -> None:
    documents = render(*MCP, "watchNamespaces={a,b}", "networkPolicy.enabled=true")
    (deployment,) = [each for each in of(documents, "Deployment") if each["metadata"]["name"] == "taskdist-mcp"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["taskdist", "mcp", "--http"]
    settings = McpSettings.from_env({each["name"]: each["value"] for each in container["env"]})
    assert settings.watch_namespaces == ("a", "b")
    assert {"taskdist-mcp", "taskdist-mcp.taskdist-system.svc", "mcp.example.com"} <= set(settings.hosts)
    assert settings.origins == ("https://a.example",)
    assert (settings.tls_cert, settings.tls_key) == ("/tls/tls.crt", "/tls/tls.key")
    (service,) = [each for each in of(documents, "Service") if each["metadata"]["name"] == "taskdist-mcp"]
    assert [each["port"] for each in service["spec"]["ports"]] == [443, 8080]
    policy = next(each for each in of(documents, "NetworkPolicy") if each["metadata"]["name"] == "taskdist-mcp")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize(("door", "model"), [("gateway", GatewaySettings), ("mcp", McpSettings)])
def test_doors_ask_the_leaders_view_and_may_read_whom_to_trust_there(
    render: Render, door: str, model: type[GatewaySettings | McpSettings]
) -> None:
    settings = (
        f"{door}.enabled=true",
        f"{door}.tlsSecret=tls",
        "networkPolicy.enabled=true",
        "view.port=9447",
        "fullnameOverride=td",
        "networkPolicy.viewFrom[0].podSelector.matchLabels.a=b",
    )
    documents = render(*settings)
    (deployment,) = [each for each in of(documents, "Deployment") if each["metadata"]["name"] == f"td-{door}"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    env = {each["name"]: each.get("value", "") for each in container["env"]}
    assert model.from_env(env).view == "td-view.taskdist-system.svc:9447"
    lease = environment(render("fullnameOverride=td"))["TASKDIST_LEASE"]
    assert env["TASKDIST_OPERATOR_LEASE"] == f"taskdist-system/{lease}"
    (role,) = [each for each in of(documents, "ClusterRole") if each["metadata"]["name"].endswith(f"-{door}")]
    core = [rule for rule in role["rules"] if rule["apiGroups"] == [""]]
    assert core == [TRUST]
    (policy,) = [each for each in of(documents, "NetworkPolicy") if each["metadata"]["name"] == "td"]
    (view,) = [rule for rule in policy["spec"]["ingress"] if rule["ports"] == [{"port": "view"}]]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    peers = [peer["podSelector"]["matchLabels"] for peer in view["from"]]
    assert peers == [{"a": "b"}, labels]
