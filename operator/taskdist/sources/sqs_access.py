"""SQS as a source asks it: the queue that it names, and what fails as a `Trouble`."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from taskdist.api import SourceReason
from taskdist.brokers import sqs, sqs_errors
from taskdist.brokers.sqs import ANSWER_SECONDS, Access, Login
from taskdist.sources.broker import Trouble

_T = TypeVar("_T")


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

    @property
    def access(self) -> Access:
        return Access(self.region, self.endpoint, self.login, self.source)


class Refused(Trouble):
    """SQS answered, and refused what it was asked. `code`: its name of the reason, without a prefix."""

    def __init__(self, reason: SourceReason, message: str, code: str) -> None:
        super().__init__(reason, message)
        self.code = code


class Sqs:
    """A client of SQS for one source. Whatever fails is a `Trouble`."""

    def __init__(self, client: sqs.Sqs) -> None:
        self._client = client

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
        """Ask as the client does. Raises `Refused` and `Trouble`."""
        with _told():
            return await self._client.ask(operation, queue, read, seconds=seconds, again=again, **asked)

    async def close(self) -> None:
        await self._client.close()


async def enter(address: Address) -> Sqs:
    """Return a client; nothing is asked yet. Raises `Trouble`."""
    with _told():
        return Sqs(await sqs.enter(address.access))


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except sqs_errors.Refused as error:
        raise Refused(SourceReason(error.why), str(error), error.code) from None
    except sqs_errors.Unusable as error:
        raise Trouble(SourceReason(error.why), str(error)) from None
