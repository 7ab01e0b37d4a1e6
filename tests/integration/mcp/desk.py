"""A desk for the tests of `taskdist mcp`: a namespace, and servers in the names of accounts."""

from __future__ import annotations

import base64
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml
from mcp import StdioServerParameters

from integration.controller.room import Object, Room
from taskdist.local import rest

RBAC = "/apis/rbac.authorization.k8s.io/v1"
# What the page names.
RULES = [
    {"apiGroups": ["taskdist.dev"], "resources": ["tasks"], "verbs": ["get", "list", "watch", "create", "patch"]},
    {"apiGroups": ["taskdist.dev"], "resources": ["taskqueues", "agentpools"], "verbs": ["list"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
]


@dataclass(frozen=True)
class Desk:
    """A namespace with queue `q` and two agents, and how its server is started by those who may use it."""

    room: Room
    directory: Path

    def server(self, account: str = "caller") -> StdioServerParameters:
        """Tell how to start a server in an account's name. Its process number is written to the file `pid`."""
        path = self.kubeconfig(account, self.token(account))
        command = f'echo $$ > "{self.directory}/pid"; exec "{sys.executable}" -m taskdist.cli.main mcp'
        return StdioServerParameters(command="sh", args=["-c", command], env=os.environ | {"KUBECONFIG": str(path)})

    def kubeconfig(self, name: str, token: str) -> Path:
        """Write a kubeconfig that shows this token."""
        given = yaml.safe_load(self.room.stack.plane.kubeconfig.read_text())["clusters"][0]["cluster"]
        authority = base64.b64decode(given["certificate-authority-data"])
        path = self.directory / f"kubeconfig-{name}"
        return rest.write_kubeconfig(path, given["server"], authority, {"token": token}, self.room.namespace)

    def pid(self) -> int:
        """Process number of the server that was started last."""
        return int((self.directory / "pid").read_text())

    def account(self, name: str, rules: list[Object]) -> None:
        """Make a ServiceAccount with these rights."""
        client, base = self.room.client, f"{RBAC}/namespaces/{self.room.namespace}"
        client.create(self.room.path("serviceaccounts"), {"metadata": {"name": name}})
        client.create(f"{base}/roles", {"metadata": {"name": name}, "rules": rules})
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
        subject = {"kind": "ServiceAccount", "name": name, "namespace": self.room.namespace}
        client.create(f"{base}/rolebindings", {"metadata": {"name": name}, "roleRef": role, "subjects": [subject]})

    def token(self, account: str) -> str:
        """Ask for a token of this ServiceAccount."""
        path = f"{self.room.path('serviceaccounts')}/{account}/token"
        made = self.room.client.create(path, {"spec": {"expirationSeconds": 3600}})
        return str(made["status"]["token"])
