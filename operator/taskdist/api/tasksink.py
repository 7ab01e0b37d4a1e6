"""The TaskSink kind: where the ends of Tasks are told, and how.

A sink is one of several kinds (`TARGETS`), each with a field of its own; all share what is told, in which order, and
when it is given up.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field, StringConstraints

from taskdist.api.brokers import (
    AmqpName,
    Bootstrap,
    Endpoint,
    Host,
    Port,
    QueueUrl,
    Region,
    RoutingKey,
    Sasl,
    Topic,
    VirtualHost,
)
from taskdist.api.meta import (
    AS_SET,
    Condition,
    LabelSelector,
    Message,
    Model,
    Name,
    ObjectMeta,
    SecretName,
    Word,
    as_map,
)
from taskdist.api.template import Template

# The fields of the spec of which exactly one is there.
TARGETS: Final = ("http", "rabbitmq", "kafka", "sqs")
# The longest result that a Task has, in bytes.
MAX_RESULT_BYTES: Final = 65_536

# With a host, and without a name or password in it; no spaces and no fragment.
URL_PATTERN = r"^https?://[^\s/?#@]+([/?][^\s#]*)?$"
# A name of a header: a token of HTTP.
_HEADER = r"^[-!#$%&'*+.^_`|~A-Za-z0-9]+$"
# What a header may hold: no line ends, and no spaces around it.
_HEADER_VALUE = r"^[!-~]([ -~]*[!-~])?$"
# Headers that are the request's own, in lower case.
RESERVED_HEADERS: Final = (
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "host",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
)

EndPhase = Literal["Succeeded", "Failed", "Cancelled", "DeadLettered"]


class SinkReason(StrEnum):
    """Why a sink is as it is: the reasons of its conditions."""

    DELIVERING = "Delivering"
    SUSPENDED = "Suspended"
    RETRYING = "Retrying"
    RECEIVER_GONE = "ReceiverGone"
    ADDRESS_REFUSED = "AddressRefused"
    INVALID_TEMPLATE = "InvalidTemplate"
    SECRET_UNUSABLE = "SecretUnusable"
    BROKER_UNREACHABLE = "BrokerUnreachable"
    FAILING = "Failing"
    UNREADABLE = "Unreadable"


class SinkSelector(Model):
    """Which Tasks' ends are told: those that meet all that is named here. Nothing named: all of the namespace."""

    queues: Annotated[list[Name], Field(max_length=64)] = Field(
        default_factory=list, description="Queues of the Tasks. Empty: all.", json_schema_extra=AS_SET
    )
    types: Annotated[list[Word], Field(max_length=64)] = Field(
        default_factory=list, description="Types of the Tasks. Empty: all.", json_schema_extra=AS_SET
    )
    phases: Annotated[list[EndPhase], Field(max_length=4)] = Field(
        default_factory=list, description="How they ended. Empty: however.", json_schema_extra=AS_SET
    )
    labels: LabelSelector | None = Field(
        default=None, description="Labels that the Tasks carry as they end. Absent: whichever."
    )


class SinkRetry(Model):
    """When an end that could not be told is told again, and when it is given up."""

    initial_seconds: Annotated[float, Field(ge=0.1, le=3600)] = Field(
        default=1, description="Wait before the second try, in seconds; it doubles with each."
    )
    max_seconds: Annotated[float, Field(ge=0.1, le=86_400)] = Field(
        default=300, description="The longest wait between two tries, in seconds."
    )
    max_attempts: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=12,
        description="After so many tries an end is given up, if the receiver took another one meanwhile: one that "
        "takes nothing at all is waited for.",
    )
    give_up_seconds: Annotated[int, Field(ge=1, le=2_592_000)] = Field(
        default=86_400, description="So long after its first try an end is given up in any case, in seconds."
    )


class Http(Model):
    """The ends of Tasks as requests: POST, one CloudEvent each, as JSON (structured mode)."""

    url: Annotated[str, StringConstraints(min_length=8, max_length=2048, pattern=URL_PATTERN)] = Field(
        description="Where they are posted. https, unless whoever runs taskdist allows the host; redirects are not "
        "followed."
    )
    secret_name: SecretName | None = Field(
        default=None,
        description="A Secret of the sink's namespace: secret signs requests as Standard Webhooks say (base64, after "
        "whsec_); token is sent as Authorization: Bearer; ca.crt verifies the receiver instead of the authorities of "
        "the system; tls.crt and tls.key are shown to a receiver that asks for a certificate. Each may be absent.",
    )
    headers: Annotated[
        dict[
            Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=_HEADER)],
            Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=_HEADER_VALUE)],
        ],
        Field(max_length=16),
    ] = Field(
        default_factory=dict,
        description="Further headers. Nothing secret: they stand in the sink. Those that are the request's own (Host, "
        "Authorization and the like) are left out.",
    )
    timeout_seconds: Annotated[int, Field(ge=1, le=60)] = Field(
        default=10, description="How long an answer may take, from the name's look-up to the answer's head."
    )


class RabbitMQTarget(Model):
    """The ends of Tasks as messages to an exchange of RabbitMQ (AMQP 0-9-1), confirmed and kept on disk."""

    host: Host = Field(description="Name or address of the broker, such as rabbitmq.messaging.svc.")
    port: Port | None = Field(default=None, description="Its port. Absent: 5671 with TLS, 5672 without.")
    virtual_host: VirtualHost = Field(default="/", description="The virtual host in which the exchange is.")
    exchange: AmqpName = Field(
        description="The exchange that they are published to. It is there already, and a queue is bound to it: a "
        "message that reaches none counts as not told."
    )
    routing_key: RoutingKey | None = Field(
        default=None,
        description="Their routing key. Absent: the Task's queue, a dot and how it ended, such as orders.succeeded.",
    )
    tls: bool = Field(default=True, description="Whether the connection is encrypted, and the broker's name verified.")
    secret_name: SecretName = Field(
        description="A Secret of the sink's namespace: username and password; with TLS also ca.crt (absent: the "
        "authorities of the system), and tls.crt and tls.key where the broker asks for a certificate."
    )


class KafkaTarget(Model):
    """The ends of Tasks as messages to a topic of Kafka, acknowledged by all replicas in sync."""

    bootstrap: Bootstrap = Field(description="Brokers that are asked for all others, such as kafka.messaging.svc:9093.")
    topic: Topic = Field(
        description="The topic that they are written to, with the order key as their key. It is there already."
    )
    tls: bool = Field(default=True, description="Whether connections are encrypted, and the brokers' names verified.")
    sasl: Sasl | None = Field(default=None, description="How username and password are shown. Absent: none are.")
    secret_name: SecretName | None = Field(
        default=None,
        description="A Secret of the sink's namespace: username and password with sasl; with TLS also ca.crt "
        "(absent: the authorities of the system), and tls.crt and tls.key where brokers ask for a certificate.",
    )


class SqsTarget(Model):
    """The ends of Tasks as messages to a queue of Amazon SQS. One whose name ends in .fifo keeps the order of keys."""

    queue_url: QueueUrl = Field(
        description="Address of the queue: https://sqs.eu-central-1.amazonaws.com/123456789012/ended.fifo. It is there "
        "already."
    )
    region: Region = Field(description="The region that it is in, such as eu-central-1.")
    endpoint: Endpoint | None = Field(
        default=None,
        description="Where SQS is asked, such as an endpoint of a private network. Absent: the region's own.",
    )
    secret_name: SecretName | None = Field(
        default=None,
        description="A Secret of the sink's namespace: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and "
        "AWS_SESSION_TOKEN where the key is a temporary one. Absent: the identity of the process that runs sinks, "
        "where its settings let this namespace use it.",
    )


class TaskSinkSpec(Model):
    """Which ends are told, and where. Exactly one kind of target is named."""

    suspend: bool = Field(
        default=False,
        description="Tell nothing. What ends meanwhile is told later, as far as its Task is there still.",
    )
    selector: SinkSelector = Field(
        default_factory=SinkSelector, description="Which Tasks' ends are told.", json_schema_extra={"default": {}}
    )
    key: Template | None = Field(
        default=None,
        description="Of the ends with one key, each is told only once the one before it is told or given up. Paths "
        "look into the event: {$.data.tenant}. Absent: the Task's queue and orderingKey; a Task without one stands by "
        "itself.",
    )
    max_result_bytes: Annotated[int, Field(ge=0, le=MAX_RESULT_BYTES)] = Field(
        default=MAX_RESULT_BYTES,
        description="A result that is longer, as JSON, is left out, and data.resultOmitted is true. 0: none is told.",
    )
    in_flight: Annotated[int, Field(ge=1, le=256)] = Field(
        default=16, description="How many ends are on their way at once, of different keys."
    )
    retry: SinkRetry = Field(
        default_factory=SinkRetry,
        description="What happens to ends that could not be told.",
        json_schema_extra={"default": {}},
    )
    hold_seconds: Annotated[int, Field(ge=0, le=2_592_000)] = Field(
        default=0,
        description="How much longer than its time to live an ended Task of the selected queues is kept, at most, as "
        "long as this sink has not told it. 0: it is deleted when its time is over, told or not.",
    )
    http: Http | None = Field(default=None, description="Tell them to a URL.")
    rabbitmq: RabbitMQTarget | None = Field(default=None, description="Tell them to an exchange of RabbitMQ.")
    kafka: KafkaTarget | None = Field(default=None, description="Tell them to a topic of Kafka.")
    sqs: SqsTarget | None = Field(default=None, description="Tell them to a queue of Amazon SQS.")


class Undelivered(Model):
    """The last end that was given up."""

    id: Annotated[str, Field(max_length=128)] = Field(default="", description="The event's id.")
    task: Annotated[str, Field(max_length=253)] = Field(default="", description="Name of the Task.")
    message: Message = Field(default="", description="Why: what the last try met.")
    at: datetime | None = Field(default=None, description="When it was given up.")


class TaskSinkStatus(Model):
    """Status of a sink: up to where all is told, counts, conditions. Only the process `taskdist sinks` writes it."""

    observed_generation: Annotated[int, Field(ge=0)] = Field(
        default=0, description="The generation of the spec that this status speaks of."
    )
    position: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="All selected ends up to this resourceVersion were told or given up. 0: none is known to be.",
    )
    delivered: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Ends that were told, about: what was not written before a crash is not counted."
    )
    undelivered: Annotated[int, Field(ge=0)] = Field(default=0, description="Ends that were given up, about.")
    lost: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="Ends whose Task was deleted before they were told, about. One that was deleted while no process "
        "ran is not known, and not counted.",
    )
    last_undelivered: Undelivered | None = Field(default=None, description="The last end that was given up.")
    pending: Annotated[int, Field(ge=0)] = Field(default=0, description="Ends that are read and not told yet.")
    oldest: datetime | None = Field(default=None, description="When the first of them ended.")
    conditions: Annotated[list[Condition], Field(max_length=8)] = Field(
        default_factory=list,
        description="Ready: whether ends are told now; Reconciling; Stalled: it needs a change.",
        json_schema_extra=as_map("type"),
    )


class TaskSink(Model):
    """A TaskSink tells the ends of Tasks, as CloudEvents: at least once, and in the order of a key."""

    kind: ClassVar[str] = "TaskSink"
    plural: ClassVar[str] = "tasksinks"

    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    spec: TaskSinkSpec
    status: TaskSinkStatus = Field(default_factory=TaskSinkStatus, json_schema_extra={"default": {}})
