"""Backlogs of TaskSources, as their status tells them: heard from the API server, kept for a leader.

Refuses to know when it is too old to count: the leader's core forgets what it is not told again.
"""

from collections.abc import Callable, Iterable

from taskdist.core.model import Key
from taskdist.kube import TASKSOURCES, Added, Client, Deleted, Informer, Updated
from taskdist.kube.store import Aside, Event
from taskdist.protocol.backlogs import BACKLOG_SECONDS, SeenBacklog, seen_backlog
from taskdist.protocol.observations import Action, Now
from taskdist.protocol.operator import Leader


def informer(
    client: Client, namespaces: list[str] | None, tell: Callable[[SeenBacklog], None]
) -> Informer[SeenBacklog]:
    """Return a view of the sources; `tell` hears what waits whenever a source says so.

    Nobody waits for its first list: where the kind is not installed, or may not be read, nothing waits outside.
    """

    def heard(event: Event[SeenBacklog]) -> None:
        match event:
            case Added(new):
                if new.messages:
                    tell(new)
            case Updated(old, new):
                if old.messages and old.queue != new.queue:
                    tell(old.none)
                if old != new:
                    tell(new)
            case Deleted(old):
                if old.messages:
                    tell(old.none)
            case Aside():
                pass  # none is set aside

    return Informer(client, TASKSOURCES, transform=seen_backlog, on_event=heard, namespaces=namespaces)


Input = Callable[[Callable[[Leader, Now], Iterable[Action]]], None]


class HeardBacklogs:
    """Backlogs that were heard lately, also while another led; `give` hands them to this process's leader.

    Args:
        serves: whether a namespace is this installation's.
    """

    def __init__(self, give: Input, clocks: Callable[[], Now], serves: Callable[[str], bool]) -> None:
        self._give = give
        self._clocks = clocks
        self._serves = serves
        self._heard: dict[tuple[Key, str], tuple[SeenBacklog, float]] = {}

    def hear(self, told: SeenBacklog) -> None:
        if told.messages:
            self._heard[told.queue, told.source] = (told, self._clocks().boot)
        else:
            self._heard.pop((told.queue, told.source), None)
        self._tell(told)

    def tell_recent(self) -> None:
        """Tell a leader that begins what is not too old."""
        boot = self._clocks().boot
        for told, heard in self._heard.values():
            if boot - heard < BACKLOG_SECONDS:
                self._tell(told)

    def _tell(self, told: SeenBacklog) -> None:
        if self._serves(told.queue[0]):
            self._give(lambda leader, now: leader.backlog_seen(told, now))
