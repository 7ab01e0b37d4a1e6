"""Which Tasks of a list or stream are meant: by queue, type, phase and labels, as kubectl spells them."""

import re
from collections.abc import Callable
from typing import NamedTuple

from taskdist.api import Phase
from taskdist.gateway.board import Row
from taskdist.gateway.problems import Problem

_EQUAL = re.compile(r"\s*([^\s!=,()]+)\s*(==|=|!=)\s*([^\s!=,()]*)\s*")
_SET = re.compile(r"\s*([^\s!=,()]+)\s+(in|notin)\s+\(([^()]*)\)\s*")
_THERE = re.compile(r"\s*(!?)\s*([^\s!=,()]+)\s*")
_PARTS = re.compile(r",(?![^(]*\))")
MOST_REQUIREMENTS = 32


class Requirement(NamedTuple):
    """One requirement on a label. `values` None: that it is there at all."""

    key: str
    values: frozenset[str] | None
    negated: bool

    def met(self, labels: dict[str, str]) -> bool:
        """Whether these labels meet it. A label that is absent meets `!=` and `notin`, as everywhere in Kubernetes."""
        if self.values is None:
            return (self.key in labels) != self.negated
        return (labels.get(self.key) in self.values if self.key in labels else False) != self.negated


def requirements(selector: str) -> tuple[Requirement, ...]:
    """Return what a label selector requires. Raises Problem."""
    if not selector.strip():
        return ()
    parts = _PARTS.split(selector)
    if len(parts) > MOST_REQUIREMENTS:
        raise Problem(400, f"labelSelector has more than {MOST_REQUIREMENTS} requirements", reason="Invalid")
    return tuple(map(_requirement, parts))


def _requirement(part: str) -> Requirement:
    if found := _EQUAL.fullmatch(part):
        return Requirement(found[1], frozenset({found[3]}), found[2] == "!=")
    if found := _SET.fullmatch(part):
        return Requirement(found[1], frozenset(each.strip() for each in found[3].split(",")), found[2] == "notin")
    if found := _THERE.fullmatch(part):
        return Requirement(found[2], None, bool(found[1]))
    raise Problem(
        400, f"labelSelector cannot be read at {part[:80]!r}: write it as for kubectl, say `app=x,tier in (a,b)`",
        reason="Invalid",
    )  # fmt: skip


def wanted(*, name: str, queue: str, type: str, phases: list[Phase], selector: str) -> Callable[[Row], bool]:
    """Return whether a row is meant; an empty filter means all. Raises Problem."""
    needed, in_phases = requirements(selector), frozenset(phases)

    def wants(row: Row) -> bool:
        return (
            (not name or row.name == name)
            and (not queue or row.queue == queue)
            and (not type or row.type == type)
            and (not in_phases or row.phase in in_phases)
            and all(each.met(row.labels) for each in needed)
        )

    return wants
