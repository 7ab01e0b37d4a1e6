"""Reachability of the API server: what the log, `/readyz` and a metric say of it.

Fed with the outcome of each request; asks nothing itself. The election looks at its Lease every second, so that an
outage and its end show within one.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from taskdist.kube import ApiError, KubeError

_log = structlog.get_logger("taskdist.operator")

# So long without an answer is said, and makes a replica unready, in seconds.
SILENT_SECONDS = 5.0
# Between two tries of the first request, in seconds.
AGAIN_SECONDS = 0.5
# How long the API server may say at the start that it knows no Tasks or shows them to nobody: it may have just begun.
SETTLE_SECONDS = 15.0


class Reach:
    """The silence of the API server: since when no request was answered."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: float | None = None
        self._said = False
        self._last = ""

    def request(self, verb: str, outcome: str) -> None:
        """A request came to its end: an HTTP status, or a word where no answer came."""
        # A watch tells of its end long after it began, and what is cancelled tells nothing.
        if verb == "watch" or outcome in ("cancelled", "unconfigured"):
            return
        if outcome.isdecimal() and int(outcome) < 500:
            if self._said:
                _log.info("the API server answers again", after_seconds=round(self.silent_for, 1))
            self._since, self._said = None, False
            return
        self._last = outcome
        if self._since is None:
            self._since = self._clock()
        if not self._said and self.silent_for >= SILENT_SECONDS:
            self._said = True
            _log.warning("the API server does not answer; the operator goes on trying", outcome=outcome)

    @property
    def silent_for(self) -> float:
        """Seconds since the first of the requests that brought no answer; 0 while it answers."""
        return 0.0 if self._since is None else max(0.0, self._clock() - self._since)

    def problem(self) -> str | None:
        """Say what is wrong; None where it answers."""
        if self.silent_for < SILENT_SECONDS:
            return None
        return f"the API server has not answered for {self.silent_for:.0f} s ({self._last})"


async def served(
    ask: Callable[[], Awaitable[object]],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> bool:
    """Wait until the API server shows Tasks to this operator, however long it takes to answer.

    False where it goes on saying that it knows none, or that this operator may not see them: what to do was logged.
    """
    said, refused_since = "", None
    while True:
        try:
            await ask()
            return True
        except KubeError as error:
            advice = _advice(error)
            if advice is None:
                refused_since = None
            elif refused_since is None:
                refused_since = clock()
            elif clock() - refused_since >= SETTLE_SECONDS:
                _log.error(advice, why=str(error))
                return False
            if str(error) != said:
                said = str(error)
                _log.warning("the API server does not let the operator begin yet; it is asked again", why=said)
        await sleep(AGAIN_SECONDS)


def _advice(error: KubeError) -> str | None:
    """What the user has to do; None where it is the API server that has to recover."""
    if not isinstance(error, ApiError):
        return None
    if error.is_unserved:
        return "the API server does not know tasks.taskdist.dev: install the chart, or apply crds/, first"
    if error.is_forbidden:
        return "the operator may not list Tasks: bind its ServiceAccount to the chart's roles"
    if error.is_unauthorized:
        return "the API server does not know the operator's credentials: renew the token or the kubeconfig"
    return None
