"""Which agents may run a Task at all: a plain list of checks, each with the reason and words of its refusal.

Owns the rules that compare what a Task needs with what an agent offers when it is idle. Refuses to look at
readiness, drains or free slots: those change by the minute and belong to the index.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from taskdist.api import Reason
from taskdist.core.model import REGION, ZONE, Agent, Key, Placement, Pool, Preference, Requirement, Task


@dataclass(frozen=True, slots=True)
class Need:
    """What a Task asks of an agent. `patient`: for now it waits for an agent that it prefers."""

    type: str
    slots: int
    resources: tuple[tuple[str, int], ...]
    skills: frozenset[str]
    selector: tuple[Requirement, ...]
    allows_unfenced: bool
    agent: str | None = None  # the name of the only one that may run it
    placement: Placement | None = None
    patient: bool = False
    objects: bool = False  # its payload is in an object store


@dataclass(frozen=True, slots=True)
class Offer:
    """What an agent offers when it is idle. `types` None means any; `cost` is that of the whole agent for an hour.

    `known` False: an agent that is yet to come, so that its node's zone and region are not known.
    """

    pool: Key
    slots: int
    resources: tuple[tuple[str, int], ...]
    skills: frozenset[str]
    types: frozenset[str] | None
    labels: tuple[tuple[str, str], ...]
    fenced: bool
    cost: float = 0.0
    quality: float = 1.0
    known: bool = True
    name: str = ""  # the agent's, where Tasks ask for it
    objects: bool = False  # it fetches payloads from an object store

    @property
    def namespace(self) -> str:
        namespace, _ = self.pool
        return namespace


@dataclass(frozen=True, slots=True)
class Filter:
    """One check, with the words of its refusal: `short` for a count of agents, `say` for what is missing, `mend` for
    the fix."""

    reason: Reason
    passes: Callable[[Need, Offer], bool]
    short: str
    say: Callable[[Need, Sequence[Offer]], str]
    mend: str


def need_of(task: Task, allows_unfenced: bool, patient: bool = False) -> Need:
    return Need(
        task.type,
        task.slots,
        task.resources,
        task.skills,
        task.selector,
        allows_unfenced,
        task.agent,
        task.placement,
        patient,
        task.objects,
    )


def offer_of(agent: Agent, pool: Pool | None) -> Offer:
    """Return what the agent offers, its pool's cost and quality included; the defaults where the pool is not known."""
    cost, quality = (0.0, 1.0) if pool is None else (pool.cost_per_hour, pool.quality)
    return Offer(
        agent.pool_key,
        agent.slots,
        agent.resources,
        agent.skills,
        agent.types,
        agent.labels,
        agent.fenced,
        cost,
        quality,
        name=agent.name,
        objects=agent.objects,
    )


def prospective(pool: Pool) -> Offer:
    """The offer of an agent that the pool could start: what the pool declares. Types, fencing and object stores are
    not known before an agent is up, so they count as fitting."""
    return Offer(
        pool.key,
        pool.slots,
        pool.resources,
        pool.skills,
        None,
        pool.labels,
        True,
        pool.cost_per_hour,
        pool.quality,
        False,
        objects=True,
    )


def fulfils(requirement: Requirement, labels: dict[str, str]) -> bool:
    """Whether the labels meet the requirement, with the meaning that Kubernetes gives the four operators."""
    present = requirement.key in labels
    match requirement.operator:
        case "In":
            return present and labels[requirement.key] in requirement.values
        case "NotIn":
            return not present or labels[requirement.key] not in requirement.values
        case "Exists":
            return present
        case "DoesNotExist":
            return not present
        case _:
            return False


def covers(offered: Iterable[tuple[str, int]], wanted: Iterable[tuple[str, int]]) -> bool:
    """Whether the offered amounts suffice for the wanted ones, name by name."""
    have = dict(offered)
    return all(have.get(name, 0) >= amount for name, amount in wanted)


def _named(need: Need, offer: Offer) -> bool:
    return need.agent is None or need.agent == offer.name


def _handles(need: Need, offer: Offer) -> bool:
    return offer.types is None or need.type in offer.types


def _skilled(need: Need, offer: Offer) -> bool:
    return need.skills <= offer.skills


def _selected(need: Need, offer: Offer) -> bool:
    return not need.selector or meets(need.selector, offer)


def label(offer: Offer, key: str) -> str | None:
    return next((value for name, value in offer.labels if name == key), None)


def meets(selector: Iterable[Requirement], offer: Offer) -> bool:
    """Whether the agent's labels meet all requirements."""
    labels = dict(offer.labels)
    return all(fulfils(requirement, labels) for requirement in selector)


def worth(preferred: Iterable[Preference], offer: Offer) -> int:
    """Return the sum of the weights of the preferences that the agent meets."""
    return sum(each.weight for each in preferred if meets(each.selector, offer))


def _allowed(allowed: Sequence[str], key: str, offer: Offer) -> bool:
    if not allowed:
        return True
    place = label(offer, key)
    return place in allowed if place is not None else not offer.known


def _in_zone(need: Need, offer: Offer) -> bool:
    return need.placement is None or _allowed(need.placement.zones, ZONE, offer)


def _in_region(need: Need, offer: Offer) -> bool:
    return need.placement is None or _allowed(need.placement.regions, REGION, offer)


def _affordable(need: Need, offer: Offer) -> bool:
    placement = need.placement
    return placement is None or placement.max_cost is None or offer.cost <= placement.max_cost


def _good_enough(need: Need, offer: Offer) -> bool:
    return need.placement is None or offer.quality >= need.placement.min_quality


def _preferred(need: Need, offer: Offer) -> bool:
    placement = need.placement
    return not need.patient or placement is None or worth(placement.preferred, offer) > 0


def _reaches_objects(need: Need, offer: Offer) -> bool:
    return offer.objects or not need.objects


def _fenced(need: Need, offer: Offer) -> bool:
    return offer.fenced or need.allows_unfenced


def _large_enough(need: Need, offer: Offer) -> bool:
    return offer.slots >= need.slots and covers(offer.resources, need.resources)


def _say_name(need: Need, _offers: Sequence[Offer]) -> str:
    return f"is {need.agent}, the only one that may run it"


def _say_type(need: Need, offers: Sequence[Offer]) -> str:
    types = sorted({name for offer in offers for name in offer.types or ()})
    return f"has a handler for type {need.type}; they handle: {_listed(types)}"


# The skill that chunks of an array's items ask for; `protocol` gives it to agents that take them.
CHUNKS = "taskdist.dev/arrays"


def _say_skill(need: Need, offers: Sequence[Offer]) -> str:
    missing = need.skills - frozenset().union(*(offer.skills for offer in offers))
    # With a slash it is no word of users: it stands for what agents say they can do.
    offered = sorted({skill for offer in offers for skill in offer.skills if "/" not in skill})
    if CHUNKS in missing:
        return (
            f"takes chunks of an array's items (skill {CHUNKS}): agents of older releases, commands, HTTP endpoints "
            "and in-process handlers do not"
        )
    if missing:
        return f"has {_counted('skill', sorted(missing))}; they offer: {_listed(offered)}"
    return f"has {_counted('skill', sorted(need.skills))} all at once; together they offer: {_listed(offered)}"


def _say_labels(need: Need, offers: Sequence[Offer]) -> str:
    unmet = [
        requirement
        for requirement in need.selector
        if not any(fulfils(requirement, dict(offer.labels)) for offer in offers)
    ]
    if not unmet:
        return f"meets all of: {'; '.join(map(_requirement, need.selector))}"
    return f"carries labels that meet: {'; '.join(map(_requirement, unmet))}"


def _say_place(what: str, key: str, allowed: Sequence[str], offers: Sequence[Offer]) -> str:
    places = sorted({place for offer in offers if (place := label(offer, key)) is not None})
    return f"is in {_counted(what, allowed)}; they are in: {_listed(places)}"


def _say_zone(need: Need, offers: Sequence[Offer]) -> str:
    return _say_place("zone", ZONE, need.placement.zones if need.placement is not None else (), offers)


def _say_region(need: Need, offers: Sequence[Offer]) -> str:
    return _say_place("region", REGION, need.placement.regions if need.placement is not None else (), offers)


def _say_cost(need: Need, offers: Sequence[Offer]) -> str:
    most = need.placement.max_cost if need.placement is not None else None
    return f"costs {most or 0.0:g} an hour or less; the cheapest costs {min(offer.cost for offer in offers):g}"


def _say_quality(need: Need, offers: Sequence[Offer]) -> str:
    least = need.placement.min_quality if need.placement is not None else 0.0
    return f"has a quality of {least:g} or more; the best has {max(offer.quality for offer in offers):g}"


def _say_preferred(need: Need, _offers: Sequence[Offer]) -> str:
    preferred = need.placement.preferred if need.placement is not None else ()
    wanted = " or ".join("; ".join(map(_requirement, each.selector)) for each in preferred)
    return f"carries labels that the Task prefers: {wanted}"


def _say_objects(_need: Need, _offers: Sequence[Offer]) -> str:
    return "has an object store, in which the Task's payload is"


def _say_fence(_need: Need, _offers: Sequence[Offer]) -> str:
    return "can be stopped by force, and the queue's reclaim Lease allows no overlap"


def _say_size(need: Need, offers: Sequence[Offer]) -> str:
    slots = max(offer.slots for offer in offers)
    if slots < need.slots:
        return f"has {need.slots} slots in all; the largest has {slots}"
    best: dict[str, int] = {}
    for offer in offers:
        for name, amount in offer.resources:
            best[name] = max(best.get(name, 0), amount)
    short = [
        f"{amount} {name} (the most is {best.get(name, 0)})"
        for name, amount in need.resources
        if best.get(name, 0) < amount
    ]
    wanted = [f"{need.slots} slots", *(f"{amount} {name}" for name, amount in need.resources)]
    return f"has {', '.join(short)}" if short else f"has {', '.join(wanted)} all at once"


def _requirement(requirement: Requirement) -> str:
    values = f" ({', '.join(sorted(requirement.values))})" if requirement.values else ""
    return f"{requirement.key} {requirement.operator}{values}"


def _counted(word: str, names: Sequence[str]) -> str:
    return f"{word}{'s' if len(names) > 1 else ''} {', '.join(names)}"


def _listed(names: Sequence[str]) -> str:
    """At most ten of them: status messages are bounded."""
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return (", ".join(names[:10]) + more) or "none"


# From what an agent is for to how large it is: the last check reached tells how near a Task is to running.
FILTERS: tuple[Filter, ...] = (
    Filter(
        Reason.AGENT_NOT_FOUND,
        _named,
        "other than the one it names",
        _say_name,
        "Wait for that agent, name another one, or remove spec.agent from the Task.",
    ),
    # The agent's code decides this; nothing on the Task can.
    Filter(
        Reason.NO_HANDLER,
        _handles,
        "without a handler",
        _say_type,
        "Register a handler for the type in the agent, or create the Task again with another type.",
    ),
    Filter(
        Reason.SKILL_MISSING,
        _skilled,
        "without the skills",
        _say_skill,
        "Run agents that have the skill, in a pool whose spec.skills says so, or create the Task again without it.",
    ),
    Filter(
        Reason.LABELS_MISMATCH,
        _selected,
        "with other labels",
        _say_labels,
        "Run agents that carry such labels, or create the Task again with another agentSelector.",
    ),
    Filter(
        Reason.ZONE_MISMATCH,
        _in_zone,
        "in other zones",
        _say_zone,
        "Run a pool's agents in such a zone, or create the Task again with one of theirs.",
    ),
    Filter(
        Reason.REGION_MISMATCH,
        _in_region,
        "in other regions",
        _say_region,
        "Run a pool's agents in such a region, or create the Task again with one of theirs.",
    ),
    Filter(
        Reason.TOO_EXPENSIVE,
        _affordable,
        "too expensive",
        _say_cost,
        "Add a cheaper pool to the queue, or create the Task again with a higher maxCostPerHour.",
    ),
    Filter(
        Reason.QUALITY_TOO_LOW,
        _good_enough,
        "not good enough",
        _say_quality,
        "Add a better pool to the queue, or create the Task again with a lower minQuality.",
    ),
    # Known of an agent once it is up: the pod's environment says where its store is.
    Filter(
        Reason.OBJECT_STORE_MISSING,
        _reaches_objects,
        "without an object store",
        _say_objects,
        "Set TASKDIST_OBJECTS_URL in the pool's pod template, or create the Task again with a payload of 64 KiB or "
        "less.",
    ),
    # Without a fence a second start could overlap the first: only a queue that accepts or waits may use these.
    Filter(
        Reason.UNFENCED,
        _fenced,
        "that cannot be fenced",
        _say_fence,
        "Run handlers as processes, or set the queue's reclaim to Confirmed or Fast.",
    ),
    # Held against the whole agent, not its free part: what fails here never fits, however long it waits.
    Filter(
        Reason.TOO_LARGE,
        _large_enough,
        "too small",
        _say_size,
        "Run larger agents, raise slots or resources of a pool whose pods have the room, or create the Task again with "
        "less.",
    ),
    # The only one that time alone opens.
    Filter(
        Reason.AFFINITY_WAIT,
        _preferred,
        "not preferred",
        _say_preferred,
        "Wait: after its waitForPreferredSeconds any other agent will do.",
    ),
)
PREFERRED: Final = len(FILTERS) - 1


def refusal(need: Need, offer: Offer) -> int | None:
    """Return the number of the first filter that refuses, or None if the agent may run the Task."""
    for number, check in enumerate(FILTERS):
        if not check.passes(need, offer):
            return number
    return None


def tasks_at_once(slots: int, resources: tuple[tuple[str, int], ...], need: Need) -> int:
    """Return how many such Tasks an idle agent of this size runs at once; 0 if not even one."""
    have = dict(resources)
    return min([slots // need.slots, *(have.get(name, 0) // amount for name, amount in need.resources if amount > 0)])


def labels_asked(task: Task) -> set[str]:
    """Return the keys of the labels that decide where the Task may run, or would rather run."""
    asked = {requirement.key for requirement in task.selector}
    placement = task.placement
    if placement is not None:
        asked |= {requirement.key for each in placement.preferred for requirement in each.selector}
        asked |= {ZONE} if placement.zones else set()
        asked |= {REGION} if placement.regions else set()
    return asked
