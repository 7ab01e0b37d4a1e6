"""What lies before a Task that stands in a line: its position, and when it is expected to start.

Puts together who goes before it, what those are expected to take, what comes meanwhile, and the slots of the agents
that may run it. Refuses to know how any of that is found out.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Final

from taskdist.api import Reason
from taskdist.core import commands, order
from taskdist.core.agents.filters import FILTERS, PREFERRED
from taskdist.core.agents.roster import AgentClass
from taskdist.core.decisions import Explanation
from taskdist.core.fleet.catalogue import Catalogue
from taskdist.core.fleet.equivalence import Shape
from taskdist.core.forecasting.arrivals import Arrivals, Load, Owner, TenantRate
from taskdist.core.forecasting.forecast import Backlog, Forecast, backlog, doubt, forecast
from taskdist.core.forecasting.overtaking import Passing, Rival
from taskdist.core.forecasting.position import Ahead, ahead
from taskdist.core.limits.blockers import Blocker, NoToken
from taskdist.core.limits.budgets import NotYet, amount_taken
from taskdist.core.limits.limits import Limits
from taskdist.core.model import TOP, Key
from taskdist.core.ordering.line_limits import LineLimits
from taskdist.core.primitives.bitsets import has
from taskdist.core.primitives.service_times import Estimates

if TYPE_CHECKING:
    from taskdist.core.ordering.lines import TaskRecord

# Reasons for which all agents refuse the Task, present or possible: it has no position among their waiting Tasks.
_REFUSED: Final = frozenset(check.reason for number, check in enumerate(FILTERS) if number != PREFERRED)


def with_outlook(
    found: Explanation,
    record: "TaskRecord",
    catalogue: Catalogue,
    limits: Limits,
    asked: LineLimits,
    estimates: Estimates,
    arrivals: Arrivals,
    now: float,
) -> Explanation:
    """Add the position and the expected start; without history only the position.

    Nothing where waiting is in vain, or where the Task stands in no line.
    """
    if record.line is None or record.line.share is None or record.shape.closed is not None:
        return found
    blocker = limits.holding(record.task, record.level, now)
    if found.reason in _REFUSED or _nowhere(found, record, catalogue) or (blocker is not None and blocker.final):
        return found

    def price(shape: Shape) -> float:
        declared = catalogue.queue(shape.queue_key).expected_service
        return estimates.expected(shape.queue_key, shape.need.type, declared) * shape.need.slots

    before = ahead(record, catalogue.shapes.values(), asked.lines, price, blocker, asked.shared)
    found = replace(
        found,
        position=before.position,
        position_exact=before.exact,
        rivals=max(before.position, before.rivals),
    )
    if found.reason is Reason.QUEUED and before.of_own_level:
        found = _promoted(found, record, catalogue, now)
    start = _start(record, before, catalogue, estimates, arrivals, now)
    if start is not None and blocker is not None:
        paced = _paced(record, blocker, before, arrivals, now)
        start = None if paced is None else _later(start, paced)
    if start is None:
        return found
    return replace(found, start=now + start.mean, start_interval=(now + start.low, now + start.high))


def _nowhere(found: Explanation, record: "TaskRecord", catalogue: Catalogue) -> bool:
    """Whether no agent is ready for the Task and no pool may start one."""
    return found.reason is Reason.NO_AGENT and not any(
        catalogue.pools[key].maximum for key, _ in record.shape.candidates
    )


def _promoted(found: Explanation, record: "TaskRecord", catalogue: Catalogue, now: float) -> Explanation:
    """Say that a higher priority would let the Task pass others of its level, unless aging or dependants have lifted it
    as far."""
    task, queue = record.task, catalogue.queue(record.task.queue_key)
    raised = replace(task, priority=min(TOP, task.priority + 1))
    if order.level(queue, raised, now, record.lift) <= record.level:
        return found
    return replace(
        found,
        unblock="Wait; raise the Task's priority or the pool's size to start it sooner.",
        command=commands.promote(task) or found.command,
    )


def _later(one: Forecast, other: Forecast) -> Forecast:
    return Forecast(max(one.mean, other.mean), max(one.low, other.low), max(one.high, other.high))


def _paced(record: "TaskRecord", blocker: Blocker, before: Ahead, arrivals: Arrivals, now: float) -> Forecast | None:
    """Return when the limit lets the Task go, if it opens by time alone: once there was enough for all before it and
    for itself."""
    key, task = blocker.book.rules.key, record.task
    if isinstance(blocker, NoToken) and blocker.scope.rate is not None:
        rate, tokens = blocker.scope.rate, blocker.scope.tokens(blocker.scope.rate, now).tokens(now)
        if blocker.tenant is not None:
            owner = (order.full_name(blocker.book.rules), blocker.tenant)
            load, wanted = arrivals.above(record.level, owner, now), before.own(record)
            above = Load(load.work / task.slots, load.variance / task.slots**2)
        else:
            wanted, above = _wanted(lambda shape: float(shape.queue_key == key), record, before, arrivals, now)
        wanted += 1.0
    elif isinstance(blocker, NotYet) and (of := blocker.purse.rate) is not None:
        namespace, _ = key
        purse, rate, tokens = blocker.purse, of, blocker.purse.tokens(of, now).tokens(now)
        wanted, above = _wanted(
            lambda shape: float(amount_taken(purse, shape.budgets)) if shape.namespace == namespace else 0.0,
            record,
            before,
            arrivals,
            now,
        )
        wanted += blocker.amount
    else:
        return None
    lacking = wanted - tokens
    return forecast(Backlog(1.0, lacking, seen=lacking), Backlog(), rate.per_second, [(inf, above)])


def _wanted(
    amount: Callable[[Shape], float], record: "TaskRecord", before: Ahead, arrivals: Arrivals, now: float
) -> tuple[float, Load]:
    """Return what the Tasks before this one take of a limit, and what arrivals that go before it take as well."""
    wanted = sum([count * amount(shape) for shape, count in before.tasks.items()], 0.0)
    return wanted, arrivals.taking(record.level, now, amount)


def _start(
    record: "TaskRecord", before: Ahead, catalogue: Catalogue, estimates: Estimates, arrivals: Arrivals, now: float
) -> Forecast | None:
    own, queue = record.shape, catalogue.queue(record.task.queue_key)
    kinds = {kind.number: kind for key in own.pools for kind in catalogue.kinds(key)}
    capable = [kind for number, kind in kinds.items() if has(own.serving, number)]
    slots = _slots(capable)
    if not slots:
        return None
    parts: dict[tuple[tuple[Key, ...], int], float] = {(own.pools, own.serving): 1.0}

    def total(counts: Mapping[Shape, float]) -> Backlog:
        # By queue, type and size, so that what is not known well of a type is not known well of all of its Tasks.
        tasks: dict[tuple[Key, str, int], float] = {}
        for shape, count in counts.items():
            where = (shape.pools, shape.serving)
            if where not in parts:
                parts[where] = _overlap(shape, catalogue, capable)
            key = (shape.queue_key, shape.need.type, shape.need.slots)
            tasks[key] = tasks.get(key, 0.0) + count * parts[where]
        found = Backlog()
        for (of, type, size), count in tasks.items():
            found += backlog(count, size, catalogue.queue(of).expected_service, estimates.of(of, type))
        return found

    def price(of: Key, type: str) -> tuple[float, float]:
        known = estimates.of(of, type)
        if known is None:
            default = catalogue.queue(of).expected_service
            return default, default * default
        return known.mean, doubt(known)

    mine = backlog(1.0, own.need.slots, queue.expected_service, estimates.of(own.queue_key, own.need.type))
    loads, seconds = arrivals.from_level(own.pools, now, price)
    late, busy = 0.0, sum(kind.busy_slots for kind in capable)
    if record.line is not None and record.line.band & 1:
        passing = _passing(
            record, before, catalogue, arrivals.beside(record.level, now), seconds[record.level], mine, busy, now
        )
        feasible = forecast(total(before.tasks), mine, slots, _phases(record, catalogue, loads, now), passing)
        late = record.hopeless_from - now
        if feasible is None or feasible.mean <= late:
            return feasible
        # Its deadline is over by then, and it goes after all of its level that can still make theirs.
        work = total(before.all())
    else:
        work = total(before.tasks)
    late_start: Forecast | None = forecast(work, mine, slots, [(inf, loads[record.level])])
    if late_start is None:
        return None
    return Forecast(max(late, late_start.mean), max(late, late_start.low), max(late, late_start.high))


def _passing(
    record: "TaskRecord",
    before: Ahead,
    catalogue: Catalogue,
    streams: Mapping[Owner, TenantRate],
    seconds: Mapping[str, float],
    mine: Backlog,
    busy: int,
    now: float,
) -> Passing:
    """Return the arrivals at the Task's level that go before it. `seconds`: how long a slot of each queue's Tasks is
    held."""
    rules = catalogue.queue(record.task.queue_key)
    weights = dict(rules.tenant_weights)
    loads: dict[str, dict[str, Load]] = {}
    for (name, tenant), stream in streams.items():
        each = seconds.get(name, 0.0)
        if each:
            loads.setdefault(name, {})[tenant] = Load(stream.slots * each, stream.variance * each * each)
    lane, queue = before.lane, before.queue
    rivals = {each.key: _rival(each.cost, before.vt - each.vt, each.weight) for each in before.lanes}
    for tenant, load in loads.get(queue.key, {}).items():
        if tenant != lane.key:
            # One that has nothing waiting starts at the present virtual time.
            idle = _rival(0.0, before.vt - lane.vt, weights.get(tenant, rules.tenant_weight))
            rivals[tenant] = replace(rivals.get(tenant, idle), load=load)
    queues = {each.key: _rival(each.cost, before.turn - each.vt, each.weight) for each in before.queues}
    for name, tenants in loads.items():
        if name != queue.key:
            load = Load(sum(each.work for each in tenants.values()), sum(each.variance for each in tenants.values()))
            queues[name] = replace(
                queues.get(name, _rival(0.0, before.turn - queue.vt, _weight(catalogue, name))), load=load
            )
    own = streams.get((queue.key, lane.key))
    return Passing(
        loads.get(queue.key, {}).get(lane.key, Load()),
        record.latest_start - now,
        own.slacks if own is not None else (),
        lane.weight,
        list(rivals.values()),
        queue.weight,
        list(queues.values()),
        # What runs was charged by estimates: about as much of each tenant, and of Tasks like this one.
        busy / record.task.slots / (1 + len(rivals)) * mine.variance,
    )


def _weight(catalogue: Catalogue, name: str) -> float:
    namespace, _, queue = name.partition("/")
    return catalogue.queue((namespace, queue)).weight


def _rival(backlog: float, lag: float, weight: float) -> Rival:
    return Rival(backlog, lag * weight, weight, Load())


def _slots(kinds: list[AgentClass]) -> float:
    """Return the slots of open agents, weighted by the speed of their class."""
    return sum(kind.open * kind.offer.slots / max(kind.pace, 0.01) for kind in kinds)


def _overlap(other: Shape, catalogue: Catalogue, capable: list[AgentClass]) -> float:
    """Return the part of another shape's work that falls on the agents that may run ours."""
    theirs = _slots([kind for key in other.pools for kind in catalogue.kinds(key) if has(other.serving, kind.number)])
    shared = _slots([kind for kind in capable if has(other.serving, kind.number)])
    return shared / theirs if theirs else 0.0


def _phases(record: "TaskRecord", catalogue: Catalogue, loads: list[Load], now: float) -> list[tuple[float, Load]]:
    """Return the levels at which the Task will stand: until when, in seconds from now, and what comes above it then."""
    queue, task, level = catalogue.queue(record.task.queue_key), record.task, record.level
    base, phases = order.base_level(queue, task, record.lift), []
    while level < TOP and order.ages(queue):
        until = order.promotion(queue, task, level, base) - now
        if until > 0:
            phases.append((until, loads[level + 1]))
        level += 1
    return [*phases, (inf, loads[level + 1])]
