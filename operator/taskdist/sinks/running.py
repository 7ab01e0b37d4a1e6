"""One sink from its spec to its work: compiled, run, and begun again with growing pauses where it fails.

A sink that fails is set aside with a reason on its status; the others go on. What only a change of it can mend is said
once, and it then waits for that change.
"""

import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from taskdist.api import SinkReason, TaskSink
from taskdist.elected.keeper import AGAIN
from taskdist.kube import Client, KubeError
from taskdist.kube.own_status import Changed, Gone
from taskdist.outgoing.ends import InvalidKey, Selection
from taskdist.sinks.receiver import Open, Stopped, Trouble
from taskdist.sinks.reporting import Reporter
from taskdist.sinks.sending import Commons, Sending

_log = structlog.get_logger("taskdist.sinks")

# A sink that went on for so long before it failed is begun again at once, in seconds.
WELL_SECONDS: Final = 60.0


class Running:
    """Runs one sink.

    Args:
        connect: how its receiver is opened; None for a kind of receiver that this release does not know.
        ticks: a clock that nobody sets, in seconds.
    """

    def __init__(
        self,
        client: Client,
        sink: TaskSink,
        reporter: Reporter,
        connect: Open | None,
        ticks: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        commons: Commons,
    ) -> None:
        self._client = client
        self._sink = sink
        self._reporter = reporter
        self._connect = connect
        self._ticks = ticks
        self._sleep = sleep
        self._commons = commons

    async def run(self) -> None:
        """Run it until it is cancelled, deleted, changed, or waits for a change."""
        failures = 0
        while True:
            began = self._ticks()
            try:
                await self._once()
                return
            except Gone:
                self._reporter.metrics.gone(self._reporter.key)
                return
            except Changed:
                return  # what it is now is on its way
            except Stopped as error:
                if await self._set_aside(SinkReason.RECEIVER_GONE, str(error)):
                    return
                pause = AGAIN.full(failures)
            except Exception as error:
                if self._ticks() - began >= WELL_SECONDS:
                    failures = 0
                pause = AGAIN.full(failures)
                await self._tell(error, pause)
            await self._sleep(pause)
            failures += 1

    async def _once(self) -> None:
        spec, metadata = self._sink.spec, self._sink.metadata
        if spec.suspend:
            self._reporter.say(SinkReason.SUSPENDED, "spec.suspend is true: nothing is told until it is false")
            await self._reporter.flush()
            return
        if self._connect is None:
            self._reporter.say(
                SinkReason.UNREADABLE, "spec names no target that this release knows: upgrade `taskdist sinks`"
            )
            await self._reporter.flush()
            return
        created = metadata.creation_timestamp
        try:
            selection = Selection(spec, "" if created is None else created.isoformat())
        except InvalidKey as error:
            self._reporter.say(SinkReason.INVALID_TEMPLATE, f"spec.key: {error}")
            await self._reporter.flush()
            return
        # Where it was begun before, what it told then is not told again.
        self._sink.status = self._reporter.status
        await Sending(
            self._client,
            self._sink,
            selection,
            self._reporter,
            self._connect,
            self._ticks,
            self._sleep,
            self._commons,
        ).run()

    async def _set_aside(self, reason: SinkReason, message: str) -> bool:
        """Say that only a change helps; return whether it is written. Until it is, the receiver is asked once more."""
        namespace, name = self._reporter.key
        _log.warning("a sink is set aside until it is changed", namespace=namespace, name=name, why=message)
        self._reporter.say(reason, message)
        try:
            await self._reporter.flush()
        except (Gone, Changed):
            return True
        except KubeError:
            return False
        return True

    async def _tell(self, error: Exception, pause: float) -> None:
        """Say that it failed; where not even that can be written, the log has it."""
        self._reporter.metrics.failed(self._reporter.key)
        # What the API server says is clear enough; anything else is a defect, and wants its place told.
        known = isinstance(error, KubeError | Trouble)
        namespace, name = self._reporter.key
        _log.warning(
            "a sink failed and is begun again",
            namespace=namespace,
            name=name,
            why=str(error) or repr(error),
            seconds=pause,
            exc_info=None if known else error,
        )
        reason = error.reason if isinstance(error, Trouble) else SinkReason.FAILING
        self._reporter.say(reason, f"It failed and is begun again: {str(error) or repr(error)}")
        # Whatever keeps it from being written, the failure itself is what counts.
        with contextlib.suppress(Exception):
            await self._reporter.flush()
