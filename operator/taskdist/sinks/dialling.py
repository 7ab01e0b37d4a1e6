"""Connections of libraries that dial by themselves, held to the addresses that sinks may send to.

A client of Kafka dials whatever the cluster says its brokers are called, so that it is not enough to look at what the
sink names. The loop looks at each address as it is dialled; for which host, the library says.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from socket import SOCK_STREAM, socket
from typing import Any, Final

from taskdist.outgoing.addresses import Allowed

REFUSED: Final = "it leads to an address that sinks may not send to: see TASKDIST_SINKS_ALLOWED in docs/sinks.md"

Guard = Callable[[str, str], bool]
"""Says of host and address whether it may be dialled."""

# Of the task that dials; tasks that it begins have it too.
_guard: ContextVar[Guard | None] = ContextVar("guard", default=None)


class AddressRefused(OSError):
    """The address is not one that may be dialled."""

    def __init__(self) -> None:
        super().__init__(REFUSED)


class GuardedLoop(asyncio.SelectorEventLoop):
    """An event loop on which what is `guarded` dials allowed addresses, and no others."""

    # The parameters are the library's own, and the answer is its transport and protocol.
    async def create_connection(
        self,
        protocol_factory: Callable[[], Any],
        host: Any = None,
        port: Any = None,
        *,
        ssl: Any = None,
        server_hostname: str | None = None,
        **options: Any,
    ) -> Any:
        guard = _guard.get()
        if guard is None or host is None:
            return await super().create_connection(
                protocol_factory, host, port, ssl=ssl, server_hostname=server_hostname, **options
            )
        found = [str(each[4][0]) for each in await self.getaddrinfo(host, port, type=SOCK_STREAM)]
        error: OSError = AddressRefused()
        for address in dict.fromkeys(each for each in found if guard(host, each)):
            try:
                return await super().create_connection(
                    protocol_factory,
                    address,
                    port,
                    ssl=ssl,
                    server_hostname=(server_hostname or host) if ssl else None,
                    **options,
                )
            except OSError as failed:
                error = failed
        raise error


@contextmanager
def guarded(allowed: Allowed, *, plain: bool) -> Iterator[None]:
    """Hold what dials in here, and all tasks that are begun in here, to what is allowed.

    `plain`: what is sent can be read on its way.
    """
    assert isinstance(asyncio.get_running_loop(), GuardedLoop), "nothing else looks at addresses"

    def may(host: str, address: str) -> bool:
        return allowed.address(host, address) and (not plain or allowed.plain(host, address))

    token = _guard.set(may)
    try:
        yield
    finally:
        _guard.reset(token)


def guarded_socket(allowed: Allowed, host: str, plain: bool, info: Any) -> socket:
    """Make the socket for an address, as aiohttp has it, that may be dialled. Raises `AddressRefused`."""
    family, kind, protocol, _, address = info
    dialled = str(address[0])
    if not allowed.address(host, dialled) or (plain and not allowed.plain(host, dialled)):
        raise AddressRefused
    made = socket(family=family, type=kind or SOCK_STREAM, proto=protocol)
    made.setblocking(False)
    return made
