"""The Task of a stream: a spec whose values may be chosen by chance, and the core's Tasks that come of it.

Owns the choices. What a spec means is the API's and the conversion's; here it is only filled in. Refuses to know when
Tasks come or how long they take.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from taskdist.api import TaskSpec
from taskdist.core import model
from taskdist.protocol import convert
from taskdist.simulation.chance import Chance
from taskdist.simulation.scenario import NAMESPACE

Template = dict[str, Any]
_SPEC = {field.alias or name for name, field in TaskSpec.model_fields.items()}
# What may be said beside the spec's own fields. Where the spec has such a field, it is the spec's.
_BESIDE = {"labels"}
# What is said elsewhere, or has no meaning here.
_ELSEWHERE = {
    "deadline": "say it as the stream's deadline, which counts from each Task's creation",
    "notBefore": "say it as the stream's notBefore, which counts from each Task's creation",
    "dependsOn": "say it as the stream's after, which names another stream",
    "cancel": "say it as the stream's cancel, with a probability",
    "suspend": "nobody would resume it",
    "redrive": "nobody would raise it",
    "array": "arrays are not simulated: give single Tasks, each of which stands for a chunk and takes as long",
    "idempotencyKey": "duplicates are refused before they reach the scheduler; leave them out",
}


class TemplateError(ValueError):
    """The template is no Task; `path` leads from it to the field."""

    def __init__(self, path: tuple[str | int, ...], message: str) -> None:
        super().__init__(message)
        self.path = path
        self.message = message


def check_template(template: Template, queues: Collection[str], pools: Collection[str]) -> None:
    """Check every value that chance may choose.

    Raises:
        TemplateError: for the first that is wrong.
    """
    known = sorted((_SPEC | _BESIDE) - set(_ELSEWHERE))
    for field in template:
        if field in _ELSEWHERE:
            raise TemplateError((field,), f"not here: {_ELSEWHERE[field]}")
        if field not in known:
            near = get_close_matches(field, known, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise TemplateError((field,), f"a Task has no such field; {hint}There are: {', '.join(known)}")
    for field in ("queue", "type"):
        if field not in template:
            raise TemplateError((field,), "is missing")
    options = {field: _options(field, value) for field, value in template.items()}
    plain = {field: found[0][2] for field, found in options.items()}
    for field, found in options.items():
        for path, _, value in found:
            try:
                TaskSpec.model_validate({each: plain[each] for each in plain if each in _SPEC} | {field: value})
            except ValidationError as error:
                # What is wrong with another field is told when its turn comes.
                for each in error.errors():
                    if each["loc"][:1] in ((field,), ()):
                        said = each["msg"].removeprefix("Value error, ")
                        raise TemplateError((field, *path, *each["loc"][1:]), said) from None
            _check_name(field, value, queues, pools, path)


def check_overrides(
    template: Template, overrides: dict[str, str | int], queues: Collection[str], pools: Collection[str]
) -> None:
    """Check what one line of a trace says of its Task, with the rest of it from a template that was checked.

    Raises:
        TemplateError: for the first field that is wrong.
    """
    plain = {field: _options(field, value)[0][2] for field, value in template.items()}
    try:
        TaskSpec.model_validate({field: value for field, value in plain.items() if field in _SPEC} | overrides)
    except ValidationError as error:
        first = error.errors()[0]
        raise TemplateError(first["loc"], first["msg"].removeprefix("Value error, ")) from None
    for field, value in overrides.items():
        _check_name(field, value, queues, pools)


def _check_name(
    field: str, value: Any, queues: Collection[str], pools: Collection[str], path: tuple[str | int, ...] = ()
) -> None:
    there = {"queue": queues, "pool": pools}.get(field)
    if there is not None and value is not None and value not in there:
        raise TemplateError((field, *path), f"no {field} {value}; there are: {', '.join(sorted(there))}")


def _options(field: str, value: Any) -> list[tuple[tuple[str | int, ...], float, Any]]:
    """The values that a field may have: path below the field, weight, value."""
    if not (isinstance(value, dict) and set(value) == {"choose"}):
        return [((), 1.0, value)]
    choices = value["choose"]
    if not isinstance(choices, list) or not choices:
        raise TemplateError((field, "choose"), "give a list of {weight: …, value: …}")
    found: list[tuple[tuple[str | int, ...], float, Any]] = []
    for number, each in enumerate(choices):
        path: tuple[str | int, ...] = ("choose", number)
        if not isinstance(each, dict) or "value" not in each or not set(each) <= {"weight", "value"}:
            raise TemplateError((field, *path), "a choice is {weight: …, value: …}")
        weight = each.get("weight", 1)
        if not isinstance(weight, int | float) or isinstance(weight, bool) or not 0 < weight < float("inf"):
            raise TemplateError((field, *path, "weight"), f"{weight!r} is no number above 0")
        found.append(((*path, "value"), float(weight), each["value"]))
    return found


@dataclass(frozen=True, slots=True)
class Prototype:
    """A Task without name and times, and how long an attempt of it may run by its own word, in seconds."""

    task: model.Task
    execution: float | None


class Maker:
    """Makes the Tasks of one stream. Tasks whose choices are alike share all but name and times."""

    def __init__(self, template: Template, seed: int, stream: str) -> None:
        self._fields = []
        for field, value in template.items():
            options = _options(field, value)
            total, reached, bounds = sum(weight for _, weight, _ in options), 0.0, []
            for _, weight, _ in options[:-1]:
                reached += weight
                bounds.append(reached / total)
            chance: Callable[[int], float] | None = Chance(seed, "choice", stream, field) if bounds else None
            self._fields.append((field, [value for _, _, value in options], bounds, chance))
        self._made: dict[tuple[Any, ...], Prototype] = {}

    def prototype(self, number: int, overrides: dict[str, str | int]) -> Prototype:
        """Return the stream's Task of this number, without name and times."""
        chosen = tuple(
            sum(uniform >= bound for bound in bounds) if (uniform := chance(number)) is not None else 0
            for _, _, bounds, chance in self._fields
            if chance is not None
        )
        key = (chosen, *overrides.items()) if overrides else (chosen,)
        found = self._made.get(key)
        if found is None:
            found = self._made[key] = self._make(chosen, overrides)
        return found

    def _make(self, chosen: tuple[int, ...], overrides: dict[str, str | int]) -> Prototype:
        picks = iter(chosen)
        given: dict[str, Any] = {
            field: values[next(picks)] if chance is not None else values[0] for field, values, _, chance in self._fields
        }
        given.update(overrides)
        spec = {field: value for field, value in given.items() if field in _SPEC}
        labels = given.get("labels") or {}
        # Chosen values were checked one by one, those of a trace were not.
        TaskSpec.model_validate(spec)
        obj = {
            "metadata": {"uid": "", "namespace": NAMESPACE, "name": "", "resourceVersion": "0", "labels": labels},
            "spec": spec,
        }
        timeouts = spec.get("timeouts") or {}
        return Prototype(convert.observed_task(obj).task, timeouts.get("executionSeconds"))
