"""On a cluster that is already there: what is brought, what is used as it stands, and what is taken away again.

kubectl and helm are stand-ins that write down how they were called, and answer as a table says.
"""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path

import pytest

from taskdist.local.stack import OPERATOR_LABELS, OPERATOR_NAMESPACE, Stack, StackError

ROOT = Path(__file__).parents[3]
IMAGE = "registry.example:5000/team/taskdist:1"
DEPLOYMENTS = f"get deployments -A -l {OPERATOR_LABELS}"
NONE = json.dumps({"items": []})
ONE = json.dumps({"items": [{"metadata": {"namespace": "tasks", "name": "distributor"}}]})
FAILS = None


class Cluster:
    """Answers by the beginning of the arguments; nothing, successfully, where the table has none."""

    def __init__(self, folder: Path, answers: Mapping[str, str | None]) -> None:
        self._log = folder / "calls"
        table = {"version --client": "v1.34.0", "version --short": "v3.19.0", DEPLOYMENTS: NONE} | dict(answers)
        does = {
            beginning: "echo refused >&2; exit 1" if said is FAILS else f"echo {shlex.quote(said)}"
            for beginning, said in table.items()
        }
        cases = "".join(f"{shlex.quote(beginning)}*) {action};;\n" for beginning, action in does.items())
        for program in ("kubectl", "helm"):
            script = folder / program
            script.write_text(f'#!/bin/sh\necho "{program} $*" >> {self._log}\ncase "$*" in\n{cases}esac\n')
            script.chmod(0o755)

    def calls(self, *beginnings: str) -> list[str]:
        """Those that change something, or that begin as asked."""
        wanted = beginnings or ("kubectl apply", "kubectl delete", "helm install", "helm upgrade", "helm uninstall")
        return [call for call in self._log.read_text().splitlines() if call.startswith(wanted)]


@pytest.fixture(name="cluster")
def _cluster(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    return Cluster(tmp_path, getattr(request, "param", {}))


def answering(answers: Mapping[str, str | None]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("cluster", [answers], indirect=True)


def bring_up(namespace: str = "demo") -> Stack:
    stack = Stack.current(ROOT, IMAGE)
    stack.up(lambda _: None)
    stack.make_namespace(namespace)
    return stack


def words(calls: list[str]) -> list[str]:
    """The first words of each: what was done to what."""
    return [" ".join(call.split()[:4]) for call in calls]


def test_what_was_brought_is_taken_away_last_first(cluster: Cluster) -> None:
    stack = bring_up()
    removal = stack.removal
    stack.down()
    assert words(cluster.calls()) == [
        f"helm install taskdist {ROOT}/charts/taskdist",
        "kubectl apply -f -",
        "kubectl delete namespace demo",
        "helm uninstall taskdist --namespace",
        f"kubectl delete namespace {OPERATOR_NAMESPACE}",
    ]
    assert removal == cluster.calls()[-3:]
    stack.down()
    assert len(cluster.calls()) == 5


@answering({DEPLOYMENTS: ONE})
def test_an_operator_that_is_there_is_used_and_stays(cluster: Cluster) -> None:
    stack = bring_up()
    assert cluster.calls("kubectl rollout")[0].startswith("kubectl rollout status deployment/distributor -n tasks")
    assert stack.logs.startswith("kubectl -n tasks logs ")
    stack.down()
    assert words(cluster.calls()) == ["kubectl apply -f -", "kubectl delete namespace demo"]


@answering({f"get namespace {OPERATOR_NAMESPACE}": f"namespace/{OPERATOR_NAMESPACE}"})
def test_a_namespace_of_the_operator_that_stood_there_stays(cluster: Cluster) -> None:
    bring_up().down()
    assert words(cluster.calls())[2:] == ["kubectl delete namespace demo", "helm uninstall taskdist --namespace"]


@answering({"get namespace demo": "namespace/demo"})
def test_somebodys_namespace_is_neither_used_nor_removed(cluster: Cluster) -> None:
    stack = Stack.current(ROOT, IMAGE)
    stack.up(lambda _: None)
    with pytest.raises(StackError, match="has a namespace demo already"):
        stack.make_namespace("demo")
    stack.down()
    assert cluster.calls()
    assert not [call for call in cluster.calls() if "demo" in call.split()]


@answering({"install": FAILS})
def test_an_install_that_failed_half_way_is_removed(cluster: Cluster) -> None:
    stack = Stack.current(ROOT, IMAGE)
    with pytest.raises(StackError, match=r"helm install .*refused"):
        stack.up(lambda _: None)
    stack.down()
    assert words(cluster.calls())[1:] == [
        "helm uninstall taskdist --namespace",
        f"kubectl delete namespace {OPERATOR_NAMESPACE}",
    ]


@answering({"delete namespace demo": FAILS})
def test_what_cannot_be_removed_is_told_and_the_rest_is_removed(cluster: Cluster) -> None:
    stack = bring_up()
    with pytest.raises(StackError, match="refused\n  by hand: kubectl delete namespace demo"):
        stack.down()
    assert words(cluster.calls())[-2:] == [
        "helm uninstall taskdist --namespace",
        f"kubectl delete namespace {OPERATOR_NAMESPACE}",
    ]


@answering({DEPLOYMENTS: FAILS, "delete": FAILS, "uninstall": FAILS})
def test_a_cluster_that_does_not_answer_leaves_nothing_to_remove(cluster: Cluster) -> None:
    stack = Stack.current(ROOT, IMAGE)
    with pytest.raises(StackError, match="refused"):
        stack.up(lambda _: None)
    stack.down()
    assert not cluster.calls()


def test_a_tag_that_looks_like_a_number_stays_a_word(cluster: Cluster) -> None:
    bring_up()
    (install,) = cluster.calls("helm install")
    assert "--set-string image.repository=registry.example:5000/team/taskdist,image.tag=1" in install


def test_several_kubeconfigs_are_left_to_kubectl(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/one:/two")
    assert bring_up().kubeconfig is None
    assert cluster.calls("kubectl", "helm")
    assert not [call for call in cluster.calls("kubectl", "helm") if "--kubeconfig" in call]


def test_agents_run_an_image_that_is_in_no_registry() -> None:
    stack = Stack.current(ROOT, "taskdist:latest")
    _, pool = stack.demo_objects("analysis", "analysis", Path("manifests/samples/agents/analyse.py"))
    (container,) = pool["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "taskdist:latest"
    assert container["imagePullPolicy"] == "IfNotPresent"
    assert container["resources"]["requests"]["cpu"]
    assert container["args"] == ["agent", "/samples/agents/analyse.py:agent"]
