"""Which promise breaks without which line of the lease protocol.

A mutant names the promises that it may break; the checker must find a history that breaks one of them. `plan` leans the
histories towards where the line is needed.
"""

from dataclasses import dataclass, field
from typing import Any

from faults.plan import FAULTS, make_plan
from faults.shared import Shared
from faults.world import World
from taskdist.api import Delivery, Dispatch, OnExhausted, Reclaim
from taskdist.protocol.rules import ALL, Rules


@dataclass(frozen=True)
class Mutant:
    """One line of the protocol, off."""

    name: str
    kinds: tuple[str, ...]  # violations, any of which counts as found
    rules: Rules = ALL
    faults: tuple[str, ...] = FAULTS
    least: int = 2
    plan: dict[str, Any] = field(default_factory=dict)
    sound: dict[str, Any] = field(default_factory=dict)  # of the plan, with the line on: where the world itself is off
    settings: dict[str, float] = field(default_factory=dict)  # of the leader, instead of those that fit together
    machines: dict[str, Any] = field(default_factory=dict)  # what is wrong with them beside the protocol

    def history(self, seed: int, *, off: bool = True, trace: bool = False) -> World:
        """Return a world that leans towards where the line is needed: with the line off, or with all on."""
        plan = make_plan(seed, self.faults, self.least, **(self.plan if off else self.plan | self.sound))
        if not off:
            return World(seed, plan, trace=trace)
        return World(seed, plan, rules=self.rules, settings=self.settings, trace=trace, **self.machines)


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
        rules=Rules(epochs_only_grow=False, unsure_leader_waits=False, agents_refuse_the_past=False),
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
        rules=Rules(written_before_sent=False),
        faults=("lost_answers", "slow_writes", "freeze", "priority"),
        plan=STRICT,
    ),
    Mutant(
        "a conflict does not take back",
        ("unrecorded",),
        rules=Rules(conflict_takes_back=False),
        faults=("priority", "slow_writes", "slow_watch"),
        least=3,
        plan=STRICT,
    ),
    Mutant(
        "a late assignment is ignored",
        ("liveness",),
        rules=Rules(late_assignment_is_adopted=False),
        faults=("lost_answers", "slow_writes"),
    ),
    Mutant(
        "an unknown write is taken for written",
        ("unrecorded",),
        rules=Rules(unknown_is_doubted=False),
        faults=("lost_answers", "partition"),
        plan=STRICT,
    ),
    Mutant(
        "Lazy retries are not recorded first",
        ("name", "overlap"),
        rules=Rules(failures_are_recorded=False),
        plan={"dispatch": Dispatch.LAZY, "delivery": Delivery.AT_LEAST_ONCE},
    ),
    # time and the fence
    Mutant(
        "a lease counts from arrival",
        ("overlap",),
        rules=Rules(lease_counts_from_ping=False),
        faults=("slow_link", "cut"),
        least=4,
        plan=LONG | {"tasks": 1},
    ),
    Mutant("work is never killed", ("overlap",), rules=Rules(work_is_killed=False), faults=("cut",), plan=LONG),
    Mutant(
        "the operator counts without margin",
        ("overlap",),
        settings={"margin": 0.0, "drift": -0.25},
        faults=("cut",),
        plan=LONG,
    ),
    Mutant(
        "the clock stands still in suspend",
        ("overlap",),
        machines={"clocks_count_suspend": False},
        faults=("suspend_machine",),
        plan=LONG,
    ),
    Mutant(
        "a hold outlives the next welcome",
        ("overlap",),
        rules=Rules(hold_ends_with_welcome=False),
        plan=LONG | {"longest": 40.0, "faults": [(4.0, "step_down", 0.5), (8.0, "cut", 14.0)]},
    ),
    # instances and sessions
    Mutant(
        "hello hides leases",
        ("overlap", "name", "liveness", "capacity"),
        rules=Rules(hello_lists_all=False),
        faults=("cut",),
    ),
    Mutant(
        "a hello counts before its sender is heard",
        ("overlap", "capacity", "name"),
        rules=Rules(hello_counts_once_heard=False),
        plan=LONG
        | {
            "longest": 40.0,
            "faults": [(4.0, "step_down", 0.5), (4.2, "slow_link", 3.0), (6.5, "cut", 14.0), (7.5, "cut", 14.0)],
        },
    ),
    Mutant(
        "sessions of the past count",
        ("overlap", "capacity", "name"),
        rules=Rules(past_sessions_are_refused=False),
        faults=("slow_hello", "slow_link", "cut"),
        least=3,
        plan=LONG,
    ),
    Mutant(
        "a new instance does not end leases",
        ("liveness",),
        rules=Rules(new_instance_ends_leases=False),
        faults=("agent_crash",),
    ),
    Mutant(
        "two sessions of one pod",
        ("liveness", "overlap", "capacity"),
        rules=Rules(one_session_per_pod=False),
        faults=("cut", "slow_hello"),
    ),
    Mutant(
        "a pod's death is ignored", ("slow",), rules=Rules(death_ends_leases=False), faults=("pod_death",), plan=LONG
    ),
    # changes of leader
    Mutant(
        "a deposed leader acts",
        ("overlap", "cost"),
        rules=Rules(unsure_leader_waits=False),
        faults=("freeze", "cut"),
        least=3,
        plan=LONG,
    ),
    Mutant(
        "no hold is said",
        ("waste",),
        rules=Rules(hold_is_said=False),
        faults=("step_down",),
        plan=LONG | {"gentle": True},
    ),
    Mutant(
        "a new leader does not wait",
        ("overlap",),
        rules=Rules(takeover_waits=False),
        faults=("operator_crash", "step_down", "freeze"),
        plan=LONG,
    ),
    Mutant(
        "a new leader decides before recovery",
        ("victim", "overlap"),
        rules=Rules(recovery_comes_first=False),
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
        rules=Rules(confirmed_waits_for_death=False),
        faults=("cut",),
        plan=LONG | {"reclaim": Reclaim.CONFIRMED, "fenced": False},
    ),
    Mutant(
        "at-most-once is tried again",
        ("at-most-once",),
        rules=Rules(at_most_once_is_kept=False),
        faults=("pod_deleted",),
        plan=LONG | {"delivery": Delivery.AT_MOST_ONCE},
    ),
    # results
    Mutant(
        "results are not kept",
        ("liveness", "name", "waste"),
        rules=Rules(results_are_kept=False),
        faults=("cut", "slow_link"),
    ),
    Mutant("results are kept for ever", ("liveness",), rules=Rules(results_are_dropped=False)),
    Mutant("no final reply", ("liveness",), rules=Rules(results_are_answered=False)),
    Mutant(
        "stale results are accepted",
        ("stale", "result", "accepted"),
        rules=Rules(stale_results_are_refused=False),
        faults=("cut", "slow_link", "suspend_machine"),
        least=3,
        plan=STRICT | {"long_work": 0.7},
    ),
    Mutant("the reply comes before the write", ("accepted",), rules=Rules(reply_follows_write=False)),
    Mutant(
        "a cancel beats a result in hand",
        ("beaten",),
        rules=Rules(result_beats_cancel=False),
        faults=("cancel", "slow_writes", "slow_link"),
        least=3,
    ),
    Mutant("a refused result is tried again", ("liveness",), rules=Rules(refusal_is_final=False)),
    # deletion, views, victims
    Mutant(
        "a deletion frees slots at once",
        ("capacity", "audit", "conservation"),
        rules=Rules(deleted_holds_slots=False),
        faults=("delete",),
        plan=LONG | {"tasks": 3, "slots": 1, "pods": 1},
    ),
    Mutant(
        "a cancel does not wait for the stop",
        ("cancel",),
        rules=Rules(stop_is_awaited=False),
        faults=("cancel",),
        plan=LONG,
    ),
    Mutant("older views are believed", ("conflict",), rules=Rules(newer_views_only=False), faults=("slow_watch",)),
    Mutant(
        "agents hear of a gone Task unread",
        ("gone",),
        rules=Rules(read_before_gone=False),
        plan={"stale_lists": True, "long_work": 1.0, "faults": [(1.15, "slow_watch", 4.0), (1.2, "step_down", 0.5)]},
    ),
    Mutant(
        "draining agents are deleted at once",
        ("victim",),
        rules=Rules(victims_drain_first=False),
        faults=("lower_size",),
        plan=LONG | {"tasks": 3, "elastic": False},
    ),
    # fates, dead letters, limits
    Mutant(
        "a decision stands though the Task changed",
        ("undecided",),
        rules=Rules(decision_needs_its_task=False),
        faults=("suspend", "priority", "slow_writes", "lost_answers"),
        least=3,
        plan={"fateful": 0.8},
    ),
    Mutant(
        "what a former leader may have sent is ended",
        ("cancel",),
        rules=Rules(end_waits_for_recovery=False),
        faults=("operator_crash", "step_down"),
        least=3,
        plan=LONG | {"dispatch": Dispatch.LAZY, "fateful": 0.8},
    ),
    Mutant(
        "an agent out of sight is not waited for at the takeover",
        ("cancel",),
        rules=Rules(unseen_is_waited_for=False),
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
        "the core is not told of a move",
        ("liveness",),
        rules=Rules(moves_are_told=False),
        plan=STRICT | {"fateful": 0.5},
    ),
    Mutant("redrives are ignored", ("liveness",), rules=Rules(redrives_are_done=False), plan=LETTERS),
    Mutant(
        "older views of a dead letter are believed",
        ("conflict",),
        rules=Rules(newer_letters_only=False),
        faults=("slow_watch",),
        plan=LETTERS | {"letters": 0.0},
    ),
    Mutant(
        "dead letters stay in the core",
        ("audit", "conservation", "liveness"),
        rules=Rules(letters_leave_the_core=False),
        plan=LETTERS,
    ),
    Mutant("a redrive keeps failures", ("redrive",), rules=Rules(redrive_resets_failures=False), plan=LETTERS),
    Mutant(
        "what was asked before a dead letter counts",
        ("redrive",),
        rules=Rules(letter_settles_redrives=False),
        faults=("redrive", "agent_crash"),
        plan=LETTERS,
    ),
    Mutant(
        "agents that are heard first are said to have died",
        ("death",),
        rules=Rules(first_heard_is_no_death=False),
        faults=("step_down", "operator_crash", "cut"),
        least=3,
        plan=LONG,
    ),
    Mutant(
        "an attempt is paid for with each write of its end",
        ("cost",),
        rules=Rules(cost_is_fixed_once=False),
        faults=("lost_answers", "agent_crash"),
        plan=STRICT,
    ),
    Mutant(
        "an agent keeps no limit", ("overlong",), rules=Rules(agents_keep_limits=False), plan=LONG | {"execution": 2.0}
    ),
    # Two lines of defence: the agent's is off as well.
    Mutant(
        "the operator does not watch limits",
        ("unwatched",),
        rules=Rules(operator_watches_limits=False, agents_keep_limits=False),
        machines={"agents_know_limits": False},
        faults=("priority",),
        plan=LONG | {"execution": 2.0, "longest": 160.0},
    ),
    Mutant(
        "a result after the limit counts",
        ("overdue",),
        rules=Rules(late_result_fails=False),
        plan=STRICT | {"execution": 3.0, "longest": 4.0, "long_work": 1.0, "stubborn": 1.0},
    ),
    # since the audit
    Mutant(
        "an unanswered assignment frees what it took",
        ("key", "unrecorded"),
        rules=Rules(doubt_keeps_what_it_took=False),
        faults=("lost_answers", "slow_writes"),
        least=3,
        plan=STRICT | KEYS | {"long_work": 0.7},
    ),
    Mutant(
        "a pod out of sight passes for dead",
        ("overlap", "cancel", "death"),
        rules=Rules(absence_is_no_death=False),
        faults=("label_lost",),
        plan=LONG,
    ),
    Mutant(
        "a former lease is timed by the present queue",
        ("overlap",),
        rules=Rules(former_lease_keeps_its_terms=False),
        plan=LONG
        | {
            "longest": 40.0,
            "faults": [(3.0, "queue_edited", 0.5), (4.0, "step_down", 0.5), (4.1, "cut", 14.0), (4.1, "cut", 14.0)],
        },
    ),
    Mutant(
        "an agent drains for good",
        ("unusable",),
        rules=Rules(drain_ends_with_session=False),
        plan=LONG
        | {"pods": 2, "usable": True, "elastic": False, "faults": [(2.0, "rolled", 4.0), (4.0, "step_down", 0.5)]},
    ),
    Mutant(
        "an agent counts no slots",
        ("slots",),
        rules=Rules(agents_count_slots=False),
        faults=("cut",),
        plan=LONG | {"reclaim": Reclaim.FAST, "tasks": 3, "slots": 1, "pods": 2},
    ),
    Mutant(
        "an agent counts no named resources",
        ("resources",),
        rules=Rules(agents_count_resources=False),
        faults=("cut",),
        plan=LONG | {"reclaim": Reclaim.FAST, "tasks": 4, "slots": 3, "shared": Shared(devices=1)},
    ),
    Mutant(
        "leases that are not in the books take no room",
        ("slots", "capacity"),
        rules=Rules(strangers_take_room=False, agents_count_slots=False),
        faults=("cut", "suspend_machine"),
        least=3,
        plan=LONG | {"tasks": 3, "slots": 1, "pods": 2, "fenced": False, "reclaim": Reclaim.FAST},
    ),
)
