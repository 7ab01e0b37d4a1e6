"""What holds most waiting time now, of each queue and of what each pool could serve, and what would help most.

A Task waits for one thing at a time, the one that `explain` names. Here like Tasks are taken together, and weighed by
how long they have waited: n Tasks that began to wait at times adding up to s have waited n·now − s in all, so that a
class costs as much as one Task. What people want themselves (a suspended Task, a time that is yet to come, an earlier
Task of the same chain) is no bottleneck.

Owns what counts as one, its name and its words, and for how long it has to last: as a Task's reason, 30 s. Refuses to
look at single Tasks, and to change anything.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from taskdist.api import Reason
from taskdist.core.agents.filters import FILTERS, Need, Offer, fulfils, refusal
from taskdist.core.decisions import Explanation
from taskdist.core.explaining.reasons import of_limit
from taskdist.core.explaining.unschedulable import of_shape, served
from taskdist.core.explaining.wording import duration
from taskdist.core.fleet.catalogue import Catalogue
from taskdist.core.fleet.equivalence import Shape
from taskdist.core.limits.blockers import (
    Blocker,
    FewSlots,
    Forbidden,
    FullEmergency,
    FullKey,
    FullQuota,
    FullSlots,
    NoToken,
)
from taskdist.core.limits.budgets import NoBudget, NotYet, Short
from taskdist.core.model import Key
from taskdist.core.ordering.line_limits import LineLimits

if TYPE_CHECKING:
    from taskdist.core.placement.reservations import Reservation

# Seconds that a bottleneck has to last, and that its Tasks have to wait on average.
HELD: Final = 30.0

# Why an agent may not run a Task: whatever refuses all of them is what is scarce.
_REFUSALS: Final = frozenset(check.reason for check in FILTERS)
# What holds a Task by itself and is scarce all the same.
_GATES: Final = (Reason.KEY_IN_USE, Reason.OUT_OF_TURN)


@dataclass(frozen=True, slots=True)
class Holdup:
    """One thing that Tasks wait for, how many do, and for how many seconds in all. `what` is its name: a resource,
    skill, label, limit or place."""

    reason: Reason
    what: str
    tasks: int
    seconds: float
    found: Explanation

    @property
    def name(self) -> tuple[Reason, str]:
        """Return its identity: numbers change all the time, this does not."""
        return (self.reason, self.what)


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """The holdup with most waiting time, once that has lasted; `part` is its share of all waiting time."""

    holdup: Holdup
    part: float

    @property
    def message(self) -> str:
        """Say what holds how many Tasks for how long, what would help most, and the command that does it."""
        held = self.holdup
        mean = duration(held.seconds / held.tasks)
        said = [
            f"{held.tasks} Task{'s wait' if held.tasks != 1 else ' waits'} for {held.what}, {mean} on average: "
            f"{100.0 * self.part:.0f}% of all waiting time.",
            held.found.message,
            held.found.unblock,
        ]
        if held.found.command:
            said.append(f"Command: {held.found.command}")
        return " ".join(filter(None, said))


# By queue and by pool, what holds how much; a Task that may go to several pools counts for each.
Holdups = Mapping[Key, list[Holdup]]


def holdups(
    catalogue: Catalogue, limits: LineLimits, held: "Iterable[Reservation]", now: float
) -> tuple[Holdups, Holdups]:
    """Return the holdups of each queue, and of each pool that could serve its Tasks: most waiting time first."""
    queues: dict[Key, dict[tuple[Reason, str], Holdup]] = {}
    pools: dict[Key, dict[tuple[Reason, str], Holdup]] = {}
    kept = list(held)
    for shape in catalogue.shapes.values():
        if shape.tasks:
            for each in _of_shape(shape, catalogue, limits, kept, now):
                _add(queues.setdefault(shape.queue_key, {}), each)
                for pool in shape.pools:
                    _add(pools.setdefault(pool, {}), each)
    return _ordered(queues), _ordered(pools)


def _add(there: dict[tuple[Reason, str], Holdup], more: Holdup) -> None:
    known = there.get(more.name)
    if known is None:
        there[more.name] = more
        return
    # The words are those of the class that has waited most.
    found = known.found if known.seconds >= more.seconds else more.found
    there[more.name] = Holdup(known.reason, known.what, known.tasks + more.tasks, known.seconds + more.seconds, found)


def _ordered(found: dict[Key, dict[tuple[Reason, str], Holdup]]) -> Holdups:
    return {key: sorted(each.values(), key=lambda one: (-one.seconds, one.name)) for key, each in found.items()}


def _of_shape(
    shape: Shape, catalogue: Catalogue, limits: LineLimits, held: "list[Reservation]", now: float
) -> Iterable[Holdup]:
    """Yield the holdups of one shape."""
    for gate in _GATES:
        if tasks := shape.gated[gate]:
            what, found = _of_gate(shape, gate)
            yield Holdup(gate, what, tasks, _waited(tasks, shape.gated_since[gate], now), found)
    if not shape.eligible:
        return
    found = of_shape(shape, catalogue, held)
    tasks, since = shape.eligible, shape.eligible_since
    for line in limits.lines(shape) if served(shape, catalogue, held) else ():
        first = line.first()
        for each in limits.of(line):
            tasks -= each.tasks
            since -= each.since
            if isinstance(each.blocker, FullKey):
                # All keys together: there may be very many.
                what, limit = _of_gate(shape, each.blocker.reason)
            else:
                assert first is not None, "a line without Tasks is held by nothing"
                what, limit = _limit(each.blocker), of_limit(first.record.task, each.blocker, now)
            yield Holdup(limit.reason, what, each.tasks, _waited(each.tasks, each.since, now), limit)
    if tasks:
        yield Holdup(found.reason, _scarce(shape, catalogue, found.reason), tasks, _waited(tasks, since, now), found)


def _waited(tasks: int, since: float, now: float) -> float:
    return max(0.0, tasks * now - since)


def _of_gate(shape: Shape, gate: Reason) -> tuple[str, Explanation]:
    _, name = shape.queue_key
    if gate is Reason.OUT_OF_TURN:
        return "an ordering key", Explanation(
            gate,
            f"Tasks of TaskQueue {name} with the same orderingKey run one after the other.",
            "Give Tasks that need not follow each other different ordering keys.",
        )
    limit = shape.queue.concurrency_limit
    return "spec.concurrencyLimit", Explanation(
        gate,
        f"TaskQueue {name} runs at most {limit} Tasks of a concurrency key at once.",
        f"Give Tasks that may run together different keys, or raise spec.concurrencyLimit of TaskQueue {name}.",
    )


def _limit(blocker: Blocker) -> str:
    """Return the field of the spec that sets the limit."""
    match blocker:
        case FullQuota():
            return f"{blocker.scope.path}.leased"
        case FullSlots() | FewSlots():
            return f"{blocker.scope.path}.slots"
        case FullEmergency():
            return "spec.tenants.emergencyLeased"
        case NoToken():
            return blocker.scope.rate_path
        case Forbidden():
            return "spec.tenants.emergency"
        case Short() | NotYet() | NoBudget():
            return f"budget {blocker.purse.path}"
        case _:
            return f"a limit ({blocker.reason.value})"


def _scarce(shape: Shape, catalogue: Catalogue, reason: Reason) -> str:
    """Return the name of what is scarce: more of it would let Tasks of the shape start."""
    need = shape.need
    match reason:
        case _ if reason in _REFUSALS:
            offers = [kind.offer for key in shape.pools for kind in catalogue.kinds(key)]
            return _lacking(need, reason, offers)
        case Reason.QUEUE_PAUSED:
            return "spec.paused"
        case Reason.QUEUE_NOT_FOUND:
            return "its TaskQueue"
        case Reason.POOL_NOT_FOUND:
            return "a pool"
        case Reason.NO_AGENT:
            return "an agent"
        case Reason.BREAKER_OPEN:
            return "agents whose breaker is closed"
        case _:
            return _of_room(shape, catalogue)


def _of_room(shape: Shape, catalogue: Catalogue) -> str:
    """Return what is scarce where all capable agents are busy: what free agents lack, or else slots and resources."""
    need = shape.need
    spare: Counter[Reason] = Counter()
    offers: dict[Reason, list[Offer]] = {}
    own = 0
    for kind in (kind for key in shape.pools for kind in catalogue.kinds(key)):
        free = max(0, kind.open * kind.offer.slots - kind.busy_slots)
        refused = refusal(need, kind.offer)
        if refused is None:
            own += free
        elif free:
            spare[FILTERS[refused].reason] += free
            offers.setdefault(FILTERS[refused].reason, []).append(kind.offer)
    if spare:
        reason = max(spare, key=lambda each: (spare[each], each.value))
        return _lacking(need, reason, offers[reason])
    if own and need.resources:
        return _named("resource", [name for name, _ in need.resources])
    return "slots" if need.slots == 1 else f"{need.slots} slots on one agent"


def _lacking(need: Need, reason: Reason, offers: list[Offer]) -> str:
    """Return by name what these agents do not have."""
    match reason:
        case Reason.SKILL_MISSING:
            missing = {name for offer in offers for name in need.skills - offer.skills} if offers else need.skills
            return _named("skill", sorted(missing))
        case Reason.LABELS_MISMATCH:
            unmet = {
                each.key
                for each in need.selector
                if not offers or any(not fulfils(each, dict(offer.labels)) for offer in offers)
            }
            return _named("label", sorted(unmet))
        case Reason.NO_HANDLER:
            return f"a handler for type {need.type}"
        case Reason.ZONE_MISMATCH if need.placement is not None:
            return _named("zone", sorted(need.placement.zones))
        case Reason.REGION_MISMATCH if need.placement is not None:
            return _named("region", sorted(need.placement.regions))
        case Reason.TOO_EXPENSIVE if need.placement is not None:
            return f"agents that cost {need.placement.max_cost or 0.0:g} an hour or less"
        case Reason.QUALITY_TOO_LOW if need.placement is not None:
            return f"agents of quality {need.placement.min_quality:g} or more"
        case Reason.AFFINITY_WAIT:
            return "agents that its Tasks prefer"
        case Reason.AGENT_NOT_FOUND:
            return f"agent {need.agent}"
        case Reason.TOO_LARGE:
            short = [
                name for name, amount in need.resources if any(dict(o.resources).get(name, 0) < amount for o in offers)
            ]
            return _named("resource", short) if short else f"{need.slots} slots on one agent"
        case _:
            return f"agents that may run it ({reason.value})"


def _named(kind: str, names: list[str]) -> str:
    return f"{kind}{'s' if len(names) != 1 else ''} {', '.join(names)}"


class _Pending(NamedTuple):
    """What is about to be said (None: nothing), and since when it could have been."""

    name: tuple[Reason, str] | None
    since: float


class Damper:
    """Damps bottlenecks: a new one is told, or the last one dropped, only once that has held for `HELD` seconds."""

    __slots__ = ("_said", "_since")

    def __init__(self) -> None:
        self._said: dict[Key, Bottleneck] = {}
        # What is about to be said of each.
        self._since: dict[Key, _Pending] = {}

    def look(self, found: Holdups, now: float) -> Mapping[Key, Bottleneck]:
        """Return what is said now, with numbers of now. To be asked every few seconds."""
        for key in [*self._said.keys() | found.keys() | self._since.keys()]:
            self._look(key, found.get(key, []), now)
        return dict(self._said)

    def _look(self, key: Key, here: list[Holdup], now: float) -> None:
        said = self._said.get(key)
        first = here[0] if here and here[0].seconds >= HELD * here[0].tasks else None
        if said is not None:
            same = next((each for each in here if each.name == said.holdup.name), None)
            if same is not None:
                self._said[key] = _of(same, here)
        if (None if first is None else first.name) == (None if said is None else said.holdup.name):
            self._since.pop(key, None)
            return
        name = None if first is None else first.name
        pending = self._since.get(key)
        if pending is None or pending.name != name or pending.since > now:
            pending = self._since[key] = _Pending(name, now)
        if now - pending.since >= HELD:
            del self._since[key]
            if first is None:
                del self._said[key]
            else:
                self._said[key] = _of(first, here)


def _of(holdup: Holdup, all_of_them: list[Holdup]) -> Bottleneck:
    whole = sum(each.seconds for each in all_of_them)
    return Bottleneck(holdup, holdup.seconds / whole if whole > 0.0 else 1.0)
