"""Which Tasks of a list are meant: the query, read once and refused by name where it makes no sense."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from taskdist.api import Phase
from taskdist.controller.view.problems import Problem
from taskdist.protocol.observations import ObservedTask

MOST_ROWS = 250
MOST_REQUIREMENTS = 32
_KEY = r"[A-Za-z0-9](?:[-A-Za-z0-9_./]{0,315}[A-Za-z0-9])?"
_VALUE = r"[-A-Za-z0-9_.]{0,63}"
_REQUIREMENT = re.compile(
    rf"\s*(?:(?P<absent>!)\s*(?P<no>{_KEY})|(?P<key>{_KEY})\s*"
    rf"(?:(?P<operator>==?|!=)\s*(?P<value>{_VALUE})|(?P<word>in|notin)\s*\((?P<values>[^()]*)\))?)\s*(?:,|$)"
)

Labels = Mapping[str, str]
Requirement = Callable[[Labels], bool]


@dataclass(frozen=True, slots=True)
class Selection:
    """What of a namespace's Tasks is wanted, and how much at a time."""

    queue: str = ""
    phase: Phase | None = None
    labels: tuple[Requirement, ...] = ()
    limit: int = MOST_ROWS
    after: str = ""

    @classmethod
    def read(cls, query: Mapping[str, str]) -> "Selection":
        """Raises Problem."""
        if unknown := query.keys() - {"queue", "phase", "labelSelector", "limit", "continue"}:
            raise Problem(
                400,
                f"{min(unknown)[:80]!r} is no parameter: there are queue, phase, labelSelector, limit and continue",
            )
        phase = query.get("phase", "")
        if phase and phase not in list(Phase):
            raise Problem(400, f"phase is {phase[:80]!r}: it is one of {', '.join(each.value for each in Phase)}")
        limit = query.get("limit", str(MOST_ROWS))
        if not re.fullmatch(r"[0-9]{1,6}", limit) or not 1 <= int(limit) <= MOST_ROWS:
            raise Problem(400, f"limit is {limit[:80]!r}: it is a whole number from 1 to {MOST_ROWS}")
        return cls(
            query.get("queue", ""),
            Phase(phase) if phase else None,
            requirements(query.get("labelSelector", "")),
            int(limit),
            query.get("continue", ""),
        )

    def takes(self, record: ObservedTask, phase: Phase) -> bool:
        """Whether it is one of those; `phase` is the one that is told."""
        return (
            (not self.queue or record.task.queue == self.queue)
            and (self.phase is None or phase is self.phase)
            and self._labelled(record)
        )

    def _labelled(self, record: ObservedTask) -> bool:
        if not self.labels:
            return True
        labels = dict(record.task.labels)
        return all(holds(labels) for holds in self.labels)


def requirements(selector: str) -> tuple[Requirement, ...]:
    """Read a label selector as kubectl writes it: `a=b,c!=d,e in (f,g),h notin (i),j,!k`. Raises Problem."""
    found: list[Requirement] = []
    at = 0
    while at < len(selector):
        match = _REQUIREMENT.match(selector, at)
        if match is None or match.end() == at or len(found) >= MOST_REQUIREMENTS:
            raise Problem(
                400,
                f"labelSelector cannot be read from {selector[at : at + 80]!r} on: write it as kubectl does, such as "
                f"'team=a,tier in (x,y),!old', with up to {MOST_REQUIREMENTS} parts",
            )
        found.append(_holds(match))
        at = match.end()
    return tuple(found)


def _holds(match: "re.Match[str]") -> Requirement:
    if match["absent"]:
        return lambda labels, key=match["no"]: key not in labels  # type: ignore[misc]
    key, values = match["key"], frozenset[str]()
    if match["word"]:
        values = frozenset(each.strip() for each in match["values"].split(","))
    elif match["operator"]:
        values = frozenset((match["value"],))
    else:
        return lambda labels: key in labels
    if match["word"] == "notin" or match["operator"] == "!=":
        return lambda labels: labels.get(key) not in values
    return lambda labels: labels.get(key) in values
