"""A leader at its desk: its clock, and the answers to what it asks. For the tests of the operator's end."""

from typing import Any

from doubles import CoreDouble
from taskdist.api import Phase
from taskdist.core import Core
from taskdist.core.model import Pool, Queue, Task
from taskdist.protocol.messages import (
    PROTOCOL_VERSION,
    AgentIdentity,
    HeldLease,
    Hello,
    LeaseName,
    Ping,
    Started,
    ToAgent,
)
from taskdist.protocol.observations import Action, Now, ObservedPod, ObservedTask, Send, WriteStatus, Written
from taskdist.protocol.operator import Leader
from taskdist.protocol.settings import LeaderSettings

EPOCH = 3
QUEUE = Queue("ns", "q", pools=("p",))
POOL = Pool("ns", "p", slots=1, minimum=2, maximum=2)
A1 = LeaseName("a", 1, EPOCH)


def record(version: int = 10, **fields: Any) -> ObservedTask:
    task = Task("a", "ns", "task-a", "q", "work", 0.0, suspended=fields.pop("suspended", False))
    return ObservedTask(task, version, **fields)


def assigned(version: int = 11, pod: str = "u1", attempt: int = 1, epoch: int = EPOCH, **more: Any) -> ObservedTask:
    return record(version, phase=Phase.ASSIGNED, attempt=attempt, epoch=epoch, agent_uid=pod, pool="p", **more)


class Desk:
    """A leader with its clock, and the answers to what it asks."""

    def __init__(
        self,
        queue: Queue = QUEUE,
        *tasks: ObservedTask,
        pods: int = 2,
        core: Core | CoreDouble | None = None,
        pool: Pool = POOL,
        leadership: str = "",
    ) -> None:
        self.t = 1000.0
        self.leader = Leader(core or Core(), EPOCH, LeaderSettings(), leadership)  # type: ignore[arg-type]
        self.out: list[Action] = []
        self.writes: list[WriteStatus] = []
        self.do("queue_applied", queue)
        self.do("pool_applied", pool)
        for n in range(1, pods + 1):
            self.do("pod_observed", ObservedPod(f"u{n}", "ns", f"p-{n}", "p", 0.0, ready=True))
        self.do("recover", tasks)

    def do(self, method: str, *args: Any) -> list[Action]:
        self.out = getattr(self.leader, method)(*args, Now(self.t, self.t))
        self.writes += [action for action in self.out if isinstance(action, WriteStatus)]
        return self.out

    def at(self, t: float) -> list[Action]:
        self.t = t
        return self.do("tick")

    def connect(
        self,
        session: int,
        pod: int = 1,
        *leases: LeaseName,
        instance: str = "i",
        held: tuple[HeldLease, ...] = (),
        slots: int = 1,
    ) -> list[Action]:
        held = held or tuple(HeldLease(name, "ns", f"task-{name.task_uid}", 15.0, 120.0) for name in leases)
        hello = Hello(PROTOCOL_VERSION, instance, slots, self.t + session, leases=leases, held=held, started=self.t)
        self.do("connected", session, AgentIdentity(f"u{pod}", f"p-{pod}", "ns", "p"), hello)
        return self.do("received", session, Ping(self.t))

    def says(self, session: int, message: Any) -> list[Action]:
        return self.do("received", session, message)

    def write(self) -> WriteStatus:
        (one,) = [action for action in self.out if isinstance(action, WriteStatus)]
        return one

    def answer(self, outcome: Any) -> list[Action]:
        return self.do("write_done", self.write().token, outcome)

    def answer_to(self, version: int, outcome: Any) -> list[Action]:
        """Answer the write of this version of the Task, which may be some inputs ago."""
        (token,) = [write.token for write in self.writes if write.resource_version == version]
        return self.do("write_done", token, outcome)

    def sent(self, kind: type[ToAgent]) -> list[Any]:
        return [a.message for a in self.out if isinstance(a, Send) and isinstance(a.message, kind)]

    @property
    def phase(self) -> str:
        return str(self.write().status["phase"])

    def costs(self) -> tuple[float | None, float | None]:
        """What is being written of the Task's cost and energy."""
        status = self.write().status
        return status.get("cost"), status.get("energyWh")


def running(queue: Queue = QUEUE) -> Desk:
    """Task `a` runs on agent u1 in session 1, and u2 is idle in session 2."""
    desk = Desk(queue, record())
    desk.connect(1)
    desk.answer(Written(assigned(), b'{"x":1}'))
    desk.says(1, Started(A1))
    desk.connect(2, 2)
    return desk
