"""Webhooks on a real API server, with the chart's rights: what becomes a Task, once, and what is refused."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway_process import Gateway
from patience import until
from taskdist.local.rest import MERGE_PATCH, Client

# The first use of helm may build it.
pytestmark = pytest.mark.timeout(1200)

KINDS = "/apis/taskdist.dev/v1alpha1/namespaces/{}"
BATCHED, STRUCTURED = "application/cloudevents-batch+json", "application/cloudevents+json"
EVENT = {"specversion": "1.0", "source": "/shop", "type": "order.placed", "data": {"n": 1}}
PAGE = Path(__file__).parents[3] / "docs" / "webhooks.md"

Object = dict[str, Any]


@dataclass(frozen=True)
class Shop:
    """A namespace whose webhooks are served, and somebody who delivers to it."""

    cluster: Client
    namespace: str
    caller: httpx.Client

    @property
    def path(self) -> str:
        return KINDS.format(self.namespace)

    def secret(self, value: bytes) -> str:
        """Make a Secret; return its name."""
        name = f"s-{secrets.token_hex(4)}"
        data = {"secret": base64.b64encode(value).decode()}
        self.cluster.create(f"/api/v1/namespaces/{self.namespace}/secrets", {"metadata": {"name": name}, "data": data})
        return name

    def hook(self, task: Object | None = None, **webhook: Any) -> Hook:
        """Make a webhook that is signed in the plainest way, and wait until the gateway knows it."""
        key = secrets.token_hex(16).encode()
        name = f"w-{secrets.token_hex(4)}"
        spec = {"format": "JSON", "secretName": self.secret(key), "signature": {"header": "X-Signature"}, **webhook}
        self.source(
            name,
            {
                "webhook": {name: value for name, value in spec.items() if value is not None},
                "task": {"queue": "q", "type": "t", **({"identity": "{$.id}"} if task is None else task)},
            },
        )
        return Hook(self, name, key)

    def source(self, name: str, spec: Object) -> None:
        body = {"apiVersion": "taskdist.dev/v1alpha1", "kind": "TaskSource", "metadata": {"name": name}, "spec": spec}
        self.cluster.create(f"{self.path}/tasksources", body)
        until(lambda: self.caller.post(f"/{name}").status_code != 404, "the gateway knows it")

    def tasks(self, source: str) -> list[Object]:
        found: list[Object] = self.cluster.get(f"{self.path}/tasks", labelSelector=f"taskdist.dev/source={source}")[
            "items"
        ]
        return found


@dataclass(frozen=True)
class Hook:
    """One webhook, and what it is signed with."""

    shop: Shop
    name: str
    key: bytes

    def send(self, body: bytes, **headers: str) -> httpx.Response:
        signed = {"x-signature": hmac.new(self.key, body, hashlib.sha256).hexdigest()}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.shop.caller.post(f"/{self.name}", content=body, headers=signed | named)

    def event(self, value: Any, kind: str = STRUCTURED) -> httpx.Response:
        return self.send(json.dumps(value).encode(), content_type=kind)

    def tasks(self) -> list[Object]:
        return self.shop.tasks(self.name)

    def change(self, spec: Object) -> None:
        path = f"{self.shop.path}/tasksources/{self.name}"
        self.shop.cluster.request("PATCH", path, {"spec": spec}, content_type=MERGE_PATCH)


@pytest.fixture
def shop(gateway: Gateway, cluster: Client, hooked: str) -> Iterator[Shop]:
    url = f"{gateway.url}/v1/namespaces/{hooked}/webhooks"
    with httpx.Client(base_url=url, timeout=60) as caller:
        yield Shop(cluster, hooked, caller)


def reason(answer: httpx.Response) -> tuple[int, str]:
    if answer.is_success:
        return answer.status_code, ""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["reason"]


def test_a_delivery_is_one_task_however_often_and_at_once_it_comes(shop: Shop, gateway: Gateway) -> None:
    hook = shop.hook({"identity": "{$.id}", "payload": {"n": "{$.n}"}, "labels": {"app": "{headers.X-App}"}})
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: hook.send(b'{"id": "a", "n": 7}', x_app="shop"), range(24)))
    assert {each.status_code for each in answers} == {202}
    items = [each.json()["items"][0] for each in answers]
    assert sum(each["created"] for each in items) == 1
    (task,) = hook.tasks()
    assert {each["task"] for each in items} == {task["metadata"]["name"]}
    assert (task["spec"]["payload"], task["metadata"]["labels"]["app"]) == ({"n": 7}, "shop")
    counted = gateway.counts(f'taskdist_gateway_deliveries_total{{namespace="{shop.namespace}"')
    mine = {name: value for name, value in counted.items() if hook.name in name}
    assert sorted(mine.values())[:1] == [1.0]


def test_who_cannot_sign_and_what_is_not_there_get_nothing(shop: Shop, namespace: str) -> None:
    hook = shop.hook()
    assert reason(hook.send(b'{"id": 1}', x_signature="0" * 64)) == (401, "Unsigned")
    assert reason(shop.caller.post(f"/{hook.name}", content=b'{"id": 1}')) == (401, "Unsigned")
    # A source that is sound, in a namespace whose webhooks are not served.
    body = {
        "apiVersion": "taskdist.dev/v1alpha1",
        "kind": "TaskSource",
        "metadata": {"name": hook.name},
        "spec": {
            "webhook": {"format": "CloudEvents", "secretName": "s"},
            "task": {"queue": "q", "type": "t"},
        },
    }
    shop.cluster.create(f"{KINDS.format(namespace)}/tasksources", body)
    elsewhere = f"../../{namespace}/webhooks/{hook.name}"
    unknown = [shop.caller.post(path, content=b"{}") for path in ("/none", elsewhere, "../../none/webhooks/none")]
    assert {reason(each) for each in unknown} == {(404, "NotFound")}
    assert len({each.text for each in unknown}) == 1
    assert hook.tasks() == []


def test_standard_webhooks_are_taken_in_time_and_not_later(shop: Shop) -> None:
    key = b"k" * 24
    name = f"std-{secrets.token_hex(3)}"
    secret = shop.secret(b"whsec_" + base64.b64encode(key) + b"\n")
    shop.source(
        name,
        {
            "webhook": {"format": "JSON", "secretName": secret},
            "task": {"queue": "q", "type": "t", "deadlineSeconds": 60},
        },
    )

    def send(identity: str, ago: float) -> httpx.Response:
        stamp = str(int(time.time() - ago))
        written = base64.b64encode(hmac.digest(key, f"{identity}.{stamp}.{{}}".encode(), "sha256")).decode()
        headers = {"webhook-id": identity, "webhook-timestamp": stamp, "webhook-signature": f"v1,AAAA v1,{written}"}
        return shop.caller.post(f"/{name}", content=b"{}", headers=headers)

    assert [send("a", ago).json()["items"][0]["created"] for ago in (5, 0)] == [True, False]
    assert reason(send("b", 600)) == (401, "Stale")
    (task,) = shop.tasks(name)
    assert task["metadata"]["annotations"]["taskdist.dev/source-identity"] == "a"


def test_cloudevents_of_all_modes_become_tasks(shop: Shop) -> None:
    hook = shop.hook({"type": "{properties.type}"}, format="CloudEvents")
    assert hook.event(EVENT | {"id": "1"}).json()["items"][0]["created"] is True
    binary = {f"ce_{name}": str(value) for name, value in EVENT.items() if name != "data"}
    again = hook.send(b'{"n": 1}', ce_id="1", content_type="application/json", **binary)
    assert (again.status_code, again.json()["items"][0]["created"]) == (202, False)
    answer = hook.event([EVENT | {"id": each} for each in "123"], BATCHED)
    assert [each["created"] for each in answer.json()["items"]] == [False, True, True]
    broken = hook.event([EVENT | {"id": "4"}, EVENT | {"id": "5", "type": "no type"}, EVENT], BATCHED)
    assert broken.status_code == 422, broken.text
    assert [each["field"] for each in broken.json()["errors"]] == ["[1].type", "[2].id"]
    assert {each["spec"]["type"] for each in hook.tasks()} == {"order.placed"}
    assert len(hook.tasks()) == 4


def test_a_source_that_changes_is_another_one_at_once(shop: Shop) -> None:
    hook = shop.hook()
    hook.change({"suspend": True})
    until(lambda: reason(hook.send(b'{"id": 1}')) == (503, "Suspended"), "it is suspended")
    hook.change({"suspend": False, "task": {"identity": "{hash}", "type": "other"}})
    until(lambda: hook.send(b'{"id": 1}').status_code == 202, "it goes on")
    (task,) = hook.tasks()
    assert task["spec"]["type"] == "other"
    hook.change({"webhook": {"secretName": "none"}})
    until(lambda: reason(hook.send(b'{"id": 1}')) == (503, "NotReady"), "it has no Secret")
    shop.cluster.delete(f"{shop.path}/tasksources/{hook.name}")
    until(lambda: reason(hook.send(b'{"id": 1}')) == (404, "NotFound"), "it is gone")
    assert len(hook.tasks()) == 1, "its Tasks stay"


def test_a_queue_that_is_closed_sends_them_away_for_a_while(shop: Shop) -> None:
    queue = f"q-{secrets.token_hex(3)}"
    hook = shop.hook({"identity": "{$.id}", "queue": queue})
    body = {"apiVersion": "taskdist.dev/v1alpha1", "kind": "TaskQueue", "metadata": {"name": queue}}
    shop.cluster.create(f"{shop.path}/taskqueues", body | {"spec": {"pools": ["p"]}})
    status = {"accepting": False, "conditions": [{"type": "Accepting", "status": "False", "message": "It is drained."}]}
    path = f"{shop.path}/taskqueues/{queue}/status"
    shop.cluster.request("PATCH", path, {"status": status}, content_type=MERGE_PATCH)
    number = iter(range(1000))

    def ask() -> httpx.Response | None:
        answer = hook.send(b'{"id": %d}' % next(number))
        return answer if answer.status_code != 202 else None

    full = until(ask, "it is closed")
    assert (reason(full), full.headers["retry-after"]) == ((429, "QueueFull"), "30")
    assert "It is drained" in full.json()["detail"]


def test_a_quota_sends_them_away_and_is_not_talked_about(shop: Shop) -> None:
    hook = shop.hook()
    admission, policy = "/apis/admissionregistration.k8s.io/v1", f"no-{hook.name}"
    shop.cluster.create(
        f"{admission}/validatingadmissionpolicies",
        {
            "metadata": {"name": policy},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {
                    "resourceRules": [
                        {
                            "apiGroups": ["taskdist.dev"],
                            "apiVersions": ["*"],
                            "operations": ["CREATE"],
                            "resources": ["tasks"],
                        }
                    ],
                    "objectSelector": {"matchLabels": {"taskdist.dev/source": hook.name}},
                },
                "validations": [{"expression": "false", "message": "ask the internal team"}],
            },
        },
    )
    shop.cluster.create(
        f"{admission}/validatingadmissionpolicybindings",
        {"metadata": {"name": policy}, "spec": {"policyName": policy, "validationActions": ["Deny"]}},
    )
    number = iter(range(1000))

    def ask() -> httpx.Response | None:
        answer = hook.send(b'{"id": %d}' % next(number))
        return answer if answer.status_code != 202 else None

    try:
        refused = until(ask, "it is refused")
        assert (reason(refused), refused.headers["retry-after"]) == ((503, "Refused"), "30")
        assert "internal" not in refused.text
    finally:
        shop.cluster.delete(f"{admission}/validatingadmissionpolicybindings/{policy}")
        shop.cluster.delete(f"{admission}/validatingadmissionpolicies/{policy}")


def test_what_the_api_server_refuses_of_a_task_is_told_with_the_field(shop: Shop) -> None:
    hook = shop.hook({"identity": "{$.id}", "tenant": "{$.tenant}"})
    answer = hook.send(b'{"id": 1, "tenant": "A b"}')
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "tenant"


def test_the_example_of_the_page_makes_a_task(shop: Shop, tmp_path: Path) -> None:
    text = PAGE.read_text()
    (source,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    spec = yaml.safe_load(source)["spec"]
    name, key = f"page-{secrets.token_hex(3)}", secrets.token_hex(32)
    spec["webhook"]["secretName"] = shop.secret(key.encode())
    shop.source(name, spec)
    (script,) = re.findall(r"```sh\n(URL=.*?)```", text, re.DOTALL)
    rest = "\n".join(line for line in script.splitlines() if not line.startswith(("URL=", "SECRET=")))
    env = os.environ | {"URL": f"{shop.caller.base_url}{name}", "SECRET": key}
    done = subprocess.run(["bash", "-euc", rest], env=env, capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout)["items"][0]["created"] is True, (done.stdout, done.stderr)
    (task,) = shop.tasks(name)
    assert task["spec"]["payload"] == {"name": "Ada"}


NAMES: Callable[[str], str] = "ce_{}".format


def test_no_signed_delivery_is_a_defect(shop: Shop, gateway: Gateway) -> None:
    """Any bytes and headers, signed."""
    hooks = [shop.hook({"identity": "{hash}"}), shop.hook({}, format="CloudEvents")]

    @settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(
        which=st.sampled_from(hooks),
        body=st.binary(max_size=100)
        | st.dictionaries(
            st.sampled_from((*EVENT, "id", "time", "data_base64")) | st.text(max_size=5),
            st.none() | st.integers() | st.text(max_size=8) | st.lists(st.integers(), max_size=3),
            max_size=5,
        ).map(lambda more: json.dumps([EVENT | {"id": "1"}, EVENT | more]).encode()),
        headers=st.dictionaries(
            st.sampled_from(("specversion", "id", "source", "type", "time", "ext")).map(NAMES)
            | st.sampled_from(("content_type", "content_encoding", "x_signature")),
            st.sampled_from((STRUCTURED, BATCHED, "1.0", "", "application/json", "%FF", '"a\\"'))
            | st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=9),
            max_size=5,
        ),
    )
    def send(which: Hook, body: bytes, headers: dict[str, str]) -> None:
        answer = which.send(body, **headers)
        assert answer.status_code in (202, 401, 413, 415, 422), answer.text

    send()
    failed = [
        each
        for each in gateway.counts("taskdist_gateway_requests_total")
        if 'status="500"' in each and "webhooks" in each
    ]
    assert not failed
