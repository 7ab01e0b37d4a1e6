"""The event loop of the process, for all tests of sinks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from taskdist.sinks.dialling import GuardedLoop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"guarded": GuardedLoop}
