"""Figures of simulations as tables for a terminal."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich import box
from rich.table import Table

from taskdist.simulation.words import GROUP_ROWS, GROUPS, POOL_ROWS, ROWS, Row, cell, plain, variants

# What is said of how two variants differ, where there is more to say than the tables before.
COMPARED = ("wait.mean", "wait.p99", "deadline_success", "deadline_misses", "utilization", "cost", "energy_wh")


def tables(figures: dict[str, Any]) -> Iterator[Table]:
    """Yield all there is to show: figures side by side, then groups, then differences."""
    found = variants(figures)
    yield _side_by_side(found)
    if list(found) == [""]:
        for key, title in GROUPS.items():
            if len(figures[key]) > 1:
                yield _groups(title, figures[key], GROUP_ROWS)
        yield _groups("Pool", figures["per_pool"], POOL_ROWS)
    else:
        yield _levels(found)
        yield _paired(figures["paired"])


def _table(*titles: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for number, title in enumerate(titles):
        table.add_column(title, justify="left" if not number else "right")
    return table


def _side_by_side(found: Mapping[str, dict[str, Any]]) -> Table:
    table = _table("", *(name or "all Tasks" for name in found))
    for row in ROWS:
        title, _path, _spell = row
        table.add_row(title, *(_with_interval(each, row) for each in found.values()))
    return table


def _with_interval(figures: dict[str, Any], row: Row) -> str:
    """The figure, with half the width of its interval where several seeds give one."""
    _title, path, spell = row
    spread = figures.get("spread", {}).get(".".join(path))
    text = cell(figures, row)
    if spread is None or spread["interval_95"] is None or spread["min"] == spread["max"]:
        return text
    low, high = spread["interval_95"]
    return f"{text} ± {spell((high - low) / 2)}"


def _groups(title: str, groups: Mapping[str, dict[str, Any]], rows: tuple[Row, ...]) -> Table:
    table = _table(title, *(head for head, _path, _spell in rows))
    for name, each in groups.items():
        table.add_row(name, *(cell(each, row) for row in rows))
    return table


def _levels(found: Mapping[str, dict[str, Any]]) -> Table:
    """Wait and deadlines by level, variants side by side."""
    table = _table("Level", *(f"{name}: wait, met" for name in found))
    levels = dict.fromkeys(level for each in found.values() for level in each["per_level"])
    wait, met = GROUP_ROWS[1], GROUP_ROWS[4]
    for level in levels:
        cells = []
        for each in found.values():
            group = each["per_level"].get(level) or {}
            cells.append(f"{cell(group, wait)}  {cell(group, met)}")
        table.add_row(level, *cells)
    return table


def _paired(paired: Mapping[str, dict[str, Any]]) -> Table:
    table = _table("Compared", "figure", "ratio", "95% interval", "difference")
    for pair, compared in paired.items():
        first = True
        for name in COMPARED:
            each = compared.get(name)
            if each is None or each["difference"] == 0:
                continue
            span = "–"
            if each["ratio_95"] is not None:
                low, high = each["ratio_95"]
                span = f"{plain(low)} to {plain(high)}"
            table.add_row(pair if first else "", name, plain(each["ratio"]), span, plain(each["difference"]))
            first = False
    return table
