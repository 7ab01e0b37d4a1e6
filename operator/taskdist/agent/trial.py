"""Runs one attempt of a Task that exists nowhere: to try a handler without a control plane, a pool or the operator.

The work runs as it would in a pod: in a worker, as a command, or by an HTTP endpoint. What an agent would refuse to
send is refused here too. Nothing is tried again, and no limit of time holds.
"""

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from taskdist.agent.outcomes import Failed
from taskdist.agent.results import refusal
from taskdist.agent.work import Executor
from taskdist.common.boottime import boottime
from taskdist.protocol.messages import Body, Grant, LeaseName, by_value

LEASE = LeaseName("00000000-0000-0000-0000-000000000000", 1, 1)
# How long, in seconds, a handler that was told to stop may take for it.
STOP_SECONDS = 10.0
_ENDLESS_SECONDS = 1e9


@dataclass(frozen=True, slots=True)
class Tried:
    """The outcome of a trial: a result, a failure, or neither, as it was stopped."""

    result: bytes | None = None
    failed: Failed | None = None
    used: Any = None


class _Events:
    """Hears of the one attempt."""

    def __init__(self, report: Callable[[float, str], None]) -> None:
        self._report = report
        self.end: asyncio.Future[Tried] = asyncio.get_running_loop().create_future()

    def started(self, lease: LeaseName) -> None:
        """Nobody waits to hear that."""

    def progress(self, _lease: LeaseName, fraction: float, message: str) -> None:
        self._report(fraction, message)

    def finished(self, _lease: LeaseName, body: Body, used: Any = None) -> None:
        body = by_value(body)  # nothing is put anywhere
        refused = refusal(body)
        self._over(Tried(body, used=used) if refused is None else Tried(failed=Failed(*refused, retryable=False)))

    def failed(self, _lease: LeaseName, failed: Failed, used: Any = None) -> None:
        self._over(Tried(failed=failed, used=used))

    def stopped(self, _lease: LeaseName) -> None:
        self._over(Tried())

    def broke(self, error: BaseException) -> None:
        if not self.end.done():
            self.end.set_exception(error)

    def _over(self, tried: Tried) -> None:
        if not self.end.done():
            self.end.set_result(tried)


async def try_once(executor: Executor, type: str, payload: bytes, report: Callable[[float, str], None]) -> Tried:
    """Run one attempt to its end. Ctrl-C asks it to stop, a second one kills it. Raises StartError."""
    events = _Events(report)
    loop = asyncio.get_running_loop()
    try:
        await executor.open(events)
        grant = Grant(LEASE, "try", "try", type, 1, boottime(), _ENDLESS_SECONDS, _ENDLESS_SECONDS, payload=payload)
        executor.start(grant, boottime() + _ENDLESS_SECONDS)
        asked = False

        def stop() -> None:
            nonlocal asked
            if asked:
                executor.kill(LEASE)
                return
            asked = True
            executor.cancel(LEASE, "stopped by hand")
            loop.call_later(STOP_SECONDS, executor.kill, LEASE)

        loop.add_signal_handler(signal.SIGINT, stop)
        return await events.end
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        await executor.close()
