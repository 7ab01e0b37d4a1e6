"""TaskSinks at the API server: what it refuses, with field and fix, and what it makes of what is left out."""

from __future__ import annotations

from typing import Any

import pytest

from taskdist.kube import ApiError
from taskdist.local.rest import Client

pytestmark = pytest.mark.usefixtures("crds")

Object = dict[str, Any]
HTTP = {"url": "https://orders.example.com/hooks"}
RABBIT = {"host": "rabbit", "exchange": "ends", "secretName": "login"}
KAFKA = {"bootstrap": ["kafka:9093"], "topic": "ends"}
SQS = {"queueUrl": "https://sqs.eu-central-1.amazonaws.com/123456789012/ends.fifo", "region": "eu-central-1"}


def create(cluster: Client, namespace: str, spec: Object, name: str = "one") -> Object:
    body = {"apiVersion": "taskdist.dev/v1alpha1", "kind": "TaskSink", "metadata": {"name": name}, "spec": spec}
    path = f"/apis/taskdist.dev/v1alpha1/namespaces/{namespace}/tasksinks"
    created: Object = cluster.request("POST", path, body, query={"fieldValidation": "Strict"})
    return created


def http(**fields: Any) -> Object:
    return {"http": {**HTTP, **fields}}


BAD: dict[str, tuple[Object, tuple[str, ...]]] = {
    "no target": ({}, ("spec names no target", "set spec.http")),
    "two targets": ({**http(), "rabbitmq": RABBIT}, ("more than one", "spec.rabbitmq")),
    "a host with a scheme": ({"rabbitmq": {**RABBIT, "host": "amqp://a"}}, ("spec.rabbitmq.host", "should match")),
    "no exchange": ({"rabbitmq": {**RABBIT, "exchange": ""}}, ("spec.rabbitmq.exchange", "at least 1 chars")),
    "no login": ({"rabbitmq": {"host": "r", "exchange": "e"}}, ("spec.rabbitmq.secretName: Required",)),
    "a broker without a port": ({"kafka": {**KAFKA, "bootstrap": ["kafka"]}}, ("spec.kafka.bootstrap[0]", "match")),
    "a password from nowhere": ({"kafka": {**KAFKA, "sasl": "PLAIN"}}, ("spec.kafka.secretName", "or leave sasl out")),
    "a topic with spaces": ({"kafka": {**KAFKA, "topic": "a b"}}, ("spec.kafka.topic", "should match")),
    "a queue without its account": ({"sqs": {**SQS, "queueUrl": "https://sqs"}}, ("spec.sqs.queueUrl", "should match")),
    "no region": ({"sqs": {"queueUrl": SQS["queueUrl"]}}, ("spec.sqs.region: Required",)),
    "another region than the queue's": ({"sqs": {**SQS, "region": "us-east-1"}}, ("spec.sqs.region", "write that one")),
    "an endpoint that is no URL": ({"sqs": {**SQS, "endpoint": "sqs:9324"}}, ("spec.sqs.endpoint", "should match")),
    "a URL of a file": (http(url="file:///etc/passwd"), ("spec.http.url", "should match")),
    "a login in the URL": (http(url="https://a:b@c/"), ("spec.http.url", "should match")),
    "a header with a line end": (http(headers={"X-A": "b\r\nHost: c"}), ("spec.http.headers", "should match")),
    "more than a minute": (http(timeoutSeconds=61), ("spec.http.timeoutSeconds", "less than or equal to 60")),
    "braces without a path": ({**http(), "key": "{$..a}"}, ("spec.key", "without a path")),
    "waits above their bound": ({**http(), "retry": {"initialSeconds": 9, "maxSeconds": 8}}, ("raise maxSeconds",)),
    "a wait above the default bound": ({**http(), "retry": {"initialSeconds": 301}}, ("raise maxSeconds",)),
    "a bound below the default wait": ({**http(), "retry": {"maxSeconds": 0.5}}, ("raise maxSeconds",)),
    "a phase that is no end": ({**http(), "selector": {"phases": ["Pending"]}}, ("spec.selector.phases", "Cancelled")),
    "labels without values": (
        {**http(), "selector": {"labels": {"matchExpressions": [{"key": "a", "operator": "In"}]}}},
        ("spec.selector.labels.matchExpressions[0].values",),
    ),
    "a hold for months": ({**http(), "holdSeconds": 2_592_001}, ("spec.holdSeconds",)),
}


@pytest.mark.parametrize("case", BAD)
def test_what_can_never_work_is_refused_with_field_and_fix(case: str, cluster: Client, namespace: str) -> None:
    spec, says = BAD[case]
    with pytest.raises(ApiError) as refusal:
        create(cluster, namespace, spec)
    assert refusal.value.status == 422
    for words in says:
        assert words in str(refusal.value)


def test_what_is_left_out_has_its_default(cluster: Client, namespace: str) -> None:
    made = create(cluster, namespace, http())
    assert made["spec"] == {
        "suspend": False,
        "selector": {},
        "maxResultBytes": 65_536,
        "inFlight": 16,
        "retry": {"initialSeconds": 1, "maxSeconds": 300, "maxAttempts": 12, "giveUpSeconds": 86_400},
        "holdSeconds": 0,
        "http": {**HTTP, "timeoutSeconds": 10},
    }
    rabbitmq = create(cluster, namespace, {"rabbitmq": RABBIT}, "rabbitmq")["spec"]["rabbitmq"]
    assert rabbitmq == {**RABBIT, "virtualHost": "/", "tls": True}
    assert create(cluster, namespace, {"kafka": KAFKA}, "kafka")["spec"]["kafka"] == {**KAFKA, "tls": True}
    assert create(cluster, namespace, {"sqs": SQS}, "sqs")["spec"]["sqs"] == SQS


def test_a_sink_with_everything_is_kept_as_written(cluster: Client, namespace: str) -> None:
    spec = {
        "suspend": True,
        "selector": {
            "queues": ["a", "b"],
            "types": ["t"],
            "phases": ["Succeeded", "DeadLettered"],
            "labels": {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "DoesNotExist"}]},
        },
        "key": "{$.data.tenant}/{$.data.labels['example.com/a']?none}",
        "maxResultBytes": 0,
        "inFlight": 256,
        "retry": {"initialSeconds": 0.1, "maxSeconds": 0.1, "maxAttempts": 1, "giveUpSeconds": 1},
        "holdSeconds": 2_592_000,
        "http": {**HTTP, "secretName": "a.b", "headers": {"X-A": "b c"}, "timeoutSeconds": 60},
    }
    assert create(cluster, namespace, spec)["spec"] == spec
