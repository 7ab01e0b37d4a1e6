"""The fence around leases, on this machine's clock: work is asked to stop, then killed, before its lease ends.

Work is asked to stop before its lease ends and killed by its end, counted from this agent's own time of sending the
ping that a grant or renewal echoes. Of several ends the earliest holds.
"""

from taskdist.api import Reason
from taskdist.protocol.agent.leased_work import LeasedWork, WorkStage
from taskdist.protocol.agent.work import AgentAction, CancelWork, KillWork
from taskdist.protocol.attempt_limits import Due
from taskdist.protocol.rules import Rules
from taskdist.protocol.settings import AgentSettings


class Fence:
    """Ends the work of leases in time: for their own end, for a limit of the attempt, for the agent's own stop."""

    def __init__(self, settings: AgentSettings, rules: Rules) -> None:
        self._settings = settings
        self._rules = rules
        self.stop_at: float | None = None  # the agent was told to stop: all work ends by then

    def check(self, work: LeasedWork, boot: float, out: list[AgentAction]) -> None:
        """Do what time asks for."""
        self._keep_limits(work, boot, out)  # first: what its lease's end kills may be overdue as well
        self._keep_lease(work, boot, out)

    def wakes(self, work: LeasedWork) -> list[float]:
        """Return when running work is to be looked at."""
        cancel_at, kill_at = self._times(work)
        wakes = [min(kill_at, work.kill_at)]
        if work.stage in (WorkStage.STARTING, WorkStage.RUNNING):
            wakes.append(cancel_at)
        if (due := self._limit(work)) is not None:
            wakes.append(due.at)
        return wakes

    def lease_end(self, ping_boot: float, lease_seconds: float, boot: float) -> float:
        """Count from this agent's own time of sending the ping: so however late a message comes, the end stays."""
        return (min(ping_boot, boot) if self._rules.lease_counts_from_ping else boot) + lease_seconds

    def cancel(self, work: LeasedWork, reason: Reason, message: str, kill_at: float, out: list[AgentAction]) -> None:
        """Ask the work to stop; it is killed at `kill_at` if it has not by then."""
        work.kill_at = min(work.kill_at, kill_at)
        if work.stage in (WorkStage.STARTING, WorkStage.RUNNING):
            if (due := self._limit(work)) is not None:
                work.kill_at = min(work.kill_at, due.at + due.grace)  # no reason to stop prolongs the run
            work.stage = WorkStage.CANCELLING
            work.message = message
            out.append(CancelWork(work.name, reason, message))

    def kill(self, work: LeasedWork, boot: float, message: str, out: list[AgentAction]) -> None:
        """Kill the work, again and again until nothing of it runs."""
        work.stage = WorkStage.KILLED
        work.message = work.message or message
        work.kill_at = boot + self._settings.kill_again_seconds
        out.append(KillWork(work.name))

    def _keep_lease(self, work: LeasedWork, boot: float, out: list[AgentAction]) -> None:
        """Ask to stop what nobody renews, then kill it."""
        cancel_at, kill_at = self._times(work)
        if boot >= min(kill_at, work.kill_at):
            self.kill(work, boot, "its lease ended", out)
        elif boot >= cancel_at and work.stage is not WorkStage.CANCELLING and work.stage is not WorkStage.KILLED:
            if self._stopping_first(work):
                reason, message = Reason.GIVEN_BACK, "the agent stops"
            else:
                reason, message = Reason.LEASE_EXPIRED, f"no renewal came within {work.grant.lease_seconds:g} s"
            self.cancel(work, reason, message, kill_at, out)

    def _keep_limits(self, work: LeasedWork, boot: float, out: list[AgentAction]) -> None:
        """Ask work that exceeds its time-out to stop, then kill it; the attempt has failed in any case."""
        due = self._limit(work)
        if due is not None and boot >= due.at:
            work.overdue = due
            self.cancel(work, due.reason, due.message, boot + due.grace, out)

    def _limit(self, work: LeasedWork) -> Due | None:
        """Return what time limit of the work comes next."""
        return work.limit() if self._rules.agents_keep_limits else None

    def _times(self, work: LeasedWork) -> tuple[float, float]:
        """Return when to ask the work to stop, and when to kill it. A killed one is killed again until it is gone."""
        settings, seconds = self._settings, work.grant.lease_seconds
        cancel_at, kill_at = work.until - settings.fence(seconds), work.until - settings.kill(seconds)
        if self.stop_at is not None:
            cancel_at = min(cancel_at, self.stop_at - settings.stop_cancel_seconds)
            kill_at = min(kill_at, self.stop_at)
        if work.stage is WorkStage.KILLED:
            kill_at = work.kill_at
        return cancel_at, kill_at if self._rules.work_is_killed else float("inf")

    def _stopping_first(self, work: LeasedWork) -> bool:
        return self.stop_at is not None and self.stop_at <= work.until
