"""Why no agent runs a Task that no gate holds: its queue is closed, agents lack something, or none has room.

All Tasks of a shape wait for the same, so it is said of the shape. What only one of them has (a reservation, patience,
the time of its route's next step) is added. Looks at single agents only where they are on probation or reserved.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from taskdist.api import BreakerState, Reason
from taskdist.core import commands
from taskdist.core.agents.filters import FILTERS, PREFERRED, Need, Offer, prospective, refusal
from taskdist.core.agents.roster import AgentClass
from taskdist.core.decisions import Explanation
from taskdist.core.explaining.wording import clock, duration
from taskdist.core.fleet.catalogue import Catalogue
from taskdist.core.fleet.equivalence import Shape
from taskdist.core.fleet.failing import command, told_of, words
from taskdist.core.fleet.routes import opens_at
from taskdist.core.model import Key, Task
from taskdist.core.primitives.bitsets import has

if TYPE_CHECKING:
    from taskdist.core.agents.roster import AgentRecord
    from taskdist.core.ordering.lines import TaskRecord
    from taskdist.core.placement.reservations import Reservation

CLOSED: Final = BreakerState.CLOSED
OPEN: Final = BreakerState.OPEN
HALF_OPEN: Final = BreakerState.HALF_OPEN


def served(shape: Shape, catalogue: Catalogue, reservations: "Sequence[Reservation]") -> bool:
    """Whether the shape is open and some agent may run it: only then is a limit what its Tasks wait for."""
    if shape.closed is not None:
        return False
    capable = (kind for key in shape.pools for kind in catalogue.kinds(key) if has(shape.serving, kind.number))
    return any(kind.open for kind in capable) or any(_capable(shape, reservation) for reservation in reservations)


def _capable(shape: Shape, reservation: "Reservation") -> bool:
    kind = reservation.agent.kind
    return kind is not None and has(shape.serving, kind.number)


def of_shape(
    shape: Shape, catalogue: Catalogue, reservations: "Sequence[Reservation]" = (), task: Task | None = None
) -> Explanation:
    """Explain why Tasks of this shape that no gate holds are not running: the same for all of them.

    With a Task of it, the command that unblocks that one is said too.
    """
    namespace, queue = shape.queue_key
    match shape.closed:
        case Reason.QUEUE_NOT_FOUND:
            return Explanation(
                shape.closed,
                f"TaskQueue {queue} does not exist in namespace {namespace}{_there_are(namespace, catalogue.queues)}.",
                f"Create TaskQueue {queue} with the pools that are to serve it, or create the Task again with another "
                "queue.",
            )
        case Reason.QUEUE_PAUSED:
            return Explanation(
                shape.closed,
                f"TaskQueue {queue} is paused.",
                "Set the queue's spec.paused to false.",
                command=commands.patch_queue(shape.queue_key, paused=False),
            )
        case Reason.AGENT_NOT_FOUND:
            where = f"in pool {shape.pool}" if shape.pool is not None else f"in namespace {namespace}"
            return Explanation(
                shape.closed,
                f"It is to run on agent {shape.need.agent} only, and no agent of this name has come up {where}.",
                "Wait for that agent, name another one, or remove spec.agent from the Task.",
                command=commands.patch_task(task, agent=None) if task is not None else "",
            )
        case Reason.POOL_NOT_FOUND:
            names = (shape.pool,) if shape.pool is not None else catalogue.queue(shape.queue_key).pools
            where = "The Task" if shape.pool is not None else f"TaskQueue {queue}"
            if shape.route is not None:
                names, where = shape.route.pools, f"Route {shape.route.name} of TaskQueue {queue}"
            return Explanation(
                shape.closed,
                f"{where} names {_pools(names)}: no such AgentPool in namespace {namespace}"
                f"{_there_are(namespace, catalogue.pools)}.",
                "Create the pool, or name another one.",
                command=_let_go(shape, catalogue, task),
            )
        case _:
            return _of_agents(shape, catalogue, reservations, task)


def with_route(found: Explanation, record: "TaskRecord", now: float) -> Explanation:
    """Add by which route the Task goes, and when its next step opens."""
    shape, route = record.shape, record.shape.route
    if route is None or shape.closed is not None or len(route.steps) == 1:
        return found
    said = f"Its route {route.name} has {len(route.steps)} steps, of which {shape.steps} {_are(shape.steps)} open"
    if shape.steps < len(route.steps):
        wait = max(0.0, opens_at(route, shape.steps, record.eligible_since) - now)
        said += f"; the next, {_pools(route.steps[shape.steps].pools)}, opens in {duration(wait)}"
    return replace(found, message=f"{found.message} {said}.")


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _let_go(shape: Shape, catalogue: Catalogue, task: Task | None) -> str:
    """The command that drops the Task's own pool, if its queue has another that exists."""
    names = catalogue.queue(shape.queue_key).pools
    if task is None or shape.pool is None or not any((task.namespace, name) in catalogue.pools for name in names):
        return ""
    return commands.patch_task(task, pool=None)


def _there_are(namespace: str, known: Iterable[Key]) -> str:
    """Name some of the objects that exist, for a name that was mistyped."""
    names = sorted(name for space, name in known if space == namespace)
    if not names:
        return ", and no other"
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"; there are: {', '.join(names[:8])}{more}"


def _of_agents(
    shape: Shape, catalogue: Catalogue, reservations: "Sequence[Reservation]", task: Task | None
) -> Explanation:
    pools = _pools([name for _, name in shape.pools])
    kinds = [kind for key in shape.pools for kind in catalogue.kinds(key)]
    capable = [kind for kind in kinds if has(shape.serving, kind.number)]
    held = [reservation for reservation in reservations if _capable(shape, reservation)]
    known = [(kind.offer, len(kind.members)) for kind in kinds]
    on_probation = [agent for agent in catalogue.on_probation.values() if agent.kind in capable]
    if shape.patient and (free := _would_do(shape, kinds)):
        check = FILTERS[PREFERRED]
        return Explanation(
            check.reason,
            f"None of the agents of {pools} that the Task prefers has room; {free} slots are free on others.",
            check.mend,
            rejections=_refused(shape.need, known),
        )
    if held or any(kind.open for kind in capable):
        rejections = _refused(shape.need, known) + _held_back(on_probation) + _failing(shape, catalogue)
        return _of_room(shape, catalogue, capable, held, pools, rejections, on_probation)
    if any(agent.breaker is OPEN for agent in on_probation):
        return _of_breakers(on_probation, pools, _refused(shape.need, known) + _held_back(on_probation))
    # Pools of which no agent is known are judged by what they declare: they may yet grow.
    unknown = [prospective(catalogue.pools[key]) for key in shape.pools if not catalogue.kinds(key)]
    if capable or any(refusal(shape.need, offer) is None for offer in unknown):
        ready = sum(kind.open for kind in kinds)
        able = [kind.offer.pool for kind in capable]
        able += [offer.pool for offer in unknown if refusal(shape.need, offer) is None]
        failing = [agent for agent in catalogue.failing.values() if agent.pool in able]
        empty = catalogue.pools[able[0]]
        if shape.need.agent is not None:
            return Explanation(
                Reason.NO_AGENT,
                f"Agent {shape.need.agent} of {pools}, the only one that may run it, is not ready.",
                "Wait for it, or remove spec.agent from the Task.",
                command=commands.patch_task(task, agent=None) if task is not None else "",
            )
        said = f"No agent of {pools} is ready."
        if ready:
            said = f"No agent of {pools} that may run it is ready; {ready} others are."
        if failing and (found := told_of(failing)) is not None and failing[0].pool is not None:
            return Explanation(
                Reason.NO_AGENT,
                f"{said} {words(found)}",
                "Mend what keeps them from starting; the pool is not grown before one comes up.",
                rejections=_refused(shape.need, known),
                command=command(failing[0].pool, found),
            )
        return Explanation(
            Reason.NO_AGENT,
            said,
            "Wait for the pool to start agents; if it does not, look at its pods and at its replicas or maxReplicas.",
            rejections=_refused(shape.need, known),
            command=commands.grow(empty, 0) if not empty.maximum else commands.pods(empty.key),
        )
    return _of_filters(shape, known, unknown, pools)


def _held_back(on_probation: "Sequence[AgentRecord]") -> tuple[tuple[str, int], ...]:
    """Count capable agents that are on probation, by why."""
    counts = (
        ("held by their circuit breakers", sum(agent.breaker is OPEN for agent in on_probation)),
        (
            "probed by their circuit breakers, one Task at a time",
            sum(agent.open and agent.breaker is HALF_OPEN for agent in on_probation),
        ),
        ("new, and starting slowly", sum(agent.open and agent.breaker is CLOSED for agent in on_probation)),
    )
    return tuple((short, agents) for short, agents in counts if agents)


def _failing(shape: Shape, catalogue: Catalogue) -> tuple[tuple[str, int], ...]:
    """Count the pods of the shape's pools that do not come up, by cause."""
    causes = Counter(
        agent.trouble.cause
        for agent in catalogue.failing.values()
        if agent.trouble is not None and agent.pool in shape.pools
    )
    return tuple((f"not up: {cause}", agents) for cause, agents in sorted(causes.items()))


def _of_breakers(
    on_probation: "Sequence[AgentRecord]", pools: str, rejections: tuple[tuple[str, int], ...]
) -> Explanation:
    agents = sorted(agent.name for agent in on_probation if agent.breaker is OPEN)
    pool = next(agent.pool for agent in on_probation if agent.breaker is OPEN and agent.pool is not None)
    return Explanation(
        Reason.BREAKER_OPEN,
        f"The agents of {pools} that may run it fail where others succeed, and are held by their circuit breakers: "
        f"{', '.join(agents[:4])}{f' and {len(agents) - 4} more' if len(agents) > 4 else ''}.",
        "Look at their logs; they are probed after a while. Deleting such a pod makes a new one.",
        rejections=rejections,
        command=commands.pods(pool),
    )


def _refused(need: Need, known: Sequence[tuple[Offer, int]]) -> tuple[tuple[str, int], ...]:
    """Count agents by the filter that refuses them."""
    refused: Counter[int | None] = Counter()
    for offer, agents in known:
        refused[refusal(need, offer)] += agents
    return tuple((each.short, refused[number]) for number, each in enumerate(FILTERS) if refused[number])


def _of_filters(shape: Shape, known: Sequence[tuple[Offer, int]], unknown: Sequence[Offer], pools: str) -> Explanation:
    """Explain that every offer is refused, by the furthest filter that any of them reached: the least that has to
    change."""
    need = shape.need
    judged = [(refusal(need, offer), offer) for offer in [*(offer for offer, _ in known), *unknown]]
    last = max(number for number, _ in judged if number is not None)
    check, nearest = FILTERS[last], [offer for number, offer in judged if number == last]
    message = f"No agent of {pools} {check.say(need, nearest)}."
    rejections = _refused(need, known)
    if known:
        counts = ", ".join(f"{agents} {short}" for short, agents in rejections)
        message += f" Of {sum(agents for _, agents in rejections)} agents: {counts}."
    # What agents are and have is their own word: saying otherwise would not change it.
    unfenced = check.reason is Reason.UNFENCED
    done = commands.patch_queue(shape.queue_key, reclaim="Confirmed") if unfenced else ""
    return Explanation(check.reason, message, check.mend, rejections=rejections, command=done)


def _of_room(
    shape: Shape,
    catalogue: Catalogue,
    capable: Sequence[AgentClass],
    held: "Sequence[Reservation]",
    pools: str,
    rejections: tuple[tuple[str, int], ...],
    on_probation: "Sequence[AgentRecord]",
) -> Explanation:
    need, profile = shape.need, shape.profile
    agents = sum(kind.open for kind in capable) + len(held)
    slots = sum(kind.open * kind.offer.slots for kind in capable) + sum(reservation.agent.slots for reservation in held)
    taken = sum(kind.busy_slots for kind in capable) + sum(
        min(reservation.agent.busy, reservation.agent.slots) for reservation in held
    )
    fits = profile is not None and any(roster.room >= need.slots for roster in profile.rosters)
    grow = _more(shape, catalogue)
    roomy = [reservation for reservation in held if reservation.agent.slots - reservation.agent.busy >= need.slots]
    if roomy and not fits:
        names = ", ".join(f"{reservation.agent.name} for {reservation.record.task.name}" for reservation in roomy[:4])
        return Explanation(
            Reason.AGENT_HELD,
            f"The free agents of {pools} are held for Tasks that need much room at once: {names}.",
            "Wait; raise the pool's size, or the queue's largeTasks.holdAfterSeconds.",
            rejections=rejections,
            command=grow,
        )
    # Slots that are kept back are no more free than those that are busy: which of both are more is the reason.
    kept_back = sum(max(0, agent.slots - max(agent.cap, agent.busy)) for agent in on_probation if agent.open)
    slots -= kept_back
    if not fits and taken >= slots and kept_back > taken:
        starting = any(agent.open and agent.breaker is CLOSED for agent in on_probation)
        return Explanation(
            Reason.SLOW_START if starting else Reason.BREAKER_OPEN,
            f"{kept_back} of {slots + kept_back} slots of {pools} are kept back: "
            + "; ".join(f"{count} agents are {short}" for short, count in _held_back(on_probation))
            + ".",
            "Wait: they get more as time goes, or sooner with less slowStartSeconds."
            if starting
            else "Wait: they get more once probes have succeeded. If those fail, look at the agents' logs.",
            rejections=rejections,
            command=grow,
        )
    if fits:
        return Explanation(
            Reason.QUEUED,
            f"An agent of {pools} has room for it: it starts unless another goes first.",
            "Wait a moment.",
            rejections=rejections,
        )
    if taken >= slots:
        plural = agents != 1
        return Explanation(
            Reason.QUEUED,
            f"The {agents} capable agent{'s' if plural else ''} of {pools} {'have' if plural else 'has'} {taken} of "
            f"{slots} slots busy.",
            "Wait for running Tasks to end, or raise the pool's size.",
            rejections=rejections,
            command=grow,
        )
    return Explanation(
        Reason.NO_FREE_SLOTS,
        f"No capable agent of {pools} has {_wanted(need)} free at once; {slots - taken} of {slots} slots are free on "
        f"{agents} of them.",
        "Wait for running Tasks to end, or raise the pool's size.",
        rejections=rejections,
        command=grow,
    )


def of_own_reservation(found: Explanation, record: "TaskRecord", reservation: "Reservation", now: float) -> Explanation:
    """Explain the wait for an agent that is reserved for this Task: the reason of its like, with an end in sight."""
    agent = reservation.agent
    return replace(
        found,
        message=f"Agent {agent.name} is held for it: it needs {_wanted(record.shape.need)} at once, and "
        f"{max(0, agent.slots - agent.busy)} of {agent.slots} slots are free there. Expected in "
        f"{duration(max(0.0, reservation.fits_at - now))}.",
        unblock="Wait for the Tasks on that agent to end.",
        command="",
    )


def of_patience(found: Explanation, record: "TaskRecord", now: float) -> Explanation:
    """Explain the wait for a preferred agent: the reason of its like, with the time after which any agent will do."""
    left = duration(max(0.0, record.patience - now))
    return replace(found, message=f"{found.message} In {left}, at {clock(record.patience)}, any other will do.")


def _would_do(shape: Shape, kinds: Sequence[AgentClass]) -> int:
    """Count the free slots of agents that may run the Task but for its preference, which it waits for."""
    others = [kind for kind in kinds if refusal(shape.need, kind.offer) == PREFERRED]
    return sum(max(0, kind.open * kind.offer.slots - kind.busy_slots) for kind in others)


def _more(shape: Shape, catalogue: Catalogue) -> str:
    """The command that adds an agent where Tasks of the class lack nothing but room."""
    if not shape.candidates:
        return ""
    key = shape.candidates[0].pool
    return commands.grow(catalogue.pools[key], sum(len(kind.members) for kind in catalogue.kinds(key)))


def _wanted(need: Need) -> str:
    return ", ".join([f"{need.slots} slots", *(f"{amount} {name}" for name, amount in need.resources)])


def _pools(names: Sequence[str]) -> str:
    return f"pool{'s' if len(names) != 1 else ''} {', '.join(names)}"
