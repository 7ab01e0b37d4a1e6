"""When work is asked to stop, and when it is killed: the fence around leases, on this machine's clock.

Work is asked to stop before its lease ends and killed by its end, counted from this agent's own time of sending the
ping that a grant or renewal echoes. Of several ends the earliest holds.
"""

from taskdist.api import Reason
from taskdist.protocol.agent.held import HeldWork, WorkStage
from taskdist.protocol.agent.work import AgentAction, CancelWork, KillWork
from taskdist.protocol.rules import Rules
from taskdist.protocol.settings import AgentSettings
from taskdist.protocol.timeouts import Due


class Fence:
    """Ends the work of leases in time: for their own end, for a limit of the attempt, for the agent's own stop."""

    def __init__(self, settings: AgentSettings, rules: Rules) -> None:
        self._settings = settings
        self._rules = rules
        self.stop_at: float | None = None  # the agent was told to stop: all work ends by then

    def check(self, held: HeldWork, boot: float, out: list[AgentAction]) -> None:
        """Do what time asks for."""
        self._keep_limits(held, boot, out)  # first: what its lease's end kills may be overdue as well
        self._keep_lease(held, boot, out)

    def wakes(self, held: HeldWork) -> list[float]:
        """Return when running work is to be looked at."""
        cancel_at, kill_at = self._times(held)
        wakes = [min(kill_at, held.kill_at)]
        if held.stage in (WorkStage.STARTING, WorkStage.RUNNING):
            wakes.append(cancel_at)
        if (due := self._limit(held)) is not None:
            wakes.append(due.at)
        return wakes

    def lease_end(self, ping_boot: float, lease_seconds: float, boot: float) -> float:
        """Count from this agent's own time of sending the ping: so however late a message comes, the end stays."""
        return (min(ping_boot, boot) if self._rules.lease_counts_from_ping else boot) + lease_seconds

    def cancel(self, held: HeldWork, reason: Reason, message: str, kill_at: float, out: list[AgentAction]) -> None:
        """Ask the work to stop; it is killed at `kill_at` if it has not by then."""
        held.kill_at = min(held.kill_at, kill_at)
        if held.stage in (WorkStage.STARTING, WorkStage.RUNNING):
            if (due := self._limit(held)) is not None:
                held.kill_at = min(held.kill_at, due.at + due.grace)  # no reason to stop prolongs the run
            held.stage = WorkStage.CANCELLING
            held.message = message
            out.append(CancelWork(held.name, reason, message))

    def kill(self, held: HeldWork, boot: float, message: str, out: list[AgentAction]) -> None:
        """Kill the work, again and again until nothing of it runs."""
        held.stage = WorkStage.KILLED
        held.message = held.message or message
        held.kill_at = boot + self._settings.kill_again_seconds
        out.append(KillWork(held.name))

    def _keep_lease(self, held: HeldWork, boot: float, out: list[AgentAction]) -> None:
        """Ask to stop what nobody renews, then kill it."""
        lease_seconds = held.grant.lease_seconds
        cancel_at, kill_at = self._times(held)
        if boot >= min(kill_at, held.kill_at):
            self.kill(held, boot, "its lease ended", out)
        elif boot >= cancel_at and held.stage is not WorkStage.CANCELLING and held.stage is not WorkStage.KILLED:
            why = (
                (Reason.GIVEN_BACK, "the agent stops")
                if self._stopping_first(held)
                else (
                    Reason.LEASE_EXPIRED,
                    f"no renewal came within {lease_seconds:g} s",
                )
            )
            self.cancel(held, why[0], why[1], kill_at, out)

    def _keep_limits(self, held: HeldWork, boot: float, out: list[AgentAction]) -> None:
        """Ask work that exceeds its time-out to stop, then kill it; the attempt has failed in any case."""
        due = self._limit(held)
        if due is not None and boot >= due.at:
            held.overdue = due
            self.cancel(held, due.reason, due.message, boot + due.grace, out)

    def _limit(self, held: HeldWork) -> Due | None:
        """Return what time limit of the work comes next."""
        return held.limit() if self._rules.agents_keep_limits else None

    def _times(self, held: HeldWork) -> tuple[float, float]:
        """Return when to ask the work to stop, and when to kill it. A killed one is killed again until it is gone."""
        settings, seconds = self._settings, held.grant.lease_seconds
        cancel_at, kill_at = held.until - settings.fence(seconds), held.until - settings.kill(seconds)
        if self.stop_at is not None:
            cancel_at = min(cancel_at, self.stop_at - settings.stop_cancel_seconds)
            kill_at = min(kill_at, self.stop_at)
        if held.stage is WorkStage.KILLED:
            kill_at = held.kill_at
        return cancel_at, kill_at if self._rules.work_is_killed else float("inf")

    def _stopping_first(self, held: HeldWork) -> bool:
        return self.stop_at is not None and self.stop_at <= held.until
