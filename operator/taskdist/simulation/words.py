"""How figures are called and written for people: one table of rows that the command and the report share."""

from collections.abc import Callable
from typing import Any

from taskdist.simulation.figures import Figures


def seconds(value: float | None) -> str:
    """Seconds with three significant digits, in a unit that fits."""
    if value is None:
        return "–"
    if value == 0:
        return "0 s"
    if value < 0.9995:
        return f"{value * 1000:.3g} ms" if value * 1000 < 999.5 else "1 s"
    if value < 119.5:
        return f"{value:.3g} s"
    return f"{value / 60:.3g} min" if value < 7200 else f"{value / 3600:.3g} h"


def percent(value: float | None) -> str:
    """A part of 1; more digits where nearly all or nearly nothing is meant."""
    if value is None:
        return "–"
    if value in (0, 1):
        return f"{value:.0%}"
    return f"{value:.2%}" if 0.95 <= value < 1 or 0 < value < 0.05 else f"{value:.1%}"


def count(value: float | None) -> str:
    """A whole number, or a mean of such."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"


def plain(value: float | None) -> str:
    """Four significant digits; whole numbers from a thousand on."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


Row = tuple[str, tuple[str, ...], Callable[[float | None], str]]

ROWS: tuple[Row, ...] = (
    ("Tasks", ("tasks",), count),
    ("completed", ("completed",), count),
    ("lost", ("lost",), count),
    ("failed", ("failed",), count),
    ("dead-lettered", ("dead_lettered",), count),
    ("cancelled", ("cancelled",), count),
    ("retries", ("retries",), count),
    ("wait, mean", ("wait", "mean"), seconds),
    ("wait, p50", ("wait", "p50"), seconds),
    ("wait, p95", ("wait", "p95"), seconds),
    ("wait, p99", ("wait", "p99"), seconds),
    ("wait, max", ("wait", "max"), seconds),
    ("turnaround, mean", ("turnaround", "mean"), seconds),
    ("deadline success", ("deadline_success",), percent),
    ("utilization", ("utilization",), percent),
    ("slot utilization", ("slot_utilization",), percent),
    ("load variance", ("load_variance",), percent),
    ("fairness (Jain)", ("fairness_jain",), plain),
    ("priority inversions", ("priority_inversions",), count),
    ("cost", ("cost",), plain),
    ("energy, Wh", ("energy_wh",), plain),
    ("decisions", ("decisions",), count),
    ("decisions/s", ("decisions_per_second",), count),
)

GROUPS = {"per_level": "Level", "per_queue": "Queue", "per_tenant": "Tenant"}

GROUP_ROWS: tuple[Row, ...] = (
    ("Tasks", ("tasks",), count),
    ("wait, mean", ("wait", "mean"), seconds),
    ("p95", ("wait", "p95"), seconds),
    ("max", ("wait", "max"), seconds),
    ("deadlines met", ("deadline_success",), percent),
    ("retries", ("retries",), count),
)

POOL_ROWS: tuple[Row, ...] = (
    ("agents", ("agents",), count),
    ("attempts", ("attempts",), count),
    ("slot utilization", ("slot_utilization",), percent),
    ("load variance", ("load_variance",), percent),
    ("cost", ("cost",), plain),
    ("energy, Wh", ("energy_wh",), plain),
)


def cell(figures: Figures, row: Row) -> str:
    """The figure of a row, written."""
    found: Any = figures
    for step in row[1]:
        found = found.get(step) if found is not None else None
    return row[2](found)


def variants(figures: Figures) -> dict[str, Figures]:
    """The figures of each variant; those of the only one under the empty name."""
    found = figures.get("variants")
    return dict(found) if found is not None else {"": figures}
