"""The store's client on a real S3 server: what is put is there, and each way of failing is told as what it is."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Iterator

import obstore
import pytest

from object_server import BUCKET, ObjectServer
from proxy import Proxy
from taskdist.api import Reason
from taskdist.objects.settings import ObjectSettings
from taskdist.objects.store import ObjectError
from taskdist.objects.transfer import Objects, connect
from taskdist.protocol.messages import LeaseName, ObjectRef

LEASE = LeaseName("0a1b", 2, 1)
SIZES = (2, 65_537, 5 * 2**20)


@pytest.fixture
def tell(server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    be(monkeypatch, server, "owner")
    return monkeypatch


def be(tell: pytest.MonkeyPatch, server: ObjectServer, who: str) -> None:
    for name, value in server.env(who).items():
        tell.setenv(name, value)


def opened(server: ObjectServer, **changes: str) -> Objects:
    settings = ObjectSettings.from_env({**server.env(), "TASKDIST_OBJECTS_TIMEOUT_SECONDS": "5", **changes})
    assert settings is not None
    return connect(settings)


def hashed(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def body(size: int) -> bytes:
    return b'"' + b"x" * (size - 2) + b'"'


@pytest.mark.parametrize("size", SIZES)
async def test_what_is_put_is_there_under_its_content_and_is_fetched(
    size: int, server: ObjectServer, tell: pytest.MonkeyPatch
) -> None:
    objects = opened(server)
    ref = await objects.put_payload("team", body(size))
    assert ref.uri == f"s3://{BUCKET}/tasks/team/payloads/{ref.sha256}"
    found = obstore.get(server.store(), f"tasks/team/payloads/{ref.sha256}")
    assert bytes(found.bytes()) == body(size)
    assert found.attributes == {"Content-Type": "application/json"}
    assert await objects.fetch(ref, "team") == body(size)
    # Once more, as a retry does.
    assert await objects.put_payload("team", body(size)) == ref
    result = await objects.put_result("team", LEASE, body(size))
    assert result.uri.endswith(f"/team/results/0a1b/2/{ref.sha256}")
    assert await objects.fetch(result, "team") == body(size)


async def failure(objects: Objects, ref: ObjectRef) -> tuple[Reason, bool, str]:
    with pytest.raises(ObjectError) as failed:
        await objects.fetch(ref, "team")
    return failed.value.reason, failed.value.retryable, str(failed.value)


async def test_what_was_deleted_or_changed_is_told_apart(server: ObjectServer, tell: pytest.MonkeyPatch) -> None:
    objects = opened(server)
    ref = await objects.put_payload("team", body(70_001))
    key = f"tasks/team/payloads/{ref.sha256}"
    obstore.put(server.store(), key, body(70_001).upper())
    assert (await failure(objects, ref))[:2] == (Reason.OBJECT_MISMATCH, False)
    obstore.put(server.store(), key, body(70_002))
    reason, retryable, said = await failure(objects, ref)
    assert (reason, retryable) == (Reason.OBJECT_MISMATCH, False)
    assert "it has 70002 bytes, and 70001 were referred to" in said
    obstore.delete(server.store(), key)
    assert (await failure(objects, ref))[:2] == (Reason.OBJECT_NOT_FOUND, False)


@pytest.mark.parametrize(
    "variable",
    [
        pytest.param("AWS_SECRET_ACCESS_KEY", id="a wrong secret"),
        pytest.param("AWS_ACCESS_KEY_ID", id="a stranger"),
    ],
)
async def test_credentials_that_are_refused_may_be_good_later(
    variable: str, server: ObjectServer, tell: pytest.MonkeyPatch
) -> None:
    ref = await opened(server).put_payload("team", body(70_003))
    tell.setenv(variable, "wrong")
    reason, retryable, said = await failure(opened(server), ref)
    assert (reason, retryable) == (Reason.OBJECT_UNAVAILABLE, True), said
    assert server.env()["AWS_SECRET_ACCESS_KEY"] not in said
    assert "refuses the credentials" in said
    assert len(said) < 400
    with pytest.raises(ObjectError):
        await opened(server).put_payload("team", body(70_003))


@pytest.mark.parametrize(
    ("who", "kind", "puts", "fetches"),
    [
        pytest.param("clients", "payloads", True, False, id="clients put payloads"),
        pytest.param("clients", "results", False, True, id="clients fetch results"),
        pytest.param("agents", "payloads", False, True, id="agents fetch payloads"),
        pytest.param("agents", "results", True, True, id="agents put results, and fetch those of parents"),
    ],
)
async def test_the_rights_that_are_documented_are_enough_and_no_more(
    who: str, kind: str, puts: bool, fetches: bool, server: ObjectServer, tell: pytest.MonkeyPatch
) -> None:
    async def put(namespace: str) -> ObjectRef:
        if kind == "payloads":
            return await opened(server).put_payload(namespace, body(70_006))
        return await opened(server).put_result(namespace, LEASE, body(70_006))

    async def reason(asked: Awaitable[object]) -> Reason | None:
        try:
            await asked
        except ObjectError as error:
            return error.reason
        return None

    async def refused(namespace: str, ref: ObjectRef) -> tuple[Reason | None, Reason | None]:
        return await reason(put(namespace)), await reason(opened(server).fetch(ref, namespace))

    ours, theirs = await put("team"), await put("other")
    be(tell, server, who)
    with pytest.raises(ObjectError, match=r"AccessDenied.*s3:ListBucket"):
        await opened(server).fetch(theirs, "other")
    no = Reason.OBJECT_UNAVAILABLE
    assert await refused("team", ours) == (None if puts else no, None if fetches else no)
    assert await refused("other", theirs) == (no, no)


async def test_a_bucket_that_is_not_there_is_told(server: ObjectServer, tell: pytest.MonkeyPatch) -> None:
    objects = opened(server, TASKDIST_OBJECTS_URL="s3://no-such-bucket/tasks")
    with pytest.raises(ObjectError, match=r"no-such-bucket.*NoSuchBucket") as failed:
        await objects.put_payload("team", body(70_004))
    # Somebody may be about to make it.
    assert (failed.value.reason, failed.value.retryable) == (Reason.OBJECT_UNAVAILABLE, True)


@pytest.fixture
def down(server: ObjectServer) -> Iterator[None]:
    server.kill()
    try:
        yield
    finally:
        server.start()


async def test_a_server_that_is_down_may_be_up_again(
    server: ObjectServer, tell: pytest.MonkeyPatch, down: None
) -> None:
    objects = opened(server, TASKDIST_OBJECTS_TIMEOUT_SECONDS="1")
    # The cause is told, not that it took long.
    with pytest.raises(ObjectError, match="error sending request") as failed:
        await objects.put_payload("team", body(70_005))
    assert (failed.value.reason, failed.value.retryable) == (Reason.OBJECT_UNAVAILABLE, True)


@pytest.mark.parametrize("way", ["fetching", "putting"])
async def test_a_server_that_is_back_in_time_is_waited_for(
    way: str, server: ObjectServer, tell: pytest.MonkeyPatch
) -> None:
    objects = opened(server, TASKDIST_OBJECTS_TIMEOUT_SECONDS="60")
    ref = await objects.put_payload("team", body(70_006))
    server.kill()
    try:
        asked = asyncio.create_task(
            objects.fetch(ref, "team") if way == "fetching" else objects.put_payload("team", body(70_007))
        )
        # Longer than the first three tries take.
        done, _ = await asyncio.wait([asked], timeout=2)
        assert not done
    finally:
        await asyncio.to_thread(server.start)
    await asked


@pytest.mark.parametrize("way", ["fetching", "putting"])
async def test_a_server_that_falls_silent_in_the_middle_is_left_in_time(
    way: str, server: ObjectServer, tell: pytest.MonkeyPatch
) -> None:
    ref = await opened(server).put_payload("team", body(5 * 2**20))
    proxy = Proxy("127.0.0.1", server.port)
    try:
        objects = opened(
            server,
            TASKDIST_OBJECTS_ENDPOINT=f"http://127.0.0.1:{proxy.port}",
            TASKDIST_OBJECTS_TIMEOUT_SECONDS="1",
        )
        proxy.hang_within(1 if way == "fetching" else 2**20)
        with pytest.raises(ObjectError, match="longer than 1 s") as failed:
            await (objects.fetch(ref, "team") if way == "fetching" else objects.put_result("team", LEASE, body(2**21)))
        assert (failed.value.reason, failed.value.retryable) == (Reason.OBJECT_UNAVAILABLE, True)
        assert proxy.hung.is_set()
    finally:
        proxy.refuse()
    # Half an object is none.
    assert not [key for key in server.keys("tasks/team/results/0a1b") if key.endswith(hashed(body(2**21)))]
