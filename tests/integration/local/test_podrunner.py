"""Pods as processes, on a real API server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from taskdist.common.backoff import Backoff
from taskdist.kube import ApiError
from taskdist.local import guard
from taskdist.local.addresses import Addresses
from taskdist.local.container import Restarts
from taskdist.local.controlplane import ControlPlane
from taskdist.local.node import NodeSettings
from taskdist.local.podrunner import NodeRuns, PodRunner, running
from taskdist.local.rest import MERGE_PATCH, AsyncClient, Client, access_of

AUDIENCE = "taskdist.dev/test"
QUICK = {"initialDelaySeconds": 0, "periodSeconds": 1, "failureThreshold": 1}
Object = dict[str, Any]


@pytest_asyncio.fixture
async def node(control_plane: ControlPlane, tmp_path: Path) -> AsyncIterator[PodRunner]:
    settings = NodeSettings(directory=tmp_path / "node", restarts=Restarts(Backoff(first=0.02, most=0.1)))
    async with running(control_plane.access, settings) as runner:
        yield runner


@pytest_asyncio.fixture
async def client(control_plane: ControlPlane) -> AsyncIterator[AsyncClient]:
    client = await AsyncClient(control_plane.access).open()
    yield client
    await client.close()


class Pods:
    """Creates pods of one namespace and awaits what becomes of them."""

    def __init__(self, client: AsyncClient, namespace: str) -> None:
        self.client = client
        self.namespace = namespace
        self.path = f"/api/v1/namespaces/{namespace}/pods"

    async def create(self, name: str, script: str, container: Object | None = None, **spec: Any) -> Object:
        pod = {
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {
                "terminationGracePeriodSeconds": 5,
                **spec,
                "containers": [{"name": "main", "image": "any", "command": ["sh", "-c", script], **(container or {})}],
            },
        }
        made: Object = await self.client.request("POST", self.path, pod)
        return made

    async def get(self, name: str) -> Object | None:
        try:
            found: Object = await self.client.request("GET", f"{self.path}/{name}")
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        return found

    async def until(self, name: str, condition: Callable[[Any], Any], seconds: float = 20) -> Object:
        pod = None
        try:
            async with asyncio.timeout(seconds):
                while True:
                    pod = await self.get(name)
                    if condition(pod):
                        return pod or {}
                    await asyncio.sleep(0.03)
        except TimeoutError:
            pytest.fail(f"pod {name} is {json.dumps(pod and pod['status'], indent=1)}")

    async def delete(self, name: str, **options: Any) -> None:
        await self.client.request("DELETE", f"{self.path}/{name}", options or None)


@pytest_asyncio.fixture
async def pods(client: AsyncClient, namespace: str) -> Pods:
    return Pods(client, namespace)


def ready(pod: Object | None) -> bool:
    conditions = (pod or {}).get("status", {}).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def gone(pod: Object | None) -> bool:
    return pod is None


def main(pod: Object | None) -> Object:
    statuses: list[Object] = (pod or {}).get("status", {}).get("containerStatuses") or [{}]
    return statuses[0]


async def until(condition: Callable[[], Any], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while True:
            if condition():
                return
            await asyncio.sleep(0.03)


def text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


async def test_a_pod_runs_with_its_environment_and_ends(node: PodRunner, pods: Pods) -> None:
    await pods.client.request(
        "POST", f"/api/v1/namespaces/{pods.namespace}/configmaps", {"metadata": {"name": "c"}, "data": {"k": "v1"}}
    )
    container = {
        "args": ["ignored"],
        "env": [
            {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
            {"name": "BOTH", "value": "$(NAME)-$(KEY)"},
        ],
    }
    await pods.create("env", "echo $NAME $IP $NODE $APP $BOTH", container, restartPolicy="Never")
    pod = await pods.until("env", lambda pod: pod["status"]["phase"] == "Succeeded")
    address = pod["status"]["podIP"]
    assert address.startswith("127.")
    assert text(node.log_path(pods.namespace, "env", "main")).split() == ["env", address, "local", "env", "env-v1"]
    assert main(pod)["state"]["terminated"]["exitCode"] == 0
    await pods.delete("env")
    await pods.until("env", gone)


async def test_the_token_of_a_pod_names_the_pod_to_its_audience_only(node: PodRunner, pods: Pods) -> None:
    volume = {"name": "token", "projected": {"sources": [
        {"serviceAccountToken": {"path": "token", "audience": AUDIENCE, "expirationSeconds": 600}},
        {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
    ]}}  # fmt: skip
    container = {
        "volumeMounts": [{"name": "token", "mountPath": "/var/run/taskdist"}],
        "env": [{"name": "TOKEN_FILE", "value": "/var/run/taskdist/token"}],
    }
    script = "cat $TOKEN_FILE; echo; cat /var/run/taskdist/labels; exec sleep 1000"
    made = await pods.create("token", script, container, volumes=[volume], automountServiceAccountToken=False)
    await pods.until("token", ready)
    log = node.log_path(pods.namespace, "token", "main")
    await until(lambda: 'app="token"' in text(log))
    token = text(log).splitlines()[0]

    async def review(audience: str) -> Object:
        body = {"spec": {"token": token, "audiences": [audience]}}
        answer = await pods.client.request("POST", "/apis/authentication.k8s.io/v1/tokenreviews", body)
        status: Object = answer["status"]
        return status

    status = await review(AUDIENCE)
    assert status["authenticated"] is True
    assert status["audiences"] == [AUDIENCE]
    assert status["user"]["extra"]["authentication.kubernetes.io/pod-name"] == ["token"]
    assert status["user"]["extra"]["authentication.kubernetes.io/pod-uid"] == [made["metadata"]["uid"]]
    assert not (await review("another")).get("authenticated")
    await pods.delete("token", gracePeriodSeconds=0)


async def test_a_config_map_changes_as_a_whole_under_a_running_pod(node: PodRunner, pods: Pods) -> None:
    path = f"/api/v1/namespaces/{pods.namespace}/configmaps"
    volume = {"name": "conf", "configMap": {"name": "later"}}
    container = {"volumeMounts": [{"name": "conf", "mountPath": "/etc/app"}]}
    script = "while :; do cat /etc/app/a /etc/app/b 2>/dev/null; sleep 0.05; done"
    await pods.create("conf", script, container, volumes=[volume])
    waiting = await pods.until("conf", lambda pod: main(pod).get("state", {}).get("waiting", {}).get("message"))
    assert main(waiting)["state"]["waiting"] == {
        "reason": "ContainerCreating",
        "message": "ConfigMap later not found",
    }
    await pods.client.request("POST", path, {"metadata": {"name": "later"}, "data": {"a": "1", "b": "1\n"}})
    await pods.until("conf", ready)
    log = node.log_path(pods.namespace, "conf", "main")
    await until(lambda: "11" in text(log).split())
    patch = {"data": {"a": "2", "b": "2\n"}}
    await pods.client.request("PATCH", f"{path}/later", patch, content_type=MERGE_PATCH)
    await until(lambda: "22" in text(log).split())
    await pods.delete("conf", gracePeriodSeconds=0)


async def test_readiness_follows_its_probe(node: PodRunner, pods: Pods, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    probe = {"exec": {"command": ["test", "-e", str(flag)]}, **QUICK}
    await pods.create("probed", "exec sleep 1000", {"readinessProbe": probe})
    pod = await pods.until("probed", lambda pod: main(pod).get("state", {}).get("running"))
    assert not ready(pod)
    flag.touch()
    await pods.until("probed", ready)
    flag.unlink()
    await pods.until("probed", lambda pod: not ready(pod))
    await pods.delete("probed", gracePeriodSeconds=0)


async def test_each_pod_answers_probes_at_its_own_address(node: PodRunner, pods: Pods) -> None:
    server = f"exec {sys.executable} -m http.server 18080 --bind $IP"
    container = {
        "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "ports": [{"name": "http", "containerPort": 18080}],
        "readinessProbe": {"httpGet": {"path": "/", "port": "http"}, **QUICK},
        "startupProbe": {"tcpSocket": {"port": 18080}, **QUICK, "failureThreshold": 20},
    }
    for name in ("one", "two"):
        await pods.create(name, server, container)
    addresses = {(await pods.until(name, ready))["status"]["podIP"] for name in ("one", "two")}
    assert len(addresses) == 2
    for name in ("one", "two"):
        await pods.delete(name, gracePeriodSeconds=0)


async def test_a_container_that_fails_its_liveness_is_restarted(node: PodRunner, pods: Pods) -> None:
    container = {"livenessProbe": {"exec": {"command": ["false"]}, **QUICK}}
    await pods.create("ill", "exec sleep 1000", container)
    pod = await pods.until("ill", lambda pod: main(pod).get("restartCount", 0) >= 1)
    assert main(pod)["lastState"]["terminated"]["signal"] == signal.SIGTERM
    await pods.delete("ill", gracePeriodSeconds=0)


async def test_restarts_are_counted_by_policy(node: PodRunner, pods: Pods) -> None:
    env = {"env": [{"name": "TASKDIST_TERMINATION_LOG", "value": "/dev/termination-log"}]}
    await pods.create("always", "echo last words > $TASKDIST_TERMINATION_LOG; exit 3", env)
    pod = await pods.until("always", lambda pod: main(pod).get("restartCount", 0) >= 2)
    ended = main(pod)["lastState"]["terminated"]
    assert (ended["exitCode"], ended["message"]) == (3, "last words\n")
    await pods.create("never", "exit 3", restartPolicy="Never")
    pod = await pods.until("never", lambda pod: pod["status"]["phase"] == "Failed")
    assert main(pod)["restartCount"] == 0
    init = {"name": "first", "image": "any", "command": ["sh", "-c", "echo made > /shared/file"]}
    mount = {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}
    await pods.create(
        "init",
        "cat /shared/file",
        mount,
        volumes=[{"name": "shared", "emptyDir": {}}],
        initContainers=[init | mount],
        restartPolicy="OnFailure",
    )
    await pods.until("init", lambda pod: pod["status"]["phase"] == "Succeeded")
    assert text(node.log_path(pods.namespace, "init", "main")) == "made\n"
    await pods.delete("always", gracePeriodSeconds=0)


async def test_deletion_gives_the_grace_and_tells_the_end_before_the_object_goes(node: PodRunner, pods: Pods) -> None:
    polite = "trap 'echo bye; sleep 0.3; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    await pods.create("polite", polite)
    log = node.log_path(pods.namespace, "polite", "main")
    await until(lambda: "up" in text(log))
    await pods.until("polite", ready)
    version = (await pods.get("polite") or {})["metadata"]["resourceVersion"]
    await pods.delete("polite")
    last: Object = {}
    async for event in pods.client.watch(pods.path, version, seconds=20):
        if event["type"] == "DELETED":
            break
        last = event["object"]
    assert last["status"]["phase"] == "Succeeded"
    assert main(last)["state"]["terminated"]["exitCode"] == 0
    assert text(log).split() == ["up", "bye"]


async def test_a_container_that_ignores_sigterm_is_killed_with_all_its_children(node: PodRunner, pods: Pods) -> None:
    # The second sleep sits in a session of its own: only its mark leads to it.
    script = "trap '' TERM; setsid sleep 1234 & sleep 1235 & echo up; while :; do wait; sleep 0.1; done"
    made = await pods.create("stubborn", script, terminationGracePeriodSeconds=1)
    await until(lambda: "up" in text(node.log_path(pods.namespace, "stubborn", "main")))
    uid = made["metadata"]["uid"]
    assert len(of_pod(uid)) >= 3
    await pods.delete("stubborn")
    await pods.until("stubborn", gone)
    assert of_pod(uid) == []


def of_pod(uid: str) -> list[int]:
    """Living processes whose environment names the pod."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if f"/{uid}/".encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


async def test_what_the_node_cannot_give_is_said(node: PodRunner, pods: Pods) -> None:
    await pods.create("claim", "true", volumes=[{"name": "d", "persistentVolumeClaim": {"claimName": "x"}}])
    pod = await pods.until("claim", lambda pod: main(pod).get("state", {}).get("waiting", {}).get("message"))
    assert "persistentVolumeClaim" in main(pod)["state"]["waiting"]["message"]
    await pods.create("bare", "", {"command": None})
    pod = await pods.until("bare", lambda pod: main(pod).get("state", {}).get("waiting", {}).get("message"))
    assert "give the command" in main(pod)["state"]["waiting"]["message"]
    await pods.create("choosy", "true", nodeSelector={"disk": "fast"})
    pod = await pods.until("choosy", lambda pod: pod["status"].get("conditions"))
    assert "disk=fast" in pod["status"]["conditions"][0]["message"]
    for name in ("claim", "bare", "choosy"):
        await pods.delete(name)
        await pods.until(name, gone)


async def test_a_full_node_binds_the_next_when_one_has_ended(
    control_plane: ControlPlane, pods: Pods, tmp_path: Path
) -> None:
    async with running(control_plane.access, NodeSettings(name="small", directory=tmp_path, pods=1)):
        for name in ("first", "second"):
            await pods.create(name, "exec sleep 1000")
        await pods.until("first", ready)
        second = await pods.until("second", lambda pod: pod["status"].get("conditions"))
        assert "has its 1 pods already" in second["status"]["conditions"][0]["message"]
        await pods.delete("first")
        await pods.until("second", ready)
        await pods.delete("second", gracePeriodSeconds=0)


async def test_a_pod_with_a_mounted_account_reaches_the_api_as_that_account(
    node: PodRunner, pods: Pods, kubeconfig: Path
) -> None:
    await pods.create("account", "exec sleep 1000")
    await pods.until("account", ready)
    (pid, *_) = of_pod((await pods.get("account") or {})["metadata"]["uid"])
    variables = environment_of(pid)
    access = await asyncio.to_thread(whoami, Path(variables["KUBECONFIG"]))
    assert access == f"system:serviceaccount:{pods.namespace}:default"
    await pods.delete("account", gracePeriodSeconds=0)


def environment_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(line.split("=", 1) for line in lines if "=" in line)


def whoami(kubeconfig: Path) -> str:
    review = Client(access_of(kubeconfig)).create(
        "/apis/authentication.k8s.io/v1/selfsubjectreviews",
        {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"},
    )
    name: str = review["status"]["userInfo"]["username"]
    return name


async def test_a_killed_runner_leaves_no_process_and_its_successor_restarts_the_pods(
    pods: Pods, kubeconfig: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "taskdist.local", "podrunner", "--kubeconfig", str(kubeconfig), "--dir"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen([*command, str(tmp_path / "node")], env=env, stdout=subprocess.DEVNULL)

    made = await pods.create("survivor", "setsid sleep 1234 & exec sleep 1000")
    uid = made["metadata"]["uid"]
    runner = start()
    try:
        await pods.until("survivor", ready)
        await until(lambda: len(of_pod(uid)) == 2)
        runner.kill()
        runner.wait()
        await until(lambda: of_pod(uid) == [])
        assert ready(await pods.get("survivor"))  # Nobody is there to say otherwise.
        runner = start()
        pod = await pods.until("survivor", lambda pod: ready(pod) and main(pod)["restartCount"] == 1)
        assert main(pod)["lastState"]["terminated"]["reason"] == "ContainerStatusUnknown"
        runner.terminate()
        assert await asyncio.to_thread(runner.wait, 20) == 0
        assert of_pod(uid) == []
    finally:
        runner.kill()
        runner.wait()
        await pods.delete("survivor", gracePeriodSeconds=0)


@pytest.mark.usefixtures("node")
async def test_a_node_runs_once(control_plane: ControlPlane) -> None:
    with pytest.raises(NodeRuns, match=r"node local of https://.* runs on this machine already: stop that one"):
        async with running(control_plane.access):
            pytest.fail("two nodes of one name run each pod twice")


async def test_a_node_started_again_gives_its_pods_their_addresses_and_ends_those_that_were_to_go(
    control_plane: ControlPlane, pods: Pods, tmp_path: Path
) -> None:
    settings = NodeSettings(name="again", directory=tmp_path, restarts=Restarts(Backoff(first=0.02, most=0.1)))
    where = {"nodeSelector": {"kubernetes.io/hostname": "again"}}
    stubborn = "trap '' TERM; while :; do sleep 0.05; done"
    async with running(control_plane.access, settings):
        for name in ("stays", "goes", "over"):
            await pods.create(name, stubborn if name == "goes" else "exec sleep 1000", **where)
        before = {name: (await pods.until(name, ready))["status"]["podIP"] for name in ("stays", "goes", "over")}
        assert len(set(before.values())) == 3
        await pods.delete("goes")
    # As if the node had been killed between a pod's last status and its deletion.
    await pods.client.request(
        "PATCH", f"{pods.path}/over/status", {"status": {"phase": "Failed"}}, content_type=MERGE_PATCH
    )
    async with running(control_plane.access, settings):
        stays = await pods.until("stays", lambda pod: ready(pod) and main(pod)["restartCount"] == 1)
        assert stays["status"]["podIPs"] == [{"ip": before["stays"]}]
        await pods.until("goes", gone)
        await pods.delete("over")
        await pods.until("over", gone)
    # The range is another node's by now: the pods get new addresses, and are none the worse.
    taken = Addresses(before.values())
    assert ip_address(before["stays"]) in taken.range
    try:
        async with running(control_plane.access, settings):
            moved = await pods.until("stays", lambda pod: ready(pod) and main(pod)["restartCount"] == 2)
            assert [each["ip"] for each in moved["status"]["podIPs"]] == [moved["status"]["podIP"]]
            assert ip_address(moved["status"]["podIP"]) not in taken.range
            await pods.delete("stays")
            await pods.until("stays", gone)
    finally:
        taken.close()


def test_the_guard_kills_nothing_but_its_own() -> None:
    other = subprocess.Popen(["sleep", "1000"], env={guard.MARK: "abcdef"})
    try:
        assert other.pid in guard.marked("abcdef")
        assert guard.kill_marked("abc") == []
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
