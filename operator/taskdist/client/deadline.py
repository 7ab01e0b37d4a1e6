"""The time for which a Task is waited for: that it is up is told as such, and the Task goes on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from taskdist.client.errors import TaskTimeout


@asynccontextmanager
async def deadline(name: str, seconds: float | None = None, *, at: float | None = None) -> AsyncIterator[None]:
    """`at`: a time of the event loop, in place of a length."""
    try:
        async with asyncio.timeout_at(at) if at is not None else asyncio.timeout(seconds):
            yield
    except TaskTimeout:
        raise
    except TimeoutError:
        raise TaskTimeout(f"the time is up, and task {name} has not ended; it goes on") from None
