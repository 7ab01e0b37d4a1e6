"""The receiver over HTTP: what it is sent, what its answers mean, and where nothing is sent."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from taskdist.api import Http, SinkReason, Webhook
from taskdist.intake.message import Message
from taskdist.intake.signatures import compile_signature
from taskdist.outgoing.addresses import PUBLIC_ONLY, Allowed, parse_allowed
from taskdist.outgoing.delivery import Failure
from taskdist.outgoing.ends import End
from taskdist.sinks.http import HttpReceiver, open_http, rest_of
from taskdist.sinks.receiver import NotTold, Stopped, Trouble

HERE = parse_allowed(("127.0.0.0/8",))
BODY = json.dumps({"specversion": "1.0", "id": "u.0.succeeded"}).encode()
END = End("u.0.succeeded", "team", "t", "u", 7, "u", "", BODY)
SECRET = b"whsec_" + base64.b64encode(b"k" * 24)


class Named(AbstractResolver):
    """Every name stands for these addresses."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=each, port=port, family=socket.AF_INET, proto=0, flags=0)
            for each in self._addresses
        ]

    async def close(self) -> None: ...


class Site:
    """A server on this machine that notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        self.status = 204
        self.headers: dict[str, str] = {}
        self.late = False
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks?x=1"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.asked.append((request.path_qs, headers, await request.read()))
        if self.late:
            await asyncio.Event().wait()
        return web.Response(status=self.status, headers=self.headers)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    made = Site()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", made.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.port = runner.addresses[0][1]
    yield made
    await runner.cleanup()


async def tell(
    url: str,
    secret: dict[str, bytes] | None = None,
    allowed: Allowed = HERE,
    resolver: AbstractResolver | None = None,
    **spec: Any,
) -> None:
    receiver: HttpReceiver = open_http(
        Http.model_validate({"url": url, **spec}), secret or {}, allowed, 4, resolver=resolver
    )
    try:
        await receiver.tell(END)
    finally:
        await receiver.close()


async def test_an_end_is_posted_as_an_event_that_is_signed(site: Site) -> None:
    await tell(site.url, {"secret": SECRET + b"\n", "token": b"abc\n"}, headers={"X-Team": "a"})
    ((path, headers, body),) = site.asked
    assert (path, body) == ("/hooks?x=1", BODY)
    assert headers["content-type"] == "application/cloudevents+json"
    assert (headers["authorization"], headers["x-team"]) == ("Bearer abc", "a")
    verifier = compile_signature(Webhook.model_validate({"format": "CloudEvents", "secretName": "s"}))
    verifier.verify(verifier.keys([SECRET]), Message(body=body, headers=headers), datetime.now(UTC))
    assert headers["webhook-id"] == END.id


async def test_without_a_secret_nothing_is_signed(site: Site) -> None:
    await tell(site.url)
    ((_, headers, _),) = site.asked
    assert not {"webhook-signature", "authorization", "cookie"} & headers.keys()


async def test_headers_that_are_the_request_s_own_are_not_the_sink_s(site: Site) -> None:
    own = {"HOST": "other.example.com", "webhook-signature": "v1,x", "Content-Type": "text/plain"}
    receiver = open_http(Http(url=site.url, headers=own), {}, HERE, 1)
    await receiver.tell(END)
    await receiver.close()
    ((_, headers, _),) = site.asked
    assert headers["host"] == f"127.0.0.1:{site.port}"
    assert headers["content-type"] == "application/cloudevents+json"
    assert "webhook-signature" not in headers


@pytest.mark.parametrize("status", [200, 201, 202, 204])
async def test_it_is_told_once_that_is_said(site: Site, status: int) -> None:
    site.status = status
    await tell(site.url)


@pytest.mark.parametrize(
    ("status", "wish", "failure", "rest"),
    [
        pytest.param(429, "7", Failure.UNAVAILABLE, 7.0, id="too many"),
        pytest.param(503, "", Failure.UNAVAILABLE, 0.0, id="unavailable"),
        pytest.param(503, "86400", Failure.UNAVAILABLE, 3600.0, id="unavailable for longer than is waited"),
        pytest.param(500, "", Failure.FAILED, 0.0, id="it fails"),
        pytest.param(408, "", Failure.FAILED, 0.0, id="it had no time"),
        pytest.param(400, "", Failure.REJECTED, 0.0, id="it does not want this one"),
        pytest.param(401, "", Failure.REJECTED, 0.0, id="it does not know us"),
        pytest.param(404, "", Failure.REJECTED, 0.0, id="nobody is there by this path"),
    ],
)
async def test_what_an_answer_means(site: Site, status: int, wish: str, failure: Failure, rest: float) -> None:
    site.status, site.headers = status, {"Retry-After": wish} if wish else {}
    with pytest.raises(NotTold, match=f"it answered {status}") as met:
        await tell(site.url)
    assert (met.value.failure, met.value.rest) == (failure, rest)


async def test_gone_is_the_last_word(site: Site) -> None:
    site.status = 410
    with pytest.raises(Stopped):
        await tell(site.url)


async def test_redirects_are_not_followed(site: Site) -> None:
    site.status, site.headers = 307, {"Location": "/elsewhere"}
    with pytest.raises(NotTold, match="redirects are not followed") as met:
        await tell(site.url)
    assert met.value.failure is Failure.REJECTED
    assert len(site.asked) == 1


async def test_who_does_not_answer_in_time_has_failed(site: Site) -> None:
    site.late = True
    with pytest.raises(NotTold, match="in time") as met:
        await tell(site.url, timeoutSeconds=1)
    assert met.value.failure is Failure.FAILED


async def test_where_nobody_listens_the_end_has_no_part_in_it() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(NotTold, match="nobody answers") as met:
            await tell(f"http://127.0.0.1:{taken.getsockname()[1]}/")
    assert (met.value.failure, met.value.reason) == (Failure.UNAVAILABLE, SinkReason.RETRYING)


@pytest.mark.parametrize(
    ("host", "addresses", "allowed"),
    [
        pytest.param("127.0.0.1", (), PUBLIC_ONLY, id="an address of this machine"),
        pytest.param("127.0.0.1", (), parse_allowed(("10.0.0.0/8",)), id="another network is allowed"),
        pytest.param("receiver.example.com", ("127.0.0.1",), PUBLIC_ONLY, id="a name for it"),
        pytest.param(
            "hooks.svc", ("127.0.0.1",), parse_allowed(("*.svc",)), id="an allowed name that stands for this machine"
        ),
        pytest.param("receiver.example.com", ("127.0.0.1", "10.0.0.1"), PUBLIC_ONLY, id="a name for several"),
        pytest.param("2130706433", ("127.0.0.1",), PUBLIC_ONLY, id="an address in another form"),
        pytest.param("localhost", ("127.0.0.1",), PUBLIC_ONLY, id="the usual name"),
    ],
)
async def test_no_connection_is_made_to_what_is_not_allowed(
    site: Site, host: str, addresses: tuple[str, ...], allowed: Allowed
) -> None:
    with pytest.raises(NotTold, match="may not send to") as met:
        await tell(f"http://{host}:{site.port}/", allowed=allowed, resolver=Named(*addresses))
    assert (met.value.failure, met.value.reason) == (Failure.UNAVAILABLE, SinkReason.ADDRESS_REFUSED)
    assert site.asked == []
    assert "127.0.0.1" not in str(met.value)


async def test_a_name_that_is_allowed_by_its_network_is_dialled_where_it_leads(site: Site) -> None:
    await tell(f"http://receiver.svc:{site.port}/", resolver=Named("127.0.0.1"))
    assert len(site.asked) == 1


async def test_a_name_server_that_never_answers_holds_one_thread_and_not_all() -> None:
    """Names are looked up in threads that all sinks share, and nobody can take one back."""
    asked = 0

    class Silent(Named):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            nonlocal asked
            asked += 1
            await asyncio.Event().wait()
            raise AssertionError

    spec = Http.model_validate({"url": "https://silent.example.com/", "timeoutSeconds": 1})
    receiver = open_http(spec, {}, PUBLIC_ONLY, 64, resolver=Silent())
    told = await asyncio.gather(*(receiver.tell(END) for _ in range(64)), return_exceptions=True)
    assert all(isinstance(each, NotTold) for each in told)
    assert asked == 1
    await receiver.close()


async def test_plain_http_to_the_internet_is_refused() -> None:
    with pytest.raises(NotTold, match="may not send to"):
        await tell("http://receiver.example.com/", allowed=PUBLIC_ONLY, resolver=Named("1.1.1.1"))


async def test_no_proxy_of_the_process_is_used(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setitem(os.environ, name, site.url)
    with pytest.raises(NotTold):
        await tell("http://receiver.svc:1/", resolver=Named("127.0.0.1"))
    assert site.asked == []


@pytest.mark.parametrize(
    "secret",
    [
        pytest.param({"secret": b"short"}, id="a secret that is too short"),
        pytest.param({"secret": b"whsec_***********************"}, id="a secret that is no base64"),
        pytest.param({"token": b"a\nb"}, id="a token of two lines"),
        pytest.param({"token": b"\xff"}, id="a token that is no text"),
        pytest.param({"ca.crt": b"none"}, id="no certificate"),
        pytest.param({"tls.crt": b"x"}, id="a certificate without its key"),
    ],
)
async def test_a_secret_that_cannot_be_used_is_told_of(secret: dict[str, bytes]) -> None:
    with pytest.raises(Trouble) as met:
        await tell("https://receiver.example.com/", secret)
    assert met.value.reason is SinkReason.SECRET_UNUSABLE


@pytest.mark.parametrize(
    ("wish", "seconds"),
    [
        ("", 0.0),
        ("5", 5.0),
        ("9" * 400, 3600.0),
        ("-5", 0.0),
        ("soon", 0.0),
        ("Tue, 01 Jan 2030 00:00:30 GMT", 30.0),
        ("Tue, 01 Jan 2030 00:00:00 -0000", 0.0),
        ("Mon, 31 Dec 2029 00:00:00 GMT", 0.0),
        ("Tue, 01 Jan 20300 00:00:00 GMT", 0.0),
    ],
)
def test_for_how_long_a_receiver_asks(wish: str, seconds: float) -> None:
    assert rest_of(wish, datetime(2030, 1, 1, tzinfo=UTC).timestamp()) == seconds
