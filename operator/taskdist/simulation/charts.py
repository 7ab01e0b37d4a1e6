"""Pictures as SVG text, without a library: areas, lines, ranges on one axis.

Owns scales, ticks and marks; colours are named classes that the page defines, so that pictures follow its light or
dark ground. Refuses to know what is drawn.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, inf, log10

Words = Callable[[float], str]

WIDTH, HEIGHT = 560, 230
LEFT, RIGHT, TOP, BOTTOM = 56, 22, 10, 34


@dataclass(frozen=True, slots=True)
class Series:
    """One line or layer: its name, the class of its colour, and a value for each bin of time."""

    name: str
    colour: str
    values: Sequence[float]


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers within the range, about as many as asked for."""
    if not high > low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** floor(log10(rough))
    step = next(power * each for each in (1, 2, 2.5, 5, 10) if power * each >= rough * 0.999)
    first = ceil(low / step - 1e-9)
    return [number * step for number in range(first, floor(high / step + 1e-9) + 1)]


def decades(low: float, high: float) -> list[float]:
    """Powers of ten that enclose the range."""
    return [10.0**power for power in range(floor(log10(low) + 1e-9), ceil(log10(high) - 1e-9) + 1)]


def over_time(
    layers: Sequence[Series],
    span: tuple[float, float],
    label: str,
    *,
    stacked: bool,
    words: Words,
    top: float | None = None,
    steps: bool = False,
) -> str:
    """Draw values over time, in seconds: layers on each other, or lines. `top` fixes the axis, as for a share."""
    if stacked:
        highest = max((sum(values) for values in zip(*(each.values for each in layers), strict=True)), default=0.0)
    else:
        highest = max((max(each.values, default=0.0) for each in layers), default=0.0)
    marks = ticks(0.0, highest if top is None else top)
    step = marks[1] - marks[0] if len(marks) > 1 else max(highest, 1.0)
    ceiling = top if top is not None else max(ceil(highest / step - 1e-9) * step, step)
    plot = _Plot(span, (0.0, ceiling))
    parts = [_frame(plot, ticks(0.0, ceiling), words)]
    bins = max((len(each.values) for each in layers), default=0)
    edges = [span[0] + (span[1] - span[0]) * number / bins for number in range(bins + 1)] if bins else []
    below = [0.0] * bins
    for each in layers:
        above = [under + value for under, value in zip(below, each.values, strict=True)] if stacked else each.values
        path = _path(plot, edges, above, steps)
        if stacked:
            back = _path(plot, edges, below, steps, reverse=True)
            parts.append(
                f'<path class="area {each.colour}" d="M{path}L{back}Z"><title>{escape(each.name)}</title></path>'
            )
            below = list(above)
        else:
            parts.append(f'<path class="line {each.colour}" d="M{path}"><title>{escape(each.name)}</title></path>')
    return _svg(parts, label)


def _path(plot: "_Plot", edges: Sequence[float], values: Sequence[float], steps: bool, reverse: bool = False) -> str:
    points: list[tuple[float, float]] = []
    for number, value in enumerate(values):
        if steps:
            points += [(edges[number], value), (edges[number + 1], value)]
        else:
            points.append(((edges[number] + edges[number + 1]) / 2, value))
    if reverse:
        points.reverse()
    return "L".join(f"{plot.x(at):.1f} {plot.y(value):.1f}" for at, value in points)


@dataclass(frozen=True, slots=True)
class Marks:
    """One row of a chart of ranges: marks of named classes at values, on a line from the first to the last."""

    name: str
    marks: Sequence[tuple[str, float]]
    colour: str


def on_log_axis(rows: Sequence[Marks], label: str, words: Words, least: float, most: float) -> str:
    """Draw rows of marks over a logarithmic axis; what is below `least` stands at its edge."""
    marks = decades(least, max(most, least * 10))
    height = TOP + BOTTOM + 26 * max(1, len(rows))
    low, high = log10(marks[0]), log10(marks[-1])
    left = _left(rows)

    def x(value: float) -> float:
        share = (log10(max(value, marks[0])) - low) / (high - low)
        return left + share * (WIDTH - left - RIGHT)

    parts = [_rules([(x(mark), words(mark)) for mark in marks], height, label, left)]
    for number, row in enumerate(rows):
        parts.append(_row(row, number, [(kind, x(value), words(value)) for kind, value in row.marks], left))
    return _svg(parts, label, height)


def on_axis(rows: Sequence[Marks], label: str, words: Words, line: float | None = None) -> str:
    """Draw rows of marks over a linear axis that the marks fill. `line`: where a difference would be none."""
    values = [value for row in rows for _, value in row.marks] + ([line] if line is not None else [])
    low, high = min(values, default=0.0), max(values, default=1.0)
    pad = (high - low) * 0.06 or abs(high) * 0.05 or 1.0
    low, high = low - pad if low - pad >= 0 or low < 0 else 0.0, high + pad
    height = TOP + BOTTOM + 26 * max(1, len(rows))
    left = _left(rows)

    def x(value: float) -> float:
        return left + (value - low) / (high - low) * (WIDTH - left - RIGHT)

    parts = [_rules([(x(mark), words(mark)) for mark in ticks(low, high, 4)], height, label, left)]
    if line is not None:
        parts.append(f'<line class="none" x1="{x(line):.1f}" x2="{x(line):.1f}" y1="{TOP}" y2="{height - BOTTOM}"/>')
    for number, row in enumerate(rows):
        parts.append(_row(row, number, [(kind, x(value), words(value)) for kind, value in row.marks], left))
    return _svg(parts, label, height)


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """Names and classes of colours, as HTML."""
    swatches = "".join(f'<span><i class="{colour}"></i>{escape(name)}</span>' for name, colour in entries)
    return f'<p class="legend">{swatches}</p>'


def _left(rows: Sequence[Marks]) -> int:
    return min(260, 18 + round(7.2 * max((len(row.name) for row in rows), default=0)))


def _rules(marks: Sequence[tuple[float, str]], height: int, label: str, left: int) -> str:
    lines = "".join(
        f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{height - BOTTOM}"/>'
        f'<text class="tick" x="{x:.1f}" y="{height - BOTTOM + 14}" text-anchor="middle">{escape(text)}</text>'
        for x, text in marks
    )
    middle = (left + WIDTH - RIGHT) / 2
    return f'{lines}<text class="label" x="{middle}" y="{height - 4}" text-anchor="middle">{escape(label)}</text>'


def _row(row: Marks, number: int, marks: Sequence[tuple[str, float, str]], left: int) -> str:
    y = TOP + 26 * number + 15
    text = f'<text class="name" x="{left - 10}" y="{y + 4}" text-anchor="end">{escape(row.name)}</text>'
    if not marks:
        return f'{text}<text class="tick" x="{left + 4}" y="{y + 4}">not defined</text>'
    xs = [x for _, x, _ in marks]
    said = f"{row.name}: " + ", ".join(f"{kind} {words}" for kind, _, words in marks)
    drawn = "".join(_mark(kind, x, y, row.colour) for kind, x, _ in marks)
    return (
        f"{text}<g><title>{escape(said)}</title>"
        f'<line class="range {row.colour}" x1="{min(xs):.1f}" x2="{max(xs):.1f}" y1="{y}" y2="{y}"/>{drawn}</g>'
    )


def _mark(kind: str, x: float, y: float, colour: str) -> str:
    match kind:
        case "low" | "high":
            return f'<line class="range {colour}" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 5}" y2="{y + 5}"/>'
        case "max":
            return f'<circle class="hollow {colour}" cx="{x:.1f}" cy="{y}" r="4"/>'
        case "p95":
            return f'<rect class="mark {colour}" x="{x - 4:.1f}" y="{y - 4}" width="8" height="8"/>'
        case "p99":
            corners = f"{x:.1f},{y - 6} {x + 6:.1f},{y} {x:.1f},{y + 6} {x - 6:.1f},{y}"
            return f'<polygon class="mark {colour}" points="{corners}"/>'
        case _:
            return f'<circle class="mark {colour}" cx="{x:.1f}" cy="{y}" r="4.5"/>'


class _Plot:
    """Where values stand in a chart over time."""

    def __init__(self, span: tuple[float, float], values: tuple[float, float]) -> None:
        self.span = span
        self._values = values

    def x(self, at: float) -> float:
        return LEFT + (at - self.span[0]) / ((self.span[1] - self.span[0]) or inf) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        low, high = self._values
        return HEIGHT - BOTTOM - (value - low) / ((high - low) or inf) * (HEIGHT - TOP - BOTTOM)


def _frame(plot: _Plot, marks: Sequence[float], words: Words) -> str:
    rows = "".join(
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{plot.y(mark):.1f}" y2="{plot.y(mark):.1f}"/>'
        f'<text class="tick" x="{LEFT - 6}" y="{plot.y(mark) + 4:.1f}" text-anchor="end">{escape(words(mark))}</text>'
        for mark in marks
    )
    span = plot.span[1] - plot.span[0]
    unit, name = (3600.0, "h") if span > 7200 else (60.0, "min") if span > 600 else (1.0, "s")
    columns = "".join(
        f'<text class="tick" x="{plot.x(plot.span[0] + mark * unit):.1f}" y="{HEIGHT - BOTTOM + 14}" '
        f'text-anchor="middle">{mark:g}</text>'
        for mark in ticks(0.0, span / unit, 8)
    )
    middle = (LEFT + WIDTH - RIGHT) / 2
    return f'{rows}{columns}<text class="label" x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">time, {name}</text>'


def _svg(parts: Sequence[str], label: str, height: int = HEIGHT) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label, quote=True)}">'
        f"{''.join(parts)}</svg>"
    )
