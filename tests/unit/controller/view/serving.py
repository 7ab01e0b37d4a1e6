"""For the view's tests: a server on loopback with a certificate of its own, and who may ask it."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import aiohttp

from taskdist.api.view import Leader
from taskdist.controller.view.callers import Callers
from taskdist.controller.view.pace import Pace
from taskdist.controller.view.problems import Problem
from taskdist.controller.view.server import Route, ViewServer
from taskdist.kube import TASKS, Caller, Resource, Right
from taskdist.link.ca import Authority, AuthoritySettings, rotate

AUTHORITY = rotate(None, ("localhost",), time.time(), AuthoritySettings())


class Known:
    """Callers by their tokens; `may` are the rights of all of them."""

    def __init__(self) -> None:
        self.may: set[tuple[str, Resource]] = {("get", TASKS)}
        self.checked: list[Right] = []

    async def who(self, headers: Any) -> Caller:
        token = headers.get("Authorization", "").removeprefix("Bearer ")
        if not token:
            raise Problem(401, "no token")
        return Caller(token)

    async def check(self, caller: Caller, rights: list[Right]) -> None:
        for right in rights:
            self.checked.append(right)
            if (right.verb, right.resource) not in self.may:
                raise Problem(403, f"{caller.username} may not {right}")


def trusting(authority: Authority) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority.bundle.decode())
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.check_hostname = False
    return context


class _Serving:
    """What a server asks of the process around it."""

    def view_asked(self, path: str, outcome: str, seconds: float) -> None:
        """Counted elsewhere."""

    def serving(self) -> Any:
        return AUTHORITY.serving


@asynccontextmanager
async def serving(routes: Sequence[Route], callers: Known, pace: Pace) -> AsyncIterator[int]:
    """Serve these paths as a leader does; give the port."""
    leader = Leader(leading=True, holder="operator-0", epoch=3, address="view:9446")
    parts = _Serving()
    server = ViewServer(routes, lambda: leader, lambda _: True, cast(Callers, callers), pace, parts, parts)
    listens: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    running = asyncio.ensure_future(server.serve("127.0.0.1", 0, listens.set_result))
    yield await listens
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


@asynccontextmanager
async def served(routes: Sequence[Route], callers: Known, pace: Pace) -> AsyncIterator[aiohttp.ClientSession]:
    """Serve these paths as a leader does; give a session to ask them by, as ann."""
    async with serving(routes, callers, pace) as port:
        connector = aiohttp.TCPConnector(ssl=trusting(AUTHORITY))
        headers = {"Authorization": "Bearer ann"}
        url = f"https://127.0.0.1:{port}"
        async with aiohttp.ClientSession(url, connector=connector, headers=headers) as session:
            yield session
