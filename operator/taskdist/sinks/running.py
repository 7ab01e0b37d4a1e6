"""One sink from its spec to its work: compiled, run, and begun again with growing pauses where it fails.

A sink that fails is set aside with a reason on its status; the others go on. What only a change of it can mend is said
once, and it then waits for that change.
"""

import contextlib
from collections.abc import Awaitable, Callable

import structlog

from taskdist.api import SinkReason, TaskSink
from taskdist.elected.again import log_failure, work_again
from taskdist.kube import Client, KubeError
from taskdist.kube.own_status import Changed, Gone
from taskdist.outgoing.ends import InvalidKey, Selection
from taskdist.sinks.receiver import Open, Stopped, Trouble
from taskdist.sinks.reporting import Reporter
from taskdist.sinks.sending import Commons, Sending

_log = structlog.get_logger("taskdist.sinks")


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

        def gone() -> None:
            self._reporter.metrics.gone(self._reporter.key)

        await work_again(self._once, gone, self._failed, self._ticks, self._sleep)

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

    async def _failed(self, error: Exception, pause: float) -> bool:
        """Say that it failed; where not even that can be written, the log has it. Return whether it is left at that."""
        if isinstance(error, Stopped):
            return await self._set_aside(SinkReason.RECEIVER_GONE, str(error))
        self._reporter.metrics.failed(self._reporter.key)
        # What the API server says is clear enough.
        known = isinstance(error, KubeError | Trouble)
        log_failure(_log, "sink", self._reporter.key, error, pause, known=known)
        reason = error.reason if isinstance(error, Trouble) else SinkReason.FAILING
        self._reporter.say(reason, f"It failed and is begun again: {str(error) or repr(error)}")
        # Whatever keeps it from being written, the failure itself is what counts.
        with contextlib.suppress(Exception):
            await self._reporter.flush()
        return False
