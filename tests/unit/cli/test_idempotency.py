"""`submit --idempotency-key`: one Task per key, whoever submits it and how often."""

from __future__ import annotations

import json

import pytest

from memory_cluster import FAILED_STATUS, SUCCEEDED, MemoryCluster, call
from taskdist.cli.run import FAILED, OK, USAGE
from taskdist.client.submission import keyed_name
from taskdist.kube import TASKQUEUES, ApiError

NAME = keyed_name("q", "order 7")
SUBMIT = ("submit", "q", "-t", "t", "--idempotency-key", "order 7")


@pytest.fixture
def cluster() -> MemoryCluster:
    made = MemoryCluster()
    made.add(TASKQUEUES, {"metadata": {"name": "q"}, "spec": {"pools": ["p"]}})
    return made


def test_the_name_is_the_same_everywhere_and_another_for_another_key_or_queue() -> None:
    assert NAME == "q-d7699152329534ecf1b1"
    assert len({NAME, keyed_name("q", "order 8"), keyed_name("r", "order 7"), keyed_name("q-order", "7")}) == 4


def test_the_first_is_created_under_its_name(cluster: MemoryCluster) -> None:
    assert call(cluster, *SUBMIT).out == f"task.taskdist.dev/{NAME} created\n"
    (made,) = [obj for (kind, _, _), obj in cluster.objects.items() if kind == "tasks.taskdist.dev"]
    assert made["spec"] == {"queue": "q", "type": "t", "idempotencyKey": "order 7"}


def test_the_second_finds_the_first(cluster: MemoryCluster) -> None:
    call(cluster, *SUBMIT)
    before = dict(cluster.objects)
    outcome = call(cluster, *SUBMIT)
    assert (outcome.code, outcome.out) == (OK, f"task.taskdist.dev/{NAME} exists already (Pending)\n")
    assert call(cluster, *SUBMIT, "-o", "name").out == f"task.taskdist.dev/{NAME}\n"
    assert cluster.objects == before


def test_wait_waits_for_the_one_that_is_there(cluster: MemoryCluster) -> None:
    cluster.task(NAME, SUCCEEDED, idempotencyKey="order 7")
    outcome = call(cluster, *SUBMIT, "--wait")
    assert (outcome.code, json.loads(outcome.out)) == (OK, {"lines": 3})
    assert f"{NAME} exists already (Succeeded)" in outcome.err
    cluster.task(NAME, FAILED_STATUS, idempotencyKey="order 7")
    assert call(cluster, *SUBMIT, "--wait").code == FAILED


def test_what_differs_is_said_and_does_not_count(cluster: MemoryCluster) -> None:
    cluster.task(NAME, idempotencyKey="order 7", payload={"a": 1})
    outcome = call(cluster, *SUBMIT, "-p", '{"a": 2}')
    assert outcome.code == OK
    assert "another type or payload" in outcome.err


def test_a_name_that_is_somebody_else_s_is_no_duplicate(cluster: MemoryCluster) -> None:
    cluster.task(NAME, idempotencyKey="other")
    outcome = call(cluster, *SUBMIT)
    assert (outcome.code, outcome.out) == (FAILED, "")
    assert "another key" in outcome.err


def test_one_that_was_deleted_meanwhile_is_created(cluster: MemoryCluster) -> None:
    cluster.errors["create"] = ApiError(409, "AlreadyExists", "it was there")
    assert call(cluster, *SUBMIT).out == f"task.taskdist.dev/{NAME} created\n"


@pytest.mark.parametrize("option", ["--name", "--generate-name"])
def test_the_key_makes_the_name(cluster: MemoryCluster, option: str) -> None:
    outcome = call(cluster, *SUBMIT, option, "x")
    assert outcome.code == USAGE
    assert "--idempotency-key makes the name" in outcome.err
