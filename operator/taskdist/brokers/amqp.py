"""A connection to a RabbitMQ broker over AMQP 0-9-1: where to, how it is opened and ended, and the words of its end.

It uses aiormq, on which aio-pika is built, as it is: what aio-pika adds (reconnecting by itself, a message class that
refuses a delivery mode it does not know) would hide which deliveries and confirmations are still one's own.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from aiormq.abc import AbstractConnection
from yarl import URL

# A peer that says nothing for so long is gone, in seconds.
HEARTBEAT_SECONDS: Final = 20
# The longest that a connection, an answer and a farewell may take, in seconds.
CONNECT_SECONDS: Final = 15.0
ANSWER_SECONDS: Final = 20.0
CLOSE_SECONDS: Final = 3.0

_PLAIN_PORT: Final = 5672
_TLS_PORT: Final = 5671


@dataclass(frozen=True, slots=True)
class Login:
    """A broker, and what it lets us in with.

    Args:
        port: None for the port that is usual.
        name: what the connection is called, for people who look at the broker.
    """

    host: str
    port: int | None
    virtual_host: str
    username: str
    password: str
    tls: ssl.SSLContext | None
    name: str

    @property
    def url(self) -> URL:
        # Built of quoted parts: a virtual host may be any text, with slashes.
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = self.port or (_PLAIN_PORT if self.tls is None else _TLS_PORT)
        login = f"{quote(self.username, safe='')}:{quote(self.password, safe='')}"
        path = quote(self.virtual_host, safe="") if self.virtual_host != "/" else ""
        query = f"heartbeat={HEARTBEAT_SECONDS}&name={quote(f'taskdist {self.name}', safe='')}"
        scheme = "amqp" if self.tls is None else "amqps"
        return URL(f"{scheme}://{login}@{host}:{port}/{path}?{query}", encoded=True)


async def close(connection: AbstractConnection) -> None:
    """End a connection. What it says to that is of no use to anybody, and must not keep us."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(CLOSE_SECONDS):
            await connection.close()


@contextmanager
def lost_is_told(lost: Callable[[str], Exception], but: tuple[type[BaseException], ...] = ()) -> Iterator[None]:
    """Make `lost` of whatever the library raises. A cancellation is let through only if it is our own.

    The library cancels what waits for an answer when a connection ends; taken for ours, it would end who waits.
    """
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise lost("the connection was lost") from None
    except but:
        raise
    except TimeoutError:
        raise lost("the broker does not answer") from None
    except Exception as error:
        raise lost(words_of(error)) from None


def words_of(error: BaseException) -> str:
    """Return what the broker said, for people."""
    said = ": ".join(str(each) for each in error.args if each is not None) or type(error).__name__
    return said[:500]
