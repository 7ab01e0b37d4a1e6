"""The rights of a door's process: those that the chart gives it, and no others."""

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml

from taskdist.local.binaries import find
from taskdist.local.stack import OPERATOR_NAMESPACE, Stack

ROOT = Path(__file__).parents[1]


def grant(stack: Stack, door: str, *options: str) -> None:
    """Give the ServiceAccount of `taskdist <door>` its rights."""
    command = [str(find("helm")), "template", "taskdist", str(ROOT / "charts" / "taskdist"), "-n", OPERATOR_NAMESPACE]
    command += ["--kube-version", "1.34.0", "-s", f"templates/{door}.yaml"]
    for option in (f"{door}.enabled=true", *options):
        command += ["--set", option]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    wanted = [each for each in yaml.safe_load_all(done.stdout) if each and each["kind"] != "Deployment"]
    assert len(wanted) >= 5
    stack.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(wanted))


def may_read(stack: Stack, door: str, namespace: str, secret: str) -> None:
    """Let it read this one Secret, as the docs show."""
    account = {"kind": "ServiceAccount", "name": f"taskdist-{door}", "namespace": OPERATOR_NAMESPACE}
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    rules = [{"apiGroups": [""], "resources": ["secrets"], "resourceNames": [secret], "verbs": ["get"]}]
    stack.plane.client.create(f"{rbac}/roles", {"metadata": {"name": secret}, "rules": rules})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": secret}
    stack.plane.client.create(
        f"{rbac}/rolebindings", {"metadata": {"name": secret}, "roleRef": role, "subjects": [account]}
    )
