"""The chart on a real API server: what the operator's account may do and may not, and who else may do what."""

import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from patience import until
from taskdist.kube import ApiError
from taskdist.local.rest import Client

# The first use of helm may build it.
pytestmark = [pytest.mark.timeout(1200), pytest.mark.usefixtures("crds")]

CHART = Path(__file__).parents[3] / "charts" / "taskdist"
RELEASE = "charttest"
NAMESPACE = "taskdist-charttest"
soon = partial(until, timeout=20.0)

Object = dict[str, Any]


@pytest.fixture(scope="module", name="notes")
def installed(helm: Path, kubeconfig: Path, cluster: Client, crds: list[str]) -> Iterator[str]:
    """The chart as a release, without its definitions: these stand already. What helm said."""
    cluster.apply(
        f"/api/v1/namespaces/{NAMESPACE}",
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
        },
    )

    def run(*arguments: str) -> str:
        command: list[str | Path] = [helm, *arguments, "--kubeconfig", kubeconfig, "--namespace", NAMESPACE]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout

    settings = "crds.install=false,flowSchema.enabled=true,networkPolicy.enabled=true"
    said = run("install", RELEASE, str(CHART), "--set", settings)
    try:
        yield said
    finally:
        run("uninstall", RELEASE)
        cluster.delete(f"/api/v1/namespaces/{NAMESPACE}")


def test_notes_name_commands_for_what_was_installed(notes: str) -> None:
    assert f"kubectl -n {NAMESPACE} rollout status deployment/{RELEASE}-taskdist" in notes
    assert "kubectl apply -n NAMESPACE -f manifests/samples/" in notes


def allowed(
    cluster: Client,
    user: str,
    verb: str,
    resource: str,
    *,
    group: str = "",
    namespace: str = "",
    name: str = "",
    groups: tuple[str, ...] = (),
) -> bool:
    resource, _, subresource = resource.partition("/")
    attributes = {
        "verb": verb,
        "group": group,
        "resource": resource,
        "subresource": subresource,
        "namespace": namespace,
        "name": name,
    }
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user, "groups": list(groups), "resourceAttributes": attributes},
    }
    answer = cluster.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    return bool(answer["status"]["allowed"])


OPERATOR = f"system:serviceaccount:{NAMESPACE}:{RELEASE}-taskdist"
KINDS = "taskdist.dev"
ELSEWHERE = "elsewhere"

# Verb, resource, API group, namespace, name.
MAY = [
    ("watch", "tasks", KINDS, "", ""),
    ("list", "taskqueues", KINDS, "", ""),
    ("watch", "agentpools", KINDS, "", ""),
    ("watch", "tasksources", KINDS, "", ""),
    ("watch", "tasksinks", KINDS, "", ""),
    ("patch", "tasks/status", KINDS, ELSEWHERE, ""),
    ("delete", "tasks", KINDS, ELSEWHERE, ""),
    ("patch", "agentpools/status", KINDS, ELSEWHERE, ""),
    ("patch", "taskqueues/status", KINDS, ELSEWHERE, ""),
    ("create", "pods", "", ELSEWHERE, ""),
    ("delete", "pods", "", ELSEWHERE, ""),
    ("patch", "pods", "", ELSEWHERE, ""),
    ("create", "configmaps", "", ELSEWHERE, ""),
    ("patch", "configmaps", "", ELSEWHERE, "taskdist-ca"),
    ("list", "configmaps", "", "", "taskdist-ca"),
    ("watch", "configmaps", "", ELSEWHERE, "taskdist-ca"),
    ("create", "events", "events.k8s.io", ELSEWHERE, ""),
    ("create", "tokenreviews", "authentication.k8s.io", "", ""),
    ("create", "leases", "coordination.k8s.io", NAMESPACE, ""),
    ("update", "leases", "coordination.k8s.io", NAMESPACE, f"{RELEASE}-taskdist"),
    ("create", "secrets", "", NAMESPACE, ""),
    ("patch", "secrets", "", NAMESPACE, f"{RELEASE}-taskdist-ca"),
]
MAY_NOT = [
    ("patch", "tasks", KINDS, ELSEWHERE, ""),
    ("create", "tasks", KINDS, ELSEWHERE, ""),
    ("deletecollection", "tasks", KINDS, ELSEWHERE, ""),
    ("delete", "taskqueues", KINDS, ELSEWHERE, ""),
    ("patch", "agentpools", KINDS, ELSEWHERE, ""),
    ("update", "pods", "", ELSEWHERE, ""),
    ("create", "pods/exec", "", ELSEWHERE, ""),
    ("get", "configmaps", "", ELSEWHERE, "other"),
    ("list", "configmaps", "", ELSEWHERE, ""),
    ("get", "secrets", "", ELSEWHERE, "any"),
    ("list", "secrets", "", NAMESPACE, ""),
    ("get", "secrets", "", NAMESPACE, "other"),
    ("update", "leases", "coordination.k8s.io", NAMESPACE, "other"),
    ("update", "leases", "coordination.k8s.io", "kube-system", f"{RELEASE}-taskdist"),
    ("create", "serviceaccounts/token", "", ELSEWHERE, ""),
    ("patch", "tasksources/status", KINDS, ELSEWHERE, ""),
    ("patch", "tasksinks/status", KINDS, ELSEWHERE, ""),
    ("list", "nodes", "", "", ""),
    ("list", "customresourcedefinitions", "apiextensions.k8s.io", "", ""),
]


@pytest.mark.parametrize(
    ("verb", "resource", "group", "namespace", "name", "expected"),
    [(*each, True) for each in MAY] + [(*each, False) for each in MAY_NOT],
)
@pytest.mark.usefixtures("notes")
def test_what_the_operator_may_do(
    verb: str, resource: str, group: str, namespace: str, name: str, expected: bool, cluster: Client
) -> None:
    assert allowed(cluster, OPERATOR, verb, resource, group=group, namespace=namespace, name=name) is expected


# Role, verb, resource, whether its holder may.
USERS = [
    ("view", "list", "tasks", True),
    ("view", "create", "tasks", False),
    ("edit", "create", "tasks", True),
    ("edit", "delete", "tasks", True),
    ("edit", "get", "agentpools", True),
    ("edit", "create", "agentpools", False),
    ("edit", "patch", "taskqueues", False),
    ("edit", "patch", "tasks/status", False),
    ("admin", "create", "tasks", True),
    ("admin", "create", "agentpools", True),
    ("admin", "patch", "agentpools/scale", True),
    ("view", "list", "tasksources", True),
    ("edit", "create", "tasksources", False),
    ("admin", "create", "tasksources", True),
    ("view", "list", "tasksinks", True),
    ("edit", "create", "tasksinks", False),
    ("admin", "create", "tasksinks", True),
    ("admin", "patch", "tasks/status", False),
]


@pytest.mark.parametrize(("role", "verb", "resource", "expected"), USERS)
@pytest.mark.usefixtures("notes")
def test_what_users_may_do(
    role: str, verb: str, resource: str, expected: bool, cluster: Client, namespace: str
) -> None:
    cluster.create(
        f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings",
        {
            "metadata": {"name": "user"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "someone"}],
        },
    )
    # Aggregation and the authorizer's view of the binding take a moment; a refusal is believed only once it works.
    for probe in ("tasks", "taskqueues", "agentpools", "tasksources", "tasksinks"):
        soon(partial(allowed, cluster, "someone", "get", probe, group=KINDS, namespace=namespace), f"get {probe}")
    if expected:
        soon(
            partial(allowed, cluster, "someone", verb, resource, group=KINDS, namespace=namespace), f"{verb} {resource}"
        )
    else:
        assert not allowed(cluster, "someone", verb, resource, group=KINDS, namespace=namespace)


@pytest.mark.usefixtures("notes")
def test_the_operators_pod_meets_the_restricted_standard(cluster: Client) -> None:
    deployment = cluster.get(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{RELEASE}-taskdist")
    template = deployment["spec"]["template"]
    pod: Object = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe"}, "spec": template["spec"]}
    where = f"/api/v1/namespaces/{NAMESPACE}/pods"
    cluster.request("POST", where, pod, query={"dryRun": "All"})
    # The namespace does refuse what does not meet it.
    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    with pytest.raises(ApiError, match="violates PodSecurity"):
        cluster.request("POST", where, pod, query={"dryRun": "All"})


@pytest.mark.usefixtures("notes")
def test_a_namespace_that_is_missing_is_told_before_anything_changes(
    helm: Path, kubeconfig: Path, cluster: Client, namespace: str
) -> None:
    def run(verb: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command: list[str | Path] = [helm, verb, RELEASE, *arguments, "--kubeconfig", kubeconfig]
        return subprocess.run(
            [*command, "--namespace", NAMESPACE], check=False, capture_output=True, text=True, timeout=120
        )

    def serve(*namespaces: str) -> "subprocess.CompletedProcess[str]":
        listed = f"watchNamespaces={{{','.join(namespaces)}}}"
        return run("upgrade", str(CHART), "--reset-then-reuse-values", "--set", listed)

    roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
    before = cluster.get(f"{roles}/{NAMESPACE}:{RELEASE}-taskdist")["rules"]
    refused = serve(namespace, "nosuch")
    assert refused.returncode != 0
    assert "namespace nosuch does not exist. Nothing was changed." in refused.stderr
    assert "kubectl create namespace nosuch" in refused.stderr
    assert cluster.get(f"{roles}/{NAMESPACE}:{RELEASE}-taskdist")["rules"] == before
    assert allowed(cluster, OPERATOR, "list", "tasks", group=KINDS)
    try:
        done = serve(namespace)
        assert done.returncode == 0, done.stderr
        assert allowed(cluster, OPERATOR, "list", "tasks", group=KINDS, namespace=namespace)
        # What was set before stands: with the defaults there would be none.
        assert cluster.get(
            "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas", labelSelector=f"app.kubernetes.io/instance={RELEASE}"
        )["items"]
    finally:
        run("rollback", "1")
