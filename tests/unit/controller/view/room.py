"""For the view's tests: a store, a leader that has taken over what is in it, and agents that connect."""

from typing import Any

from taskdist.controller.view.selecting import Selection
from taskdist.controller.view.tasks import Tasks
from taskdist.core import Core
from taskdist.core.model import Pool, Queue
from taskdist.kube import Added, Deleted, Store
from taskdist.protocol import convert
from taskdist.protocol.messages import AgentIdentity, Hello, Ping
from taskdist.protocol.observations import Action, Now, ObservedPod, ObservedTask, WriteStatus, Written
from taskdist.protocol.operator import Leader

NOW = Now(1000.0, 1_800_000_000.0)


def obj(
    name: str, namespace: str = "ns", version: int = 1, spec: dict[str, Any] | None = None, **status: Any
) -> dict[str, Any]:
    metadata = {
        "name": name,
        "namespace": namespace,
        "uid": f"{namespace}-{name}",
        "resourceVersion": str(version),
        "creationTimestamp": "2027-01-15T07:00:00Z",
        "labels": {"half": str(hash(name) % 2)},
    }
    return {"metadata": metadata, "spec": {"queue": "q", "type": "echo", **(spec or {})}, "status": status}


class Room:
    """A store, a leader that has taken over what is in it, and the view of both."""

    def __init__(self) -> None:
        self.store: Store[ObservedTask] = Store(convert.observed_task)
        self.leader: Leader | None = Leader(Core(), 1)
        self.leader.queue_applied(Queue("ns", "q", ("p",)), NOW)
        self.leader.pool_applied(Pool("ns", "p"), NOW)
        self.sessions, self.version = 0, 100
        self.view = Tasks(self.store, lambda: self.leader, lambda: NOW.wall)

    def put(self, obj: dict[str, Any]) -> None:
        self.tell(self.store.put(obj))

    def remove(self, obj: dict[str, Any]) -> None:
        self.tell(self.store.remove(obj))

    def tell(self, events: Any) -> None:
        for event in events:
            if isinstance(event, Added):
                self.view.came(event.new)
            elif isinstance(event, Deleted):
                self.view.went(event.old)

    def lead(self) -> None:
        assert self.leader is not None
        self.leader.recover(list(self.store), NOW)

    def names(self, **query: str) -> list[str]:
        """All pages."""
        found: list[str] = []
        while True:
            page = self.view.page("ns", Selection.read(query))
            found += [each.name for each in page.items]
            if not page.continue_:
                return found
            query["continue"] = page.continue_

    def agent(self, name: str = "p-0", pool: str = "p", slots: int = 1) -> list[Action]:
        """Connect one, and return what the leader does then."""
        assert self.leader is not None
        self.leader.pod_observed(ObservedPod(f"uid-{name}", "ns", name, pool, NOW.wall, ready=True), NOW)
        self.sessions += 1
        identity = AgentIdentity(f"uid-{name}", name, "ns", pool, "pool")
        self.leader.connected(self.sessions, identity, Hello(1, f"instance-{name}", slots, 0.0), NOW)
        return self.leader.received(self.sessions, Ping(0.0), NOW)

    def written(self, actions: list[Action]) -> list[Action]:
        """Have these writes done; return what the leader does then."""
        assert self.leader is not None
        done: list[Action] = []
        for write in actions:
            if isinstance(write, WriteStatus):
                self.version += 1
                stored = obj(write.name, version=self.version, **write.status)
                self.put(stored)
                done += self.leader.write_done(write.token, Written(convert.observed_task(stored)), NOW)
        return done
