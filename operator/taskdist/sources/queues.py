"""The TaskQueues that take no Tasks now: one watch for all sources, so that a Task costs no question of its own."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from taskdist.client.states import closed_by
from taskdist.kube import TASKQUEUES, Added, Client, Deleted, Informer, Obj, Updated
from taskdist.kube.resources import name_of, namespace_of
from taskdist.kube.store import Aside, Event


class Queues(Protocol):
    """The queues of a namespace, as far as a source has to know them."""

    async def synced(self) -> None:
        """Wait until they are known."""

    def closed(self, namespace: str) -> Mapping[str, str]:
        """The namespace's queues that take no Tasks now, each with words for people."""

    def listen(self, namespace: str, changed: Callable[[], None]) -> Callable[[], None]:
        """Call `changed` whenever a queue of the namespace opens or closes; return how to end that."""


class _Known(NamedTuple):
    """A queue as it is remembered."""

    namespace: str
    name: str
    words: str | None


def closed_words(name: str, queue: Obj) -> str | None:
    """Return why the queue takes no Tasks now, for people; None if it does."""
    closed = closed_by(queue)
    return None if closed is None else f"TaskQueue {name} takes no new Tasks now. {closed}".strip()


class QueueView:
    """The queues of the served namespaces, as far as they are closed. `run` keeps it."""

    def __init__(self, client: Client, namespaces: tuple[str, ...]) -> None:
        self._informer = Informer[_Known](
            client, TASKQUEUES, transform=_known, on_event=self._heard, namespaces=namespaces or None
        )
        self._closed: dict[str, dict[str, str]] = {}
        self._listeners: dict[str, set[Callable[[], None]]] = {}

    async def run(self) -> None:
        """Watch until cancelled. Raises what only a fresh start mends."""
        await self._informer.run()

    async def synced(self) -> None:
        await self._informer.synced()

    def closed(self, namespace: str) -> Mapping[str, str]:
        return self._closed.get(namespace, {})

    def listen(self, namespace: str, changed: Callable[[], None]) -> Callable[[], None]:
        listeners = self._listeners.setdefault(namespace, set())
        listeners.add(changed)
        return lambda: listeners.discard(changed)

    def _heard(self, event: Event[_Known]) -> None:
        match event:
            case Added(new) | Updated(_, new):
                self._set(new.namespace, new.name, new.words)
            case Deleted(old):
                # Tasks wait for a queue that is not there.
                self._set(old.namespace, old.name, None)
            case Aside():
                pass  # it keeps what was known of it

    def _set(self, namespace: str, name: str, words: str | None) -> None:
        closed = self._closed.setdefault(namespace, {})
        if closed.get(name) == words:
            return
        if words is None:
            del closed[name]
        else:
            closed[name] = words
        for changed in tuple(self._listeners.get(namespace, ())):
            changed()


def _known(queue: Obj) -> _Known:
    return _Known(namespace_of(queue), name_of(queue), closed_words(name_of(queue), queue))
