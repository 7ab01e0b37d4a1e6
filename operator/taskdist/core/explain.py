"""Why a Task waits: one reason, words that name what is missing, and what would unblock it.

The one place where reasons become words; status, events, metrics and the command repeat them. Refuses to change
anything.
"""

from collections import Counter
from collections.abc import Sequence

from taskdist.api import Reason
from taskdist.core.decisions import Explanation
from taskdist.core.filters import FILTERS, prospective, refusal
from taskdist.core.fleet import Fleet
from taskdist.core.matching import Catalogue, Shape
from taskdist.core.model import Task
from taskdist.core.roster import AgentRecord


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


def of_shape(shape: Shape, catalogue: Catalogue, fleet: Fleet) -> Explanation:
    """Why a Task of this shape that no gate holds is not running: the same for all of them."""
    match shape.closed:
        case Reason.QUEUE_NOT_FOUND:
            queue = shape.queue_key[1]
            return Explanation(
                shape.closed,
                f"TaskQueue {queue} does not exist in namespace {shape.queue_key[0]}.",
                f"Create TaskQueue {queue}, or create the Task again with another queue.",
            )
        case Reason.QUEUE_PAUSED:
            return Explanation(
                shape.closed, f"TaskQueue {shape.queue_key[1]} is paused.", "Set the queue's spec.paused to false."
            )
        case Reason.POOL_NOT_FOUND:
            names = (shape.pool,) if shape.pool is not None else catalogue.queue(shape.queue_key).pools
            where = "The Task" if shape.pool is not None else f"TaskQueue {shape.queue_key[1]}"
            return Explanation(
                Reason.POOL_NOT_FOUND,
                f"{where} names {_pools(names)}: no such AgentPool in namespace {shape.queue_key[0]}.",
                "Create the pool, or name another one.",
            )
        case _:
            return _of_agents(shape, catalogue, fleet)


def _of_agents(shape: Shape, catalogue: Catalogue, fleet: Fleet) -> Explanation:
    pools = _pools([key[1] for key in shape.pools])
    ready: list[AgentRecord] = []
    known: list[AgentRecord] = []
    for key in shape.pools:
        for agent in fleet.members(key).agents.values():
            if agent.kind is not None and not agent.gone:
                known.append(agent)
                if agent.open:
                    ready.append(agent)
    judged = [agent.kind.offer for agent in (ready or known) if agent.kind is not None]
    if not judged:
        judged = [prospective(catalogue.pools[key]) for key in shape.pools]
    refused = Counter(refusal(shape.need, offer) for offer in judged)
    if None not in refused:
        # The furthest filter that any agent reached: the least that has to change.
        last = max(number for number in refused if number is not None)
        check = FILTERS[last]
        near = [offer for offer in judged if refusal(shape.need, offer) == last]
        subject = "agent" if ready or known else "agent as declared"
        message = f"No {subject} of {pools} {check.say(shape.need, near)}."
        if ready or known:
            counts = [f"{refused[n]} {each.short}" for n, each in enumerate(FILTERS) if refused[n]]
            message += f" Of {len(judged)} agents: {', '.join(counts)}."
        return Explanation(check.reason, message, check.mend)
    if not ready:
        exist = sum(len(fleet.members(key).agents) for key in shape.pools)
        return Explanation(
            Reason.NO_AGENT,
            f"No agent of {pools} is ready; {exist} pods exist.",
            "Wait for the pool to start agents; if it does not, look at its pods and at its replicas or maxReplicas.",
        )
    return _of_room(shape, ready, pools)


def _of_room(shape: Shape, ready: Sequence[AgentRecord], pools: str) -> Explanation:
    need = shape.need
    capable = [agent for agent in ready if agent.kind is not None and refusal(need, agent.kind.offer) is None]
    slots = sum(agent.slots for agent in capable)
    busy = sum(agent.busy for agent in capable)
    some = [agent for agent in capable if agent.busy < agent.slots]
    if not some or any(agent.slots - agent.busy >= need.slots and agent.fits(need.resources) for agent in some):
        return Explanation(
            Reason.QUEUED,
            f"{len(capable)} capable agents of {pools} have {busy} of {slots} slots busy; others are served first.",
            "Wait; raise the Task's priority or the pool's size to start it sooner.",
        )
    most = max(agent.slots - agent.busy for agent in some)
    wanted = ", ".join([f"{need.slots} slots", *(f"{amount} {name}" for name, amount in need.resources)])
    return Explanation(
        Reason.NO_FREE_SLOTS,
        f"None of {len(capable)} capable agents of {pools} has {wanted} free at once; "
        f"the most free slots of one are {most}.",
        "Wait for running Tasks to end, or raise the pool's size.",
    )


def _pools(names: Sequence[str]) -> str:
    return f"pool{'s' if len(names) != 1 else ''} {', '.join(names)}"
