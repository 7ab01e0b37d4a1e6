"""Traces of real systems: CSV files and the Standard Workload Format, read into rows of what arrived when.

Owns the two formats and what to say of a line that is not in them. Refuses to make Tasks of the rows.
"""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from dataclasses import field as member
from pathlib import Path
from typing import TextIO

from taskdist.simulation.arrivals import Swf, Trace

# Columns of a CSV trace that are read; all but the time may be left out.
COLUMNS = ("time", "service", "deadline", "queue", "type", "priority", "slots", "pool", "tenant")
_NUMBERS = ("time", "service", "deadline")
_WHOLE = ("slots",)
LONGEST = 10 * 365 * 86400.0
"""Seconds. Beyond this a time is taken for one of another unit: the longest published traces are of some four years."""


class TraceError(ValueError):
    """A line of a trace cannot be read; the message names file, line and what was expected."""


@dataclass(frozen=True, slots=True)
class Row:
    """One arrival. Times in seconds: `time` from the start, `service` at speed 1, `deadline` from the arrival on.

    `task` holds fields of the Task that go before those of the stream's template. `line` is its place in the file.
    """

    time: float
    service: float | None
    deadline: float | None
    task: dict[str, str | int]
    line: int = member(default=0, compare=False)


def read_trace(trace: Trace, folder: Path) -> list[Row]:
    """Read a CSV trace, in the order of time.

    Raises:
        TraceError: the file is missing, or a line cannot be read.
    """
    unknown = set(trace.columns) - set(COLUMNS)
    if unknown:
        raise TraceError(f"columns: {', '.join(sorted(unknown))} is no field; fields are {', '.join(COLUMNS)}")
    with _open(folder / trace.file) as lines:
        reader = csv.DictReader(lines)
        try:
            header = reader.fieldnames or []
            _readable(header, f"{trace.file}, line 1")
            records = [(reader.line_num, record) for record in reader]
        except csv.Error as error:
            line = reader.reader.line_num
            raise TraceError(f"{trace.file}, line {line}: {error}; give plain lines of comma-separated text") from None
        places = {field: trace.columns.get(field, field) for field in COLUMNS}
        missing = [name for field, name in places.items() if field in ("time", *trace.columns) and name not in header]
        if missing:
            raise TraceError(
                f"{trace.file}: no column {', '.join(missing)} in its first line ({', '.join(header) or 'empty'}); "
                "name the columns there, or say with `columns` what they are called"
            )
        rows = [
            _row({field: record.get(name) or "" for field, name in places.items()}, trace, line)
            for line, record in records
        ]
    return sorted(rows, key=lambda row: row.time)


def _row(cells: dict[str, str], trace: Trace, line: int) -> Row:
    where = f"{trace.file}, line {line}"
    _readable(cells.values(), where)
    numbers = {field: _number(cells[field], f"{where}, {field}") for field in _NUMBERS if cells[field].strip()}
    if "time" not in numbers:
        raise TraceError(f"{where}: the time is empty")
    task: dict[str, str | int] = {}
    for field in COLUMNS:
        text = cells[field].strip()
        if field in _NUMBERS or not text:
            continue
        task[field] = _whole(text, f"{where}, {field}") if field in _WHOLE else text
    at = numbers["time"] * trace.stretch
    for name, seconds in (("time", at), ("service", numbers.get("service")), ("deadline", numbers.get("deadline"))):
        _in_seconds(seconds, f"{where}, {name}", "count it from the start of the trace" if name == "time" else "")
    return Row(at, numbers.get("service"), numbers.get("deadline"), task, line)


def read_swf(swf: Swf, folder: Path) -> list[Row]:
    """Read a file in the Standard Workload Format (Feitelson; 18 fields a line, −1 unknown, `;` comments).

    Jobs that never ran (run time −1) are left out. The first job arrives at 0.

    Raises:
        TraceError: the file is missing, or a line cannot be read.
    """
    found: list[tuple[float, float, int, int]] = []
    with _open(folder / swf.file) as lines:
        for number, line in enumerate(lines, 1):
            text = line.partition(";")[0].split()
            if not text:
                continue
            where = f"{swf.file}, line {number}"
            if len(text) != 18:
                raise TraceError(f"{where}: {len(text)} fields, a job of the Standard Workload Format has 18")
            submitted, ran = _number(text[1], f"{where}, field 2", -1), _number(text[3], f"{where}, field 4", -1)
            if submitted < 0 or ran < 0:
                continue
            _in_seconds(ran, f"{where}, field 4")
            # Asked for, or else what it got.
            processors = [_whole(text[at], f"{where}, field {at + 1}") for at in (7, 4)]
            found.append((submitted, ran, next((each for each in processors if each > 0), 1), number))
    if not found:
        return []
    first = min(submitted for submitted, *_ in found)
    rows = [
        Row((submitted - first) * swf.stretch, ran, None, {"slots": slots} if swf.processors_as_slots else {}, line)
        for submitted, ran, slots, line in found
    ]
    for row in rows:
        _in_seconds(row.time, f"{swf.file}, line {row.line}, field 2")
    return sorted(rows, key=lambda row: row.time)


def _open(path: Path) -> TextIO:
    try:
        # Comments may be of any encoding; bytes that are no UTF-8 are found where they would be used.
        return path.open(newline="", encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror or error}; files are looked for beside the scenario") from None


def _readable(texts: Iterable[str], where: str) -> None:
    for text in texts:
        if not text.isascii() and any("\ud800" <= each <= "\udfff" for each in text):
            raise TraceError(f"{where}: it is not UTF-8 text; save the file as UTF-8")


def _in_seconds(value: float | None, where: str, or_else: str = "") -> None:
    if value is not None and value > LONGEST:
        how = "divide it, or say `stretch: 0.000001` for microseconds" if "service" not in where else "divide it"
        raise TraceError(
            f"{where}: {value:g} s is more than ten years. Times are in seconds: {how}{f'; {or_else}' * bool(or_else)}"
        )


def _number(text: str, where: str, least: float = 0.0) -> float:
    try:
        number = float(text)
    except ValueError:
        raise TraceError(f"{where}: {text.strip()!r} is no number") from None
    if not least <= number < float("inf"):
        raise TraceError(f"{where}: {text.strip()} is out of range: give a number from {least:g}")
    return number


def _whole(text: str, where: str) -> int:
    number = _number(text, where, -float("inf"))
    if number != int(number):
        raise TraceError(f"{where}: {text.strip()} is no whole number")
    return int(number)
