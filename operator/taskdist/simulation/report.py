"""A run or a comparison as one self-contained page: figures, and the pictures people look at.

Owns the page and what is drawn from a record. No script, nothing loaded from elsewhere. Refuses to compute figures.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from taskdist.simulation.charts import Marks, Series, legend, on_axis, on_log_axis, over_time
from taskdist.simulation.compare import METRICS, MISSES, metric
from taskdist.simulation.figures import Figures
from taskdist.simulation.levels import NAMES
from taskdist.simulation.page import STYLE
from taskdist.simulation.record import Record
from taskdist.simulation.scenario import Scenario
from taskdist.simulation.spans import alive, attempts
from taskdist.simulation.words import (
    GROUP_ROWS,
    GROUPS,
    POOL_ROWS,
    ROWS,
    Row,
    cell,
    count,
    plain,
    seconds,
    variants,
)

BINS = 280
SHARES = ("deadline_success", "utilization", "fairness_jain")
Interval = tuple[float, float]


def profile(spans: Iterable[tuple[float, float, float]], window: Interval, bins: int) -> list[float]:
    """Mean within each bin of how much is there: each span adds its weight (third) from its begin to its end."""
    begin, length = window[0], (window[1] - window[0]) / bins
    if length <= 0:
        return [0.0] * bins
    partial, change = [0.0] * bins, [0.0] * (bins + 1)
    for since, until, weight in spans:
        low, high = max(since, window[0]), min(until, window[1])
        if high <= low:
            continue
        first = min(bins - 1, int((low - begin) / length))
        last = min(bins - 1, int((high - begin) / length))
        if first == last:
            partial[first] += weight * (high - low) / length
            continue
        partial[first] += weight * (begin + (first + 1) * length - low) / length
        partial[last] += weight * (high - begin - last * length) / length
        change[first + 1] += weight
        change[last] -= weight
    whole, values = 0.0, []
    for number in range(bins):
        whole += change[number]
        # Sums that cancel leave dust.
        values.append(max(0.0, whole + partial[number]))
    return values


@dataclass(frozen=True, slots=True)
class Pictures:
    """What is drawn of one run: values by bins of time, from the record."""

    span: Interval
    depth: dict[str, list[float]]
    busy: dict[str, list[float]]
    slots: dict[str, list[float]]
    agents: dict[str, list[float]]

    @classmethod
    def of(cls, record: Record) -> "Pictures":
        """Read off the record."""
        window = (record.begun, max(record.ended, record.begun + 1e-9))
        waits: dict[int, list[tuple[float, float, float]]] = {}
        for life in record.tasks:
            spans = waits.setdefault(life.task.priority, [])
            spans += [(begin, end, 1.0) for begin, end in life.waits(record.ended)]
        busy: dict[str, list[tuple[float, float, float]]] = {name: [] for _, name in record.pools}
        slots: dict[str, list[tuple[float, float, float]]] = {name: [] for _, name in record.pools}
        there: dict[str, list[tuple[float, float, float]]] = {name: [] for _, name in record.pools}
        for life, attempt, end in attempts(record):
            busy[attempt.agent.pool].append((attempt.start, end, float(life.task.slots)))
        for agent in record.agents:
            if (lived := alive(agent, record)) is not None:
                slots[agent.pool].append((*lived, float(agent.slots)))
                there[agent.pool].append((*lived, 1.0))

        def drawn(found: dict[str, list[tuple[float, float, float]]]) -> dict[str, list[float]]:
            return {name: profile(spans, window, BINS) for name, spans in found.items()}

        return cls(
            (0.0, window[1] - window[0]),
            {NAMES[name]: profile(waits[name], window, BINS) for name in sorted(waits)},
            drawn(busy),
            drawn(slots),
            drawn(there),
        )


def page(scenario: Scenario, seeds: Sequence[int], figures: Figures, pictures: Mapping[str, Pictures]) -> str:
    """Return the page. `pictures` are of the first seed, by variant."""
    title = scenario.name or "Simulation"
    found = variants(figures)
    words = [f"{len(seeds)} seeds, from {seeds[0]}" if len(seeds) > 1 else f"seed {seeds[0]}"]
    if len(found) > 1:
        words.append(f"{len(found)} variants on the same arrivals, services and failures")
    body = [f"<h1>{escape(title)}</h1>"]
    if scenario.description:
        body.append(f"<p>{escape(scenario.description)}</p>")
    body.append(f'<p class="quiet">{escape("; ".join(words))}.</p>')
    compared = len(found) > 1
    if compared:
        body.append(_comparison(found, figures.get("paired", {})))
        body.append(_overall(found))
    for number, (name, seen) in enumerate(pictures.items()):
        shown = _variant(found[name], seen)
        if compared:
            opened = " open" if not number else ""
            body.append(f"<details{opened}><summary>{escape(name)}</summary>{shown}</details>")
        else:
            body += [shown, _overall(found)]
    if len(seeds) > 1:
        body.append(
            f'<p class="quiet">Pictures over time are of seed {seeds[0]}; figures are means over all seeds.</p>'
        )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>'
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def _figure(heading: str, drawn: str, names: str = "", note: str = "") -> str:
    said = f'<p class="quiet">{escape(note)}</p>' if note else ""
    return f"<figure><figcaption>{escape(heading)}</figcaption>{said}{names}{drawn}</figure>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(each)}</th>" for each in head)
    lines = "".join("<tr>" + "".join(f"<td>{escape(each)}</td>" for each in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>'


def _overall(found: Mapping[str, Figures]) -> str:
    head = ["", *(name or "all Tasks" for name in found)]
    rows = [[row[0], *(cell(each, row) for each in found.values())] for row in ROWS]
    return f"<h2>Figures</h2>{_table(head, rows)}"


def _variant(figures: Figures, seen: Pictures) -> str:
    pools = list(seen.busy)
    colours = {pool: f"c{number % 7}" for number, pool in enumerate(pools)}
    levels = list(seen.depth)
    shades = {level: f"s{1 + round(5 * number / max(1, len(levels) - 1))}" for number, level in enumerate(levels)}
    # Highest level first in words, lowest at the bottom of the picture: what waits longest carries the rest.
    level_names = legend([(level, shades[level]) for level in reversed(levels)]) if len(levels) > 1 else ""
    pool_names = legend([(pool, colours[pool]) for pool in pools]) if len(pools) > 1 else ""
    parts = [
        _figure(
            "Tasks waiting",
            over_time(
                [Series(level, shades[level], seen.depth[level]) for level in levels],
                seen.span,
                "Tasks waiting",
                stacked=True,
                words=count,
            ),
            level_names,
        ),
        _figure(
            "Slots busy",
            over_time(
                [Series(pool, colours[pool], _share(seen.busy[pool], seen.slots[pool])) for pool in pools],
                seen.span,
                "part of slots that are busy",
                stacked=False,
                words=lambda value: f"{value:.0%}",
                top=1.0,
            ),
            pool_names,
        ),
        _figure("Waits by level", *_waits(figures, shades)),
        _figure(
            "Agents",
            over_time(
                [Series(pool, colours[pool], seen.agents[pool]) for pool in pools],
                seen.span,
                "agents ready",
                stacked=True,
                words=count,
                steps=True,
            ),
            pool_names,
        ),
    ]
    tables = [
        _table([title, *(row[0] for row in GROUP_ROWS)], _groups(figures[key], GROUP_ROWS))
        for key, title in GROUPS.items()
        if len(figures[key]) > 1
    ]
    tables.append(_table(["Pool", *(row[0] for row in POOL_ROWS)], _groups(figures["per_pool"], POOL_ROWS)))
    return f'<div class="grid2">{"".join(parts)}</div>{"".join(tables)}'


def _share(part: Sequence[float], whole: Sequence[float]) -> list[float]:
    return [min(1.0, a / b) if b > 0 else 0.0 for a, b in zip(part, whole, strict=True)]


def _groups(groups: Mapping[str, Figures], rows: Sequence[Row]) -> list[list[str]]:
    return [[name, *(cell(each, row) for row in rows)] for name, each in groups.items()]


def _waits(figures: Figures, shades: Mapping[str, str]) -> tuple[str, str, str]:
    kinds = ("p50", "p95", "p99", "max")
    rows = [
        Marks(
            name,
            [(kind, value) for kind in kinds if (value := each["wait"][kind]) is not None],
            shades.get(name, "s3"),
        )
        for name, each in figures["per_level"].items()
    ]
    most = max((value for row in rows for _, value in row.marks), default=1.0)
    drawn = on_log_axis(rows, "wait (log)", seconds, max(1e-3, most / 1e5), max(most, 1e-2))
    return drawn, '<p class="legend">● p50 ■ p95 ◆ p99 ○ max</p>', ""


def _comparison(found: Mapping[str, Figures], paired: Mapping[str, Figures]) -> str:
    shown: list[tuple[str, str, Callable[[float], str]]] = [
        ("Mean wait", "wait.mean", seconds),
        ("Wait, p99", "wait.p99", seconds),
        ("Deadlines met", "deadline_success", _percent),
        ("Utilization", "utilization", _percent),
    ]
    parts = []
    for heading, name, words in shown:
        rows = [Marks(variant, _spread(each, name), f"c{n % 7}") for n, (variant, each) in enumerate(found.items())]
        if any(row.marks for row in rows):
            parts.append(_figure(heading, on_axis(rows, heading.lower(), words)))
    ratios = _ratios(paired)
    return f'<h2>Comparison</h2><div class="grid2">{"".join(parts)}</div>{ratios}'


def _spread(figures: Figures, name: str) -> list[tuple[str, float]]:
    """The mean, between the ends of its interval where several seeds give one."""
    value = metric(figures, name)
    if value is None:
        return []
    spread = figures.get("spread", {}).get(name)
    if spread is None or spread["interval_95"] is None:
        return [("mean", value)]
    low, high = spread["interval_95"]
    # Intervals of few seeds reach beyond what the figure can be.
    return [("low", max(0.0, low)), ("mean", value), ("high", min(1.0, high) if name in SHARES else high)]


def _percent(value: float) -> str:
    """As few digits as tell the marks of an axis apart."""
    return f"{100 * value:.4g}%"


def _ratios(paired: Mapping[str, Figures]) -> str:
    rows = []
    for pair, compared in paired.items():
        for name in (*METRICS, MISSES):
            each = compared.get(name)
            if each is None or name not in ("wait.mean", "wait.p99", MISSES) or each["ratio"] is None:
                continue
            span = each["ratio_95"]
            interval = f"{plain(span[0])} to {plain(span[1])}" if span is not None else "needs several seeds"
            rows.append([pair, name, plain(each["ratio"]), interval])
    if not rows:
        return ""
    return "<h3>Paired ratios</h3>" + _table(["", "figure", "ratio", "95% interval"], rows)
