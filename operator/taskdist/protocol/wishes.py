"""A Task's wishes of its agent, from the API's form to the core's. Pure."""

from typing import Any, TypeVar

from taskdist.core.model import Placement, Preference, Requirement
from taskdist.protocol.reading import unknown

Obj = dict[str, Any]
Value = TypeVar("Value", str, int)

OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")
_PLACEMENT = ("zones", "regions", "minQuality", "preferred")


def pairs(mapping: dict[str, Value] | None) -> tuple[tuple[str, Value], ...]:
    # Sorted, so that Tasks alike but for the order of their keys are one class to the core.
    return tuple(sorted(mapping.items())) if mapping else ()


def placement(spec: Obj) -> Placement | None:
    """What the Task says of where it runs beside its selector; None for most."""
    ceiling = spec.get("maxCostPerHour")
    # A ceiling of 0 allows only what costs nothing; the others say nothing by 0 or by being empty.
    if ceiling is None and not any(spec.get(field) for field in _PLACEMENT):
        return None
    return Placement(
        zones=tuple(spec.get("zones") or ()),
        regions=tuple(spec.get("regions") or ()),
        max_cost=None if ceiling is None else float(ceiling),
        min_quality=float(spec.get("minQuality") or 0.0),
        preferred=tuple(
            Preference(each.get("weight") or 1, selector(each.get("selector"))) for each in spec.get("preferred") or ()
        ),
        wait=float(spec.get("waitForPreferredSeconds") or 0.0),
    )


def selector(wish: Obj | None) -> tuple[Requirement, ...]:
    if not wish:
        return ()
    labels = [Requirement(key, "In", frozenset((value,))) for key, value in (wish.get("matchLabels") or {}).items()]
    expressions = [
        Requirement(each["key"], _operator(each["operator"]), frozenset(each.get("values") or ()))
        for each in wish.get("matchExpressions") or ()
    ]
    return tuple(sorted(labels + expressions, key=lambda r: (r.key, r.operator, sorted(r.values))))


def _operator(word: str) -> str:
    if word not in OPERATORS:
        raise unknown("an operator of matchExpressions", word, OPERATORS)
    return word


def budgets(spec: Obj) -> tuple[tuple[str, str, int], ...]:
    """What an attempt takes, by queue and name. A budget that is named both ways is one."""
    if not spec.get("budgets"):
        return ()
    found: dict[tuple[str, str], int] = {}
    for each in spec["budgets"]:
        queue, slash, name = each["name"].partition("/")
        key = (queue, name) if slash else (spec["queue"], queue)
        found[key] = found.get(key, 0) + (each.get("amount") or 1)
    return tuple(sorted((queue, name, amount) for (queue, name), amount in found.items()))
