"""How things look: tables as kubectl prints them, JSON, YAML, ages."""

import json
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

_COLOURS = {"Succeeded": "green", "Failed": "red", "Cancelled": "yellow", "Assigned": "cyan", "DeadLettered": "magenta"}
_UNBOUNDED = 10_000
INVALID = "<invalid>"
"""What kubectl shows for a time that cannot be read."""


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, head: bool = True) -> None:
    """Aligned columns without lines, one line a row, so that a pipe can take them apart. Colours only on a terminal.

    As with kubectl, nothing is cut or folded, however narrow the terminal is: names must stay whole to be copied.
    """
    view = Table(box=None, show_header=head, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for header in headers:
        view.add_column(header, no_wrap=True)
    for row in rows:
        # A message may hold line ends.
        view.add_row(*(Text(" ".join(cell.split()), style=_COLOURS.get(cell, "")) for cell in row))
    _print(view)


def fields(pairs: Iterable[tuple[str, str]]) -> None:
    """`Name:  value`, one a line; empty values are left out. A terminal gets prose in lines of its width.

    A command stays one line: it is there to be pasted.
    """
    shown = [(name, value) for name, value in pairs if value]
    indent = max((len(name) for name, _ in shown), default=0) + 3
    room = max(_width() - indent, 20)
    view = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    view.add_column(no_wrap=True, style="bold")
    view.add_column(no_wrap=True)
    for name, value in shown:
        folded = value if name == "Command" else "\n".join(textwrap.wrap(value, room, break_long_words=False))
        view.add_row(f"{name}:", Text(folded, style=_COLOURS.get(value, "")))
    _print(view)


def as_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def document(value: Any, output: str) -> None:
    """`json` or `yaml`, to standard output."""
    text = as_json(value) if output == "json" else yaml.safe_dump(value, sort_keys=False, allow_unicode=True).rstrip()
    print(text)


def clean(obj: dict[str, Any]) -> dict[str, Any]:
    """The object without bookkeeping that nobody reads; kubectl leaves it out as well."""
    metadata = {key: value for key, value in obj.get("metadata", {}).items() if key != "managedFields"}
    return {**obj, "metadata": metadata}


def age(timestamp: str | None, now: datetime) -> str:
    """How long ago, as kubectl says it: two units at most."""
    if not timestamp:
        return "-"
    then = _moment(timestamp)
    return INVALID if then is None else span((now - then).total_seconds())


def distance(timestamp: str | None, now: datetime) -> str:
    """How far a moment is away: `in 5m`, `3h20m ago`."""
    if not timestamp:
        return ""
    then = _moment(timestamp)
    if then is None:
        return INVALID
    seconds = (then - now).total_seconds()
    return f"in {span(seconds)}" if seconds >= 0 else f"{span(-seconds)} ago"


def _moment(timestamp: str) -> datetime | None:
    """A time of the API; None for one that no calendar has: the API server takes some of those."""
    try:
        then = datetime.fromisoformat(timestamp.upper())
        return (then if then.tzinfo else then.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def span(seconds: float) -> str:
    """A length of time: `0s`, `95s`, `3m20s`, `5h10m`, `4d3h`."""
    whole = max(int(seconds), 0)
    if whole < 120:
        return f"{whole}s"
    for size, name, minor_size, minor in ((60, "m", 1, "s"), (3600, "h", 60, "m"), (86400, "d", 3600, "h")):
        major, rest = divmod(whole, size)
        limit = {"m": 120, "h": 48, "d": sys.maxsize}[name]
        if major < limit:
            # Seconds stop to matter after a while.
            return f"{major}{name}" + (f"{rest // minor_size}{minor}" if rest // minor_size and major < 10 else "")
    raise AssertionError("unreachable: days have no limit")


def now() -> datetime:
    return datetime.now(UTC)


def utc(seconds: float) -> str:
    """A moment as the API writes it, in whole seconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _width() -> int:
    """Columns of the terminal. A pipe has no width: folding lines there would take from a script what it wants."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else _UNBOUNDED


def _print(view: Table) -> None:
    console = Console(file=sys.stdout, width=_UNBOUNDED, highlight=False)
    with console.capture() as captured:
        console.print(view)
    for line in captured.get().splitlines():
        # The last column is padded to its widest cell.
        print(line.rstrip(), flush=True)
