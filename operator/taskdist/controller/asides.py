"""Objects set aside, as this release cannot read their present state: announces and counts them.

Each is left as it is. What was last read of it holds, as long as this process lives; it is read again when it changes.
What it means for a Task's lease is the protocol's to say; the condition of a queue or pool is the keepers' to write.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

import structlog

from taskdist.api import Reason
from taskdist.kube import Aside, Change, Event, Informer
from taskdist.observability.events import Subject

T = TypeVar("T")

# How many objects are remembered for having been told of: nobody says of one that could never be read that it is gone.
MOST_TOLD = 10_000

_log = structlog.get_logger("taskdist.asides")


class Asides:
    """Tells of each object that is set aside once for each thing that is wrong with it, while this operator leads.

    Args:
        announce: records a Kubernetes Event.
        leads: whether this operator leads now: one of several replicas is enough to say it.
        serves: whether a namespace is this installation's now; of others another one speaks.
    """

    def __init__(
        self,
        announce: Callable[[Subject, Reason, str, str, bool], None],
        leads: Callable[[], bool],
        serves: Callable[[str], bool] = lambda _namespace: True,
    ) -> None:
        self._announce = announce
        self._leads = leads
        self._serves = serves
        self._informers: tuple[tuple[str, Informer[Any]], ...] = ()
        self._told: dict[tuple[str, str], str] = {}  # the oldest first
        self._on_aside: dict[str, Callable[[str], None]] = {}

    def hear(
        self,
        kind: str,
        on_change: Callable[[Change[T]], None],
        on_aside: Callable[[str], None] = lambda _uid: None,
    ) -> Callable[[Event[T]], None]:
        """Return what an informer is to tell. Changes go on to `on_change`, uids of what is set aside to `on_aside`."""
        self._on_aside[kind] = on_aside

        def told(event: Event[T]) -> None:
            if isinstance(event, Aside):
                on_aside(event.uid)
                self._tell(kind, event)
            else:
                on_change(event)

        return told

    def watch(self, **informers: Informer[Any]) -> None:
        """These have the views that are counted, by kind."""
        self._informers = tuple(informers.items())

    def begin(self) -> None:
        """A leadership has begun: say what is set aside already."""
        self._told.clear()
        for kind, informer in self._informers:
            for aside in informer.store.aside():
                if (on_aside := self._on_aside.get(kind)) is not None:
                    on_aside(aside.uid)
                self._tell(kind, aside)

    def count(self) -> dict[tuple[str, Reason], int]:
        """Return how many objects are set aside, by kind and reason."""
        return Counter((kind, each.reason) for kind, informer in self._informers for each in informer.store.aside())

    def _tell(self, kind: str, aside: Aside) -> None:
        if not (self._leads() and self._serves(aside.namespace)) or self._told.get((kind, aside.uid)) == aside.message:
            return
        self._told.pop((kind, aside.uid), None)
        self._told[kind, aside.uid] = aside.message
        if len(self._told) > MOST_TOLD:
            del self._told[next(iter(self._told))]
        _log.warning(
            "set aside", kind=kind, namespace=aside.namespace, name=aside.name, reason=aside.reason, why=aside.message
        )
        subject = Subject(kind, aside.namespace, aside.name, aside.uid)
        message = f"Set aside, and left as it is, until it changes: {aside.message}"
        self._announce(subject, aside.reason, message, "SetAside", True)
