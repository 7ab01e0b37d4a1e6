"""One door at work in the demo: the HTTP door, and a caller who has a token and speaks no Kubernetes.

The caller is a ServiceAccount of the demo's namespace that may handle Tasks there. Its Task is sent while the job runs,
and is one of the job's.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from taskdist.local.stack import Gateway, Stack, StackError

CALLER = "caller"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
READY_SECONDS = 60.0
# How long the request stays for the Task's end: the gateway takes no longer one.
WAIT_SECONDS = 300

Object = dict[str, Any]


class Door:
    """Sends one Task through the door, beside the job. Raises StackError."""

    def __init__(self, stack: Stack, namespace: str) -> None:
        self._stack = stack
        self._namespace = namespace
        self._answer: Future[Object] | None = None
        self.url = ""

    def open(self, task: Mapping[str, Any]) -> None:
        """Start the gateway, and send the Task once it is ready. Returns at once."""
        gateway = self._stack.start_gateway()
        client, namespace = self._stack.plane.client, self._namespace
        accounts, rbac = f"/api/v1/namespaces/{namespace}/serviceaccounts", f"{RBAC}/namespaces/{namespace}"
        client.create(accounts, {"metadata": {"name": CALLER}})
        rule = {"apiGroups": ["taskdist.dev"], "resources": ["tasks"], "verbs": ["create", "get", "watch"]}
        client.create(f"{rbac}/roles", {"metadata": {"name": CALLER}, "rules": [rule]})
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": CALLER}
        subject = {"kind": "ServiceAccount", "name": CALLER, "namespace": namespace}
        bound = {"metadata": {"name": CALLER}, "roleRef": reference, "subjects": [subject]}
        client.create(f"{rbac}/rolebindings", bound)
        made = client.create(f"{accounts}/{CALLER}/token", {"spec": {"expirationSeconds": 3600}})
        token = str(made["status"]["token"])
        self.url = f"{gateway.url}/v1/namespaces/{self._namespace}/tasks"
        pool = ThreadPoolExecutor(1, thread_name_prefix="door")
        self._answer = pool.submit(self._send, gateway, token, task)
        pool.shutdown(wait=False)

    def check(self) -> None:
        """Raises StackError if the Task was refused, so that nobody waits for it."""
        if self._answer is not None and self._answer.done():
            self._answer.result()

    def answer(self) -> Object:
        """Return the door's answer, which comes once the Task has settled."""
        assert self._answer is not None, "it was opened"
        return self._answer.result(READY_SECONDS)

    def _send(self, gateway: Gateway, token: str, task: Mapping[str, Any]) -> Object:
        deadline = time.monotonic() + READY_SECONDS
        while (why := gateway.unready(timeout=2)) and time.monotonic() < deadline:
            time.sleep(0.1)
        if why:
            raise StackError(f"the gateway is not ready: {why}")
        request = urllib.request.Request(
            f"{self.url}?wait={WAIT_SECONDS}",
            json.dumps(task).encode(),
            {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=WAIT_SECONDS + 10) as answer:
                told: Object = json.loads(answer.read())
                return told
        except urllib.error.HTTPError as error:
            with error:  # it holds the connection
                raise StackError(f"the gateway refused the Task: {error.read().decode()}") from error
        except OSError as error:
            raise StackError(f"the gateway did not answer: {error}") from error
