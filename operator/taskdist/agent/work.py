"""The port between the supervisor and whatever runs the work: worker processes, an HTTP endpoint, threads."""

from dataclasses import dataclass
from typing import Any, Protocol

from taskdist.agent.outcomes import Failed
from taskdist.protocol.messages import Body, Grant, LeaseName


class StartError(Exception):
    """The work cannot be run at all: the module does not import, the command does not exist."""


@dataclass(frozen=True, slots=True)
class Offered:
    """Capabilities of an executor. `types` None: any. `fenced`: its work can be killed, at any time and for sure.

    `arrays`: it takes chunks of an array's items.
    """

    types: tuple[str, ...] | None
    fenced: bool
    arrays: bool = False


class WorkEvents(Protocol):
    """The listener to an executor. The last word on a lease is one of `finished`, `failed` and `stopped`.

    Called on the event loop. `used` is what the handler says the attempt used of budgets, as it said it.
    """

    def started(self, lease: LeaseName) -> None: ...

    def progress(self, lease: LeaseName, fraction: float, message: str) -> None: ...

    def finished(self, lease: LeaseName, body: Body, used: Any = None) -> None: ...

    def failed(self, lease: LeaseName, failed: Failed, used: Any = None) -> None: ...

    def stopped(self, lease: LeaseName) -> None:
        """Nothing of it runs any more and there is no result."""

    def broke(self, error: BaseException) -> None:
        """A part of the executor failed for good: the agent ends."""


class Executor(Protocol):
    """Runs work. No method but `open` and `close` waits. A lease it does not know is ignored: it has ended."""

    async def open(self, events: WorkEvents) -> Offered:
        """Make ready to start work. Raises StartError."""

    def start(self, grant: Grant, deadline: float) -> None:
        """Start the work of a lease that ends at boot time `deadline`."""

    def fence(self, lease: LeaseName, deadline: float) -> None:
        """The lease now ends at boot time `deadline`."""

    def cancel(self, lease: LeaseName, reason: str) -> None:
        """Ask the work to stop."""

    def kill(self, lease: LeaseName) -> None:
        """End the work by force; `stopped` follows once nothing of it runs."""

    async def close(self) -> None:
        """Kill whatever runs and free everything."""
