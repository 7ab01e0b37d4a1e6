"""Label selectors as kubectl writes them: `team=a,tier!=db,zone in (x,y),stage notin (test),checked,!old`.

A label that is absent meets `!=` and `notin`, as everywhere in Kubernetes. Sizes (`<`, `>`) are not read.
"""

import re
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import NamedTuple

MOST_REQUIREMENTS = 32
_KEY = r"[A-Za-z0-9](?:[-A-Za-z0-9_./]{0,315}[A-Za-z0-9])?"
_VALUE = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?"
# Each of these reads a text in one go, however long: the values of a list are looked at one by one.
_PART = re.compile(r"(?:^|,)((?:\([^()]*\)|[^,])*)")  # a comma between parentheses is within one requirement
_REQUIREMENT = re.compile(
    rf"\s*(?:!\s*(?P<absent>{_KEY})|(?P<key>{_KEY})(?:"
    rf"\s*(?P<operator>==?|!=)\s*(?P<value>{_VALUE})"
    rf"|\s+(?P<word>in|notin)\s*\((?P<values>[^()]*)\))?)\s*"
)


class SelectorError(ValueError):
    """The text is no label selector; the message names the part that cannot be read."""


class Requirement(NamedTuple):
    """One requirement on a label. `values` None: that it is there at all."""

    key: str
    values: frozenset[str] | None
    negated: bool

    def met(self, labels: Mapping[str, str]) -> bool:
        """Whether these labels meet it."""
        found = self.key in labels if self.values is None else labels.get(self.key) in self.values
        return found != self.negated


def parse(selector: str) -> tuple[Requirement, ...]:
    """Return what a label selector requires; an empty one requires nothing. Raises SelectorError."""
    if not selector.strip():
        return ()
    parts = [each[1] for each in islice(_PART.finditer(selector), MOST_REQUIREMENTS + 1)]
    if len(parts) > MOST_REQUIREMENTS:
        raise SelectorError(f"labelSelector has more than {MOST_REQUIREMENTS} requirements")
    return tuple(map(_requirement, parts))


def meets(labels: Mapping[str, str], requirements: Iterable[Requirement]) -> bool:
    """Whether these labels meet all of the requirements."""
    return all(each.met(labels) for each in requirements)


def _requirement(part: str) -> Requirement:
    found = _REQUIREMENT.fullmatch(part)
    values = [each.strip() for each in found["values"].split(",")] if found is not None and found["word"] else []
    if found is None or not all(re.fullmatch(_VALUE, each) for each in values):
        raise SelectorError(
            f"labelSelector cannot be read at {part[:80]!r}: write it as for kubectl, say `app=x,tier in (a,b),!old`"
        )
    if found["absent"]:
        return Requirement(found["absent"], None, True)
    if found["operator"]:
        return Requirement(found["key"], frozenset((found["value"],)), found["operator"] == "!=")
    if found["word"]:
        return Requirement(found["key"], frozenset(values), found["word"] == "notin")
    return Requirement(found["key"], None, False)
