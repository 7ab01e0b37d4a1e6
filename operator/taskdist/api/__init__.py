"""The kinds as typed models: the source from which `crds/` is generated.

A room for shapes and words only: what may be written on a resource, in which bounds, and the enums that
status, events, metrics and the command share. Nothing here decides anything.
"""

from taskdist.api.agentpool import AgentPool, AgentPoolSpec, AgentPoolStatus, BreakerState, Scaling
from taskdist.api.attempts import AttemptRecord, Progress
from taskdist.api.brokers import Sasl
from taskdist.api.budgets import Budget, BudgetKind, BudgetUse
from taskdist.api.leasing import Delivery, Dispatch, Reclaim
from taskdist.api.meta import (
    CONDITION_STATUS,
    GROUP,
    LOG_PATH_ANNOTATION,
    POOL_LABEL,
    REMOVED_BY_ANNOTATION,
    TEMPLATE_LABEL,
    VERSION,
    Condition,
    LabelSelector,
    ObjectMeta,
    SelectorRequirement,
)
from taskdist.api.objects import ObjectRef
from taskdist.api.reasons import Phase, Reason, Unreadable
from taskdist.api.routes import Route, RouteMatch, RouteStep
from taskdist.api.strategies import Strategy
from taskdist.api.task import (
    OnDependencyFailure,
    Priority,
    Task,
    TaskSpec,
    TaskStatus,
)
from taskdist.api.taskqueue import (
    OnExhausted,
    OnHopeless,
    OnOverflow,
    OrderPolicy,
    Retry,
    TaskQueue,
    TaskQueueSpec,
    TaskQueueStatus,
)
from taskdist.api.tasksink import (
    Http,
    SinkReason,
    SinkRetry,
    SinkSelector,
    TaskSink,
    TaskSinkSpec,
    TaskSinkStatus,
)
from taskdist.api.tasksource import (
    SQS,
    Cron,
    Kafka,
    OnMissed,
    RabbitMQ,
    SourceReason,
    StartFrom,
    TaskSource,
    TaskSourceSpec,
    TaskSourceStatus,
)
from taskdist.api.template import TaskTemplate
from taskdist.api.webhook import DeliveryFormat, Signature, SignatureAlgorithm, SignatureEncoding, Webhook

__all__ = [
    "CONDITION_STATUS",
    "GROUP",
    "LOG_PATH_ANNOTATION",
    "POOL_LABEL",
    "REMOVED_BY_ANNOTATION",
    "SQS",
    "TEMPLATE_LABEL",
    "VERSION",
    "AgentPool",
    "AgentPoolSpec",
    "AgentPoolStatus",
    "AttemptRecord",
    "BreakerState",
    "Budget",
    "BudgetKind",
    "BudgetUse",
    "Condition",
    "Cron",
    "Delivery",
    "DeliveryFormat",
    "Dispatch",
    "Http",
    "Kafka",
    "LabelSelector",
    "ObjectMeta",
    "ObjectRef",
    "OnDependencyFailure",
    "OnExhausted",
    "OnHopeless",
    "OnMissed",
    "OnOverflow",
    "OrderPolicy",
    "Phase",
    "Priority",
    "Progress",
    "RabbitMQ",
    "Reason",
    "Reclaim",
    "Retry",
    "Route",
    "RouteMatch",
    "RouteStep",
    "Sasl",
    "Scaling",
    "SelectorRequirement",
    "Signature",
    "SignatureAlgorithm",
    "SignatureEncoding",
    "SinkReason",
    "SinkRetry",
    "SinkSelector",
    "SourceReason",
    "StartFrom",
    "Strategy",
    "Task",
    "TaskQueue",
    "TaskQueueSpec",
    "TaskQueueStatus",
    "TaskSink",
    "TaskSinkSpec",
    "TaskSinkStatus",
    "TaskSource",
    "TaskSourceSpec",
    "TaskSourceStatus",
    "TaskSpec",
    "TaskStatus",
    "TaskTemplate",
    "Unreadable",
    "Webhook",
]
