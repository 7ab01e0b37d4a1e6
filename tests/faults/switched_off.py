"""Each line of the lease protocol switched off, by overriding the one small method that keeps it."""

from typing import Any

from taskdist.api import Reason
from taskdist.core.cost import spent
from taskdist.core.decisions import Drain
from taskdist.core.events import TaskGone
from taskdist.protocol.agent import AgentEnd
from taskdist.protocol.books import Ask, Lease, Stage
from taskdist.protocol.held import Held
from taskdist.protocol.leader import Leader
from taskdist.protocol.messages import Grant, LeaseName, Verdict
from taskdist.protocol.observations import DeletePod, Refused, Send

# --- names and epochs ---


class HearsThePast(AgentEnd):
    def _refuses(self, epoch: int) -> bool:
        return False


class IgnoresWhatAgentsHaveSeen(Leader):
    """And is not sure of its time: it was frozen, and goes on as a leader."""

    def leading_until(self, boot: float) -> None:
        pass

    def _refusal_of_epoch(self, identity: Any, hello: Any) -> None:
        return None


class SendsBeforeWriting(Leader):
    def _begin(self, entry: Any, lease: Any, now: Any) -> None:
        super()._begin(entry, lease, now)
        if lease.stage is Stage.WRITING and entry.lease is lease:
            session = self._by_pod[lease.agent_uid]
            task = entry.record.task
            self._out.append(
                Send(
                    session.id,
                    Grant(
                        lease.name,
                        task.namespace,
                        task.name,
                        task.type,
                        task.slots,
                        session.ping_boot,
                        lease.lease_seconds,
                        lease.hold_seconds,
                    ),
                )
            )


class KeepsWhatConflicts(Leader):
    def _assign_conflict(self, entry: Any, now: Any) -> None:
        if entry.lease is not None and not entry.gone:
            entry.lease.stage = Stage.UNSENT


class ForgetsUnknownWrites(Leader):
    def _shows(self, entry: Any, lease: Any) -> bool:
        return False

    def _adopt_seen(self, entry: Any, now: Any) -> None:
        if entry.record.epoch != self.epoch:
            super()._adopt_seen(entry, now)


class TrustsUnknownWrites(Leader):
    def _assign_unknown(self, entry: Any, now: Any) -> None:
        entry.lease.stage = Stage.UNSENT


class RetriesLazilyUnrecorded(Leader):
    """A failed attempt of a Lazy queue is tried again without being recorded first."""

    def _write_ending(self, entry: Any, ending: Any, now: Any) -> None:
        lease = entry.lease
        if lease is not None and lease.lazy and not lease.recorded and ending.phase.value == "Pending":
            entry.ending = None
            self._drop_lease(entry)
            entry.core = ""
            self._place(entry, now)
            return
        super()._write_ending(entry, ending, now)


# --- time and the fence ---


class CountsFromArrival(AgentEnd):
    def _lease_end(self, ping_boot: float, lease_seconds: float, boot: float) -> float:
        return boot + lease_seconds


class NeverKills(AgentEnd):
    def _fence_times(self, held: Any) -> tuple[float, float]:
        return super()._fence_times(held)[0], float("inf")


class PaysAgain(Leader):
    """What an attempt cost is added to what status shows whenever its end is written."""

    def _write_ending(self, entry: Any, ending: Any, now: Any) -> None:
        lease, record = entry.lease, entry.record
        if lease is not None and lease.prices is not None and ending.spent is not None:
            seconds = now.wall - lease.assigned_at
            ending.spent = spent(record.spent, lease.prices, record.task.slots, lease.agent_slots, seconds)
        super()._write_ending(entry, ending, now)


class CountsLess(Leader):
    """The operator counts from its receipt without a margin, and too fast a clock."""

    def _bound(self, lease: Lease, receipt: float) -> float:
        return receipt + lease.lease_seconds * 0.75


class IgnoresSuspend(AgentEnd):
    """Its clock stands still while the machine is suspended."""

    counts_suspend = False


class HoldOutlivesWelcome(AgentEnd):
    def _end_hold(self, held: Any) -> None:
        pass


# --- instances and sessions ---


class HidesLeases(AgentEnd):
    def _announced(self) -> list[Any]:
        return []


class ConfirmsUnheard(Leader):
    def _trusts_hello(self) -> bool:
        return True


class TakesPastSessions(Leader):
    def _is_past(self, session: Any) -> bool:
        return False


class KeepsLeasesOfFormerInstance(Leader):
    def _unlisted(self, entry: Any, lease: Any, now: Any, same: bool, died: bool = False) -> None:
        if same:
            super()._unlisted(entry, lease, now, same, died)


class AllowsTwoSessions(Leader):
    def _replace(self, former: Any) -> None:
        pass

    def _disconnect(self, session: Any, now: Any) -> None:
        self._by_pod.setdefault(session.pod, session)
        self._by_pod[session.pod] = session
        super()._disconnect(session, now)


class IgnoresDeath(Leader):
    def _agent_dead(self, pod: str, message: str, now: Any) -> None:
        self._by_pod.pop(pod, None)
        self._refresh(pod, now)


# --- changes of leader ---


class ActsWhenDeposed(Leader):
    def leading_until(self, boot: float) -> None:
        pass


class DoesNotSayHold(Leader):
    def _say_hold(self) -> None:
        pass


class TakesOverAtOnce(Leader):
    def _foreign_until(self, lease: Any) -> float:
        return self._takeover


class DecidesBeforeRecovery(Leader):
    def _on_pod_observed(self, pod: Any, now: Any) -> None:
        self._recovered = True
        super()._on_pod_observed(pod, now)


# --- reclaim ---


class DoesNotWaitForDeath(Leader):
    def _waits_for_death(self, lease: Any) -> bool:
        return False


# --- results ---


class DropsResults(AgentEnd):
    """Results are dropped once they are said, not once they are answered."""

    def _keep(self, held: Any) -> None:
        del self._held[held.name]


class KeepsResultsForEver(AgentEnd):
    def _drops_on(self, message: Any) -> bool:
        return False


class NeverReplies(Leader):
    def _final(self, pod: str, name: LeaseName, verdict: Verdict, message: str = "") -> None:
        pass


class AcceptsStaleResults(Leader):
    def _acceptable(self, entry: Any, name: LeaseName, pod: str) -> bool:
        return True

    def _may_come_late(self, entry: Any, name: Any, session: Any) -> bool:
        return True


class RepliesBeforeWriting(Leader):
    def _result(self, session: Any, message: Any, now: Any) -> None:
        self._final(session.pod, message.lease, Verdict.ACCEPTED)
        super()._result(session, message, now)


class CancelBeatsResult(Leader):
    def _advance_outcome(self, entry: Any, outcome: Any, now: Any) -> None:
        if entry.record.cancel and entry.lease is not None and entry.ending is None:
            entry.outcome = None
            self._final(entry.outcome_pod, outcome.lease, Verdict.STALE)
            self._attempt_over(entry, Reason.CANCELLED, "cancelled", now, counted=False)
            return
        super()._advance_outcome(entry, outcome, now)


class RetriesRefusedResults(Leader):
    def _outcome_written(self, entry: Any, outcome: Any, now: Any) -> None:
        if isinstance(outcome, Refused):
            self._later(entry, 0.5, now)
        else:
            super()._outcome_written(entry, outcome, now)


# --- deletion, cancel, views, victims ---


class FreesSlotsOnDeletion(Leader):
    def _advance_gone(self, entry: Any, now: Any) -> None:
        if entry.core and entry.outcome is None:
            entry.core = ""
            self.core.handle(TaskGone(entry.uid), now.wall)
        super()._advance_gone(entry, now)


class CancelsWithoutWaiting(Leader):
    def _ask_to_stop(self, entry: Any, reason: Any, message: str, now: Any) -> None:
        super()._ask_to_stop(entry, reason, message, now)
        if entry.lease is not None and entry.lease.stage is Stage.SENT and not entry.gone:
            self._attempt_over(entry, reason, message, now, counted=False)


class BelievesOldViews(Leader):
    def _is_newer(self, entry: Any, record: Any) -> bool:
        return True


class SaysGoneUnread(Leader):
    def _reads_before_gone(self) -> bool:
        return False

    def _sure_it_is_gone(self, entry: Any) -> bool:
        return True


class DeletesBusyAgents(Leader):
    def _carry_out(self, decision: Any, now: Any) -> None:
        super()._carry_out(decision, now)
        if isinstance(decision, Drain):
            pod = self._pods[decision.agent_uid]
            self._out.append(DeletePod(pod.uid, pod.namespace, pod.name, decision.reason, decision.message))


class ForgetsAtMostOnce(Leader):
    def _may_have_run(self, lease: Any) -> bool:
        return False


# --- fates, dead letters, limits ---


class WritesWhatWasDecided(Leader):
    def _still_decided(self, entry: Any, ending: Any) -> bool:
        return True


class EndsWhatMayRun(Leader):
    def _may_be_sent(self, entry: Any) -> bool:
        return False


class DoesNotTellOfMoves(Leader):
    """The core is not told where a moved Task waits now."""

    def _core_waiting(self, entry: Any, now: Any) -> None:
        if not entry.record.task.spilled:
            super()._core_waiting(entry, now)


class IgnoresRedrives(Leader):
    def _to_redrive(self, record: Any) -> bool:
        return False


class BelievesOldViewsOfDeadLetters(Leader):
    def _is_newer_than(self, grave: Any, record: Any) -> bool:
        return True


class KeepsDeadLettersInTheCore(Leader):
    def _leave_core(self, entry: Any, now: Any) -> None:
        self._drop_lease(entry)
        entry.core = ""


class ForgetsWhatARedriveResets(Leader):
    def _write(self, entry: Any, ask: Any, patch: Any, *more: Any, **rest: Any) -> None:
        if ask is Ask.REDRIVE:
            patch = {key: value for key, value in patch.items() if key != "failures"}
        super()._write(entry, ask, patch, *more, **rest)


class RedrivesWhatWasAskedBefore(Leader):
    def _write(self, entry: Any, ask: Any, patch: Any, *more: Any, **rest: Any) -> None:
        if ask is Ask.ENDING:
            patch = {key: value for key, value in patch.items() if key != "redrives"}
        super()._write(entry, ask, patch, *more, **rest)


class BlamesAgentsItHearsFirst(Leader):
    def _unlisted(self, entry: Any, lease: Any, now: Any, same: bool, died: bool = False) -> None:
        super()._unlisted(entry, lease, now, same, not same)


class Unlimited(Held):
    __slots__ = ()

    def limit(self) -> None:
        return None


class KeepsNoLimit(AgentEnd):
    def _grant(self, grant: Any, boot: float, out: Any) -> None:
        super()._grant(grant, boot, out)
        for held in self._held.values():
            held.__class__ = Unlimited


class KeepsNoLimitUnseen(KeepsNoLimit):
    """As an agent that nobody wrote with limits in mind: the operator's own watch is what is left."""

    keeps_limits = False


class DoesNotWatchLimits(Leader):
    def _watch(self, uid: str, lease: Any) -> None:
        pass


class TakesWhatComesTooLate(AgentEnd):
    def _failed_by_time(self, lease: Any, used: Any) -> None:
        return None
