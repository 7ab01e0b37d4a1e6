"""SQS as it is asked: how a process is let in, how long an answer may take and how large it may be, and what fails.

It uses aiobotocore, which knows all ways in which AWS lets a process in, signs, and tries again what may be tried
again. An endpoint may be anybody's: whatever it answers, its source alone fails.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import cache
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

from taskdist.api import SourceReason
from taskdist.common.backoff import Backoff
from taskdist.sources.broker import Trouble
from taskdist.sources.sqs_messages import ROLE, trouble_of

_log = structlog.get_logger("taskdist.sources")

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
# Answers by which SQS, or the keys that it decrypts with, are asked too often.
THROTTLED: Final = (
    "RequestThrottled",
    "Throttling",
    "ThrottlingException",
    "KmsThrottled",
    "TooManyRequestsException",
    "RequestLimitExceeded",
)
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
class Address:
    """The queue, and how to be let in. `login`: None is the process's own identity."""

    queue: str
    region: str
    endpoint: str | None
    login: Login | None
    prefetch: int
    visibility: int
    dead_letters: str | None
    source: str
    """Namespace and name of the source, for people who look at dead letters."""


class Refused(Trouble):
    """SQS answered, and refused what it was asked. `code`: its name of the reason, without a prefix."""

    def __init__(self, trouble: Trouble, code: str) -> None:
        super().__init__(trouble.reason, str(trouble))
        self.code = code


class Sqs:
    """A client of SQS for one source. Whatever fails is a `Trouble`."""

    def __init__(self, address: Address, client: Any, stack: AsyncExitStack) -> None:
        self._address = address
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
        """Return what `read` makes of the answer. Raises `Refused` and `Trouble`.

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
                refused = _refused(error, self._address, operation, queue)
                if refused.code not in THROTTLED or not again or self._ticks() >= end:
                    raise refused from None
            except Trouble:
                raise
            except Exception as error:
                raise _trouble(error, self._address) from None
            await asyncio.sleep(PAUSE.full(tries))
            tries += 1

    async def close(self) -> None:
        await self._stack.aclose()


async def enter(address: Address) -> Sqs:
    """Return a client; nothing is asked yet. Raises `Trouble`."""
    stack, login = AsyncExitStack(), address.login
    try:
        client = await stack.enter_async_context(
            _session().create_client(
                "sqs",
                region_name=address.region,
                endpoint_url=address.endpoint,
                aws_access_key_id=None if login is None else login.key,
                aws_secret_access_key=None if login is None else login.secret,
                aws_session_token=None if login is None else login.token,
                config=AioConfig(
                    connect_timeout=CONNECT_SECONDS,
                    read_timeout=POLL_SECONDS + ANSWER_SECONDS,
                    retries={"total_max_attempts": TRIES, "mode": "standard"},
                    user_agent_extra="taskdist",
                    http_session_cls=_Bounded,
                ),
            )
        )
    except Exception as error:
        raise _trouble(error, address) from None
    return Sqs(address, client, stack)


@cache
def _session() -> Any:
    """Return the one session of all sources: it reads some MiB of files, and refreshes the process's own identity."""
    return get_session()


# -- failures ----------------------------------------------------------------------------------------------------------


def _refused(error: ClientError, address: Address, operation: str, queue: str) -> Refused:
    said = error.response.get("Error", {})
    code = str(said.get("Code", "")).rpartition(".")[2]
    # Who the process is was asked for before.
    action = error.operation_name if error.operation_name.startswith(ROLE) else operation
    return Refused(trouble_of(code, str(said.get("Message", "")), action, queue, address.region), code)


def _trouble(error: Exception, address: Address) -> Trouble:
    if isinstance(error, _NO_IDENTITY):
        return Trouble(
            SourceReason.SECRET_UNUSABLE,
            "this process has no identity at AWS: name a Secret, or give its ServiceAccount a role",
        )
    where = address.endpoint or f"SQS in {address.region}"
    if isinstance(error, BotoCoreError | HttpError | TimeoutError | OSError):
        return Trouble(SourceReason.BROKER_UNREACHABLE, f"{where} does not answer: {error or repr(error)}"[:500])
    # The library takes it for granted that SQS answers. Its words may quote the answer, which only the log repeats.
    _log.info("an answer in the place of SQS cannot be read", source=address.source, exc_info=error)
    name = type(error).__name__
    return Trouble(SourceReason.BROKER_UNREACHABLE, f"{where} does not answer as SQS does ({name}): mend the address")


# -- answers -----------------------------------------------------------------------------------------------------------


class _Bounded:
    """The library's HTTP, but that no answer is read beyond a bound: it would be held in memory as a whole."""

    def __init__(self, **options: Any) -> None:
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
                raise Trouble(
                    SourceReason.BROKER_UNREACHABLE,
                    f"an answer has more than {MOST_ANSWER_BYTES} bytes, as none of SQS has: mend spec.sqs.endpoint",
                )
    except HttpError as error:
        # Tried again by the library.
        raise ConnectionClosedError(error=error, request=request, endpoint_url=request.url) from None
    finally:
        # Of one that was not read to its end the connection is not used again.
        answer.release() if answer.content.at_eof() else answer.close()
    return bytes(content)
