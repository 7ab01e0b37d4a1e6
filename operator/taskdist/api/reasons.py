"""Phases and reasons: one vocabulary for status, events, metrics, logs and the command."""

from enum import StrEnum


class Phase(StrEnum):
    """Where a Task stands. The last three are terminal: they never change again.

    A dead letter is not over: it is kept for a person to look at, and waits again if redriven.
    """

    PENDING = "Pending"
    ASSIGNED = "Assigned"
    DEAD_LETTERED = "DeadLettered"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"

    @property
    def terminal(self) -> bool:
        return self in (Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED)

    @property
    def settled(self) -> bool:
        """Nothing more comes of the Task by itself: it has ended, or is a dead letter until somebody redrives it."""
        return self.terminal or self is Phase.DEAD_LETTERED


class Reason(StrEnum):
    """Why a Task waits, why an attempt ended, why a Task ended, why a pool changes its size."""

    # Why a Task waits.
    QUEUED = "Queued"  # it may run: others are before it, or every capable agent is busy
    QUEUE_NOT_FOUND = "QueueNotFound"
    QUEUE_PAUSED = "QueuePaused"
    POOL_NOT_FOUND = "PoolNotFound"
    SUSPENDED = "Suspended"
    BACKING_OFF = "BackingOff"
    THROTTLED = "Throttled"  # its handler asked for a later try: what it needs takes no more for now
    RECOVERING = "Recovering"  # a former leader's lease may still run
    NO_AGENT = "NoAgent"  # no pool that may serve it has an agent ready
    NO_HANDLER = "NoHandler"  # no agent handles its type
    SKILL_MISSING = "SkillMissing"
    LABELS_MISMATCH = "LabelsMismatch"
    ZONE_MISMATCH = "ZoneMismatch"
    REGION_MISMATCH = "RegionMismatch"
    TOO_EXPENSIVE = "TooExpensive"  # every pool costs more than the Task allows
    QUALITY_TOO_LOW = "QualityTooLow"
    AFFINITY_WAIT = "AffinityWait"  # it waits for an agent that it prefers, and after a while for any
    TOO_LARGE = "TooLarge"  # more slots or resources than any agent has in all
    OBJECT_STORE_MISSING = "ObjectStoreMissing"  # its payload is in a store, and no agent has one
    UNFENCED = "Unfenced"  # only agents that cannot be fenced, in a queue that forbids overlap
    NO_FREE_SLOTS = "NoFreeSlots"
    SCHEDULED = "Scheduled"  # its notBefore is yet to come
    DEPENDENCY = "Dependency"  # Tasks it depends on have not ended
    DEPENDENCY_NOT_FOUND = "DependencyNotFound"
    DEPENDENCY_CYCLE = "DependencyCycle"
    OUT_OF_TURN = "OutOfTurn"  # an earlier Task of its ordering key has not ended
    KEY_IN_USE = "KeyInUse"  # its concurrency key is held as often as the queue allows
    QUOTA_EXCEEDED = "QuotaExceeded"
    RATE_LIMITED = "RateLimited"
    TENANT_NOT_ALLOWED = "TenantNotAllowed"  # its tenant may not use the level Emergency in this queue
    AGENT_HELD = "AgentHeld"  # the free agents are held for a larger Task
    AGENT_NOT_FOUND = "AgentNotFound"  # the one agent that may run it is not there
    BUDGET_SHORT = "BudgetShort"  # less is left of a shared budget than it takes
    BUDGET_NOT_FOUND = "BudgetNotFound"
    BREAKER_OPEN = "BreakerOpen"  # the agents that could take it fail, and are held by their circuit breakers
    SLOW_START = "SlowStart"  # the agents with free slots are new, and get more as time goes

    # Why an attempt ended without a result.
    HANDLER_ERROR = "HandlerError"
    HANDLER_CRASHED = "HandlerCrashed"
    UNKNOWN_TYPE = "UnknownType"
    INVALID_PAYLOAD = "InvalidPayload"
    OBJECT_UNAVAILABLE = "ObjectUnavailable"  # the store gave no answer, or refused the agent
    OBJECT_NOT_FOUND = "ObjectNotFound"  # the store has no such object (any more)
    OBJECT_MISMATCH = "ObjectMismatch"  # it is not what the reference says: its size or hash differs
    OBJECT_REFUSED = "ObjectRefused"  # the reference names what the agent may not read, or is too large for it
    LEASE_EXPIRED = "LeaseExpired"
    AGENT_LOST = "AgentLost"
    GIVEN_BACK = "GivenBack"  # a draining agent returned it; not counted as a failure

    # Why a Task ended.
    COMPLETED = "Completed"
    RETRIES_EXHAUSTED = "RetriesExhausted"
    PAYLOAD_TOO_LARGE = "PayloadTooLarge"
    PAYLOAD_TOO_DEEP = "PayloadTooDeep"  # nested in more levels than are read
    INVALID_SPEC = "InvalidSpec"  # its spec holds what no release can read
    RESULT_TOO_LARGE = "ResultTooLarge"
    RESULT_REFUSED = "ResultRefused"
    POISONED = "Poisoned"  # too many agents died while they ran it
    EXECUTION_TIMED_OUT = "ExecutionTimedOut"
    PROGRESS_TIMED_OUT = "ProgressTimedOut"
    WAITED_TOO_LONG = "WaitedTooLong"
    DEADLINE_HOPELESS = "DeadlineHopeless"  # it could not be met any more
    DEPENDENCY_FAILED = "DependencyFailed"
    SKIPPED = "Skipped"  # a Task it depends on failed, and it is to be skipped then
    DUPLICATE = "Duplicate"
    QUEUE_FULL = "QueueFull"
    DEAD_LETTERED = "DeadLettered"
    REDRIVEN = "Redriven"
    CANCELLED = "Cancelled"

    # Why a Task was given to an agent.
    ASSIGNED = "Assigned"

    # Why a pool has the size it has.
    FIXED_SIZE = "FixedSize"
    WORK_WAITING = "WorkWaiting"
    IDLE = "Idle"
    AT_MINIMUM = "AtMinimum"
    AT_MAXIMUM = "AtMaximum"

    # Conditions of queues and pools.
    ACCEPTED = "Accepted"
    INVALID_TEMPLATE = "InvalidTemplate"
    FORBIDDEN_NAMESPACE = "ForbiddenNamespace"
    PROGRESSING = "Progressing"
    AGENTS_READY = "AgentsReady"
    CREATE_REFUSED = "CreateRefused"
    LEASE_TOO_SHORT = "LeaseTooShort"  # a change of leader takes longer than the queue's leaseSeconds allow
    NAME_TAKEN = "NameTaken"  # of a pod that the pool would make
    PODS_FAILING = "PodsFailing"  # pods of the pool do not come up
    NO_BOTTLENECK = "NoBottleneck"  # nothing holds Tasks for long
    BREAKER_CLOSED = "BreakerClosed"
    ARCHIVE_CURRENT = "ArchiveCurrent"  # no Task that is over its time waits for the archive
    ARCHIVE_BEHIND = "ArchiveBehind"  # some have waited for it for a while, and are not deleted
    NAMESPACE_TAKEN = "NamespaceTaken"  # another installation serves it
    EPOCH_RAISED = "EpochRaised"  # agents had seen a later leadership than the present one
    UNKNOWN_VALUE = "UnknownValue"  # set aside: it holds a word that this release does not know
    UNREADABLE = "Unreadable"  # set aside: it holds what this release cannot read


class Unreadable(ValueError):
    """An object that this release cannot read: `reason` for machines, the text names the field for people.

    It is set aside: whoever meets one leaves it as it is, says so, and goes on with all others.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


# Why an attempt can fail such that another may be tried: what a queue can name as retryable.
FAILURES = (
    Reason.HANDLER_ERROR,
    Reason.HANDLER_CRASHED,
    Reason.UNKNOWN_TYPE,
    Reason.OBJECT_UNAVAILABLE,
    Reason.LEASE_EXPIRED,
    Reason.AGENT_LOST,
    Reason.EXECUTION_TIMED_OUT,
    Reason.PROGRESS_TIMED_OUT,
)
