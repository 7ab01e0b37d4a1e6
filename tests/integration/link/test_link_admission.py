"""Real tokens, reviewed by a real API server."""

import time
from typing import Any

import pytest

from integration.link.conftest import AUDIENCE, Api
from taskdist.link.auth import NotAdmitted, Refusal
from taskdist.protocol.messages import AgentIdentity


async def refusal_of(api: Api, token: str, **options: Any) -> NotAdmitted:
    with pytest.raises(NotAdmitted) as refused:
        await api.authenticator(**options).authenticate(token)
    return refused.value


async def test_a_pod_of_the_pool_is_admitted(api: Api) -> None:
    pool = await api.pool("p")
    uid = await api.pod("a", "p", pool)
    admission = await api.authenticator().authenticate(await api.token("a", uid))
    assert admission.identity == AgentIdentity(uid, "a", api.namespace, "p", pool)
    assert 500 < admission.seconds <= 600


async def test_a_token_for_another_audience_is_refused(api: Api) -> None:
    uid = await api.pod("a", "p", await api.pool("p"))
    refused = await refusal_of(api, await api.token("a", uid, "https://kubernetes.default.svc"))
    assert (refused.kind, refused.reason) == (Refusal.TOKEN, "WrongAudience")
    assert f"audience: {AUDIENCE}" in str(refused)
    assert "kubernetes.default" in str(refused)


@pytest.mark.parametrize("token", ["garbage", "a.b.c", "eyJhbGciOiJSUzI1NiJ9.e30.c2ln"])
async def test_garbage_is_refused(api: Api, token: str) -> None:
    refused = await refusal_of(api, token)
    assert (refused.kind, refused.reason) == (Refusal.TOKEN, "InvalidToken")
    assert "TASKDIST_TOKEN_FILE" in str(refused)


async def test_a_tampered_token_is_refused(api: Api) -> None:
    uid = await api.pod("a", "p", await api.pool("p"))
    head, claims, signature = (await api.token("a", uid)).split(".")
    refused = await refusal_of(api, f"{head}.{claims}.{'A' * len(signature)}")
    assert (refused.kind, refused.reason) == (Refusal.TOKEN, "InvalidToken")


async def test_a_token_that_ended_is_refused(api: Api) -> None:
    uid = await api.pod("a", "p", await api.pool("p"))
    token = await api.token("a", uid)
    refused = await refusal_of(api, token, wall=lambda: time.time() + 601)
    assert (refused.kind, refused.reason) == (Refusal.TOKEN, "TokenExpired")
    assert "read TASKDIST_TOKEN_FILE again" in str(refused)


async def test_a_token_bound_to_no_pod_is_refused(api: Api) -> None:
    refused = await refusal_of(api, await api.token("", ""))
    assert (refused.kind, refused.reason) == (Refusal.AGENT, "NotAPod")
    assert "bound to no pod" in str(refused)


async def test_a_pod_of_a_pool_that_is_not_served_is_refused(api: Api) -> None:
    await api.pool("mine")
    other = await api.pool("other")
    del api.pools[api.namespace, "other"]
    uid = await api.pod("a", "other", other)
    refused = await refusal_of(api, await api.token("a", uid))
    assert (refused.kind, refused.reason) == (Refusal.AGENT, "PoolGone")
    assert f"AgentPool {api.namespace}/other" in str(refused)


async def test_a_pod_of_an_earlier_pool_of_the_name_is_refused(api: Api) -> None:
    uid = await api.pod("a", "p", await api.pool("p"))
    api.pools[api.namespace, "p"] = "the-uid-of-its-successor"
    refused = await refusal_of(api, await api.token("a", uid))
    assert (refused.kind, refused.reason) == (Refusal.AGENT, "OtherPool")
    assert "delete the pod" in str(refused)


async def test_a_pod_of_no_pool_is_refused(api: Api) -> None:
    uid = await api.pod("a")
    refused = await refusal_of(api, await api.token("a", uid))
    assert (refused.kind, refused.reason) == (Refusal.AGENT, "NotOfAPool")


async def test_the_token_of_a_pod_that_works_through_its_grace_is_good(api: Api) -> None:
    pool = await api.pool("p")
    uid = await api.pod("a", "p", pool, node="somewhere")
    token = await api.token("a", uid)
    await api.delete_pod("a", grace=30)
    pod = await api.read_pod(api.namespace, "a")
    assert pod is not None
    assert pod.deleting
    assert (await api.authenticator().authenticate(token)).identity.pod_uid == uid
    await api.delete_pod("a")


async def test_the_token_of_a_deleted_pod_is_refused(api: Api) -> None:
    pool = await api.pool("p")
    uid = await api.pod("a", "p", pool)
    token = await api.token("a", uid)
    await api.delete_pod("a")
    refused = await refusal_of(api, token)
    assert (refused.kind, refused.reason) == (Refusal.AGENT, "PodGone")
    assert "deleted" in str(refused)


async def test_a_deleted_pods_successor_of_the_same_name_does_not_lend_it_its_identity(api: Api) -> None:
    pool = await api.pool("p")
    uid = await api.pod("a", "p", pool)
    token = await api.token("a", uid)
    authenticator = api.authenticator()
    await authenticator.authenticate(token)  # the answer is kept: what follows is not left to the API server
    await api.delete_pod("a")
    await api.pod("a", "p", pool)
    with pytest.raises(NotAdmitted) as refused:
        await authenticator.authenticate(token)
    assert refused.value.reason == "PodGone"
