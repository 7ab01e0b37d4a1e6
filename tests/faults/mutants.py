"""Which promise breaks without which line of the lease protocol.

A mutant names the promises that it may break; the checker must find a history that breaks one of them. `plan` leans the
histories towards where the line is needed.
"""

from dataclasses import dataclass, field
from typing import Any

from faults import switched_off as off
from faults import switched_off_too as too
from faults.plan import FAULTS
from faults.shared import Shared
from taskdist.api import Delivery, Dispatch, OnExhausted, Reclaim
from taskdist.protocol.agent import AgentEnd
from taskdist.protocol.leader import Leader


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
    sound: dict[str, Any] = field(default_factory=dict)  # of the plan, with the line on: where the world itself is off


STRICT = {"dispatch": Dispatch.STRICT, "reclaim": Reclaim.LEASE, "delivery": Delivery.AT_LEAST_ONCE, "fenced": True}
LETTERS = {"on_exhausted": OnExhausted.DEAD_LETTER, "agent_deaths": 1}
LONG = STRICT | {"long_work": 1.0, "stubborn": 1.0, "pods": 2, "failing": False}
KEYS = {"tasks": 4, "shared": Shared(concurrency=1), "overflow": None, "fateful": 0.0}

MUTANTS: tuple[Mutant, ...] = (
    # names and epochs
    # Three lines of defence, so two are off as well: a leader that was frozen does not notice, nor ask the agents.
    Mutant(
        "agents hear leaders of the past",
        ("past",),
        leader=off.IgnoresWhatAgentsHaveSeen,
        agent=off.HearsThePast,
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
        leader=off.SendsBeforeWriting,
        faults=("lost_answers", "slow_writes", "freeze", "priority"),
        plan=STRICT,
    ),
    Mutant(
        "a conflict does not take back",
        ("unrecorded",),
        leader=off.KeepsWhatConflicts,
        faults=("priority", "slow_writes", "slow_watch"),
        least=3,
        plan=STRICT,
    ),
    Mutant(
        "a late assignment is ignored",
        ("liveness",),
        leader=off.ForgetsUnknownWrites,
        faults=("lost_answers", "slow_writes"),
    ),
    Mutant(
        "an unknown write is taken for written",
        ("unrecorded",),
        leader=off.TrustsUnknownWrites,
        faults=("lost_answers", "partition"),
        plan=STRICT,
    ),
    Mutant(
        "Lazy retries are not recorded first",
        ("name", "overlap"),
        leader=off.RetriesLazilyUnrecorded,
        plan={"dispatch": Dispatch.LAZY, "delivery": Delivery.AT_LEAST_ONCE},
    ),
    # time and the fence
    Mutant(
        "a lease counts from arrival",
        ("overlap",),
        agent=off.CountsFromArrival,
        faults=("slow_link", "cut"),
        least=4,
        plan=LONG | {"tasks": 1},
    ),
    Mutant("work is never killed", ("overlap",), agent=off.NeverKills, faults=("cut",), plan=LONG),
    Mutant("the operator counts without margin", ("overlap",), leader=off.CountsLess, faults=("cut",), plan=LONG),
    Mutant(
        "the clock stands still in suspend",
        ("overlap",),
        agent=off.IgnoresSuspend,
        faults=("suspend_machine",),
        plan=LONG,
    ),
    Mutant(
        "a hold outlives the next welcome",
        ("overlap",),
        agent=off.HoldOutlivesWelcome,
        plan=LONG | {"longest": 40.0, "faults": [(4.0, "step_down", 0.5), (8.0, "cut", 14.0)]},
    ),
    # instances and sessions
    Mutant("hello hides leases", ("overlap", "name", "liveness", "capacity"), agent=off.HidesLeases, faults=("cut",)),
    Mutant(
        "a hello counts before its sender is heard",
        ("overlap", "capacity", "name"),
        leader=off.ConfirmsUnheard,
        plan=LONG
        | {
            "longest": 40.0,
            "faults": [(4.0, "step_down", 0.5), (4.2, "slow_link", 3.0), (6.5, "cut", 14.0), (7.5, "cut", 14.0)],
        },
    ),
    Mutant(
        "sessions of the past count",
        ("overlap", "capacity", "name"),
        leader=off.TakesPastSessions,
        faults=("slow_hello", "slow_link", "cut"),
        least=3,
        plan=LONG,
    ),
    Mutant(
        "a new instance does not end leases",
        ("liveness",),
        leader=off.KeepsLeasesOfFormerInstance,
        faults=("agent_crash",),
    ),
    Mutant(
        "two sessions of one pod",
        ("liveness", "overlap", "capacity"),
        leader=off.AllowsTwoSessions,
        faults=("cut", "slow_hello"),
    ),
    Mutant("a pod's death is ignored", ("slow",), leader=off.IgnoresDeath, faults=("pod_death",), plan=LONG),
    # changes of leader
    Mutant(
        "a deposed leader acts",
        ("overlap", "cost"),
        leader=off.ActsWhenDeposed,
        faults=("freeze", "cut"),
        least=3,
        plan=LONG,
    ),
    Mutant(
        "no hold is said", ("waste",), leader=off.DoesNotSayHold, faults=("step_down",), plan=LONG | {"gentle": True}
    ),
    Mutant(
        "a new leader does not wait",
        ("overlap",),
        leader=off.TakesOverAtOnce,
        faults=("operator_crash", "step_down", "freeze"),
        plan=LONG,
    ),
    Mutant(
        "a new leader decides before recovery",
        ("victim", "overlap"),
        leader=off.DecidesBeforeRecovery,
        faults=("operator_crash", "step_down"),
        plan={"elastic": True, "long_work": 1.0},
    ),
    Mutant(
        "recovery lists come from a cache",
        ("overlap", "liveness", "result", "name"),
        faults=("operator_crash", "step_down", "pod_death"),
        least=3,
        plan=LONG | {"stale_lists": True},
        sound={"stale_lists": False},
    ),
    # reclaim
    Mutant(
        "Confirmed does not wait for death",
        ("overlap",),
        leader=off.DoesNotWaitForDeath,
        faults=("cut",),
        plan=LONG | {"reclaim": Reclaim.CONFIRMED, "fenced": False},
    ),
    Mutant(
        "at-most-once is tried again",
        ("at-most-once",),
        leader=off.ForgetsAtMostOnce,
        faults=("pod_deleted",),
        plan=LONG | {"delivery": Delivery.AT_MOST_ONCE},
    ),
    # results
    Mutant("results are not kept", ("liveness", "name", "waste"), agent=off.DropsResults, faults=("cut", "slow_link")),
    Mutant("results are kept for ever", ("liveness",), agent=off.KeepsResultsForEver),
    Mutant("no final reply", ("liveness",), leader=off.NeverReplies),
    Mutant(
        "stale results are accepted",
        ("stale", "result", "accepted"),
        leader=off.AcceptsStaleResults,
        faults=("cut", "slow_link", "suspend_machine"),
        least=3,
        plan=STRICT | {"long_work": 0.7},
    ),
    Mutant("the reply comes before the write", ("accepted",), leader=off.RepliesBeforeWriting),
    Mutant(
        "a cancel beats a result in hand",
        ("beaten",),
        leader=off.CancelBeatsResult,
        faults=("cancel", "slow_writes", "slow_link"),
        least=3,
    ),
    Mutant("a refused result is tried again", ("liveness",), leader=off.RetriesRefusedResults),
    # deletion, views, victims
    Mutant(
        "a deletion frees slots at once",
        ("capacity", "audit", "conservation"),
        leader=off.FreesSlotsOnDeletion,
        faults=("delete",),
        plan=LONG | {"tasks": 3, "slots": 1, "pods": 1},
    ),
    Mutant(
        "a cancel does not wait for the stop",
        ("cancel",),
        leader=off.CancelsWithoutWaiting,
        faults=("cancel",),
        plan=LONG,
    ),
    Mutant("older views are believed", ("conflict",), leader=off.BelievesOldViews, faults=("slow_watch",)),
    Mutant(
        "agents hear of a gone Task unread",
        ("gone",),
        leader=off.SaysGoneUnread,
        plan={"stale_lists": True, "long_work": 1.0, "faults": [(1.15, "slow_watch", 4.0), (1.2, "step_down", 0.5)]},
    ),
    Mutant(
        "draining agents are deleted at once",
        ("victim",),
        leader=off.DeletesBusyAgents,
        faults=("lower_size",),
        plan=LONG | {"tasks": 3, "elastic": False},
    ),
    # fates, dead letters, limits
    Mutant(
        "a decision stands though the Task changed",
        ("undecided",),
        leader=off.WritesWhatWasDecided,
        faults=("suspend", "priority", "slow_writes", "lost_answers"),
        least=3,
        plan={"fateful": 0.8},
    ),
    Mutant(
        "what a former leader may have sent is ended",
        ("cancel",),
        leader=off.EndsWhatMayRun,
        faults=("operator_crash", "step_down"),
        least=3,
        plan=LONG | {"dispatch": Dispatch.LAZY, "fateful": 0.8},
    ),
    Mutant(
        "an agent out of sight is not waited for at the takeover",
        ("cancel",),
        leader=too.ForgetsTheUnseen,
        plan=LONG
        | {
            "dispatch": Dispatch.LAZY,
            "fateful": 0.8,
            "tasks": 3,
            "slots": 3,
            "pods": 1,
            "faults": [(1.5, "cut", 8.0), (1.6, "step_down", 0.5), (3.8, "forced", 8.0)],
        },
    ),
    Mutant(
        "the core is not told of a move", ("liveness",), leader=off.DoesNotTellOfMoves, plan=STRICT | {"fateful": 0.5}
    ),
    Mutant("redrives are ignored", ("liveness",), leader=off.IgnoresRedrives, plan=LETTERS),
    Mutant(
        "older views of a dead letter are believed",
        ("conflict",),
        leader=off.BelievesOldViewsOfDeadLetters,
        faults=("slow_watch",),
        plan=LETTERS | {"letters": 0.0},
    ),
    Mutant(
        "dead letters stay in the core",
        ("audit", "conservation", "liveness"),
        leader=off.KeepsDeadLettersInTheCore,
        plan=LETTERS,
    ),
    Mutant("a redrive keeps failures", ("redrive",), leader=off.ForgetsWhatARedriveResets, plan=LETTERS),
    Mutant(
        "what was asked before a dead letter counts",
        ("redrive",),
        leader=off.RedrivesWhatWasAskedBefore,
        faults=("redrive", "agent_crash"),
        plan=LETTERS,
    ),
    Mutant(
        "agents that are heard first are said to have died",
        ("death",),
        leader=off.BlamesAgentsItHearsFirst,
        faults=("step_down", "operator_crash", "cut"),
        least=3,
        plan=LONG,
    ),
    Mutant(
        "an attempt is paid for with each write of its end",
        ("cost",),
        leader=off.PaysAgain,
        faults=("lost_answers", "agent_crash"),
        plan=STRICT,
    ),
    Mutant("an agent keeps no limit", ("overlong",), agent=off.KeepsNoLimit, plan=LONG | {"execution": 2.0}),
    # Two lines of defence: the agent's is off as well.
    Mutant(
        "the operator does not watch limits",
        ("unwatched",),
        leader=off.DoesNotWatchLimits,
        agent=off.KeepsNoLimitUnseen,
        faults=("priority",),
        plan=LONG | {"execution": 2.0, "longest": 160.0},
    ),
    Mutant(
        "a result after the limit counts",
        ("overdue",),
        agent=off.TakesWhatComesTooLate,
        plan=STRICT | {"execution": 3.0, "longest": 4.0, "long_work": 1.0, "stubborn": 1.0},
    ),
    # since the audit
    Mutant(
        "an unanswered assignment frees what it took",
        ("key", "unrecorded"),
        leader=too.FreesWhatIsInDoubt,
        faults=("lost_answers", "slow_writes"),
        least=3,
        plan=STRICT | KEYS | {"long_work": 0.7},
    ),
    Mutant(
        "a pod out of sight passes for dead",
        ("overlap", "cancel", "death"),
        leader=too.TakesAbsenceForDeath,
        faults=("label_lost",),
        plan=LONG,
    ),
    Mutant(
        "a former lease is timed by the present queue",
        ("overlap",),
        leader=too.TimesByThePresentQueue,
        plan=LONG
        | {
            "longest": 40.0,
            "faults": [(3.0, "queue_edited", 0.5), (4.0, "step_down", 0.5), (4.1, "cut", 14.0), (4.1, "cut", 14.0)],
        },
    ),
    Mutant(
        "an agent drains for good",
        ("unusable",),
        agent=too.DrainedForGood,
        plan=LONG
        | {"pods": 2, "usable": True, "elastic": False, "faults": [(2.0, "rolled", 4.0), (4.0, "step_down", 0.5)]},
    ),
    Mutant(
        "an agent counts no slots",
        ("slots",),
        agent=too.CountsNoSlots,
        faults=("cut",),
        plan=LONG | {"reclaim": Reclaim.FAST, "tasks": 3, "slots": 1, "pods": 2},
    ),
    Mutant(
        "an agent counts no named resources",
        ("resources",),
        agent=too.CountsNoResources,
        faults=("cut",),
        plan=LONG | {"reclaim": Reclaim.FAST, "tasks": 4, "slots": 3, "shared": Shared(devices=1)},
    ),
    Mutant(
        "leases that are not in the books take no room",
        ("slots", "capacity"),
        leader=too.SendsBesideStrangers,
        agent=too.CountsNoSlots,
        faults=("cut", "suspend_machine"),
        least=3,
        plan=LONG | {"tasks": 3, "slots": 1, "pods": 2, "fenced": False, "reclaim": Reclaim.FAST},
    ),
)
