"""From a scenario file to checked values, or to a message that names each wrong field by its path and says what to do.

Owns all that is wrong with a file: its syntax, unknown fields, names that lead nowhere, traces that cannot be read.
Refuses to run anything.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from taskdist.simulation.scenario import Policy, PoolManifest, QueueManifest, Scenario, varied
from taskdist.simulation.template import TemplateError, check_overrides, check_template
from taskdist.simulation.traces import Row, TraceError, read_swf, read_trace

Where = tuple[str | int, ...]
Problem = tuple[Where, str]


class ScenarioError(ValueError):
    """The scenario cannot be run. Each line of the message is a path and what is wrong there."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(f"{written(path)}: {message}" if path else message for path, message in problems))


@dataclass(frozen=True, slots=True)
class Loaded:
    """A scenario and its variants, all checked. Without `compare:` there is one variant, with the empty name.

    `rows` are those of the streams that come from files, by the number of the stream.
    """

    scenario: Scenario
    variants: dict[str, Scenario]
    rows: dict[int, list[Row]]


def load(path: Path) -> Loaded:
    """Read a scenario file.

    Raises:
        ScenarioError: it cannot be read or run.
    """
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError([((), f"{path}: {getattr(error, 'strerror', None) or error}")]) from None
    except (yaml.YAMLError, ValueError) as error:
        raise ScenarioError([((), f"{path} is no YAML: {error}")]) from None
    except RecursionError:
        raise ScenarioError([((), f"{path} is no YAML: it is nested too deeply")]) from None
    return parse(given, path.parent)


def parse(given: Any, folder: Path) -> Loaded:
    """Check a file's content; files of traces are looked for in `folder`.

    Raises:
        ScenarioError: it cannot be run.
    """
    if not isinstance(given, dict):
        raise ScenarioError([((), "a scenario is a mapping with queues, pools and workload; this one is not")])
    scenario = _model(given)
    problems = list(_stray(scenario, given))
    rows: dict[int, list[Row]] = {}
    for number, stream in enumerate(scenario.workload.streams):
        source, where = stream.arrivals.file, ("workload", "streams", number, "arrivals")
        if source is None:
            continue
        try:
            trace = stream.arrivals.trace
            swf = stream.arrivals.swf
            rows[number] = read_trace(trace, folder) if trace else read_swf(swf, folder) if swf else []
        except TraceError as error:
            problems.append(((*where, "trace" if stream.arrivals.trace else "swf"), str(error)))
            continue
        problems += _lines(scenario, number, rows[number])
        if stream.service is None and any(row.service is None for row in rows[number]):
            problems.append(
                ((*where[:3], "service"), "not all lines of the trace have a service: say it here for the others")
            )
    if problems:
        raise ScenarioError(problems)
    variants: dict[str, Scenario] = {}
    for name, variant in scenario.compare.items():
        at: Where = ("compare", name)
        if variant is not None:
            for part, named, there in (
                ("queues", variant.queues, [queue.metadata.name for queue in scenario.queues]),
                ("pools", variant.pools, [pool.metadata.name for pool in scenario.pools]),
            ):
                problems += [((*at, part, each), _unknown(each, there)) for each in named if each not in there]
        if problems:
            raise ScenarioError(problems)
        made = varied(given, variant)
        variants[name] = _model(made, at)
        problems += _stray(variants[name], made, at)
    if problems:
        raise ScenarioError(problems)
    return Loaded(scenario, variants or {"": scenario}, rows)


def _model(given: dict[str, Any], prefix: Where = ()) -> Scenario:
    try:
        return Scenario.model_validate(given)
    except ValidationError as error:
        raise ScenarioError(
            [
                (_placed(each["loc"], given, prefix), _said(each["type"], each["msg"], each["loc"]))
                for each in error.errors()
            ]
        ) from None


def _placed(location: Where, given: dict[str, Any], prefix: Where) -> Where:
    """The path of a field as the file has it: what a variant changed is found under its own name there."""
    if prefix and location[0] in ("queues", "pools") and len(location) > 1 and isinstance(location[1], int):
        name = given[str(location[0])][location[1]]["metadata"]["name"]
        return (*prefix, location[0], name, *(location[3:] if location[2:3] == ("spec",) else location[2:]))
    # Names of union members are no part of a file's path.
    return (*prefix, *(each for each in location if not (isinstance(each, str) and each.endswith(("]", ")")))))


def _said(kind: str, message: str, location: Where) -> str:
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return _unknown(str(location[-1]), _fields(_model_at(Scenario, location[:-1])))
    return message.removeprefix("Value error, ").removeprefix("Assertion failed, ")


def _unknown(name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"there is no such field or name; {hint}There are: {', '.join(known) or 'none'}"


def _fields(model: type[BaseModel] | None) -> list[str]:
    return [] if model is None else [field.alias or name for name, field in model.model_fields.items()]


def _model_at(model: type[BaseModel], location: Where) -> type[BaseModel] | None:
    """The model that is read at this path, if one is."""
    here: Any = model
    for step in location:
        if isinstance(here, type) and issubclass(here, BaseModel):
            fields = {field.alias or name: field for name, field in here.model_fields.items()}
            field = fields.get(str(step))
            here = _inner(field.annotation) if field is not None else None
        elif get_origin(here) in (list, dict):
            here = _inner(get_args(here)[-1])
        else:
            return None
    return here if isinstance(here, type) and issubclass(here, BaseModel) else None


def _inner(annotation: Any) -> Any:
    """The type without Annotated and without None."""
    while get_origin(annotation) in (Annotated, Union, UnionType):
        given = [each for each in get_args(annotation) if each is not type(None)]
        annotation = given[0]
    return annotation


def _stray(scenario: Scenario, given: dict[str, Any], prefix: Where = ()) -> Iterator[Problem]:
    """What each field allows and the whole does not."""
    queues = {queue.metadata.name: queue.spec for queue in scenario.queues}
    pools = {pool.metadata.name: pool.spec for pool in scenario.pools}
    parts: tuple[tuple[str, Sequence[QueueManifest | PoolManifest]], ...] = (
        ("queues", scenario.queues),
        ("pools", scenario.pools),
    )
    for part, manifests in parts:
        names: list[str] = []
        for number, manifest in enumerate(manifests):
            name = manifest.metadata.name
            where = (*prefix, part, name) if prefix else (part, number, "spec")
            # API models ignore what they do not know, so that an older operator reads newer objects.
            yield from _ignored(type(manifest.spec), given[part][number]["spec"], where)
            if name in names:
                yield (*prefix, part, number, "metadata", "name"), f"{name} is there already: names are unique"
            names.append(name)
    for number, queue in enumerate(scenario.queues):
        for place, pool in enumerate(queue.spec.pools):
            if pool not in pools:
                yield (*prefix, "queues", number, "spec", "pools", place), _unknown(pool, list(pools))
        for which, route in enumerate(queue.spec.routes):
            for stage, step in enumerate(route.steps):
                for place, pool in enumerate(step.pools):
                    if pool not in pools:
                        at = (*prefix, "queues", number, "spec", "routes", which, "steps", stage, "pools", place)
                        yield at, _unknown(pool, list(pools))
    for name in scenario.agents:
        if name not in pools:
            yield (*prefix, "agents", name), _unknown(name, list(pools))
    for name, fault in (("agentDeath", scenario.faults.agent_death), ("slowAgent", scenario.faults.slow_agent)):
        for place, pool in enumerate((fault.pools if fault else None) or ()):
            if pool not in pools:
                yield (*prefix, "faults", name, "pools", place), _unknown(pool, list(pools))
    zones = sorted({zone for pool in pools for zone in scenario.traits(pool).zones})
    for number, loss in enumerate(scenario.faults.zone_loss):
        if loss.zone not in zones:
            yield (*prefix, "faults", "zoneLoss", number, "zone"), _unknown(loss.zone, zones)
    if scenario.policy is not Policy.CORE:
        for name, spec in pools.items():
            if spec.scaling is not None:
                yield (
                    (*prefix, "policy"),
                    f"{scenario.policy} does not size pools, and {name} has scaling: give it replicas instead",
                )
    if not prefix:
        yield from _streams(scenario, queues)


def _streams(scenario: Scenario, queues: dict[str, Any]) -> Iterator[Problem]:
    names: list[str] = []
    for number, stream in enumerate(scenario.workload.streams):
        at: Where = ("workload", "streams", number)
        if stream.name and stream.name in names:
            yield (*at, "name"), f"{stream.name} is there already: names of streams are unique"
        names.append(stream.name)
        others = sorted(each.name for each in scenario.workload.streams if each.name and each.name != stream.name)
        if stream.after is not None and stream.after.stream not in others:
            yield (*at, "after", "stream"), _unknown(stream.after.stream, others)
        try:
            check_template(stream.task, queues, [pool.metadata.name for pool in scenario.pools])
        except TemplateError as error:
            yield (*at, "task", *error.path), error.message


def _lines(scenario: Scenario, number: int, rows: Sequence[Row]) -> Iterator[Problem]:
    """What lines of a trace say of their Tasks that no Task can be: the first line of each mistake."""
    stream = scenario.workload.streams[number]
    source = stream.arrivals.trace or stream.arrivals.swf
    queues = [queue.metadata.name for queue in scenario.queues]
    pools = [pool.metadata.name for pool in scenario.pools]
    try:
        check_template(stream.task, queues, pools)
    except TemplateError:
        return  # told already, and all lines would say it again
    seen: set[tuple[tuple[str, str | int], ...]] = set()
    told: set[str] = set()
    for row in sorted(rows, key=lambda each: each.line):
        given = tuple(row.task.items())
        if given in seen:
            continue
        seen.add(given)
        try:
            check_overrides(stream.task, row.task, queues, pools)
        except TemplateError as error:
            field = str(error.path[0]) if error.path else "task"
            if field in told:
                continue
            told.add(field)
            value = f"{row.task[field]!r}: " if field in row.task else ""
            fix = "; mend the line"
            if stream.arrivals.swf:
                fix = "; leave processorsAsSlots out, or the job"
            kind = "trace" if stream.arrivals.trace else "swf"
            message = f"{source.file if source else ''}, line {row.line}, {field}: {value}{error.message}{fix}"
            yield ("workload", "streams", number, "arrivals", kind), message


def _ignored(model: type[BaseModel], given: Any, where: Where) -> Iterator[Problem]:
    """What is written in a manifest and no model reads."""
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    if not isinstance(given, dict):
        return
    for key, value in given.items():
        if key not in fields:
            yield (*where, key), _unknown(key, list(fields))
            continue
        inner = _inner(fields[key].annotation)
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _ignored(inner, value, (*where, key))
        elif get_origin(inner) is list and isinstance(value, list):
            member = _inner(get_args(inner)[0])
            if isinstance(member, type) and issubclass(member, BaseModel):
                for number, each in enumerate(value):
                    yield from _ignored(member, each, (*where, key, number))


def written(path: Where) -> str:
    """A path as people write it: `workload.streams[0].task.queue`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text
