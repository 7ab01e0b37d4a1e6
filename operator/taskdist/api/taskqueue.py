"""The TaskQueue kind: where Tasks wait, and by which rules they leave."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from taskdist.api.budgets import Budget
from taskdist.api.leasing import Delivery, Dispatch, Reclaim
from taskdist.api.meta import AS_SET, Condition, Model, Name, ObjectMeta, Word, as_map
from taskdist.api.reasons import FAILURES
from taskdist.api.routes import Route
from taskdist.api.strategies import Strategy
from taskdist.api.task import Priority, Timeouts

# The API server takes the words of this release only; those that another release let in are read all the same.
FailureWord = Annotated[Word, Field(json_schema_extra={"enum": [each.value for each in FAILURES]})]


class OrderPolicy(StrEnum):
    """What orders the queue's Tasks."""

    PRIORITY = "Priority"
    FIFO = "Fifo"
    DEADLINE_FIRST = "DeadlineFirst"


class OnHopeless(StrEnum):
    """What becomes of a Task whose deadline cannot be met any more."""

    RUN = "Run"
    FAIL = "Fail"
    DEAD_LETTER = "DeadLetter"


class OnExhausted(StrEnum):
    """What becomes of a Task that has failed for good."""

    FAIL = "Fail"
    DEAD_LETTER = "DeadLetter"


class OnOverflow(StrEnum):
    """What becomes of a Task that reaches a full queue past the API server's check."""

    REJECT = "Reject"
    SPILL = "Spill"


class Order(Model):
    """In which order Tasks leave."""

    policy: OrderPolicy = Field(
        default=OrderPolicy.PRIORITY,
        description="Priority: by level, then by shares, then by latest start. Fifo and DeadlineFirst compete at one "
        "level of their own and ignore their Tasks' priority: by creation, or by latest start.",
    )
    level: Priority = Field(
        default=Priority.NORMAL,
        description="The level at which a Fifo or DeadlineFirst queue competes with others for the same pools.",
    )
    critical_path_first: bool = Field(
        default=False,
        description="Within a level, Tasks on which the longest chain of others depends go first.",
    )


class TenantWeight(Model):
    """The weight of one tenant."""

    name: Word = Field(description="The tenant.")
    weight: Annotated[int, Field(ge=1, le=1000)] = Field(description="Its share beside the others'.")


class Tenants(Model):
    """How tenants share the queue, and who may use the level Emergency."""

    weights: Annotated[list[TenantWeight], Field(max_length=256)] = Field(
        default_factory=list,
        description="Weights of tenants: while several wait, slot time is shared in these proportions.",
        json_schema_extra=as_map("name"),
    )
    default_weight: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=1, description="Weight of tenants that are not named."
    )
    emergency: Annotated[list[Word], Field(max_length=256)] = Field(
        default_factory=list,
        description="Tenants whose Tasks may use the level Emergency.",
        json_schema_extra=AS_SET,
    )
    emergency_leased: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=10, description="How many Tasks of the level Emergency each of them may have running at once."
    )


class Aging(Model):
    """How waiting lifts a Task."""

    step_seconds: Annotated[float, Field(ge=0, le=31_536_000)] = Field(
        default=300,
        description="A waiting Task goes up by one level each time this long has passed since its creation, up to "
        "Critical; in seconds, 0 for never.",
    )


class Deadlines(Model):
    """What deadlines do."""

    on_hopeless: OnHopeless = Field(
        default=OnHopeless.RUN,
        description="What happens to a waiting Task whose deadline cannot be met any more: Run (after those that can), "
        "Fail or DeadLetter.",
    )
    max_queue_seconds: Annotated[float, Field(ge=0.001, le=31_536_000)] = Field(
        default=3600,
        description="A Task without a deadline is ordered as if it had to start this long after its creation, in "
        "seconds.",
    )


class LargeTasks(Model):
    """How Tasks that need much room at once are kept from starving."""

    hold_after_seconds: Annotated[float, Field(ge=0, le=31_536_000)] = Field(
        default=60,
        description="After waiting this long for room on one agent, the first such Task gets an agent held for it, in "
        "seconds; 0 for never.",
    )


class Limits(Model):
    """Upper bounds of what may be there at once. What is absent is not bounded."""

    waiting: Annotated[int, Field(ge=1, le=10_000_000)] | None = Field(
        default=None, description="Tasks that wait. Those beyond it are handled as the queue's overflow says."
    )
    leased: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(default=None, description="Tasks that run.")
    slots: Annotated[int, Field(ge=1, le=10_000_000)] | None = Field(
        default=None, description="Slots that running Tasks occupy."
    )
    payload_bytes: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Bytes of the payloads of Tasks that have not ended."
    )


class Quota(Limits):
    """Upper bounds for the queue, and for each of its tenants."""

    per_tenant: Limits | None = Field(default=None, description="The same for each tenant.")


class TokenRate(Model):
    """How many attempts may start: a bucket of `burst` tokens that fills at `perSecond`."""

    per_second: Annotated[float, Field(ge=0.001, le=100_000)] = Field(description="Attempts a second, in the long run.")
    burst: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        default=1, description="How many may start at once after a quiet time."
    )


class Rate(Model):
    """How many attempts may start in a time. Emergency Tasks do not wait for it, but count."""

    queue: TokenRate | None = Field(default=None, description="For all of the queue's Tasks.")
    per_tenant: TokenRate | None = Field(default=None, description="For each tenant's Tasks.")


class Overflow(Model):
    """When the queue is full, and what happens to Tasks then."""

    high_water: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        description="With this many Tasks waiting, the API server refuses new ones."
    )
    low_water: Annotated[int, Field(ge=0, le=10_000_000)] = Field(
        description="With this many waiting, it takes new ones again."
    )
    action: OnOverflow = Field(
        default=OnOverflow.REJECT,
        description="What happens to a Task that gets past the API server's check: Reject (it is Failed) or Spill (it "
        "waits in the queue that spillTo names).",
    )
    spill_to: Name | None = Field(default=None, description="The queue that takes what spills.")


class Retry(Model):
    """What happens when an attempt fails: back-off is min(max, initial × factor^(failures − 1)), less jitter."""

    limit: Annotated[int, Field(ge=0, le=100)] = Field(
        default=3, description="How many failed attempts are tried again; then the Task is Failed."
    )
    initial_seconds: Annotated[float, Field(ge=0, le=86400)] = Field(
        default=1, description="Back-off after the first failed attempt, in seconds."
    )
    factor: Annotated[float, Field(ge=1, le=10)] = Field(
        default=2, description="By how much the back-off grows with each further failed attempt."
    )
    max_seconds: Annotated[float, Field(ge=0, le=86400)] = Field(
        default=300, description="Longest back-off, in seconds."
    )
    jitter: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.1, description="The part of the back-off that is taken off by chance, so that retries spread out."
    )
    reasons: Annotated[list[FailureWord], Field(max_length=32)] = Field(
        default_factory=list,
        description="Reasons of failures that are tried again, such as HandlerError or LeaseExpired; empty: all.",
        json_schema_extra=AS_SET,
    )
    agent_deaths: Annotated[int, Field(ge=1, le=16)] = Field(
        default=3, description="After so many agents died while they ran it, the Task counts as poisoned and is over."
    )
    throttled_seconds: Annotated[float, Field(ge=0, le=604800)] = Field(
        default=3600,
        description="For how long in all a handler may put its Task off by saying that it is throttled; beyond that it "
        "counts as a failure.",
    )
    on_exhausted: OnExhausted = Field(
        default=OnExhausted.FAIL,
        description="What happens to a Task that is not tried again: Fail, or DeadLetter (kept until redriven).",
    )


class TaskQueueSpec(Model):
    """The rules of the queue."""

    pools: Annotated[list[Name], Field(min_length=1, max_length=16)] = Field(
        description="AgentPools, in the same namespace, whose agents run the queue's Tasks but for those with a route.",
        json_schema_extra=AS_SET,
    )
    routes: Annotated[list[Route], Field(max_length=16)] = Field(
        default_factory=list,
        description="Where certain Tasks go instead; the first route that matches a Task is taken.",
        json_schema_extra=as_map("name"),
    )
    budgets: Annotated[list[Budget], Field(max_length=32)] = Field(
        default_factory=list,
        description="Amounts that Tasks share, of this queue and of others in the namespace.",
        json_schema_extra=as_map("name"),
    )
    paused: bool = Field(default=False, description="Hand out nothing; what runs goes on, new Tasks are kept.")
    drained: bool = Field(default=False, description="Take no new Tasks; those that are there are worked off.")
    weight: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=1, description="The queue's share beside other queues that use the same pools, within a level."
    )
    order: Order = Field(
        default_factory=Order, description="In which order Tasks leave.", json_schema_extra={"default": {}}
    )
    strategy: Strategy = Field(
        default=Strategy.ADAPTIVE,
        description="How one agent is picked among those that may run a Task and have room, if no step of a route says "
        "so: Adaptive (quickest, then fewest scarce skills, then least busy), RoundRobin, SmoothWeighted (by slots), "
        "LeastLoaded, Random, PowerOfTwo, ConsistentHash (by stickyKey or type), Spread (over zones), Pack (fullest "
        "first), Performance (quickest as observed), Affinity (where the like ran last), ZoneAware (in the order of "
        "the Task's zones), Cost or Energy (least for the Task, fullest first).",
    )
    tenants: Tenants = Field(
        default_factory=Tenants, description="How tenants share the queue.", json_schema_extra={"default": {}}
    )
    aging: Aging = Field(
        default_factory=Aging, description="How waiting lifts a Task.", json_schema_extra={"default": {}}
    )
    deadlines: Deadlines = Field(
        default_factory=Deadlines, description="What deadlines do.", json_schema_extra={"default": {}}
    )
    expected_service_seconds: Annotated[float, Field(ge=0.001, le=31_536_000)] = Field(
        default=10,
        description="How long an attempt takes, in seconds, as long as nothing was observed of the Task's type.",
    )
    large_tasks: LargeTasks = Field(
        default_factory=LargeTasks,
        description="How Tasks that need much room at once are kept from starving.",
        json_schema_extra={"default": {}},
    )
    quota: Quota = Field(
        default_factory=Quota, description="What may be there at once.", json_schema_extra={"default": {}}
    )
    rate: Rate = Field(
        default_factory=Rate, description="How many attempts may start in a time.", json_schema_extra={"default": {}}
    )
    concurrency_limit: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=1, description="How many Tasks of the same concurrencyKey may run at once."
    )
    overflow: Overflow | None = Field(default=None, description="When the queue is full, and what happens then.")
    timeouts: Timeouts = Field(
        default_factory=Timeouts,
        description="How long a Task may take, if it does not say so itself.",
        json_schema_extra={"default": {}},
    )
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=31_536_000)] | None = Field(
        default=None, description="How long Tasks are kept after their end, in seconds; absent: until deleted."
    )
    dead_letter_ttl_seconds: Annotated[int, Field(ge=0, le=31_536_000)] | None = Field(
        default=None, description="How long dead letters are kept, in seconds; absent: until redriven or deleted."
    )
    archive: bool = Field(
        default=False,
        description="Delete ended Tasks and dead letters, when their time is over, only once the archive has them.",
    )
    archive_backlog: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        default=10_000,
        description="With so many Tasks that are over their time and wait for the archive, the API server refuses new "
        "ones, until it is nine tenths of that.",
    )
    dispatch: Dispatch = Field(
        default=Dispatch.STRICT,
        description="Strict records each assignment before the agent hears of it. Lazy sends first and records what "
        "still runs after a second: fewer writes for short Tasks, but a change of leader may run a Task twice at once; "
        "Tasks with a concurrencyKey or orderingKey are recorded first all the same.",
    )
    delivery: Delivery = Field(
        default=Delivery.AT_LEAST_ONCE,
        description="AtLeastOnce tries a lost attempt again. AtMostOnce fails the Task instead.",
    )
    reclaim: Reclaim = Field(
        default=Reclaim.LEASE,
        description="When a silent agent's Task goes to another: Lease, once its lease ran out and it has stopped; "
        "Confirmed, only when its pod is gone (the operator deletes it); Fast, as soon as the connection is lost, "
        "so that two agents may run it at once.",
    )
    lease_seconds: Annotated[int, Field(ge=2, le=3600)] = Field(
        default=15, description="How long an agent may go on without hearing from the operator, in seconds."
    )
    hold_seconds: Annotated[int, Field(ge=10, le=86400)] = Field(
        default=120,
        description="How long agents go on while the operator changes its leader, in seconds; a new leader waits as "
        "long for agents that have not announced themselves again.",
    )
    retry: Retry = Field(
        default_factory=Retry, description="What happens when an attempt fails.", json_schema_extra={"default": {}}
    )

    @property
    def all_pools(self) -> list[str]:
        """The pools that it or one of its routes names, each once."""
        routed = [name for route in self.routes for step in route.steps for name in step.pools]
        return list(dict.fromkeys([*self.pools, *routed]))


class LimitLevel(Model):
    """What was left of a rate or a budget at some time."""

    name: Annotated[str, StringConstraints(max_length=100)] = Field(
        description="Which limit: `rate.queue`, `budgets/NAME`, `rate.perTenant/TENANT`, or `rate.perTenant` for each "
        "tenant that is not named."
    )
    level: float = Field(description="How much was left; below 0 where attempts took ahead.")
    capacity: Annotated[int, Field(ge=0)] = Field(description="How much there is at most: the limit or burst.")
    per_second: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="How much comes back a second; 0 where it comes back with the end of attempts."
    )
    at: datetime | None = Field(default=None, description="When that was so.")


class TaskQueueStatus(Model):
    """What the queue holds now."""

    observed_generation: Annotated[int, Field(ge=0)] = Field(
        default=0, description="The generation of the spec that this status speaks of."
    )
    waiting: Annotated[int, Field(ge=0)] = Field(default=0, description="Tasks that wait.")
    waiting_outside: Annotated[int, Field(ge=0)] | None = Field(
        default=None,
        description="Messages that wait at sources for this queue, as these said within the last 90 s. Absent: none.",
    )
    leased: Annotated[int, Field(ge=0)] = Field(default=0, description="Tasks that an agent holds.")
    dead_lettered: Annotated[int, Field(ge=0)] = Field(default=0, description="Dead letters.")
    accepting: bool = Field(
        default=True, description="Whether new Tasks are taken: the API server refuses them otherwise."
    )
    limits: Annotated[list[LimitLevel], Field(max_length=64)] = Field(
        default_factory=list,
        description="What is left of its rates and budgets, of up to 32: told anew where it is another than time alone "
        "makes of it, at most every 10 s.",
    )
    conditions: Annotated[list[Condition], Field(max_length=8)] = Field(
        default_factory=list,
        description="Ready, Reconciling, Stalled; Accepting: whether new Tasks are taken, and if not, why; Bottleneck: "
        "what holds most waiting time; Archived, of a queue with `archive`: whether Tasks wait for the archive.",
        json_schema_extra=as_map("type"),
    )


class TaskQueue(Model):
    """A TaskQueue is where Tasks wait. It says which pools serve them and what happens when an attempt fails."""

    kind: ClassVar[str] = "TaskQueue"
    plural: ClassVar[str] = "taskqueues"

    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    spec: TaskQueueSpec
    status: TaskQueueStatus = Field(default_factory=TaskQueueStatus, json_schema_extra={"default": {}})
