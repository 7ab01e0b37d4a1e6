"""The status of a source, written by this process alone, on the version that was last seen."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from taskdist.api import Condition, SourceReason, TaskSource, TaskSourceStatus
from taskdist.api.tasksource import CronStatus, Rejected
from taskdist.intake.message import Poison
from taskdist.kube import TASKSOURCES, ApiError, Client, status_patch, uid_of, version_of
from taskdist.kube.conditions import merge_conditions
from taskdist.sources.metrics import Key, SourceMetrics

# Reasons for which only a change of the source helps.
_STALLED = (
    SourceReason.INVALID_TEMPLATE,
    SourceReason.INVALID_SCHEDULE,
    SourceReason.NEVER_DUE,
    SourceReason.UNREADABLE,
)
MESSAGE_LENGTH = 1024


class Gone(Exception):
    """The source was deleted, or is another one now."""


class Changed(Exception):
    """Its spec is another one now: what runs is to be begun anew."""


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
        self._client = client
        self._metrics = metrics
        self._leading = leading
        self._now = now
        self._metadata = source.metadata
        self._version = source.metadata.resource_version
        self._written: dict[str, Any] | None = None
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
        told = [
            self._condition("Ready", ready, reason, message),
            self._condition("Reconciling", not settled, reason, message),
            self._condition("Stalled", stalled, reason, message),
        ]
        self.status.observed_generation = self._metadata.generation
        self.status.conditions = merge_conditions(self.status.conditions, told, self._now().timestamp())
        self._metrics.said(self.key, ready, reason)

    def _condition(self, kind: str, holds: bool, reason: SourceReason, message: str) -> Condition:
        return Condition.model_validate(
            {
                "type": kind,
                "status": "True" if holds else "False",
                "reason": str(reason),
                "message": message[:MESSAGE_LENGTH],
                "observedGeneration": self._metadata.generation,
            }
        )

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
        try:
            found = await self._client.get(TASKSOURCES, self._metadata.name, self._metadata.namespace)
        except ApiError as error:
            if error.is_not_found:
                raise Gone from None
            raise
        if uid_of(found) != self._metadata.uid or "deletionTimestamp" in found["metadata"]:
            raise Gone
        if found["metadata"].get("generation") != self._metadata.generation:
            raise Changed
        self._version = version_of(found)

    async def flush(self, *, conditions_only: bool = False) -> None:
        """Write the status, if it is not what was written last. Raises like `confirm`.

        `conditions_only`: the rest of it could not be read, and stays as it is.
        """
        wire = self.status.to_wire()
        if conditions_only:
            wire = {name: wire[name] for name in ("observedGeneration", "conditions")}
        if wire == self._written:
            return
        tries = 3
        while True:
            if not self._leading():
                raise Gone
            tries -= 1
            patch = wire if conditions_only else _removing(wire)
            body = status_patch(patch, uid=self._metadata.uid, resource_version=self._version)
            try:
                there = await self._client.patch(
                    TASKSOURCES, self._metadata.name, body, self._metadata.namespace, subresource="status"
                )
            except ApiError as error:
                if error.is_not_found:
                    raise Gone from None
                if not error.is_conflict or not tries:
                    raise
                await self.confirm()
            else:
                self._version, self._written = version_of(there), wire
                return


def _removing(wire: dict[str, Any]) -> dict[str, Any]:
    """Return the status as a merge patch that also takes away what is not there any more."""
    absent = {"cron": {"nextScheduledTime": None, "lastScheduledTime": None}, "backlog": {"oldest": None}}
    parts = {name: fields | wire[name] for name, fields in absent.items() if name in wire}
    return {"cron": None, "lastRejected": None, "backlog": None} | wire | parts
