"""Distribution documents: reports in Markdown of a queue, a pool, or all of a period, with measured numbers only."""

from collections.abc import Iterable, Mapping, Sequence

from taskdist.common import times
from taskdist.mcp import wording
from taskdist.mcp.context import Constraints, DistributionContext, survey
from taskdist.mcp.load_balancer import PoolState, pool_state
from taskdist.mcp.measuring import NO_BASELINE, Figures, measure
from taskdist.mcp.progress import sentence
from taskdist.mcp.reading import Reading
from taskdist.mcp.task_queue import QueueState, queue_state

PERIOD = 3600
"""Seconds that reports of a queue and a pool look back."""


async def queue_report(reading: Reading, name: str, now: float) -> str:
    """Write of a queue: how it stands, what its Tasks did, by which rules. Raises Refusal."""
    (queue,), _ = await reading.queues(name)
    found = await survey(reading, name, PERIOD, now)
    state = queue_state(queue, (await reading.outside([queue])).get(name))
    rows = {
        "waiting": str(state.waiting),
        "running": str(state.running),
        "messages at sources": _outside(state),
        "dead letters": str(state.dead_letters),
        "takes new Tasks": "yes" if state.accepting else f"no: {state.why_not_accepting or 'no reason told'}",
        "order": state.order,
        "strategy": state.strategy,
        "bottleneck": state.bottleneck or "none told",
    }
    return _document(
        f"Queue {name}",
        reading.namespace,
        now,
        [
            *_section("Now", _facts(rows)),
            *_period(found.figures),
            *_section("Rules", _rules(found.context)),
            *_section("Its pools", _pools(found.context.agent_capacities)),
            *_unknown(found.figures),
        ],
    )


def _outside(state: QueueState) -> str:
    if not state.waiting_outside:
        return "0"
    since = f"; the oldest, at {state.oldest_source}, since {state.oldest_outside}" if state.oldest_outside else ""
    return f"{state.waiting_outside} without a Task yet{since}"


async def pool_report(reading: Reading, name: str, now: float) -> str:
    """Write of a pool: its agents, and what they did. Raises Refusal."""
    (pool,), _ = await reading.pools(name)
    state = pool_state(pool)
    figures = await measure(reading, PERIOD, now, pool=name)
    rows = {
        "agents": f"{state.agents_ready} ready of {state.agents_wanted} wanted "
        f"({state.agents_least} to {state.agents_most})",
        "why so many": state.wanted_because or "not told",
        "slots": f"{state.busy_slots} busy of {state.slots}",
        "skills": ", ".join(state.skills) or "none",
        "cost of an agent": f"{state.cost_per_hour:g} an hour" if state.cost_per_hour else "not told",
        "bottleneck": state.bottleneck or "none told",
    }
    types = [
        [each.type, str(each.attempts), f"{each.mean_seconds:.3g} s", wording.percent(each.success_rate)]
        for each in state.types or ()
    ]
    breakers = [[each.agent, each.state, each.since] for each in state.open_breakers or ()]
    return _document(
        f"Pool {name}",
        reading.namespace,
        now,
        [
            *_section("Now", _facts(rows)),
            *_section("Open breakers", _table(["agent", "state", "since"], breakers) if breakers else []),
            *_period(figures),
            *_section("By type, lately", _table(["type", "attempts", "mean", "succeeded"], types) if types else []),
            *_unknown(figures),
        ],
    )


async def period_report(reading: Reading, seconds: int, now: float) -> str:
    """Write of all queues and pools of the namespace over a period. Raises Refusal."""
    found = await survey(reading, None, seconds, now)
    queues = [
        [each.queue, str(each.waiting), str(each.running), str(each.dead_letters), "yes" if each.accepting else "no"]
        for each in found.context.task_volumes.queues
    ]
    return _document(
        "Distribution",
        reading.namespace,
        now,
        [
            sentence(found.figures),
            "",
            *_section("Queues", _table(["queue", "waiting", "running", "dead letters", "takes new"], queues)),
            *_section("Pools", _pools(found.context.agent_capacities)),
            *_period(found.figures),
            *_unknown(found.figures),
        ],
    )


def _document(title: str, namespace: str, now: float, lines: Iterable[str]) -> str:
    head = [f"# {title}", "", f"Namespace {namespace}, written at {times.utc(now)}.", ""]
    return "\n".join([*head, *lines]).rstrip() + "\n"


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return [f"## {title}", "", *lines, ""] if lines else []


def _period(figures: Figures) -> list[str]:
    rows = {"Tasks that came in": str(figures.created), "Tasks handed out": str(figures.distributed)}
    if queue_time := wording.queue_time(figures):
        rows["average queue time"] = f"{queue_time}, of {figures.queue_times} Tasks"
    if figures.load_variance is not None:
        rows["load variance"] = f"{wording.percent(figures.load_variance)}, in pool {figures.load_pool}"
    if figures.utilization is not None:
        rows["utilization"] = wording.percent(figures.utilization)
    if figures.deadline_success is not None:
        met = f"{figures.deadlines_met} of {figures.deadlines}"
        rows["deadlines met"] = f"{wording.percent(figures.deadline_success)} ({met})"
    if figures.completion is not None:
        rows["completion"] = wording.percent(figures.completion)
    rows |= {f"ended as {phase}": str(number) for phase, number in sorted(figures.ended.items())}
    rows |= {f"attempts that ended as {why}": str(number) for why, number in sorted(figures.failed_attempts.items())}
    title = f"From {times.utc(figures.begin)} to {times.utc(figures.end)}"
    busiest = sorted(figures.by_agent.items(), key=lambda item: (-item[1], item[0]))[:20]
    by_agent = _table(["agent", "Tasks handed out"], [[name, str(number)] for name, number in busiest])
    return [*_section(title, _facts(rows)), *(_section("By agent", by_agent) if busiest else [])]


def _rules(context: DistributionContext) -> list[str]:
    (scheme,) = context.priority_schemes
    (targets,) = context.performance_targets.queues
    (bounds,) = context.constraint_requirements
    return _facts(
        {
            "order": _written(scheme.order),
            "aging": _written(scheme.aging),
            "weight": str(scheme.weight),
            "tenants": _written(scheme.tenants),
            "deadlines": _written(targets.deadlines),
            "time-outs": _written(targets.timeouts),
            **_bounds(bounds),
        }
    )


def _bounds(bounds: Constraints) -> dict[str, str]:
    rows = {
        "quota": _written(bounds.quota),
        "rate": _written(bounds.rate),
        "budgets": "; ".join(_written(each) for each in bounds.budgets),
        "overflow": _written(bounds.overflow or {}),
        "retry": _written(bounds.retry),
        "delivery": bounds.delivery,
        "reclaim": bounds.reclaim,
    }
    return {name: value or "none" for name, value in rows.items()}


def _written(fields: Mapping[str, object]) -> str:
    """Fields of a spec in one line; those that say nothing are left out."""
    told = []
    for name, value in fields.items():
        if isinstance(value, Mapping):
            value = _written(value)
            told += [f"{name} ({value})"] if value else []
        elif value not in (None, [], ""):
            told.append(f"{name} {_words(value)}")
    return ", ".join(told)


def _words(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "; ".join(_written(each) if isinstance(each, Mapping) else str(each) for each in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _pools(pools: Sequence[PoolState]) -> list[str]:
    rows = [
        [
            each.name,
            f"{each.agents_ready} of {each.agents_wanted}",
            f"{each.busy_slots} of {each.slots}",
            ", ".join(each.skills),
            each.bottleneck or "",
        ]
        for each in pools
    ]
    return _table(["pool", "agents ready", "slots busy", "skills", "bottleneck"], rows)


def _unknown(figures: Figures) -> list[str]:
    missing = [f"- {name}: {why}" for name, why in figures.unknown.items()]
    lines = [*missing, f"- {NO_BASELINE}", *(f"- {note}" for note in figures.notes)]
    return _section("Not measured, and what to know of the rest", [_line(each) for each in lines])


def _facts(rows: Mapping[str, str]) -> list[str]:
    return _table(["what", "value"], [[name, value] for name, value in rows.items()])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(_line(cell).replace("|", "\\|") for cell in line) + " |" for line in lines]


def _line(text: str) -> str:
    """Put text on one line, and keep it text: what a user wrote breaks no table, links nowhere and shows no picture."""
    return " ".join(text.split()).replace("[", "\\[").replace("<", "&lt;")
