"""Why a Task waits: one reason, words that name what is missing, and what would unblock it.

The one place where reasons become words; status, events, metrics and the command repeat them. Refuses to change
anything.
"""

from collections import Counter
from collections.abc import Sequence

from taskdist.api import Reason
from taskdist.core.decisions import Explanation
from taskdist.core.filters import FILTERS, Need, Offer, prospective, refusal
from taskdist.core.matching import AgentClass, Catalogue, Shape
from taskdist.core.model import Task


def of_gate(task: Task, gate: Reason, now: float) -> Explanation:
    """What of the Task's own keeps it from being eligible."""
    match gate:
        case Reason.SUSPENDED:
            return Explanation(gate, "The Task is suspended.", "Set spec.suspend to false.")
        case Reason.BACKING_OFF:
            wait = max(0.0, task.not_before - now)
            return Explanation(
                gate,
                f"Tried again in {wait:.0f} s, after {task.failures} failed attempts.",
                "Wait, or shorten the queue's retry back-off for later attempts.",
            )
        case Reason.RECOVERING:
            return Explanation(
                gate,
                "An earlier attempt may still run; it is waited for until its lease is surely over.",
                "Wait: at most the queue's holdSeconds, unless its reclaim is Confirmed.",
            )
        case _:
            return Explanation(gate, f"Waits for something outside the order of Tasks: {gate.value}.", "Wait.")


def of_shape(shape: Shape, catalogue: Catalogue) -> Explanation:
    """Why a Task of this shape that no gate holds is not running: the same for all of them.

    Looks at classes of agents, never at single ones, so that every waiting Task can be asked after.
    """
    namespace, queue = shape.queue_key
    match shape.closed:
        case Reason.QUEUE_NOT_FOUND:
            return Explanation(
                shape.closed,
                f"TaskQueue {queue} does not exist in namespace {namespace}.",
                f"Create TaskQueue {queue}, or create the Task again with another queue.",
            )
        case Reason.QUEUE_PAUSED:
            return Explanation(shape.closed, f"TaskQueue {queue} is paused.", "Set the queue's spec.paused to false.")
        case Reason.POOL_NOT_FOUND:
            names = (shape.pool,) if shape.pool is not None else catalogue.queue(shape.queue_key).pools
            where = "The Task" if shape.pool is not None else f"TaskQueue {queue}"
            return Explanation(
                shape.closed,
                f"{where} names {_pools(names)}: no such AgentPool in namespace {namespace}.",
                "Create the pool, or name another one.",
            )
        case _:
            return _of_agents(shape, catalogue)


def _of_agents(shape: Shape, catalogue: Catalogue) -> Explanation:
    pools = _pools([key[1] for key in shape.pools])
    kinds = [kind for key in shape.pools for kind in catalogue.kinds(key)]
    capable = [kind for kind in kinds if shape.serving >> kind.number & 1]
    if any(kind.open for kind in capable):
        return _of_room(shape, capable, pools)
    # Pools of which no agent is known are judged by what they declare: they may yet grow.
    unknown = [prospective(catalogue.pools[key]) for key in shape.pools if not catalogue.kinds(key)]
    if capable or any(refusal(shape.need, offer) is None for offer in unknown):
        ready = sum(kind.open for kind in kinds)
        return Explanation(
            Reason.NO_AGENT,
            f"No agent of {pools} that may run it is ready; {ready} others are."
            if ready
            else f"No agent of {pools} is ready.",
            "Wait for the pool to start agents; if it does not, look at its pods and at its replicas or maxReplicas.",
        )
    return _of_filters(shape.need, [(kind.offer, len(kind.members)) for kind in kinds], unknown, pools)


def _of_filters(need: Need, known: Sequence[tuple[Offer, int]], unknown: Sequence[Offer], pools: str) -> Explanation:
    """Every offer is refused: name the furthest filter that any of them reached, the least that has to change."""
    judged = [(refusal(need, offer), offer) for offer in [*(offer for offer, _ in known), *unknown]]
    last = max(number for number, _ in judged if number is not None)
    check = FILTERS[last]
    message = f"No agent of {pools} {check.say(need, [offer for number, offer in judged if number == last])}."
    if known:
        refused: Counter[int | None] = Counter()
        for offer, agents in known:
            refused[refusal(need, offer)] += agents
        counts = [f"{refused[number]} {each.short}" for number, each in enumerate(FILTERS) if refused[number]]
        message += f" Of {refused.total()} agents: {', '.join(counts)}."
    return Explanation(check.reason, message, check.mend)


def _of_room(shape: Shape, capable: Sequence[AgentClass], pools: str) -> Explanation:
    need, profile = shape.need, shape.profile
    agents = sum(kind.open for kind in capable)
    slots = sum(kind.open * kind.offer.slots for kind in capable)
    taken = sum(kind.taken for kind in capable)
    fits = profile is not None and any(roster.room >= need.slots for roster in profile.rosters)
    if fits or taken == slots:
        return Explanation(
            Reason.QUEUED,
            f"The {agents} capable agents of {pools} have {taken} of {slots} slots busy; others are served first.",
            "Wait; raise the Task's priority or the pool's size to start it sooner.",
        )
    wanted = ", ".join([f"{need.slots} slots", *(f"{amount} {name}" for name, amount in need.resources)])
    return Explanation(
        Reason.NO_FREE_SLOTS,
        f"None of the {agents} capable agents of {pools} has {wanted} free at once; "
        f"{slots - taken} of {slots} slots are free on all of them.",
        "Wait for running Tasks to end, or raise the pool's size.",
    )


def _pools(names: Sequence[str]) -> str:
    return f"pool{'s' if len(names) != 1 else ''} {', '.join(names)}"
