"""References and what they name: which are read, and how each way of being wrong is told."""

import asyncio
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskdist.api import ObjectRef as ApiRef
from taskdist.api import Reason
from taskdist.objects.memory import MemoryStore, memory_objects
from taskdist.objects.places import Place
from taskdist.objects.settings import ObjectSettings
from taskdist.objects.store import ObjectError
from taskdist.objects.transfer import Objects
from taskdist.protocol.messages import LeaseName, ObjectRef

BODY = b'{"text":"' + b"x" * 70_000 + b'"}'
LEASE = LeaseName("0a1b", 3, 7)


async def test_what_is_put_is_what_is_fetched_and_twice_the_same_is_one_object() -> None:
    store = MemoryStore()
    objects = memory_objects(store)
    ref = await objects.put_payload("team", BODY)
    assert await objects.put_payload("team", BODY) == ref
    assert await objects.fetch(ref, "team") == BODY
    assert list(store.objects) == [f"tasks/team/payloads/{ref.sha256}"]


async def test_no_two_attempts_write_one_object() -> None:
    store = MemoryStore()
    objects = memory_objects(store)
    for lease in (LEASE, LEASE._replace(attempt=4), LEASE._replace(task_uid="other")):
        await objects.put_result("team", lease, BODY)
    assert len(store.objects) == 3
    assert await objects.put_result("team", LEASE, BODY) in [await objects.put_result("team", LEASE, BODY)]
    assert len(store.objects) == 3


@given(
    st.text(),
    st.sampled_from(["team", "other"]),
    st.sampled_from([Place("bucket"), Place("my.bucket-2", "tasks/of=1")]),
)
def test_every_reference_that_is_made_may_stand_on_a_task_and_is_read_in_its_namespace_only(
    text: str, namespace: str, place: Place
) -> None:
    ref = place.payload(namespace, text.encode("utf-8", "replace") + b"{}")
    ApiRef.model_validate(ref.to_wire())
    assert place.key(ref, namespace).endswith(ref.sha256)
    assert place.key(ref, "team" if namespace == "other" else "other") == ""


def somewhere(uri: str) -> ObjectRef:
    return ObjectRef(uri, len(BODY), "0" * 64)


@pytest.mark.parametrize(
    "uri",
    [
        pytest.param("s3://other/tasks/team/payloads/x", id="another bucket"),
        pytest.param("s3://test/else/team/payloads/x", id="another prefix"),
        pytest.param("s3://test/tasks/team-2/payloads/x", id="a namespace whose name begins alike"),
        pytest.param("s3://test/tasks/payloads/x", id="no namespace"),
        pytest.param("s3://test/tasks/team/../other/payloads/x", id="a way up and down again"),
        pytest.param("s3://test/tasks/team//x", id="an empty folder"),
        pytest.param("s3://test/tasks/team/./x", id="a folder that is the same"),
    ],
)
async def test_only_what_is_below_the_own_prefix_and_namespace_is_read(uri: str) -> None:
    store = MemoryStore()
    store.trouble = AssertionError("the store was asked")
    with pytest.raises(ObjectError, match=re.escape("below s3://test/tasks/team/")) as refused:
        await memory_objects(store).fetch(somewhere(uri), "team")
    assert (refused.value.reason, refused.value.retryable) == (Reason.OBJECT_REFUSED, False)


async def test_what_is_larger_than_is_taken_here_is_refused_before_it_is_read() -> None:
    store = MemoryStore()
    ref = await memory_objects(store).put_payload("team", BODY)
    store.trouble = AssertionError("the store was asked")
    with pytest.raises(ObjectError, match="TASKDIST_OBJECTS_MAX_BYTES allows 70000") as refused:
        await memory_objects(store, max_bytes=70_000).fetch(ref, "team")
    assert (refused.value.reason, refused.value.retryable) == (Reason.OBJECT_REFUSED, False)


@pytest.mark.parametrize(
    ("spoiled", "reason"),
    [
        pytest.param(None, Reason.OBJECT_NOT_FOUND, id="one that was deleted is not found"),
        pytest.param(BODY[:-1] + b" ", Reason.OBJECT_MISMATCH, id="one of the same size is another by its hash"),
        pytest.param(BODY + b" ", Reason.OBJECT_MISMATCH, id="a longer one is another"),
    ],
)
async def test_what_is_not_as_it_was_is_told_and_not_tried_again(spoiled: bytes | None, reason: Reason) -> None:
    store = MemoryStore()
    objects = memory_objects(store)
    ref = await objects.put_payload("team", BODY)
    (key,) = store.objects
    if spoiled is None:
        del store.objects[key]
    else:
        store.objects[key] = spoiled
    with pytest.raises(ObjectError) as wrong:
        await objects.fetch(ref, "team")
    assert (wrong.value.reason, wrong.value.retryable) == (reason, False)


async def test_a_store_that_says_nothing_is_given_up_and_may_be_tried_again() -> None:
    class Silent(MemoryStore):
        async def get(self, key: str, size: int) -> bytes:
            await asyncio.Event().wait()
            return b""

    settings = replace(ObjectSettings(Place("test", "tasks")), timeout=0.01)
    with pytest.raises(ObjectError, match=r"longer than 0\.01 s") as wrong:
        await Objects(settings, Silent()).fetch(settings.place.payload("team", BODY), "team")
    assert (wrong.value.reason, wrong.value.retryable) == (Reason.OBJECT_UNAVAILABLE, True)
