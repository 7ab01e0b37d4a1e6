"""What effects read beside a write: the results of a Task's parents, and the result that a duplicate ends with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from taskdist.api import Phase
from taskdist.api.nesting import loads
from taskdist.controller.effects import KubeEffects
from taskdist.core.model import Parent
from taskdist.kube import Informer, StatusWriter, Unreachable, Write
from taskdist.kube import writer as written
from taskdist.protocol.messages import ObjectRef, ParentResult
from taskdist.protocol.observations import (
    Found,
    NotSent,
    ObservedTask,
    ReadFailed,
    ReadTask,
    TaskName,
    Unknown,
    WriteStatus,
    Written,
)

A, GONE = Parent("a", "uid-a", Phase.SUCCEEDED), Parent("b", "uid-b", gone=True)


def obj(name: str, **status: Any) -> dict[str, Any]:
    metadata = {"namespace": "ns", "name": name, "uid": f"uid-{name}", "resourceVersion": "7"}
    return {"metadata": metadata, "spec": {"queue": "q", "type": "t"}, "status": {"phase": "Succeeded", **status}}


class Server:
    """A writer whose reads find these Tasks, or do not come through."""

    def __init__(self, *tasks: dict[str, Any]) -> None:
        self.tasks = {task["metadata"]["uid"]: task for task in tasks}
        self.cut_off: set[str] = set()
        self.wrote: list[Write] = []
        self.outcome: written.Outcome | None = None

    async def read(self, uid: str, namespace: str, name: str) -> dict[str, Any] | None:
        assert namespace == "ns"
        if uid in self.cut_off:
            raise Unreachable("no way")
        return self.tasks.get(uid)

    async def write(self, write: Write) -> written.Outcome:
        self.wrote.append(write)
        return self.outcome or written.Written(obj(write.name, **write.status))


class View:
    """Stands for the informer: takes what was read."""

    def apply_own(self, task: dict[str, Any]) -> None: ...

    def apply_gone(self, uid: str) -> None: ...


def effects(server: Server) -> KubeEffects:
    made = KubeEffects(
        client=cast("Any", None),
        tasks=cast("Informer[ObservedTask]", View()),
        link=cast("Any", None),
        announce=lambda subject, reason, message, action, warning: None,
        pool_uid=lambda key: "",
        look_at=lambda pools, queues: None,
        may_act=lambda: True,
    )
    made.write_with(cast("StatusWriter", server))
    return made


REF: dict[str, Any] = {
    "uri": "s3://bucket/tasks/ns/results/u/1/x",
    "size": 70_000,
    "sha256": "a" * 64,
    "contentType": "application/json",
}
ASSIGN = WriteStatus(1, "uid-c", "ns", "c", 5, {"phase": "Assigned"}, parents=(A, GONE))
COPY = WriteStatus(1, "uid-c", "ns", "c", 5, {"phase": "Succeeded"}, result_of=TaskName("uid-a", "a"))
READ = ReadTask(1, "uid-c", "ns", "c", parents=(A, GONE))
RESULTS = (ParentResult("a", "Succeeded", b'{"x":1}'), ParentResult("b", ""))


async def test_results_come_with_the_assignment_and_with_the_payload() -> None:
    server = Server(obj("a", result={"x": 1}), obj("c", phase="Pending"))
    outcome = await effects(server).write_status(ASSIGN)
    assert isinstance(outcome, Written)
    assert outcome.parents == RESULTS
    found = await effects(server).read_task(READ)
    assert isinstance(found, Found)
    assert found.parents == RESULTS


async def test_results_by_reference_come_as_references_and_are_written_as_such() -> None:
    server = Server(obj("a", resultRef=REF), obj("c", phase="Pending"))
    outcome = await effects(server).write_status(ASSIGN)
    assert isinstance(outcome, Written)
    ref = ObjectRef(REF["uri"], REF["size"], REF["sha256"])
    assert outcome.parents == (ParentResult("a", "Succeeded", ref), RESULTS[1])
    await effects(server).write_status(replace(ASSIGN, body=ref, parents=()))
    assert server.wrote[-1].exact == {"resultRef": REF}


async def test_a_write_stands_though_results_could_not_be_read() -> None:
    server = Server(obj("c", phase="Pending"))
    server.cut_off.add("uid-a")
    outcome = await effects(server).write_status(ASSIGN)
    assert isinstance(outcome, Written)
    assert outcome.parents is None
    assert await effects(server).read_task(READ) == ReadFailed()


@pytest.mark.parametrize(
    ("original", "exact"),
    [
        pytest.param([obj("a", result={"x": None})], {"result": {"x": None}}, id="its result"),
        pytest.param([obj("a", resultRef=REF)], {"resultRef": REF}, id="where its result stands"),
        pytest.param([obj("a")], {}, id="it has none"),
        pytest.param([], {}, id="it is gone"),
    ],
)
async def test_a_duplicate_ends_with_the_result_of_the_first(
    original: list[dict[str, Any]], exact: dict[str, Any]
) -> None:
    server = Server(*original)
    assert isinstance(await effects(server).write_status(COPY), Written)
    assert (server.wrote[0].status, server.wrote[0].exact) == ({"phase": "Succeeded"}, exact)


async def test_a_duplicate_does_not_end_before_the_result_was_asked_for() -> None:
    server = Server()
    server.cut_off.add("uid-a")
    assert await effects(server).write_status(COPY) == NotSent()
    assert server.wrote == []


ODD = {"phase": "Paused"}


async def test_what_cannot_be_read_is_never_taken_for_an_answer() -> None:
    server = Server(obj("c", **ODD))
    assert await effects(server).read_task(replace(READ, parents=())) == ReadFailed()
    found = obj("c", **ODD)
    for outcome, means in (
        (written.Conflict(found), NotSent()),
        (written.NotSeen(found), Unknown()),
        (written.Written(found), Unknown()),
    ):
        server.outcome = outcome
        assert await effects(server).write_status(replace(ASSIGN, parents=())) == means


async def test_a_task_that_is_too_deep_is_written_and_read_without_its_payload() -> None:
    deep = obj("c")
    deep["spec"]["payload"] = loads('{"a":' * 5000 + "1" + "}" * 5000)
    server = Server(deep)
    read = await effects(server).read_task(replace(READ, parents=()))
    assert isinstance(read, Found)
    assert (read.payload, read.record.fault is None) == (b"{}", False)
    server.outcome = written.Written(deep)
    outcome = await effects(server).write_status(replace(ASSIGN, parents=()))
    assert isinstance(outcome, Written)
    assert outcome.payload == b"{}"


async def test_results_that_are_too_deep_are_left_out() -> None:
    result = loads('{"a":' * 900 + "1" + "}" * 900)
    server = Server(obj("a", result=result), obj("c"))
    read = await effects(server).read_task(replace(READ, parents=(A,)))
    assert isinstance(read, Found)
    assert read.parents == (ParentResult("a", "Succeeded", b""),)
    await effects(server).write_status(COPY)
    assert "result" not in server.wrote[-1].status
