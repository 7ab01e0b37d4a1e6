"""The status of a source, written by this process alone, on the version that was last seen."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from taskdist.api import SourceReason, TaskSource, TaskSourceStatus
from taskdist.api.tasksource import CronStatus, Rejected
from taskdist.elected.keeper import Key
from taskdist.intake.message import Poison
from taskdist.kube import TASKSOURCES, Client
from taskdist.kube.conditions import MESSAGE_LENGTH, told_conditions
from taskdist.kube.own_status import OwnStatus
from taskdist.sources.metrics import SourceMetrics

# Reasons for which only a change of the source helps.
_STALLED = (
    SourceReason.INVALID_TEMPLATE,
    SourceReason.INVALID_SCHEDULE,
    SourceReason.NEVER_DUE,
    SourceReason.UNREADABLE,
)


class Reporter:
    """The status of one source, as it is to be.

    Args:
        leading: whether this process leads; asked before each write.
    """

    def __init__(
        self,
        client: Client,
        source: TaskSource,
        metrics: SourceMetrics,
        leading: Callable[[], bool],
        now: Callable[[], datetime],
    ) -> None:
        self._own = OwnStatus(client, TASKSOURCES, source.metadata, leading)
        self._metrics = metrics
        self._now = now
        self._metadata = source.metadata
        self.status: TaskSourceStatus = source.status.model_copy(deep=True)

    @property
    def key(self) -> Key:
        return self._metadata.namespace, self._metadata.name

    @property
    def reason(self) -> str:
        """The reason of the condition Ready; empty before the first one."""
        return next((each.reason for each in self.status.conditions if each.type == "Ready"), "")

    @property
    def cron(self) -> CronStatus:
        """The part of a cron source; made where it is missing."""
        if self.status.cron is None:
            self.status.cron = CronStatus()
        return self.status.cron

    def say(self, reason: SourceReason, message: str) -> None:
        """Say how it is. Nothing is written before `flush`."""
        ready, stalled = reason is SourceReason.RUNNING, reason in _STALLED
        # Who suspends a source has what is asked for; all else that keeps it from running may pass by itself.
        settled = ready or stalled or reason is SourceReason.SUSPENDED
        self.status.observed_generation = self._metadata.generation
        self.status.conditions = told_conditions(
            self.status.conditions,
            str(reason),
            message,
            self._metadata.generation,
            self._now().timestamp(),
            ready=ready,
            stalled=stalled,
            settled=settled,
        )
        self._metrics.said(self.key, ready, reason)

    def created(self) -> None:
        self.status.created += 1

    def rejected(self, poison: Poison) -> None:
        """No Task can be made of a message."""
        self._metrics.rejected(self.key, str(poison.reason))
        self.status.rejected += 1
        at = self._now().replace(microsecond=0)
        self.status.last_rejected = Rejected(reason=str(poison.reason), message=str(poison)[:MESSAGE_LENGTH], at=at)

    async def confirm(self) -> None:
        """Make sure that the source is there and as it was. Raises `Gone`, `Changed` or `KubeError`."""
        await self._own.confirm()

    async def flush(self, *, conditions_only: bool = False) -> None:
        """Write the status, if it is not what was written last. Raises like `confirm`.

        `conditions_only`: the rest of it could not be read, and stays as it is.
        """
        await self._own.flush(_removing(self.status.to_wire()), conditions_only=conditions_only)


def _removing(wire: dict[str, Any]) -> dict[str, Any]:
    """Return the status as a merge patch that also takes away what is not there any more."""
    absent = {"cron": {"nextScheduledTime": None, "lastScheduledTime": None}, "backlog": {"oldest": None}}
    parts = {name: fields | wire[name] for name, fields in absent.items() if name in wire}
    return {"cron": None, "lastRejected": None, "backlog": None} | wire | parts
