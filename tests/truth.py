"""Whether a reason is true: what the core says of a Task that waits, held against the mirror of all that happened."""

from state import EDGE, State
from taskdist.api import Reason
from taskdist.core.model import Task

# All that is short is room: no limit holds the Task.
ROOM = frozenset({Reason.QUEUED, Reason.NO_FREE_SLOTS, Reason.AGENT_HELD, Reason.SLOW_START})


def untrue(state: State, task: Task, reason: Reason, now: float) -> str:
    """Return what is wrong with the reason; nothing if it is true."""
    limits = state.limited(task, now)
    doubtful, short = state.short_of_tokens(task, now)
    match reason:
        case _ if reason in ROOM:
            if limits or short or not state.in_turn(task):
                return f"only room is said to be short: {limits}, a token {short}, its turn {state.in_turn(task)}"
        case Reason.QUOTA_EXCEEDED:
            if not any("quota" in each or "slots" in each or "cap" in each for each in limits):
                return f"no quota holds it, but {limits}"
        case Reason.TENANT_NOT_ALLOWED:
            if "not being allowed an emergency" not in limits:
                return "its tenant is allowed emergencies"
        case Reason.KEY_IN_USE:
            rivals = [each for each in state.waiting.values() if _same_key(each, task) and each.uid != task.uid]
            if "its concurrency key" not in limits and not rivals:
                return "nobody has or wants its key"
        case Reason.RATE_LIMITED:
            if state.tokens(task, now)[0] >= 1 + EDGE:
                return "there is a token"
        case Reason.BUDGET_SHORT:
            if not any("the budget" in each for each in limits) and not doubtful:
                return "there is enough of its budgets"
        case Reason.BUDGET_NOT_FOUND:
            if not any("the lack" in each for each in limits):
                return "its budgets are there"
        case Reason.OUT_OF_TURN:
            if state.in_turn(task):
                return "it is its turn"
        case _:
            pass
    return ""


def _same_key(one: Task, other: Task) -> bool:
    return (one.queue_key, one.concurrency_key) == (other.queue_key, other.concurrency_key)
