"""Generates the field tables of the documentation from the models: `python -m taskdist.api.reference [--check] DIR`.

Says what `kubectl explain` says, on one page for each kind: from the same structural schema, so the two cannot differ.
Writes files and nothing else; with `--check` it writes none, and exits 1 if a file differs from what it would have
written.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from taskdist.api import rules
from taskdist.api.crd import Kind, kinds
from taskdist.api.meta import GROUP, VERSION
from taskdist.api.schema import Schema, structural
from taskdist.api.task import MUTABLE_FIELDS, Task

_INTRODUCTION = """<!-- Generated from the models by `python -m taskdist.api.reference`: do not edit. -->
# {kind}

{description}

`{group}/{version}`, namespaced, short name `{short}`. The same in a terminal:
`kubectl explain {plural}.{group} --recursive`.
"""
_HEADER = """
## {part}

{description}

| field | type | default | bounds | what it is |
| --- | --- | --- | --- | --- |
"""

# Least and most, as keywords of the schema, and of what.
_BOUNDS = (
    ("minimum", "maximum", ""),
    ("minLength", "maxLength", " characters"),
    ("minItems", "maxItems", " items"),
    ("minProperties", "maxProperties", " keys"),
)
# A Task's rules compare with the former object, field by field: a few lines say what concerns its author.
_TASK_REFUSALS = (
    *(check.message for check in rules.creation_checks()),
    f"a change to any field of spec but {', '.join(MUTABLE_FIELDS)}: delete the Task and create another",
    "cancel taken back: leave it true, and create another Task to do the work",
    "redrive lowered, or raised for a Task that is no dead letter: leave it as it is",
)
# Beyond this many, the values of an enum are listed elsewhere.
_MOST_VALUES = 6


def page(kind: Kind) -> str:
    """The page of one kind."""
    schema = structural(kind.model, rules.NESTED)
    text = _INTRODUCTION.format(
        kind=kind.kind,
        description=schema["description"],
        group=GROUP,
        version=VERSION,
        short=kind.short_name,
        plural=kind.plural,
    )
    for part in ("spec", "status"):
        inner = schema["properties"][part]
        text += _HEADER.format(part=part, description=inner["description"])
        text += "".join(_row(*field) for field in _fields(inner, ""))
    text += "\n## Refused by the API server\n\nBeside what goes beyond the bounds:\n\n"
    refusals = _TASK_REFUSALS if kind.kind == Task.kind else [rule["message"] for rule in kind.rules]
    return text + "".join(f"- {message}\n" for message in refusals)


def _fields(schema: Schema, path: str) -> Iterator[tuple[str, Schema, bool]]:
    """Fields in the order in which the models declare them, each before those inside it."""
    for name, inner in schema.get("properties", {}).items():
        where = f"{path}.{name}" if path else name
        yield where, inner, name in schema.get("required", ())
        yield from _fields(inner, where)
        if isinstance(inner.get("items"), dict):
            yield from _fields(inner["items"], f"{where}[]")


def _row(path: str, schema: Schema, required: bool) -> str:
    default = "required" if required else _default(schema)
    return f"| `{path}` | {_type(schema)} | {default} | {_bounds(schema)} | {_cell(schema.get('description', ''))} |\n"


def _type(schema: Schema) -> str:
    if schema.get("format") == "date-time":
        return "time"
    if "items" in schema:
        return f"list of {_type(schema['items'])}"
    values = schema.get("additionalProperties")
    if isinstance(values, dict):
        return f"map to {_type(values)}"
    return str(schema.get("type", "any JSON"))


def _default(schema: Schema) -> str:
    return f"`{json.dumps(schema['default'])}`" if "default" in schema and schema["default"] != {} else ""


def _bounds(schema: Schema) -> str:
    if "enum" in schema:
        values = schema["enum"]
        return ", ".join(f"`{value}`" for value in values) if len(values) <= _MOST_VALUES else "one of the reasons"
    if schema.get("format") == "date-time":
        return ""  # the length of a time follows from its form
    return ", ".join(
        _range(schema.get(least), schema.get(most)) + unit
        for least, most, unit in _BOUNDS
        if least in schema or most in schema
    )


def _range(least: float | None, most: float | None) -> str:
    if most is None:
        return f"at least {least:,}"
    return f"up to {most:,}" if least is None else f"{least:,} to {most:,}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def file_name(kind: Kind) -> str:
    return f"{kind.kind.lower()}.md"


def stale(directory: Path) -> list[Path]:
    """The files of a directory that are not what the models say."""
    pages = [(directory / file_name(kind), page(kind)) for kind in kinds()]
    return [path for path, text in pages if not path.is_file() or path.read_text() != text]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m taskdist.api.reference", description="Write the tables of fields for the documentation."
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is not up to date")
    parser.add_argument("directory", type=Path, metavar="DIR")
    options = parser.parse_args(arguments)
    if options.check:
        behind = stale(options.directory)
        for path in behind:
            print(
                f"{path} is not what the models say: run `python -m taskdist.api.reference {path.parent}`",
                file=sys.stderr,
            )
        return 1 if behind else 0
    options.directory.mkdir(parents=True, exist_ok=True)
    for kind in kinds():
        (options.directory / file_name(kind)).write_text(page(kind))
    return 0


if __name__ == "__main__":
    sys.exit(main())
