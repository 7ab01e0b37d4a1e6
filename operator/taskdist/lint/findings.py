"""What a review says: a flaw and its mend, a rule that finds such flaws, a finding as the user reads it.

Owns the shape of rules and findings, and how a change is written as YAML. Refuses to know any rule.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from inspect import cleandoc
from typing import TYPE_CHECKING, Any

import yaml

from taskdist.api.crd import PlainDumper
from taskdist.api.task import MUTABLE_FIELDS, Task
from taskdist.core import commands

if TYPE_CHECKING:
    from taskdist.lint.manifests import Manifest
    from taskdist.lint.setup import Setup

Obj = dict[str, Any]


class Severity(StrEnum):
    """How bad it is, worst first. An error: it is refused, or cannot work. A warning: it does not do what it says."""

    ERROR = "error"
    WARNING = "warning"
    HINT = "hint"

    @property
    def rank(self) -> int:
        """0 is the worst."""
        return list(Severity).index(self)


@dataclass(frozen=True, slots=True)
class Mend:
    """What to do, in words; and where it is known how, a change to paste.

    `change` is to be merged into the flawed object, or into `on` if that is another one: null takes a field away, lists
    are whole, but for containers, which are told apart by name. With a `kind` in it, it is a whole new manifest.
    `declares`: it says what agents are or have, which has to be made true first; so there is no command for it.
    """

    words: str
    change: Obj | None = None
    on: "Manifest | None" = None
    declares: bool = False


@dataclass(frozen=True, slots=True)
class Flaw:
    """One flaw of one object. `severity` where it is not what the rule says of all its flaws."""

    at: "Manifest"
    path: str
    message: str
    mend: Mend
    severity: Severity | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """A flaw as it is told. `source` is the file and line, or empty for a live object.

    `command` makes the change where the object is in the cluster already.
    """

    rule: str
    severity: Severity
    object: str
    path: str
    message: str
    mend: str
    mend_on: str
    change: str
    command: str
    source: str

    def to_json(self) -> Obj:
        found = {
            "rule": self.rule,
            "severity": self.severity.value,
            "object": self.object,
            "path": self.path,
            "message": self.message,
            "mend": self.mend,
            "mend_on": self.mend_on,
            "yaml": self.change,
            "command": self.command,
            "source": self.source,
        }
        return {key: value for key, value in found.items() if value}


Check = Callable[["Setup"], Iterator[Flaw]]


@dataclass(frozen=True, slots=True)
class Rule:
    """A named check. Its explanation is the check's docstring: the first line is the title."""

    id: str
    severity: Severity
    check: Check = field(repr=False)

    @property
    def title(self) -> str:
        return self._said[0].rstrip(".")

    @property
    def explanation(self) -> str:
        """The rest, as one paragraph."""
        return " ".join(line for line in self._said[1:] if line)

    @property
    def _said(self) -> list[str]:
        return cleandoc(self.check.__doc__ or "").splitlines()

    def review(self, setup: "Setup") -> Iterator[Finding]:
        for flaw in self.check(setup):
            yield told(self, flaw)


def rule(severity: Severity) -> Callable[[Check], Rule]:
    """Make a rule of a check; it is called like the function."""

    def made(check: Check) -> Rule:
        return Rule(getattr(check, "__name__", "").replace("_", "-"), severity, check)

    return made


def told(by: Rule, flaw: Flaw) -> Finding:
    mend = flaw.mend
    words, command = mend.words, ""
    on = mend.on or flaw.at
    if mend.change is not None and on.live and on.ours and set(mend.change) == {"spec"}:
        spec = mend.change["spec"]
        if on.kind == Task.kind and not set(spec) <= set(MUTABLE_FIELDS):
            words += " A Task that is there cannot be changed like that: delete it, and create another."
        elif "template" not in spec and not mend.declares:
            command = commands.patch(f"{on.kind.lower()}s", (on.namespace, on.name), spec)
    return Finding(
        by.id,
        flaw.severity or by.severity,
        flaw.at.title,
        flaw.path,
        flaw.message,
        words,
        mend.on.title if mend.on is not None else "",
        written(mend.change) if mend.change is not None else "",
        command,
        flaw.at.place(flaw.path),
    )


def patch(path: str, value: Any) -> Obj:
    """`spec.quota.slots` and a value as {spec: {quota: {slots: value}}}."""
    for name in reversed(path.split(".")):
        value = {name: value}
    return dict(value)


def number(value: float) -> float | int:
    """Whole numbers without a fraction, as people write them."""
    return int(value) if value == int(value) else round(value, 3)


def written(change: Obj) -> str:
    """A change as YAML."""
    return yaml.dump(change, Dumper=PlainDumper, sort_keys=False, allow_unicode=True, width=120).rstrip()
