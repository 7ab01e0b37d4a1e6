"""Each line of the lease protocol switched off once, by overriding the one small method that keeps it.

A mutant names the promises that it may break; the checker must find a history that breaks one of them. `plan` leans the
histories towards where the line is needed.
"""

from dataclasses import dataclass, field
from typing import Any

from faults.plan import FAULTS
from taskdist.api import Delivery, Dispatch, OnExhausted, Reason, Reclaim
from taskdist.core.decisions import Drain
from taskdist.core.events import TaskGone
from taskdist.protocol.agent import AgentEnd
from taskdist.protocol.books import Ask, Stage
from taskdist.protocol.leader import Leader
from taskdist.protocol.messages import Grant, LeaseName, Verdict
from taskdist.protocol.observations import DeletePod, Refused, Send


@dataclass(frozen=True)
class Mutant:
    """One line of the protocol, off."""

    name: str
    kinds: tuple[str, ...]  # violations, any of which counts as found
    leader: type[Leader] = Leader
    agent: type[AgentEnd] = AgentEnd
    faults: tuple[str, ...] = FAULTS
    least: int = 2
    plan: dict[str, Any] = field(default_factory=dict)


# --- names and epochs ---


class HearsThePast(AgentEnd):
    def _refuses(self, epoch: int) -> bool:
        return False


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


class CountsLess(Leader):
    """The operator counts from its receipt without a margin, and too fast a clock."""

    def _bound(self, lease: Any, receipt: float) -> float:
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


class KeepsNoLimit(AgentEnd):
    def _limit(self, held: Any) -> None:
        return None


class KeepsNoLimitUnseen(KeepsNoLimit):
    """As an agent that nobody wrote with limits in mind: the operator's own watch is what is left."""

    keeps_limits = False


class DoesNotWatchLimits(Leader):
    def _watch(self, uid: str, lease: Any) -> None:
        pass


class TakesWhatComesTooLate(AgentEnd):
    def _failed_by_time(self, lease: Any) -> None:
        return None


STRICT = {"dispatch": Dispatch.STRICT, "reclaim": Reclaim.LEASE, "delivery": Delivery.AT_LEAST_ONCE, "fenced": True}
LETTERS = {"on_exhausted": OnExhausted.DEAD_LETTER, "agent_deaths": 1}
LONG = STRICT | {"long_work": 1.0, "stubborn": 1.0, "pods": 2, "failing": False}

MUTANTS: tuple[Mutant, ...] = (
    # names and epochs
    # Two lines of defence, so the first is off as well: a leader that was frozen does not notice.
    Mutant(
        "agents hear leaders of the past",
        ("past",),
        leader=ActsWhenDeposed,
        agent=HearsThePast,
        plan=STRICT
        | {
            "tasks": 3,
            "slots": 1,
            "pods": 2,
            "long_work": 1.0,
            "faults": [(2.0, "freeze", 8.0), *((10.0 + 0.3 * n, "cut", 0.0) for n in range(12))],
        },
    ),
    Mutant(
        "sent before it is written",
        ("unrecorded",),
        leader=SendsBeforeWriting,
        faults=("lost_answers", "slow_writes", "freeze", "priority"),
        plan=STRICT,
    ),
    Mutant(
        "a conflict does not take back",
        ("unrecorded",),
        leader=KeepsWhatConflicts,
        faults=("priority", "slow_writes", "slow_watch"),
        least=3,
        plan=STRICT,
    ),
    Mutant(
        "a late assignment is ignored",
        ("liveness",),
        leader=ForgetsUnknownWrites,
        faults=("lost_answers", "slow_writes"),
    ),
    Mutant(
        "an unknown write is taken for written",
        ("unrecorded",),
        leader=TrustsUnknownWrites,
        faults=("lost_answers", "partition"),
        plan=STRICT,
    ),
    Mutant(
        "Lazy retries are not recorded first",
        ("name", "overlap"),
        leader=RetriesLazilyUnrecorded,
        plan={"dispatch": Dispatch.LAZY, "delivery": Delivery.AT_LEAST_ONCE},
    ),
    # time and the fence
    Mutant(
        "a lease counts from arrival",
        ("overlap",),
        agent=CountsFromArrival,
        faults=("slow_link", "cut"),
        least=4,
        plan=LONG | {"tasks": 1},
    ),
    Mutant("work is never killed", ("overlap",), agent=NeverKills, faults=("cut",), plan=LONG),
    Mutant("the operator counts without margin", ("overlap",), leader=CountsLess, faults=("cut",), plan=LONG),
    Mutant(
        "the clock stands still in suspend", ("overlap",), agent=IgnoresSuspend, faults=("suspend_machine",), plan=LONG
    ),
    Mutant(
        "a hold outlives the next welcome",
        ("overlap",),
        agent=HoldOutlivesWelcome,
        plan=LONG | {"longest": 40.0, "faults": [(4.0, "step_down", 0.5), (8.0, "cut", 14.0)]},
    ),
    # instances and sessions
    Mutant("hello hides leases", ("overlap", "name", "liveness", "capacity"), agent=HidesLeases, faults=("cut",)),
    Mutant(
        "a hello counts before its sender is heard",
        ("overlap", "capacity", "name"),
        leader=ConfirmsUnheard,
        plan=LONG
        | {
            "longest": 40.0,
            "faults": [(4.0, "step_down", 0.5), (4.2, "slow_link", 3.0), (6.5, "cut", 14.0), (7.5, "cut", 14.0)],
        },
    ),
    Mutant(
        "sessions of the past count",
        ("overlap", "capacity", "name"),
        leader=TakesPastSessions,
        faults=("slow_hello", "slow_link", "cut"),
        least=3,
        plan=LONG,
    ),
    Mutant(
        "a new instance does not end leases", ("liveness",), leader=KeepsLeasesOfFormerInstance, faults=("agent_crash",)
    ),
    Mutant(
        "two sessions of one pod",
        ("liveness", "overlap", "capacity"),
        leader=AllowsTwoSessions,
        faults=("cut", "slow_hello"),
    ),
    Mutant("a pod's death is ignored", ("slow",), leader=IgnoresDeath, faults=("pod_death",), plan=LONG),
    # changes of leader
    Mutant("a deposed leader acts", ("overlap",), leader=ActsWhenDeposed, faults=("freeze", "cut"), least=3, plan=LONG),
    Mutant("no hold is said", ("waste",), leader=DoesNotSayHold, faults=("step_down",), plan=LONG | {"gentle": True}),
    Mutant(
        "a new leader does not wait",
        ("overlap",),
        leader=TakesOverAtOnce,
        faults=("operator_crash", "step_down", "freeze"),
        plan=LONG,
    ),
    Mutant(
        "a new leader decides before recovery",
        ("victim", "overlap"),
        leader=DecidesBeforeRecovery,
        faults=("operator_crash", "step_down"),
        plan={"elastic": True, "long_work": 1.0},
    ),
    Mutant(
        "recovery lists come from a cache",
        ("overlap", "liveness", "result", "name"),
        faults=("operator_crash", "step_down", "pod_death"),
        least=3,
        plan=LONG | {"stale_lists": True},
    ),
    # reclaim
    Mutant(
        "Confirmed does not wait for death",
        ("overlap",),
        leader=DoesNotWaitForDeath,
        faults=("cut",),
        plan=LONG | {"reclaim": Reclaim.CONFIRMED, "fenced": False},
    ),
    Mutant(
        "at-most-once is tried again",
        ("at-most-once",),
        leader=ForgetsAtMostOnce,
        faults=("pod_deleted",),
        plan=LONG | {"delivery": Delivery.AT_MOST_ONCE},
    ),
    # results
    Mutant("results are not kept", ("liveness", "name", "waste"), agent=DropsResults, faults=("cut", "slow_link")),
    Mutant("results are kept for ever", ("liveness",), agent=KeepsResultsForEver),
    Mutant("no final reply", ("liveness",), leader=NeverReplies),
    Mutant(
        "stale results are accepted",
        ("stale", "result", "accepted"),
        leader=AcceptsStaleResults,
        faults=("cut", "slow_link", "suspend_machine"),
        least=3,
        plan=STRICT | {"long_work": 0.7},
    ),
    Mutant("the reply comes before the write", ("accepted",), leader=RepliesBeforeWriting),
    Mutant(
        "a cancel beats a result in hand",
        ("beaten",),
        leader=CancelBeatsResult,
        faults=("cancel", "slow_writes", "slow_link"),
        least=3,
    ),
    Mutant("a refused result is tried again", ("liveness",), leader=RetriesRefusedResults),
    # deletion, views, victims
    Mutant(
        "a deletion frees slots at once",
        ("capacity", "audit", "conservation"),
        leader=FreesSlotsOnDeletion,
        faults=("delete",),
        plan=LONG | {"tasks": 3, "slots": 1, "pods": 1},
    ),
    Mutant(
        "a cancel does not wait for the stop", ("cancel",), leader=CancelsWithoutWaiting, faults=("cancel",), plan=LONG
    ),
    Mutant("older views are believed", ("conflict",), leader=BelievesOldViews, faults=("slow_watch",)),
    Mutant(
        "agents hear of a gone Task unread",
        ("gone",),
        leader=SaysGoneUnread,
        plan={"stale_lists": True, "long_work": 1.0, "faults": [(1.15, "slow_watch", 4.0), (1.2, "step_down", 0.5)]},
    ),
    Mutant(
        "draining agents are deleted at once",
        ("victim",),
        leader=DeletesBusyAgents,
        faults=("lower_size",),
        plan=LONG | {"tasks": 3, "elastic": False},
    ),
    # fates, dead letters, limits
    Mutant(
        "a decision stands though the Task changed",
        ("undecided",),
        leader=WritesWhatWasDecided,
        faults=("suspend", "priority", "slow_writes", "lost_answers"),
        least=3,
        plan={"fateful": 0.8},
    ),
    Mutant(
        "what a former leader may have sent is ended",
        ("cancel",),
        leader=EndsWhatMayRun,
        faults=("operator_crash", "step_down"),
        least=3,
        plan=LONG | {"dispatch": Dispatch.LAZY, "fateful": 0.8},
    ),
    Mutant("the core is not told of a move", ("liveness",), leader=DoesNotTellOfMoves, plan=STRICT | {"fateful": 0.5}),
    Mutant("redrives are ignored", ("liveness",), leader=IgnoresRedrives, plan=LETTERS),
    Mutant(
        "older views of a dead letter are believed",
        ("conflict",),
        leader=BelievesOldViewsOfDeadLetters,
        faults=("slow_watch",),
        plan=LETTERS | {"letters": 0.0},
    ),
    Mutant(
        "dead letters stay in the core",
        ("audit", "conservation", "liveness"),
        leader=KeepsDeadLettersInTheCore,
        plan=LETTERS,
    ),
    Mutant("a redrive keeps failures", ("redrive",), leader=ForgetsWhatARedriveResets, plan=LETTERS),
    Mutant(
        "what was asked before a dead letter counts",
        ("redrive",),
        leader=RedrivesWhatWasAskedBefore,
        faults=("redrive", "agent_crash"),
        plan=LETTERS,
    ),
    Mutant(
        "agents that are heard first are said to have died",
        ("death",),
        leader=BlamesAgentsItHearsFirst,
        faults=("step_down", "operator_crash", "cut"),
        least=3,
        plan=LONG,
    ),
    Mutant("an agent keeps no limit", ("overlong",), agent=KeepsNoLimit, plan=LONG | {"execution": 2.0}),
    # Two lines of defence: the agent's is off as well.
    Mutant(
        "the operator does not watch limits",
        ("unwatched",),
        leader=DoesNotWatchLimits,
        agent=KeepsNoLimitUnseen,
        faults=("priority",),
        plan=LONG | {"execution": 2.0, "longest": 160.0},
    ),
    Mutant(
        "a result after the limit counts",
        ("overdue",),
        agent=TakesWhatComesTooLate,
        plan=STRICT | {"execution": 3.0, "longest": 4.0, "long_work": 1.0, "stubborn": 1.0},
    ),
)
