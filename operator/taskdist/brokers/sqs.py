"""SQS as it is asked: how a process is let in, how long an answer may take and how large it may be, and what fails.

It uses aiobotocore, which knows all ways in which AWS lets a process in, signs, and tries again what may be tried
again. An endpoint may be anybody's: whatever it answers, the source or sink that names it alone fails.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import cache, partial
from socket import socket
from typing import Any, Final, Self, TypeVar

import structlog
from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import get_session
from aiohttp import ClientError as HttpError
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
)

from taskdist.brokers.sqs_errors import ROLE, THROTTLED, Refused, Unusable, Why, trouble_of
from taskdist.common.backoff import Backoff

_log = structlog.get_logger("taskdist.brokers")

# Queues whose names end so keep messages in order by group.
FIFO: Final = ".fifo"
# The longest that SQS lets a question for messages wait for one, in seconds.
POLL_SECONDS: Final = 20
# The longest that a connection and an answer may take, in seconds.
CONNECT_SECONDS: Final = 10.0
ANSWER_SECONDS: Final = 20.0
# The most bytes that are read of an answer: ten messages of 1 MiB, with what JSON adds.
MOST_ANSWER_BYTES: Final = 32 * 2**20
# How often what SQS could not do is tried again by the library.
TRIES: Final = 4
# For so long it is asked again where it says that it is asked too often, in seconds, and after which pauses.
THROTTLED_SECONDS: Final = 60.0
PAUSE: Final = Backoff(first=0.5, most=10.0)
# The methods of the library, by the right that each needs.
_METHODS: Final = {
    "ReceiveMessage": "receive_message",
    "DeleteMessage": "delete_message_batch",
    "ChangeMessageVisibility": "change_message_visibility_batch",
    "SendMessage": "send_message",
    "GetQueueAttributes": "get_queue_attributes",
}
_NO_IDENTITY: Final = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Login:
    """An access key."""

    key: str
    secret: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Access:
    """Where SQS is asked, and how to be let in.

    Args:
        login: None is the process's own identity.
        name: of whom it asks for, for people who look at the log.
        connections: how many there are at once, at most.
        dial: makes the socket for an address, or raises an OSError, of the URL that is asked and the address as
            aiohttp has it. None: any is dialled, by way of a proxy where the environment names one.
    """

    region: str
    endpoint: str | None
    login: Login | None
    name: str
    connections: int = 10
    dial: Callable[[str, Any], socket] | None = None


class Sqs:
    """A client of SQS. Whatever fails is `Unusable`."""

    def __init__(self, access: Access, client: Any, stack: AsyncExitStack) -> None:
        self._access = access
        self._client = client
        self._stack = stack
        self._ticks = asyncio.get_running_loop().time

    async def ask(
        self,
        operation: str,
        queue: str,
        read: Callable[[Mapping[str, Any]], _T],
        *,
        seconds: float = ANSWER_SECONDS,
        again: bool = True,
        **asked: Any,
    ) -> _T:
        """Return what `read` makes of the answer. Raises `Refused` and `Unusable`.

        Args:
            operation: the right that it needs.
            seconds: the longest that it may take, with all tries.
            again: whether it is asked again, for a minute, where SQS is asked too often.
        """
        call = getattr(self._client, _METHODS[operation])
        end, tries = self._ticks() + THROTTLED_SECONDS, 0
        while True:
            try:
                async with asyncio.timeout(seconds):
                    return read(await call(QueueUrl=queue, **asked))
            except ClientError as error:
                refused = _refused(error, self._access, operation, queue)
                if refused.code not in THROTTLED or not again or self._ticks() >= end:
                    raise refused from None
            except Unusable:
                raise
            except Exception as error:
                raise _trouble(error, self._access) from None
            await asyncio.sleep(PAUSE.full(tries))
            tries += 1

    async def close(self) -> None:
        await self._stack.aclose()


async def enter(access: Access) -> Sqs:
    """Return a client; nothing is asked yet. Raises `Unusable`."""
    stack, login = AsyncExitStack(), access.login

    def dial(info: Any) -> socket:
        assert access.dial is not None
        return access.dial(str(client.meta.endpoint_url), info)

    try:
        client = await stack.enter_async_context(
            _session().create_client(
                "sqs",
                region_name=access.region,
                endpoint_url=access.endpoint,
                aws_access_key_id=None if login is None else login.key,
                aws_secret_access_key=None if login is None else login.secret,
                aws_session_token=None if login is None else login.token,
                config=AioConfig(
                    connect_timeout=CONNECT_SECONDS,
                    read_timeout=POLL_SECONDS + ANSWER_SECONDS,
                    retries={"total_max_attempts": TRIES, "mode": "standard"},
                    max_pool_connections=access.connections,
                    user_agent_extra="taskdist",
                    http_session_cls=partial(_Bounded, None if access.dial is None else dial),
                ),
            )
        )
    except Exception as error:
        raise _trouble(error, access) from None
    return Sqs(access, client, stack)


@cache
def _session() -> Any:
    """Return the one session of the process: it reads some MiB of files, and refreshes the process's own identity."""
    return get_session()


# -- failures ----------------------------------------------------------------------------------------------------------


def _refused(error: ClientError, access: Access, operation: str, queue: str) -> Refused:
    said = error.response.get("Error", {})
    code = str(said.get("Code", "")).rpartition(".")[2]
    # Who the process is was asked for before.
    action = error.operation_name if error.operation_name.startswith(ROLE) else operation
    return Refused(trouble_of(code, str(said.get("Message", "")), action, queue, access.region), code)


def _trouble(error: Exception, access: Access) -> Unusable:
    if isinstance(error, _NO_IDENTITY):
        return Unusable(
            Why.SECRET_UNUSABLE,
            "this process has no identity at AWS: name a Secret, or give its ServiceAccount a role",
        )
    where = access.endpoint or f"SQS in {access.region}"
    if isinstance(error, BotoCoreError | HttpError | TimeoutError | OSError):
        return Unusable(Why.BROKER_UNREACHABLE, f"{where} does not answer: {error or repr(error)}"[:500])
    # The library takes it for granted that SQS answers. Its words may quote the answer, which only the log repeats.
    _log.info("an answer in the place of SQS cannot be read", name=access.name, exc_info=error)
    kind = type(error).__name__
    return Unusable(Why.BROKER_UNREACHABLE, f"{where} does not answer as SQS does ({kind}): mend the address")


# -- answers -----------------------------------------------------------------------------------------------------------


class _Bounded:
    """The library's HTTP, but that no answer is read beyond a bound: it would be held in memory as a whole."""

    def __init__(self, dial: Callable[[Any], socket] | None, **options: Any) -> None:
        if dial is not None:
            # A proxy would dial whatever it is told.
            options["proxies"] = {}
            options["connector_args"] = {**(options.get("connector_args") or {}), "socket_factory": dial}
        self._session = AIOHTTPSession(**options)

    async def __aenter__(self) -> Self:
        await self._session.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._session.__aexit__(*error)

    async def close(self) -> None:
        await self._session.close()

    async def send(self, request: Any) -> Any:
        # Left unread by the library.
        request.stream_output = True
        answer = await self._session.send(request)
        answer.raw = _Body(await _read(answer.raw, request))
        return answer


@dataclass(frozen=True, slots=True)
class _Body:
    """The body of an answer as the library reads it."""

    content: bytes

    async def read(self) -> bytes:
        return self.content


async def _read(answer: Any, request: Any) -> bytes:
    content = bytearray()
    try:
        async for chunk in answer.content.iter_any():
            content += chunk
            if len(content) > MOST_ANSWER_BYTES:
                raise Unusable(
                    Why.BROKER_UNREACHABLE,
                    f"an answer has more than {MOST_ANSWER_BYTES} bytes, as none of SQS has: mend spec.sqs.endpoint",
                )
    except HttpError as error:
        # Tried again by the library.
        raise ConnectionClosedError(error=error, request=request, endpoint_url=request.url) from None
    finally:
        # Of one that was not read to its end the connection is not used again.
        answer.release() if answer.content.at_eof() else answer.close()
    return bytes(content)
