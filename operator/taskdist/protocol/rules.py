"""The lines of the lease protocol, each with a name: the value by which a test switches one of them off.

Production runs with all of them on. `tests/faults` plays histories with one off, and shows that a promise breaks
without it. What a line does stands where it is asked for.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rules:
    """Switches of the protocol's lines, all on in production. Read them as its table of contents.

    A field that is False names what is not done: tests so show which promise breaks without it.
    """

    # Names and epochs
    agents_refuse_the_past: bool = True  # an agent takes no word from an older epoch than it has seen
    epochs_only_grow: bool = True  # no word to an agent that has seen a later leadership
    unsure_leader_waits: bool = True  # nothing is done after the time for which the leadership is sure
    written_before_sent: bool = True  # Strict: the assignment stands in status before its agent hears of it
    conflict_takes_back: bool = True  # a conflict means that the assignment does not stand
    late_assignment_is_adopted: bool = True  # one of this leader that lands late is sent or given back
    unknown_is_doubted: bool = True  # a write without an answer is not taken for one that stands
    doubt_keeps_what_it_took: bool = True  # slots, keys and budgets, until its fate is known
    failures_are_recorded: bool = True  # before the next attempt, also of what was sent unrecorded (Lazy)

    # Time
    lease_counts_from_ping: bool = True  # from the agent's own time of sending, however late the grant
    work_is_killed: bool = True  # by the end of its lease
    hold_ends_with_welcome: bool = True
    former_lease_keeps_its_terms: bool = True  # it is timed as it was granted, not by its queue as it is now
    takeover_waits: bool = True  # a former leader's lease may run until it is known to have ended

    # Sessions and instances
    hello_lists_all: bool = True  # all that the agent holds
    hello_counts_once_heard: bool = True  # after its sender's first word that follows the welcome
    past_sessions_are_refused: bool = True
    new_instance_ends_leases: bool = True  # those of the instance before
    one_session_per_pod: bool = True
    death_ends_leases: bool = True
    absence_is_no_death: bool = True  # of a pod that is out of sight
    first_heard_is_no_death: bool = True  # of an agent that is heard for the first time, and came back without a lease
    strangers_take_room: bool = True  # leases that run at an agent and are not in the books
    drain_ends_with_session: bool = True

    # Changes of leader, reclaim
    hold_is_said: bool = True
    recovery_comes_first: bool = True  # nothing is decided before all that stands is known
    unseen_is_waited_for: bool = True  # at a takeover: an agent out of sight may run what nobody recorded (Lazy)
    confirmed_waits_for_death: bool = True
    at_most_once_is_kept: bool = True

    # Results
    results_are_kept: bool = True  # by the agent, until their final reply
    results_are_dropped: bool = True  # by the agent, with their final reply
    results_are_answered: bool = True
    stale_results_are_refused: bool = True
    reply_follows_write: bool = True
    result_beats_cancel: bool = True
    refusal_is_final: bool = True  # of a result by the API server
    late_result_fails: bool = True  # one that comes after a limit of its attempt

    # Deletion, cancel, views, victims
    deleted_holds_slots: bool = True  # a deleted Task that may run yet
    stop_is_awaited: bool = True  # a Task that is cancelled ends when its agent has stopped it
    newer_views_only: bool = True
    read_before_gone: bool = True  # before an agent hears "no such Task"
    victims_drain_first: bool = True  # an agent is deleted once it holds nothing

    # Tasks that wait, dead letters, costs
    decision_needs_its_task: bool = True  # what was decided of a Task is written if it is unchanged
    end_waits_for_recovery: bool = True  # of a Task that a former leader may have sent unrecorded
    moves_are_told: bool = True  # to the core
    redrives_are_done: bool = True
    newer_letters_only: bool = True
    letters_leave_the_core: bool = True
    redrive_resets_failures: bool = True
    letter_settles_redrives: bool = True  # what was asked before a Task became a dead letter counts no more
    cost_is_fixed_once: bool = True  # with the attempt's end, however often that is written

    # Limits of an attempt, second lines of defence
    agents_keep_limits: bool = True
    operator_watches_limits: bool = True
    agents_count_slots: bool = True
    agents_count_resources: bool = True


ALL = Rules()
