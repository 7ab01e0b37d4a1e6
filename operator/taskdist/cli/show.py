"""How things look: tables as kubectl prints them, JSON, YAML."""

import json
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

_COLOURS = {"Succeeded": "green", "Failed": "red", "Cancelled": "yellow", "Assigned": "cyan", "DeadLettered": "magenta"}
_UNBOUNDED = 10_000


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
