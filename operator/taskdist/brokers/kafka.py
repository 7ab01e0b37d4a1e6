"""Access to a Kafka cluster: its address, the options of each connection, and the words of its refusals."""

import asyncio
import ssl
from dataclasses import dataclass
from typing import Any, Final

import structlog
from aiokafka.conn import create_conn
from aiokafka.errors import KafkaError

_log = structlog.get_logger("taskdist.brokers")

# The longest that an answer may take, in seconds.
ANSWER_SECONDS: Final = 20.0
# Before a broker that is away is tried again. The library logs each try.
RETRY_SECONDS: Final = 0.5
# New partitions are seen after this time, in seconds.
METADATA_SECONDS: Final = 60
# The longest that a farewell is waited for, in seconds.
CLOSE_SECONDS: Final = 3.0
# The library's own bound would refuse what the broker takes.
PUBLISH_BYTES: Final = 2**30

# Clients that take long to end: kept until they have.
_ending: set["asyncio.Task[None]"] = set()


@dataclass(frozen=True, slots=True)
class Login:
    """A cluster, and what it lets us in with.

    Args:
        sasl: the mechanism by which username and password are shown; None where none are.
        name: what the client is called, for people who look at the cluster.
    """

    bootstrap: tuple[str, ...]
    tls: ssl.SSLContext | None
    sasl: str | None
    username: str
    password: str
    name: str

    def options(self) -> dict[str, Any]:
        """Return the options that consumers and producers have in common."""
        return {
            "bootstrap_servers": list(self.bootstrap),
            "metadata_max_age_ms": METADATA_SECONDS * 1000,
            "retry_backoff_ms": int(RETRY_SECONDS * 1000),
            **self.connection(),
        }

    def connection(self) -> dict[str, Any]:
        """Return the options of one connection."""
        protocol = {
            (False, False): "PLAINTEXT",
            (True, False): "SSL",
            (False, True): "SASL_PLAINTEXT",
            (True, True): "SASL_SSL",
        }[self.tls is not None, self.sasl is not None]
        login = {"sasl_plain_username": self.username, "sasl_plain_password": self.password}
        return {
            "client_id": f"taskdist {self.name}",
            "security_protocol": protocol,
            "ssl_context": self.tls,
            "request_timeout_ms": int(ANSWER_SECONDS * 1000),
            **({"sasl_mechanism": self.sasl, **login} if self.sasl is not None else {}),
        }


async def why_not(login: Login) -> str:
    """Ask the first broker once more why no connection comes about, for people. The library only logs that."""
    first = login.bootstrap[0]
    host, _, port = first.rpartition(":")
    try:
        connection = await create_conn(host.strip("[]"), int(port), **login.connection())
    except (KafkaError, OSError, TimeoutError) as error:
        return f"{first}: {words_of(error)}"
    connection.close()
    return f"{first} takes connections, and tells of no brokers"


def words_of(error: BaseException) -> str:
    """Return what the library said, for people."""
    return (str(error) or type(error).__name__)[:500]


async def ended(ending: Any) -> None:
    """Wait for the end a short while. A broker that is away lets it take longer, and nobody has to wait for that."""
    task = asyncio.ensure_future(ending)
    _ending.add(task)
    task.add_done_callback(_over)
    await asyncio.wait({task}, timeout=CLOSE_SECONDS)


def _over(task: "asyncio.Task[None]") -> None:
    _ending.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.debug("a client has not ended well", why=repr(error))
