"""Payloads and results by reference, as the client's callers see them."""

from typing import Any

import pytest

from taskdist.client import AsyncClient, InvalidTask, ObjectFailed, Submission, TaskFailed
from taskdist.client.creating import is_ours
from taskdist.client.submission import manifest
from taskdist.client.testing import FakeBackend
from taskdist.kube import Obj
from taskdist.objects.memory import MemoryStore, memory_objects
from taskdist.objects.store import ObjectError

TEXT = "ä" * 40_000


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    # What the fake's handlers may return, as it is of an agent's process.
    monkeypatch.setenv("TASKDIST_OBJECTS_URL", "s3://test/tasks")
    return MemoryStore()


async def test_what_is_too_large_goes_there_and_back_by_reference(store: MemoryStore) -> None:
    objects = memory_objects(store)
    with FakeBackend(objects=objects) as fake:
        fake.handler("turn")(turn)
        async with AsyncClient(backend=fake, objects=objects) as client:
            assert await client.run("q", "turn", {"text": TEXT}, timeout=10) == {"turned": TEXT[::-1]}
            payloads = [{"text": TEXT}, {"text": "ab"}]
            found = [each async for each in client.map("q", "turn", payloads, ordered=True, arrays=False, timeout=10)]
            assert [each.value["turned"] for each in found] == [TEXT[::-1], "ba"]
        large, _, small = fake.tasks()
    assert "payload" not in large["spec"]
    assert large["spec"]["payloadRef"]["uri"].startswith("s3://test/tasks/default/payloads/")
    assert large["status"]["resultRef"]["uri"].startswith(
        f"s3://test/tasks/default/results/{large['metadata']['uid']}/1/"
    )
    assert (small["spec"]["payload"], small["status"]["result"]) == ({"text": "ab"}, {"turned": "ba"})
    # Two results of one payload.
    assert len(store.objects) == 3


def turn(payload: dict[str, Any]) -> dict[str, Any]:
    return {"turned": payload["text"][::-1]}


async def test_a_key_that_is_submitted_again_with_the_same_large_payload_is_the_same_task(store: MemoryStore) -> None:
    objects = memory_objects(store)
    with FakeBackend(objects=objects) as fake:
        fake.hold()
        said: list[str] = []
        async with AsyncClient(backend=fake, objects=objects, on_warning=said.append) as client:
            first, second = [await client.submit("q", "turn", {"text": TEXT}, idempotency_key="k") for _ in range(2)]
            assert (first.uid, first.created, second.created) == (second.uid, True, False)
            said.clear()
            await client.submit("q", "turn", {"text": TEXT + "x"}, idempotency_key="k")
            assert "another type or payload" in said[0]


async def test_without_a_store_it_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TASKDIST_OBJECTS_URL", raising=False)
    with FakeBackend() as fake:
        async with AsyncClient(backend=fake) as client:
            with pytest.raises(InvalidTask, match=r"80011 bytes of JSON.* set TASKDIST_OBJECTS_URL=s3://") as refused:
                await client.submit("q", "turn", {"text": TEXT})
        assert refused.value.field == "spec.payload"
        assert not fake.tasks()


async def test_beyond_what_the_store_takes_it_is_refused(store: MemoryStore) -> None:
    with FakeBackend() as fake:
        async with AsyncClient(backend=fake, objects=memory_objects(store, max_bytes=70_000)) as client:
            with pytest.raises(InvalidTask, match="at most 70000 here: raise TASKDIST_OBJECTS_MAX_BYTES"):
                await client.submit("q", "turn", {"text": TEXT})


async def test_a_store_that_takes_nothing_fails_the_submission_and_no_task_is_made(store: MemoryStore) -> None:
    store.trouble = ObjectError("ObjectUnavailable", "the store is down", retryable=True)  # type: ignore[arg-type]
    with FakeBackend() as fake:
        async with AsyncClient(backend=fake, objects=memory_objects(store)) as client:
            with pytest.raises(ObjectFailed, match=r"was not put: the store is down") as failed:
                await client.submit("q", "turn", {"text": TEXT})
            assert failed.value.reason == "ObjectUnavailable"
            # What is small needs no store.
            await client.submit("q", "turn", {"text": "ab"})


async def test_a_result_whose_store_is_not_known_is_named(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = memory_objects(store)
    with FakeBackend(objects=objects) as fake:
        fake.handler("turn")(lambda payload: {"text": TEXT})
        async with AsyncClient(backend=fake, objects=objects) as client:
            task = await client.submit("q", "turn", {})
            await client.wait(task, timeout=10)
        monkeypatch.delenv("TASKDIST_OBJECTS_URL")
        async with AsyncClient(backend=fake) as client:
            with pytest.raises(ObjectFailed, match=r"is s3://test/tasks/.* TASKDIST_OBJECTS_URL is not set here"):
                await client.result(task.name, timeout=10)


async def test_a_payload_that_was_deleted_fails_the_task_with_its_own_reason(store: MemoryStore) -> None:
    objects = memory_objects(store)
    with FakeBackend(objects=objects) as fake:
        fake.handler("turn")(turn)
        fake.hold()
        async with AsyncClient(backend=fake, objects=objects) as client:
            task = await client.submit("q", "turn", {"text": TEXT})
            store.objects.clear()
            fake.release()
            with pytest.raises(TaskFailed, match="ObjectNotFound"):
                await client.result(task, timeout=10)


REF = {"uri": "s3://b/x/team/payloads/1", "size": 70_000, "sha256": "a" * 64}


@pytest.mark.parametrize(
    ("found", "ours"),
    [
        pytest.param(REF, True, id="the same object is the same payload"),
        pytest.param(REF | {"uri": "s3://b/y/team/payloads/1"}, True, id="it is so wherever it stands"),
        pytest.param(REF | {"sha256": "b" * 64}, False, id="another hash is another payload"),
        pytest.param(None, False, id="none is another payload"),
    ],
)
def test_payloads_by_reference_are_compared_by_what_they_are(found: Any, ours: bool) -> None:
    wanted: Obj = manifest(Submission.of("q", "t"), "team")
    there = {"spec": wanted["spec"] | {"payloadRef": found}}
    assert is_ours(there, {"spec": wanted["spec"] | {"payloadRef": REF}}) is ours
