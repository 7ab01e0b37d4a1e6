"""Holds of sinks: which ended Tasks are not deleted before they are told.

Up to where a sink has told them is the one word of sinks that the operator hears. It is read from their specs and
status, kept nowhere else, and bounded by each sink's own `holdSeconds`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from taskdist.core.model import Key
from taskdist.kube import TASKSINKS, Added, Client, Informer, Obj, Updated
from taskdist.kube.resources import name_of, namespace_of, version_of
from taskdist.kube.store import Aside, Event


@dataclass(frozen=True, slots=True)
class Hold:
    """A sink's word: Tasks of these queues (none: all of the namespace) whose end it has not told stay, so much longer
    than their time."""

    sink: Key
    seconds: float = 0.0
    queues: frozenset[str] = frozenset()
    position: int = 0

    def holds(self, namespace: str, queue: str, version: int) -> bool:
        """Whether it wants this end kept: one of this version, in this queue."""
        if not self.seconds or namespace != self.sink[0] or version <= self.position:
            return False
        return not self.queues or queue in self.queues


def seen_hold(obj: Obj) -> Hold:
    """Read a sink. Whatever is odd holds nothing, and has told nothing.

    A position that is later than the sink itself is of another history: etcd was restored from a backup since.
    """
    spec, status = _map(obj.get("spec")), _map(obj.get("status"))
    seconds, position = spec.get("holdSeconds"), status.get("position")
    queues = _map(spec.get("selector")).get("queues")
    version = version_of(obj)
    told = type(position) is int and version.isdecimal() and 0 < position < int(version)
    return Hold(
        (namespace_of(obj), name_of(obj)),
        float(seconds) if type(seconds) is int and seconds > 0 else 0.0,
        frozenset(each for each in queues if isinstance(each, str)) if isinstance(queues, list) else frozenset(),
        position if told and type(position) is int else 0,
    )


def _map(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def informer(client: Client, namespaces: list[str] | None, tell: Callable[[Hold], None]) -> Informer[Hold]:
    """Return a view of the sinks; `tell` hears each new word, and one that holds nothing once a sink is gone."""

    def heard(event: Event[Hold]) -> None:
        if isinstance(event, Added | Updated):
            tell(event.new)
        elif not isinstance(event, Aside):  # none is set aside
            tell(Hold(event.old.sink))

    return Informer(client, TASKSINKS, transform=seen_hold, on_event=heard, namespaces=namespaces)
