"""The chart's policies on a real API server: the door of a full queue, and who may use which level and tenant."""

import json
import secrets
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from patience import until
from taskdist.kube import ApiError
from taskdist.local.binaries import find
from taskdist.local.controlplane import ControlPlane
from taskdist.local.rest import MERGE_PATCH, Client, access_of

# The first use of helm may build it.
pytestmark = [pytest.mark.timeout(1200), pytest.mark.usefixtures("crds")]

ADMISSION = "/apis/admissionregistration.k8s.io/v1"
PATHS = {
    "ValidatingAdmissionPolicy": f"{ADMISSION}/validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": f"{ADMISSION}/validatingadmissionpolicybindings",
}
RBAC = "/apis/rbac.authorization.k8s.io/v1"
CLOSED = "takes no new Tasks"
USE = 'that needs the verb "use"'
GUARDED = "policies.priorities.levels={Emergency,Critical}"

Object = dict[str, Any]

soon = partial(until, timeout=30.0)

# What is guarded: the field, its value, the resource to be granted and its name.
GUARDS: dict[str, tuple[Object, str, str]] = {
    "a level": ({"priority": "Emergency"}, "priorities", "emergency"),
    "another level of the list": ({"priority": "Critical"}, "priorities", "critical"),
    "a tenant": ({"tenant": "somebody-else"}, "tenants", "somebody-else"),
}


@pytest.fixture(scope="module", name="where")
def policed(render: Any, cluster: Client, crds: list[str]) -> Iterator[str]:
    """A namespace in which all three policies are in force."""
    name = f"policed-{secrets.token_hex(4)}"
    cluster.create("/api/v1/namespaces", {"metadata": {"name": name}})
    settings = [f"policies.{each}.enabled=true" for each in ("priorities", "tenants")]
    documents = render(*settings, GUARDED, f"watchNamespaces={{{name}}}", release=name)
    made = []
    for document in documents:
        if document["kind"] in PATHS:
            path = f"{PATHS[document['kind']]}/{document['metadata']['name']}"
            cluster.apply(path, document)
            made.append(path)
    assert len(made) == 6
    cluster.create(f"/apis/taskdist.dev/v1alpha1/namespaces/{name}/taskqueues", queue("probe"))
    cluster.request(
        "PATCH",
        f"/apis/taskdist.dev/v1alpha1/namespaces/{name}/taskqueues/probe/status",
        {"status": {"accepting": False}},
        content_type=MERGE_PATCH,
    )
    try:
        yield name
    finally:
        for path in reversed(made):
            cluster.delete(path)
        cluster.delete(f"/api/v1/namespaces/{name}")


def queue(name: str) -> Object:
    return {
        "apiVersion": "taskdist.dev/v1alpha1",
        "kind": "TaskQueue",
        "metadata": {"name": name},
        "spec": {"pools": ["p"]},
    }


class Door:
    """Tasks of one namespace, as one user makes them."""

    def __init__(self, client: Client, namespace: str) -> None:
        self.client = client
        self.base = f"/apis/taskdist.dev/v1alpha1/namespaces/{namespace}"

    def submit(self, name: str, **spec: Any) -> None:
        body = {
            "apiVersion": "taskdist.dev/v1alpha1",
            "kind": "Task",
            "metadata": {"name": name},
            "spec": {"queue": "q", "type": "t", **spec},
        }
        self.client.create(f"{self.base}/tasks", body)

    def lets_pass(self, **spec: Any) -> bool:
        return not refusal(lambda: self.submit(name(), **spec))

    def refuses(self, words: str, **spec: Any) -> bool:
        return words in refusal(lambda: self.submit(name(), **spec))

    def change(self, name: str, **spec: Any) -> None:
        self.client.request("PATCH", f"{self.base}/tasks/{name}", {"spec": spec}, content_type=MERGE_PATCH)

    def say(self, queue: str, **status: Any) -> None:
        path = f"{self.base}/taskqueues/{queue}/status"
        self.client.request("PATCH", path, {"status": status}, content_type=MERGE_PATCH)


def refusal(act: Callable[[], object]) -> str:
    """What the API server says to it; empty if it lets it pass."""
    try:
        act()
    except ApiError as error:
        return str(error)
    return ""


def name() -> str:
    return f"t-{secrets.token_hex(4)}"


@pytest.fixture(scope="module")
def admin(cluster: Client, control_plane: ControlPlane, where: str) -> Door:
    """An administrator, once each policy is in force: it takes each of them a moment of its own."""
    door = Door(cluster, where)
    # The probes: a queue that was closed before, and somebody who was granted nothing.
    soon(partial(door.refuses, CLOSED, queue="probe"), "queues are guarded")
    nobody = somebody(cluster, control_plane, where)
    for what, (spec, _, _) in GUARDS.items():
        soon(partial(nobody.refuses, USE, **spec), f"{what} is guarded")
    return door


# -- the door of a queue -------------------------------------------------------------------------------------------


def test_a_closed_queue_refuses_with_its_name_its_depth_and_what_to_do_and_others_do_not(admin: Door) -> None:
    for each in ("full", "beside"):
        admin.client.create(f"{admin.base}/taskqueues", queue(each))
    words = "spec.overflow.highWater is 120; it opens again at 50 waiting."
    condition = {"type": "Accepting", "status": "False", "reason": "QueueFull", "message": words}
    admin.say("full", accepting=False, waiting=123, conditions=[condition])
    soon(lambda: admin.refuses(CLOSED, queue="full"), "the door is closed")
    with pytest.raises(ApiError) as refused:
        admin.submit(name(), queue="full")
    assert refused.value.status == 403
    assert f"TaskQueue full takes no new Tasks now; 123 wait in it. {words}" in str(refused.value)
    admin.submit(name(), queue="beside")
    admin.submit(name(), queue="that-is-not-there")
    admin.say("full", accepting=True)
    soon(lambda: admin.lets_pass(queue="full"), "the door is open")


def test_tasks_that_are_there_may_change_while_their_queue_is_closed(admin: Door) -> None:
    admin.client.create(f"{admin.base}/taskqueues", queue("closing"))
    admin.submit("inside", queue="closing")
    admin.say("closing", accepting=False)
    soon(lambda: admin.refuses(CLOSED, queue="closing"), "the door is closed")
    admin.change("inside", suspend=True)


# -- levels and tenants --------------------------------------------------------------------------------------------


@pytest.fixture
def user(cluster: Client, control_plane: ControlPlane, where: str, admin: Door) -> Door:
    return somebody(cluster, control_plane, where)


def somebody(cluster: Client, control_plane: ControlPlane, where: str) -> Door:
    """Somebody who may handle Tasks in the namespace, and nothing else."""
    account = f"user-{secrets.token_hex(4)}"
    cluster.create(f"/api/v1/namespaces/{where}/serviceaccounts", {"metadata": {"name": account}})
    grant(cluster, where, account, ["tasks"], ["create", "get", "patch"])
    door = Door(Client(access_of(control_plane.kubeconfig_for(where, account))), where)
    soon(door.lets_pass, "the account may create Tasks")
    return door


def grant(
    cluster: Client, where: str, account: str, resources: list[str], verbs: list[str], names: list[str] | None = None
) -> None:
    role = f"role-{secrets.token_hex(4)}"
    rule: Object = {"apiGroups": ["taskdist.dev"], "resources": resources, "verbs": verbs}
    if names is not None:
        rule["resourceNames"] = names
    cluster.create(f"{RBAC}/namespaces/{where}/roles", {"metadata": {"name": role}, "rules": [rule]})
    cluster.create(
        f"{RBAC}/namespaces/{where}/rolebindings",
        {
            "metadata": {"name": role},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": where}],
        },
    )


def account_of(door: Door) -> str:
    """Whom the API server takes this user for."""
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    answer = door.client.create("/apis/authentication.k8s.io/v1/selfsubjectreviews", review)
    return str(answer["status"]["userInfo"]["username"]).rpartition(":")[2]


@pytest.mark.parametrize(("spec", "resource", "granted"), GUARDS.values(), ids=GUARDS)
def test_what_is_guarded_takes_the_verb_use(
    spec: Object, resource: str, granted: str, user: Door, cluster: Client, where: str
) -> None:
    account = account_of(user)
    with pytest.raises(ApiError) as refused:
        user.submit(name(), **spec)
    assert refused.value.status == 403
    needs = f'{USE} on {resource}.taskdist.dev "{granted}"'
    assert f'user "system:serviceaccount:{where}:{account}" may not' in str(refused.value)
    assert f"in namespace {where}: {needs}" in str(refused.value)
    grant(cluster, where, account, [resource], ["use"], [granted])
    soon(lambda: user.lets_pass(**spec), "the grant is known")
    # And nothing beyond what was granted.
    for other in ({"priority": "Emergency"}, {"priority": "Critical"}, {"tenant": "a-third"}):
        assert user.lets_pass(**other) is (other == spec)


def test_what_somebody_may_can_be_tried_as_the_documentation_says(
    user: Door, cluster: Client, kubeconfig: Path, where: str
) -> None:
    account = account_of(user)
    task = {
        "apiVersion": "taskdist.dev/v1alpha1",
        "kind": "Task",
        "metadata": {"name": name()},
        "spec": {"queue": "q", "type": "t", "priority": "Emergency"},
    }
    command: list[str | Path] = [find("kubectl"), "--kubeconfig", kubeconfig, "-n", where]
    command += ["create", "--dry-run=server", "-f", "-", "--as", f"system:serviceaccount:{where}:{account}"]

    def said() -> str:
        done = subprocess.run(command, input=json.dumps(task), check=False, capture_output=True, text=True, timeout=30)
        return done.stdout + done.stderr

    assert 'that needs the verb "use" on priorities.taskdist.dev "emergency"' in said()
    grant(cluster, where, account, ["priorities"], ["use"], ["emergency"])
    soon(lambda: "created (server dry run)" in said(), "the grant is known")


def test_a_level_may_not_be_reached_by_a_change_either(user: Door, cluster: Client, where: str) -> None:
    mine = name()
    user.submit(mine, priority="Low")
    user.change(mine, priority="High")
    assert 'that needs the verb "use" on priorities.taskdist.dev "emergency"' in refusal(
        lambda: user.change(mine, priority="Emergency")
    )
    grant(cluster, where, account_of(user), ["priorities"], ["use"], ["emergency"])
    soon(lambda: not refusal(lambda: user.change(mine, priority="Emergency")), "the grant is known")


def test_who_only_touches_what_another_was_allowed_is_not_asked(user: Door, admin: Door) -> None:
    theirs = name()
    admin.submit(theirs, priority="Emergency", tenant="somebody-else")
    user.change(theirs, suspend=True)
    user.change(theirs, priority="Normal")
    assert "emergency" in refusal(lambda: user.change(theirs, priority="Emergency"))


def test_the_namespace_as_tenant_and_common_levels_are_free(user: Door, where: str) -> None:
    user.submit(name(), tenant=where, priority="High")
    user.submit(name())


def test_other_namespaces_are_not_asked(cluster: Client, namespace: str, where: str, admin: Door) -> None:
    elsewhere = Door(cluster, namespace)
    cluster.create(f"{elsewhere.base}/taskqueues", queue("q"))
    elsewhere.say("q", accepting=False)
    # Once what was said later has arrived here, what was said there has too.
    admin.client.create(f"{admin.base}/taskqueues", queue("later"))
    admin.say("later", accepting=False)
    soon(lambda: admin.refuses(CLOSED, queue="later"), "the door is closed")
    # Another installation of this control plane may watch all namespaces; this one does not.
    assert not elsewhere.refuses(where)
