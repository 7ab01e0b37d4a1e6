"""A Task's life with its payload and result in a real store: the operator has no credentials, and needs none."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import obstore
import pytest

from integration.controller.room import SCRIPT, Room, container
from object_server import BUCKET, ObjectServer
from patience import until
from proxy import Proxy
from taskdist.client import AsyncClient, Client, ObjectFailed, SubmittedTask
from taskdist.local.stack import Stack
from taskdist.objects.settings import ObjectSettings
from taskdist.objects.transfer import Objects, connect

TEXT = "ä" * 200_000
# 5 MiB, with its frame.
LARGE = "x" * (5 * 2**20 - len('{"text":""}'))


def unsaid(_: str) -> None:
    """Tasks that are made before their parents are so on purpose."""


@pytest.fixture(scope="module")
def way(server: ObjectServer) -> Iterator[Proxy]:
    """The way to the store of agents whose transfers are held up."""
    proxy = Proxy("127.0.0.1", server.port)
    yield proxy
    proxy.refuse()


@pytest.fixture(scope="module")
def room(stack: Stack, server: ObjectServer, way: Proxy) -> Room:
    """Queues and pools: `q` has the store, `bare` has none, `wrong` has other credentials, `slow` is held
    up, those of `rich` may do everything."""
    assert stack.plane is not None
    stack.plane.client.create("/api/v1/namespaces", {"metadata": {"name": "team"}})
    room = Room(stack, stack.plane.client, "team")
    retry = {"initialSeconds": 0.2, "maxSeconds": 0.5, "limit": 100}
    env = server.env("agents")
    slow = {"TASKDIST_OBJECTS_ENDPOINT": f"http://127.0.0.1:{way.port}"}
    room.queue("q", retry=retry)
    room.queue("bare", pools=["bare"])
    room.queue("wrong", pools=["wrong"], retry={**retry, "limit": 1})
    room.queue("slow", pools=["slow"], retry=retry)
    room.queue("rich", pools=["rich"])
    agents(room, "p", {**env, "TASKDIST_OBJECTS_TIMEOUT_SECONDS": "5"})
    agents(room, "bare", {})
    agents(room, "wrong", {**env, "AWS_SECRET_ACCESS_KEY": "of-nobody"})
    agents(room, "slow", {**env, **slow})
    agents(room, "rich", server.env("owner"))
    for pool in ("p", "bare", "wrong", "slow", "rich"):
        room.ready(1, pool)
    return room


def agents(room: Room, pool: str, env: dict[str, str]) -> None:
    named = [{"name": name, "value": value} for name, value in env.items()]
    room.pool(pool, template={"spec": {"containers": [container(env=named)], "terminationGracePeriodSeconds": 5}})


@pytest.fixture
def objects(server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> Objects:
    for name, value in server.env("clients").items():
        monkeypatch.setenv(name, value)
    settings = ObjectSettings.from_env({**server.env("clients"), "TASKDIST_OBJECTS_TIMEOUT_SECONDS": "5"})
    assert settings is not None
    return connect(settings)


@pytest.fixture
def client(room: Room, objects: Objects) -> Iterator[Client]:
    assert room.stack.plane is not None
    with Client(namespace="team", kubeconfig=room.stack.plane.kubeconfig, objects=objects, on_warning=unsaid) as client:
        yield client


def key(client: Client, task: SubmittedTask[dict[str, Any]]) -> str:
    """The key of the Task's payload."""
    uri: str = client.get(task.name).obj["spec"]["payloadRef"]["uri"]
    return uri.removeprefix(f"s3://{BUCKET}/")


def attempts(room: Room, task: SubmittedTask[dict[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = room.status("tasks", task.name).get("attempts") or []
    return found


def most_memory(process: int) -> int:
    """The bytes that a process has had at most so far."""
    (kibibytes,) = re.findall(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{process}/status").read_text())
    return int(kibibytes) * 1024


def test_five_mebibytes_go_there_and_back_and_to_a_child(room: Room, client: Client) -> None:
    agent, *_ = room.processes(room.pods("p")[0])
    before = most_memory(agent)
    parent = client.submit("q", "echo", {"text": LARGE})
    assert client.result(parent, timeout=60) == {"text": LARGE}
    # As docs/objects.md says, and something for what it loads when it speaks to a store for the first time.
    assert most_memory(agent) - before < 6 * 5 * 2**20 + 16 * 2**20
    obj = client.get(parent.name).obj
    assert "payload" not in obj["spec"]
    assert obj["spec"]["payloadRef"]["size"] == obj["status"]["resultRef"]["size"] == 5 * 2**20
    assert obj["status"]["resultRef"]["uri"].startswith(f"s3://{BUCKET}/tasks/team/results/{parent.uid}/1/")
    assert "result" not in obj["status"]
    child = client.submit("q", "parents", {}, depends_on=[parent.name])
    found = client.result(child, timeout=60)
    assert found[parent.name]["result"] == {"text": LARGE}
    # What is small goes as it always did.
    assert client.run("q", "echo", {"n": 1}, timeout=30) == {"n": 1}


def test_each_item_of_an_array_gets_the_payload_that_stands_there(room: Room, client: Client) -> None:
    kept = client.submit("q", "echo", {"text": TEXT, "say": "the same"})
    client.result(kept, timeout=60)
    reference = client.get(kept.name).obj["spec"]["payloadRef"]
    room.task("each", "item", queue="q", payloadRef=reference, array={"count": 40})
    (status,) = room.ended("each", timeout=60)
    assert (status["phase"], status["array"]["done"]) == ("Succeeded", "40/40"), status
    assert {json.loads(each)["say"] for each in status["array"]["results"].values()} == {"the same"}


def test_agents_without_a_store_do_not_get_it_and_it_is_said_why(room: Room, client: Client) -> None:
    task = client.submit("bare", "echo", {"text": TEXT})
    told = client.explain(task)
    assert told["reason"] == "ObjectStoreMissing", told
    assert "has an object store" in told["message"]
    client.cancel(task)
    assert client.wait(task, timeout=30).phase == "Cancelled"
    assert client.run("bare", "echo", {"n": 1}, timeout=30) == {"n": 1}


@pytest.mark.parametrize(
    ("change", "reason", "said"),
    [
        pytest.param(None, "ObjectNotFound", "was deleted", id="deleted"),
        pytest.param(str.upper, "ObjectMismatch", "its SHA-256 is", id="changed, and as long as it was"),
        pytest.param(lambda text: text + " ", "ObjectMismatch", "bytes, and", id="changed, and longer"),
    ],
)
def test_a_payload_that_is_another_by_now_ends_the_task_with_its_own_reason(
    change: Any, reason: str, said: str, room: Room, client: Client, server: ObjectServer
) -> None:
    # Held back until its object is another.
    later = f"later-{reason.lower()}-{said[:3].strip()}"
    task = client.submit("q", "echo", {"text": TEXT, "n": said}, depends_on=[later], on_dependency_failure="Run")
    if change is None:
        obstore.delete(server.store(), key(client, task))
    else:
        was = bytes(obstore.get(server.store(), key(client, task)).bytes()).decode()
        obstore.put(server.store(), key(client, task), change(was).encode())
    room.task(later)
    end = client.wait(task, timeout=30)
    assert (end.phase, end.reason) == ("Failed", reason)
    assert said in end.message
    assert room.status("tasks", task.name)["attempt"] == 1


@pytest.mark.parametrize(
    ("uri", "size", "said"),
    [
        pytest.param(f"s3://{BUCKET}/tasks/other/payloads/x", 70_000, "only what is below", id="of another namespace"),
        pytest.param(f"s3://{BUCKET}/tasks/team/../other/x", 70_000, "only what is below", id="of another by its path"),
        pytest.param("s3://another/tasks/team/payloads/x", 70_000, "only what is below", id="of another bucket"),
        pytest.param(f"s3://{BUCKET}/tasks/team/payloads/x", 2**30, "TASKDIST_OBJECTS_MAX_BYTES", id="of 1 GiB"),
    ],
)
def test_what_may_not_be_read_here_is_not_even_asked_for(
    uri: str, size: int, said: str, room: Room, client: Client, server: ObjectServer
) -> None:
    # Whatever the store would say: these agents may read everything.
    name = f"far-{hashlib.sha256(f'{uri} {size}'.encode()).hexdigest()[:8]}"
    ref = {"uri": uri, "size": size, "sha256": "0" * 64}
    room.make("Task", name, {"queue": "rich", "type": "echo", "payloadRef": ref})
    end = client.wait(name, timeout=30)
    assert (end.phase, end.reason) == ("Failed", "ObjectRefused")
    assert said in end.message


def test_the_commands_of_the_docs(room: Room, objects: Objects) -> None:
    assert room.stack.plane is not None
    env = {**os.environ, "KUBECONFIG": str(room.stack.plane.kubeconfig), "NO_COLOR": "1"}

    def taskdist(*words: str, stdin: str = "") -> tuple[int, str, str]:
        done = subprocess.run(
            [SCRIPT, *words, "-n", "team"], input=stdin, env=env, capture_output=True, text=True, timeout=60
        )
        return done.returncode, done.stdout, done.stderr

    sent = {"text": TEXT, "n": 6}
    submit = ("submit", "q", "--type", "echo", "--name", "by-command", "--payload", "-", "--wait")
    code, out, said = taskdist(*submit, stdin=json.dumps(sent))
    assert (code, json.loads(out or "{}")) == (0, sent), said
    code, out, said = taskdist("result", "by-command")
    assert (code, json.loads(out or "{}")) == (0, sent), said
    # Whoever is not told of the store hears what to set.
    del env["TASKDIST_OBJECTS_URL"], env["TASKDIST_OBJECTS_ENDPOINT"]
    code, out, said = taskdist("result", "by-command")
    assert (code, out) == (1, "")
    assert "TASKDIST_OBJECTS_URL is not set here" in said
    assert "Traceback" not in said


def test_credentials_that_are_refused_are_told_and_tried_again(room: Room, client: Client) -> None:
    task = client.submit("wrong", "echo", {"text": TEXT, "n": 3})
    end = client.wait(task, timeout=60)
    assert end.phase == "Failed"
    told = attempts(room, task)
    assert [each["reason"] for each in told] == ["ObjectUnavailable"] * 2
    assert all("refuses the credentials" in each["message"] for each in told), told
    assert "of-nobody" not in str(room.get("tasks", task.name))


async def test_a_store_that_is_down_is_waited_for(room: Room, objects: Objects, server: ObjectServer) -> None:
    assert room.stack.plane is not None
    async with AsyncClient(
        namespace="team", kubeconfig=room.stack.plane.kubeconfig, objects=objects, on_warning=unsaid
    ) as client:
        task = await client.submit("q", "echo", {"text": TEXT, "n": 2}, depends_on=["up"], on_dependency_failure="Run")
        # A result finds no store, either.
        other = await client.submit("q", "large", {"bytes": 100_000}, depends_on=["up"], on_dependency_failure="Run")
        server.kill()
        try:
            await asyncio.to_thread(room.task, "up")

            def tried() -> bool:
                return all(
                    any(each["reason"] == "ObjectUnavailable" for each in attempts(room, task))
                    for task in (task, other)
                )

            await asyncio.to_thread(until, tried, "an attempt of each has failed for want of the store")
            with pytest.raises(ObjectFailed, match="was not put"):
                await client.submit("q", "echo", {"text": TEXT, "n": 5})
        finally:
            server.start()
        assert await client.result(task, timeout=60) == {"text": TEXT, "n": 2}
        assert await client.result(other, timeout=60) == {"x": "y" * 100_000}


def test_an_agent_that_is_killed_in_the_middle_of_its_result_leaves_nothing_of_it(
    room: Room, client: Client, server: ObjectServer, way: Proxy
) -> None:
    way.hang_within(2**20)
    task = client.submit("slow", "echo", {"text": LARGE, "n": 4})
    until(way.hung.is_set, "the agent is in the middle of its result")
    for process in room.processes(room.pods("slow")[0]):
        os.kill(process, signal.SIGKILL)
    way.refuse()
    way.open()
    assert client.result(task, timeout=90) == {"text": LARGE, "n": 4}
    (lost,) = attempts(room, task)
    assert lost["reason"] == "AgentLost", lost
    # There is one object, and it is of the attempt that has ended the Task.
    result = f"tasks/team/results/{task.uid}/2/"
    assert [each.startswith(result) for each in server.keys(f"tasks/team/results/{task.uid}")] == [True]
    assert room.status("tasks", task.name)["resultRef"]["uri"].startswith(f"s3://{BUCKET}/{result}")
