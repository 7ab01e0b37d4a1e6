"""A receiver over HTTP: one POST for each end, a CloudEvent in structured mode.

The URL is a namespace user's and the process stands in the cluster's network, so where it leads is looked at last of
all: as the socket is made, for the address that is dialled. What a name stands for may change between two looks;
an address does not. Redirects are not followed, proxies and cookies not used, and nothing that the receiver sends but
its status and Retry-After is read or told on.
"""

import ssl
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from taskdist.api import Http, SinkReason
from taskdist.api.tasksink import RESERVED_HEADERS
from taskdist.intake.cloudevents import STRUCTURED
from taskdist.intake.signatures import STANDARD_ID, SecretError, standard_key, standard_signature
from taskdist.kube.secret_values import CA, CERTIFICATE, SecretUnusable, text_of, tls_of
from taskdist.outgoing.addresses import Allowed
from taskdist.outgoing.delivery import Failure
from taskdist.outgoing.ends import End
from taskdist.sinks.dialling import REFUSED, AddressRefused, guarded_socket
from taskdist.sinks.receiver import NotTold, Stopped, Trouble

# The longest that a receiver may ask for rest, in seconds.
MOST_REST: Final = 3600.0
# How long a name's addresses are used again, in seconds.
LOOKUP_SECONDS: Final = 5
_SECRET: Final = "secret"
_TOKEN: Final = "token"
# Statuses by which an end has no part in the failure, and those that say nothing of it: it is tried again.
_UNAVAILABLE: Final = (429, 503)
_AGAIN: Final = (408, 425)


class HttpReceiver:
    """One URL. Made by `open_http`."""

    def __init__(
        self, session: aiohttp.ClientSession, spec: Http, key: bytes | None, token: str, wall: Callable[[], float]
    ) -> None:
        self._session = session
        self._url = URL(spec.url)
        self._key = key
        self._token = token
        self._wall = wall
        self._headers = {name: value for name, value in spec.headers.items() if name.lower() not in RESERVED_HEADERS}

    async def tell(self, end: End) -> None:
        try:
            async with self._session.post(
                self._url, data=end.body, headers=self._signed(end), allow_redirects=False
            ) as answer:
                status, wish = answer.status, answer.headers.get("Retry-After", "")
        except aiohttp.ConnectionTimeoutError:
            raise NotTold(Failure.UNAVAILABLE, "it cannot be reached: nobody answers there in time") from None
        except TimeoutError:
            raise NotTold(Failure.FAILED, "it did not answer in time") from None
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, AddressRefused) or REFUSED in str(error.os_error):
                raise NotTold(Failure.UNAVAILABLE, REFUSED, reason=SinkReason.ADDRESS_REFUSED) from None
            raise NotTold(Failure.UNAVAILABLE, f"it cannot be reached: {_plain(error)}") from None
        except aiohttp.InvalidURL:
            raise NotTold(Failure.UNAVAILABLE, REFUSED, reason=SinkReason.ADDRESS_REFUSED) from None
        except (aiohttp.ClientError, ConnectionError) as error:
            raise NotTold(Failure.FAILED, f"the connection failed: {type(error).__name__}") from None
        self._judge(status, wish)

    async def close(self) -> None:
        await self._session.close()

    def _judge(self, status: int, wish: str) -> None:
        if 200 <= status < 300:
            return
        told = f"it answered {status}"
        if status == 410:
            raise Stopped(f"{told} (Gone), which says that it wants no events any more: change the sink to begin again")
        if status in _UNAVAILABLE:
            raise NotTold(Failure.UNAVAILABLE, told, rest_of(wish, self._wall()))
        if 300 <= status < 400:
            raise NotTold(Failure.REJECTED, f"{told}, and redirects are not followed: name the URL that it leads to")
        if 400 <= status < 500 and status not in _AGAIN:
            raise NotTold(Failure.REJECTED, told)
        raise NotTold(Failure.FAILED, told, rest_of(wish, self._wall()))

    def _signed(self, end: End) -> dict[str, str]:
        headers = {**self._headers, "Content-Type": STRUCTURED, STANDARD_ID: end.id}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        if self._key is not None:
            seconds = int(self._wall())
            headers["webhook-timestamp"] = str(seconds)
            headers["webhook-signature"] = standard_signature(self._key, end.id, seconds, end.body)
        return headers


def open_http(
    spec: Http,
    secret: Mapping[str, bytes],
    allowed: Allowed,
    in_flight: int,
    *,
    resolver: AbstractResolver | None = None,
    wall: Callable[[], float] = time.time,
) -> HttpReceiver:
    """Return a receiver that is dialled once it is told something. Raises `Trouble`. To be called on a loop."""
    url = URL(spec.url)
    try:
        key = standard_key(secret[_SECRET]) if secret.get(_SECRET) else None
        token = text_of(secret, _TOKEN) if secret.get(_TOKEN) else ""
        tls: ssl.SSLContext | bool = tls_of(secret) if secret.get(CA) or secret.get(CERTIFICATE) else True
    except (SecretError, SecretUnusable) as error:
        raise Trouble(SinkReason.SECRET_UNUSABLE, str(error)) from None
    if not token.isascii() or not all(sign.isprintable() for sign in token):
        raise Trouble(SinkReason.SECRET_UNUSABLE, f"{_TOKEN} of the Secret has characters that no header has")
    connector = aiohttp.TCPConnector(
        ssl=tls,
        limit=in_flight,
        # So that one of those that wait looks the name up, in one of the threads that all sinks share. An address is
        # looked at when it is dialled, however old the answer is.
        use_dns_cache=True,
        ttl_dns_cache=LOOKUP_SECONDS,
        resolver=resolver,
        socket_factory=partial(guarded_socket, allowed, url.host or "", url.scheme == "http"),
    )
    session = aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=spec.timeout_seconds, sock_connect=0.8 * spec.timeout_seconds),
        headers={"User-Agent": "taskdist-sinks"},
        auto_decompress=False,
        trust_env=False,
    )
    return HttpReceiver(session, spec, key, token, wall)


def rest_of(wish: str, now: float) -> float:
    """For how many seconds a Retry-After asks: seconds, or a date. What is neither asks for nothing."""
    if wish.isascii() and wish.isdecimal():
        return min(float(wish[:9]), MOST_REST)
    try:
        then = parsedate_to_datetime(wish)
    except (TypeError, ValueError, OverflowError):
        return 0.0
    then = then if then.tzinfo else then.replace(tzinfo=UTC)
    return min(max((then - datetime.fromtimestamp(now, UTC)).total_seconds(), 0.0), MOST_REST)


def _plain(error: aiohttp.ClientConnectorError) -> str:
    """Why, without addresses: they are the cluster's business."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name stands for no address"
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        return "its certificate is not trusted, or TLS fails otherwise"
    return "nobody answers there"
