"""Everything that a Task needs to run, on this machine or on a cluster that is already there.

Owns bringing the parts up in order and taking all of them down: the control plane, what the manifests install, the
operator as a process under the ServiceAccount that the manifests give it, and a node for the agents' pods.

On a cluster that is already there it takes away only what it brought: an operator that runs there is used and stays,
and a namespace that stands there is never taken for its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from taskdist.local.binaries import BinaryNotFound, find
from taskdist.local.controlplane import ControlPlane, ControlPlaneError, free_ports

OPERATOR_NAMESPACE = "taskdist-system"
SERVICE_ACCOUNT = "taskdist"
RELEASE = "taskdist"
GATEWAY_ACCOUNT = f"{RELEASE}-gateway"
DEFINITIONS = (
    "tasks.taskdist.dev",
    "taskqueues.taskdist.dev",
    "agentpools.taskdist.dev",
    "tasksources.taskdist.dev",
    "tasksinks.taskdist.dev",
)
# What the chart and the plain manifests put on the operator's Deployment, whatever its name and namespace.
OPERATOR_LABELS = "app.kubernetes.io/part-of=taskdist,app.kubernetes.io/component=operator"
OPERATOR_PODS = "app.kubernetes.io/component=operator"
READY_SECONDS = 60.0
ROLLOUT_SECONDS = 180
STOP_SECONDS = 10.0
# Agents get their grace to finish; then the namespace controller has its turn.
NAMESPACE_SECONDS = 120

Object = dict[str, Any]
Say = Callable[[str], None]


class StackError(Exception):
    """A part did not come up; the message says which, why, and what to do."""


@dataclass(frozen=True)
class OperatorProcess:
    """A process of the operator, and where it answers."""

    process: subprocess.Popen[bytes]
    metrics_port: int
    health_port: int
    log: Path
    view_port: int = 0

    def stop(self) -> None:
        """Ask it to end and wait: then it gives its leadership back. Safe to repeat."""
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)

    def unready(self, timeout: float = 5.0) -> str:
        """Say what keeps it from its work, as `/readyz` does; empty where nothing does."""
        return _unready(self.health_port, timeout)


@dataclass(frozen=True)
class Gateway:
    """Where a process of the HTTP door answers, which ends with the control plane."""

    url: str
    health_port: int

    def unready(self, timeout: float = 5.0) -> str:
        """Say what keeps it from its work, as `/readyz` does; empty where nothing does."""
        return _unready(self.health_port, timeout)


def _unready(health_port: int, timeout: float) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{health_port}/readyz", timeout=timeout):
            return ""
    except urllib.error.HTTPError as error:
        with error:  # it holds the connection
            return str(error.read().decode())
    except OSError as error:
        return f"it does not answer: {error}"


@dataclass(frozen=True)
class Brought:
    """One thing that was added to a cluster which is not ours: the program and its arguments that take it away."""

    program: str
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join((self.program, *self.arguments))


class Installation(NamedTuple):
    """The place where an operator is installed."""

    namespace: str
    release: str


class Stack:
    """A place for demo and tests: `up`, use it, `down`."""

    def __init__(
        self,
        root: Path,
        directory: Path | None,
        image: str,
        plane: ControlPlane | None = None,
        operator_env: Mapping[str, str] | None = None,
        stays: bool = True,
        link_port: int = 0,
    ) -> None:
        self._root = root
        self._directory = directory
        self._image = image
        self._plane = plane
        self._owns_plane = plane is None
        self._stays = stays
        self._extra_env = dict(operator_env or {})
        self._operator_env: dict[str, str] = {}
        self._kubectl: Path | None = None
        self._operator_at = Installation(OPERATOR_NAMESPACE, RELEASE)
        # Each undoes one thing that `up` did to a cluster that stays: what it is, and the command for it by hand.
        self._brought: list[Brought] = []
        self._node: subprocess.Popen[bytes] | None = None
        self.operators: list[OperatorProcess] = []
        self.link_port = link_port

    @classmethod
    def local(cls, directory: Path, root: Path, *, stays: bool = True, link_port: int = 0) -> Stack:
        """A control plane, an operator and a node on this machine, all under `directory`.

        `stays`: they outlive this process until `down`; otherwise they end with it in any case.
        """
        return cls(root, directory, "", stays=stays, link_port=link_port)

    @classmethod
    def on(cls, plane: ControlPlane, root: Path, operator_env: Mapping[str, str], link_port: int = 0) -> Stack:
        """An operator and a node on a control plane that runs already and stays. Settings of the operator may be added
        or changed by `operator_env`."""
        return cls(root, plane.directory, "", plane, operator_env, link_port=link_port)

    @classmethod
    def current(cls, root: Path, image: str) -> Stack:
        """The cluster that kubectl speaks to now. The operator and the agents run there, from `image`."""
        return cls(root, None, image)

    @property
    def shares_disk(self) -> bool:
        """Whether agents see this machine's files."""
        return self._directory is not None

    @property
    def borrowed(self) -> bool:
        """Whether its control plane was there before it, and stays."""
        return not self._owns_plane

    @property
    def kubeconfig(self) -> Path | None:
        """The administrator's. None: whatever kubectl itself finds, which may be several files."""
        return self._plane.kubeconfig if self._plane is not None else None

    @property
    def kubectl_command(self) -> list[str]:
        """What every call of kubectl begins with."""
        return [str(self.kubectl_binary), *self._access()]

    def _access(self) -> list[str]:
        return ["--kubeconfig", str(self.kubeconfig)] if self.kubeconfig is not None else []

    @property
    def kubectl_binary(self) -> Path:
        if self._kubectl is None:
            self._kubectl = find("kubectl")
        return self._kubectl

    @property
    def directory(self) -> Path:
        """Where everything is kept on this machine."""
        if self._directory is None:
            raise StackError("the parts run in the cluster, and keep nothing on this machine")
        return self._directory

    @property
    def logs(self) -> str:
        if self._directory:
            return str(self._directory / "log")
        return f"kubectl -n {self._operator_at.namespace} logs -l {OPERATOR_PODS} --prefix"

    @property
    def plane(self) -> ControlPlane:
        """The control plane on this machine, once it is up."""
        assert self._plane is not None
        return self._plane

    def ended(self) -> str:
        """Which of the processes that were started here has ended, with the end of its log; empty if none has."""
        for name, process in self.plane.processes.items():
            if process.poll() is not None:
                lines = self.plane.log(name).read_text(errors="replace").splitlines()
                return f"{name} has ended ({process.returncode}):\n" + "\n".join(lines[-15:])
        return ""

    def diagnosis(self, *namespaces: str) -> str:
        """What a cluster that stays can tell of a failure, as `down` is about to take it away; otherwise nothing."""
        if self._directory is not None:
            return ""
        told = []
        for namespace in (self._operator_at.namespace, *namespaces):
            for what in (["get", "pods", "-o", "wide"], ["get", "events", "--field-selector=type=Warning"]):
                with contextlib.suppress(StackError):
                    told.append(f"$ kubectl -n {namespace} {' '.join(what)}\n" + self.kubectl("-n", namespace, *what))
        with contextlib.suppress(StackError):
            told.append(f"$ {self.logs}\n" + self.kubectl(*self.logs.split()[1:], "--tail=20"))
        return "\n".join(told)

    @property
    def removal(self) -> list[str]:
        """The commands that take away by hand what was brought to a cluster that stays, in their order."""
        return [str(each) for each in reversed(self._brought)]

    # -- up and down -----------------------------------------------------------------------------------------------

    def up(self, say: Say) -> None:
        """Bring everything up. Raises StackError."""
        try:
            if self._directory is None:
                self._up_current(say)
            else:
                self._up_local(self._directory, say)
        except (BinaryNotFound, ControlPlaneError) as error:
            raise StackError(str(error)) from error

    def down(self) -> None:
        """End and remove what `up` brought. Safe to repeat. Raises StackError if something could not be removed."""
        # Before its control plane goes: then it gives its leadership back instead of failing.
        for operator in self.operators:
            operator.stop()
        self.operators.clear()
        if self._node is not None:
            self._node.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._node.wait(STOP_SECONDS)
            self._node = None
        if self._plane is not None and self._owns_plane:
            self._plane.stop()
            self._plane = None
        failed = []
        while self._brought:
            each = self._brought.pop()
            try:
                self._run(each.program, *each.arguments)
            except StackError as error:
                failed.append(f"{error}\n  by hand: {each}")
        if failed:
            raise StackError("not everything could be removed:\n" + "\n".join(failed))

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl as the administrator; raises StackError with what it said."""
        return self._run("kubectl", *arguments, stdin=stdin)

    def make_namespace(self, name: str) -> None:
        """Make a namespace that `down` removes. Raises StackError where a cluster that stays has one of that name."""
        if self._directory is None:
            if self.kubectl("get", "namespace", name, "--ignore-not-found", "-o", "name"):
                raise StackError(
                    f"the cluster has a namespace {name} already, and it is not touched. If it is left from an earlier "
                    f"run: kubectl delete namespace {name}"
                )
            self._bring_namespace(name)
        manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(manifest))

    def demo_objects(self, pool: str, queue: str, agent: Path) -> list[Object]:
        """Return the queue and the elastic pool whose agents run the sample agent."""
        if self.shares_disk:
            container: Object = {
                "image": "taskdist:local",
                "command": [str(Path(sys.executable).parent / "taskdist"), "agent", f"{agent}:agent"],
            }
        else:
            container = {
                "image": self._image,
                # As the chart has it for the operator: an image that was loaded into the nodes is in no registry.
                "imagePullPolicy": "IfNotPresent",
                "args": ["agent", f"/samples/agents/{agent.name}:agent"],
                # Without a request a busy node gives it next to nothing, and it takes minutes to start.
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
            }
        container |= {
            "name": "agent",
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "runAsNonRoot": True,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
        }
        spec = {"containers": [container], "terminationGracePeriodSeconds": 15}
        return [
            {
                "apiVersion": "taskdist.dev/v1alpha1",
                "kind": "TaskQueue",
                "metadata": {"name": queue},
                "spec": {"pools": [pool]},
            },
            {
                "apiVersion": "taskdist.dev/v1alpha1",
                "kind": "AgentPool",
                "metadata": {"name": pool},
                "spec": {
                    "slots": 2,
                    "scaling": {"minReplicas": 0, "maxReplicas": 4, "scaleDownDelaySeconds": 3},
                    "template": {"spec": spec},
                },
            },
        ]

    # -- parts -----------------------------------------------------------------------------------------------------

    def _up_local(self, directory: Path, say: Say) -> None:
        if self._plane is None:
            say("starting etcd and kube-apiserver on loopback")
            self._plane = ControlPlane.start(directory, detached=self._stays)
        plane = self._plane
        self._apply_manifests(say)
        kubeconfig = plane.kubeconfig_for(OPERATOR_NAMESPACE, SERVICE_ACCOUNT)
        if not self.link_port:
            (self.link_port,) = free_ports(1)
        say(f"starting the operator as ServiceAccount {OPERATOR_NAMESPACE}/{SERVICE_ACCOUNT}")
        self._operator_env = {
            **_plain_environment(),
            "KUBECONFIG": str(kubeconfig),
            "TASKDIST_NAMESPACE": OPERATOR_NAMESPACE,
            "TASKDIST_HOST": "127.0.0.1",
            "TASKDIST_LINK_PORT": str(self.link_port),
            "TASKDIST_LINK_ADDRESS": f"127.0.0.1:{self.link_port}",
            **self._extra_env,
        }
        self.start_operator()
        say("starting a node that runs pods as processes")
        self._node = plane.start_process(
            "podrunner",
            [
                *(sys.executable, "-m", "taskdist.local", "podrunner"),
                *("--kubeconfig", str(plane.kubeconfig), "--dir", str(directory / "pods")),
            ],
            _plain_environment(),
        )

    def start_operator(self, name: str = "operator", patience: float = READY_SECONDS) -> OperatorProcess:
        """Start one more process of the operator and wait until it is ready. `name` is its log's and its replica's.

        `patience`: how long it may take, in seconds. An API server that has just begun reads its whole store first.

        All replicas share the link's port: the one that leads listens there.
        """
        assert self._plane is not None
        metrics_port, health_port, view_port = free_ports(3)
        env = {
            **self._operator_env,
            "TASKDIST_POD_NAME": name,
            "TASKDIST_METRICS_PORT": str(metrics_port),
            "TASKDIST_HEALTH_PORT": str(health_port),
            "TASKDIST_VIEW_PORT": str(view_port),
            "TASKDIST_VIEW_ADDRESS": f"localhost:{view_port}",
        }
        command = [str(Path(sys.executable).parent / "taskdist"), "operator"]
        process = self._plane.start_process(name, command, env)
        operator = OperatorProcess(process, metrics_port, health_port, self._plane.log(name), view_port)
        self.operators.append(operator)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and process.poll() is None:
            if not operator.unready(timeout=1):
                return operator
            time.sleep(0.1)
        log = operator.log.read_text(errors="replace").splitlines()
        raise StackError("the operator is not ready:\n" + "\n".join(log[-15:]))

    def start_gateway(self) -> Gateway:
        """Start the HTTP door as the account that the chart has for it. It is ready a moment later."""
        manifests = yaml.safe_load_all((self._root / "manifests" / "gateway.yaml").read_text())
        rbac = "/apis/rbac.authorization.k8s.io/v1"
        kinds = {
            "ServiceAccount": f"/api/v1/namespaces/{OPERATOR_NAMESPACE}/serviceaccounts",
            "ClusterRole": f"{rbac}/clusterroles",
            "ClusterRoleBinding": f"{rbac}/clusterrolebindings",
        }
        # Not by kubectl, which takes half a second to begin: the job should not take longer for it.
        for each in manifests:
            if each and each["kind"] in kinds:
                self.plane.client.apply(f"{kinds[each['kind']]}/{each['metadata']['name']}", each)
        port, metrics_port, health_port = free_ports(3)
        env = {
            **_plain_environment(),
            "KUBECONFIG": str(self.plane.kubeconfig_for(OPERATOR_NAMESPACE, GATEWAY_ACCOUNT)),
            "TASKDIST_HOST": "127.0.0.1",
            "TASKDIST_GATEWAY_PORT": str(port),
            "TASKDIST_METRICS_PORT": str(metrics_port),
            "TASKDIST_HEALTH_PORT": str(health_port),
            "TASKDIST_GATEWAY_VIEW": f"localhost:{self.operators[0].view_port}",
        }
        command = [str(Path(sys.executable).parent / "taskdist"), "gateway"]
        self.plane.start_process("gateway", command, env)
        return Gateway(f"http://127.0.0.1:{port}", health_port)

    def _apply_manifests(self, say: Say) -> None:
        say("installing CRDs and RBAC: kubectl apply -f manifests/install.yaml")
        # The operator is a process of its own here, so that it is reached without a cluster's DNS and Services.
        manifests = yaml.safe_load_all((self._root / "manifests" / "install.yaml").read_text())
        wanted = [m for m in manifests if m and m["kind"] not in ("Deployment", "PodDisruptionBudget", "Service")]
        self.kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all(wanted))
        crds = [f"crd/{name}" for name in DEFINITIONS]
        self.kubectl("wait", "--for=condition=Established", "--timeout=60s", *crds)

    def _up_current(self, say: Say) -> None:
        try:
            context = self.kubectl("config", "current-context").strip()
        except StackError:
            context = "the pod's own"  # In a pod kubectl needs no configuration.
        found = json.loads(self.kubectl("get", "deployments", "-A", "-l", OPERATOR_LABELS, "-o", "json"))["items"]
        if found:
            # Two operators must not serve one namespace, and whoever installed this one did not mean it for us.
            metadata = found[0]["metadata"]
            self._operator_at = Installation(metadata["namespace"], metadata["name"])
            say(f"the cluster ({context}) has an operator, {'/'.join(self._operator_at)}: it is used, and stays")
        else:
            self._install_chart(context, say)
        namespace, name = self._operator_at
        self.kubectl(
            *("rollout", "status", f"deployment/{name}", "-n", namespace, f"--timeout={ROLLOUT_SECONDS}s"),
        )

    def _install_chart(self, context: str, say: Say) -> None:
        say(f"helm install into the current cluster ({context}), with image {self._image}")
        repository, _, tag = self._image.rpartition(":")
        if not self.kubectl("get", "namespace", OPERATOR_NAMESPACE, "--ignore-not-found", "-o", "name"):
            self._bring_namespace(OPERATOR_NAMESPACE)
        where = ("--namespace", OPERATOR_NAMESPACE)
        # Before it is there: an install that fails half-way leaves a release too. The chart keeps its definitions, and
        # with them whatever others made of these kinds.
        self._bring("helm", "uninstall", RELEASE, *where, "--ignore-not-found", "--wait")
        self._run(
            *("helm", "install", RELEASE, str(self._root / "charts" / "taskdist"), *where, "--create-namespace"),
            # Not --set: a tag may look like a number.
            *("--set-string", f"image.repository={repository},image.tag={tag}"),
        )

    def _bring_namespace(self, name: str) -> None:
        self._bring("kubectl", "delete", "namespace", name, "--ignore-not-found", f"--timeout={NAMESPACE_SECONDS}s")

    def _bring(self, program: str, *arguments: str) -> None:
        self._brought.append(Brought(program, arguments))

    def _run(self, program: str, *arguments: str, stdin: str | None = None) -> str:
        command = self.kubectl_command if program == "kubectl" else [str(find(program)), *self._access()]
        done = subprocess.run([*command, *arguments], input=stdin, capture_output=True, text=True, check=False)
        if done.returncode:
            raise StackError(f"{program} {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout


def _plain_environment() -> dict[str, str]:
    # PYTHONPATH names the package with its core compiled, where that is to be run: see the Makefile.
    names = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "XDG_CACHE_HOME", "PYTHONPATH")
    return {name: os.environ[name] for name in names if name in os.environ}
