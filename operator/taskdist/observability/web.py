"""The web server of a door, on uvicorn: how it listens, and how its process ends.

A part that fails for good ends the process. Refuses to know what is answered: that is the application's business.
"""

import asyncio
import signal
from collections.abc import Coroutine, Mapping
from typing import Any

import structlog
import uvicorn

_log = structlog.get_logger("taskdist.web")

END_SECONDS = 5
"""How long requests under way may take at the end, in seconds: well within a pod's grace."""


def web_server(app: Any, *, host: str, port: int, tls_cert: str, tls_key: str) -> uvicorn.Server:
    """Return the server of an ASGI application. `tls_cert` and `tls_key`: files; empty for plain HTTP."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            ssl_certfile=tls_cert or None,
            ssl_keyfile=tls_key or None,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=END_SECONDS,
        )
    )


def told_to_end() -> asyncio.Event:
    """Return what is set by SIGTERM and SIGINT."""
    stopping, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    return stopping


async def serve_until(
    stopping: asyncio.Event, server: uvicorn.Server, beside: Mapping[str, Coroutine[Any, Any, Any]] | None = None
) -> int:
    """Serve until the word to end, or until a part ends by itself; return the exit code of the process.

    Args:
        beside: what runs as long as the server does, by name.
    """
    serving = asyncio.create_task(server.serve(), name="server")
    parts = [serving, *(asyncio.create_task(part, name=name) for name, part in (beside or {}).items())]
    stop = asyncio.create_task(stopping.wait(), name="stop")
    done, _ = await asyncio.wait({*parts, stop}, return_when=asyncio.FIRST_COMPLETED)
    # The server hears of signals too, and may be the first: that is no failure.
    failed = [each for each in done if each is not stop and not (each is serving and server.should_exit)]
    server.should_exit = True
    await asyncio.wait((serving,), timeout=END_SECONDS + 2)
    if serving.done() and serving not in failed and not serving.cancelled() and serving.exception() is not None:
        failed.append(serving)
    for each in failed:
        error = None if each.cancelled() else each.exception()
        _log.error("a part ended; the process ends", part=each.get_name(), exc_info=error)
    for each in (*parts, stop):
        each.cancel()
    await asyncio.gather(*parts, stop, return_exceptions=True)
    _log.info("stopped")
    return 1 if failed else 0
