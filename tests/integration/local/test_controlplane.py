"""The control plane itself: what it offers, and that nothing of it is left."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from patience import until
from taskdist.kube import ApiError
from taskdist.local import guard
from taskdist.local.controlplane import ControlPlane, ControlPlaneError
from taskdist.local.rest import Client, access_of

OWNER = """
import sys
from pathlib import Path
from taskdist.local.controlplane import ControlPlane
plane = ControlPlane.start(Path(sys.argv[1]))
print("up", flush=True)
sys.stdin.read()
"""

soon = partial(until, timeout=30.0)


def mark_of(directory: Path) -> str:
    (word,) = [word for word in (directory / "state.json").read_text().split('"') if len(word) == 16]
    return word


def of_pod(uid: str) -> list[int]:
    """Living processes whose environment names the pod."""
    return [
        pid for pid in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()) if names(pid, uid)
    ]


def names(pid: int, text: str) -> bool:
    try:
        return text.encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


def test_a_service_account_has_its_own_rights_and_no_others(
    control_plane: ControlPlane, cluster: Client, namespace: str
) -> None:
    client = Client(access_of(control_plane.kubeconfig_for(namespace, "default")))
    path = f"/api/v1/namespaces/{namespace}/pods"
    with pytest.raises(ApiError) as refused:
        client.get(path)
    assert refused.value.status == 403
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    cluster.create(
        f"{rbac}/roles",
        {"metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]},
    )
    cluster.create(
        f"{rbac}/rolebindings",
        {
            "metadata": {"name": "r"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
            "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": namespace}],
        },
    )

    def allowed() -> bool:
        try:
            client.get(path)
        except ApiError:
            return False
        return True

    soon(allowed, "the account may")  # The authorizer sees a new binding through its own watch.


def test_a_certificate_makes_a_user(control_plane: ControlPlane) -> None:
    client = Client(access_of(control_plane.kubeconfig_for_user("alice", ["team-a"])))
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    user = client.create("/apis/authentication.k8s.io/v1/selfsubjectreviews", review)["status"]["userInfo"]
    assert (user["username"], user["groups"]) == ("alice", ["team-a", "system:authenticated"])


def test_files_with_keys_are_their_owners_only(control_plane: ControlPlane) -> None:
    keys = [*control_plane.directory.rglob("*.key"), *control_plane.directory.glob("*.kubeconfig")]
    assert keys
    assert [path for path in keys if path.stat().st_mode & 0o077] == []


def test_attached_is_used_and_left_alone(control_plane: ControlPlane, namespace: str) -> None:
    with ControlPlane.attach(control_plane.kubeconfig) as attached:
        account = Client(access_of(attached.kubeconfig_for(namespace, "default")))
        with pytest.raises(ApiError, match="Forbidden"):
            account.get("/api/v1/nodes")
        with pytest.raises(ControlPlaneError, match="not ours"):
            attached.client_certificate("alice")
    assert not attached.directory.exists()
    assert control_plane.client.get("/version")["major"] == "1"


def test_a_detached_one_is_found_and_stopped_by_another_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "taskdist.local"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    directory = tmp_path / "plane"

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *arguments, "--dir", str(directory)], env=env, capture_output=True, text=True, timeout=120
        )

    up = run("up")
    try:
        assert up.stdout == f"export KUBECONFIG={directory}/admin.kubeconfig\n", up.stderr
        mark = mark_of(directory)
        assert ControlPlane.load(directory).client.get("/api/v1/namespaces/default")
        assert "already" in run("up").stderr
        # A node of the control plane's own, with a pod: guards within guards.
        plane = ControlPlane.load(directory)
        node = plane.start_process("node", [*command, "podrunner", "--kubeconfig", str(plane.kubeconfig)], env)
        container = {"name": "c", "image": "x", "command": ["sh", "-c", "setsid sleep 1234 & exec sleep 1000"]}
        pod = {"metadata": {"name": "p"}, "spec": {"containers": [container]}}
        uid = plane.client.create("/api/v1/namespaces/default/pods", pod)["metadata"]["uid"]
        soon(lambda: len(of_pod(uid)) == 2, "both processes run")
        assert guard.marked(mark), "its processes bear the mark"
    finally:
        assert run("down").returncode == 0
    assert guard.marked(mark) == []
    assert of_pod(uid) == []
    assert node.wait(5) == 0  # Told to stop, not killed: it has tidied up.
    assert "nothing was started" in run("down").stderr
    with pytest.raises(ControlPlaneError, match="no control plane was started"):
        ControlPlane.load(directory)


def test_a_killed_owner_leaves_no_process(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path / "plane")], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"up\n"
        mark = mark_of(tmp_path / "plane")
        assert len(guard.marked(mark)) == 3
        owner.kill()
    soon(lambda: guard.marked(mark) == [], "all of it is gone")


def test_a_part_that_fails_is_named_with_its_log(tmp_path: Path) -> None:
    def binaries(name: str) -> Path:
        path = tmp_path / name
        path.write_text("#!/bin/sh\necho cannot: no such luck\nexit 3\n")
        path.chmod(0o755)
        return path

    with pytest.raises(ControlPlaneError, match=r"(?s)ended with 3.*no such luck"):
        ControlPlane.start(tmp_path / "plane", binaries=binaries)
    assert not (tmp_path / "plane" / "state.json").exists()
