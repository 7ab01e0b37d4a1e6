"""What the core knows of Tasks, queues, pools and agents: values without payloads, times in wall-clock seconds."""

from dataclasses import dataclass, field

from taskdist.api import Delivery, Dispatch, Reclaim

# (namespace, name): how queues and pools are referred to.
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Requirement:
    """One requirement on an agent's label; `operator` is In, NotIn, Exists or DoesNotExist."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Task:
    """A Task as the core sees it. `created` and `not_before` are seconds since the Unix epoch."""

    uid: str
    namespace: str
    name: str
    queue: str
    type: str
    created: float
    priority: int = 0
    pool: str | None = None
    slots: int = 1
    resources: tuple[tuple[str, int], ...] = ()
    skills: frozenset[str] = frozenset()
    selector: tuple[Requirement, ...] = ()
    suspended: bool = False
    failures: int = 0
    not_before: float = 0.0

    @property
    def queue_key(self) -> Key:
        return (self.namespace, self.queue)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Back-off after failure n (from 1): min(max_seconds, initial_seconds × factor^(n − 1))."""

    limit: int = 3
    initial_seconds: float = 1.0
    factor: float = 2.0
    max_seconds: float = 300.0


@dataclass(frozen=True, slots=True)
class Queue:
    """A TaskQueue's rules. Also the defaults for Tasks whose queue is gone."""

    namespace: str
    name: str
    pools: tuple[str, ...] = ()
    paused: bool = False
    dispatch: Dispatch = Dispatch.STRICT
    delivery: Delivery = Delivery.AT_LEAST_ONCE
    reclaim: Reclaim = Reclaim.LEASE
    lease_seconds: float = 15.0
    hold_seconds: float = 120.0
    retry: RetryPolicy = field(default_factory=RetryPolicy)

    @property
    def key(self) -> Key:
        return (self.namespace, self.name)

    @property
    def allows_unfenced(self) -> bool:
        """Whether agents may serve it whose handlers cannot be stopped by force."""
        return self.reclaim is not Reclaim.LEASE


@dataclass(frozen=True, slots=True)
class Pool:
    """An AgentPool's shape and bounds. With `scaling` off, minimum and maximum are both `spec.replicas`."""

    namespace: str
    name: str
    slots: int = 1
    resources: tuple[tuple[str, int], ...] = ()
    skills: frozenset[str] = frozenset()
    labels: tuple[tuple[str, str], ...] = ()  # of the pod template
    elastic: bool = False
    minimum: int = 1
    maximum: int = 1
    scale_down_delay: float = 60.0
    template: str = ""  # names what its agents are made from; those of another one are replaced
    reported_labels: frozenset[str] = frozenset()  # keys under which agents may report labels of themselves

    @property
    def key(self) -> Key:
        return (self.namespace, self.name)


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent that is connected and ready. `types` None means that it takes any type."""

    uid: str
    namespace: str
    name: str
    pool: str
    slots: int = 1
    resources: tuple[tuple[str, int], ...] = ()
    skills: frozenset[str] = frozenset()
    types: frozenset[str] | None = None
    labels: tuple[tuple[str, str], ...] = ()
    fenced: bool = True

    @property
    def pool_key(self) -> Key:
        return (self.namespace, self.pool)
