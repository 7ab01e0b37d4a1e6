"""The TaskSource kind: Tasks that are made of what comes in, or at set times, so that nobody has to create them.

A source is one of several kinds (`SOURCES`), each with a field of its own; all share the template that makes a Task of
what comes in, and what they say of themselves in status.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, ClassVar, Final

from pydantic import Field, StringConstraints

from taskdist.api.brokers import (
    KAFKA_NAME,
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
from taskdist.api.meta import AS_SET, Condition, Message, Model, ObjectMeta, SecretName, as_map
from taskdist.api.template import TaskTemplate
from taskdist.api.webhook import Webhook

# The fields of the spec of which exactly one is there.
SOURCES: Final = ("cron", "rabbitmq", "kafka", "sqs", "webhook")
# The most runs that are made up for.
MAX_CATCH_UP = 1000

_VALUE = "([0-9]{1,2}|JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC|SUN|MON|TUE|WED|THU|FRI|SAT)"
_ITEM = rf"(\*|{_VALUE}(-{_VALUE})?|L|LW|[0-7]L|{_VALUE}#[1-5])(/[1-9][0-9]?)?"
# The form of five fields; what is in their bounds, and ever comes, only a parser of schedules knows.
SCHEDULE_PATTERN = rf"(?i)^\s*{_ITEM}(,{_ITEM})*(\s+{_ITEM}(,{_ITEM})*){{4}}\s*$"
_ZONE = r"^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}$"


class OnMissed(StrEnum):
    """The policy for runs that were missed: skip them, make up for the last one, or for all."""

    SKIP = "Skip"
    ONE = "One"
    ALL = "All"


class SourceReason(StrEnum):
    """The reason of a source's conditions."""

    RUNNING = "Running"
    SUSPENDED = "Suspended"
    QUEUE_CLOSED = "QueueClosed"
    REFUSED = "Refused"
    FAILING = "Failing"
    INVALID_TEMPLATE = "InvalidTemplate"
    INVALID_SCHEDULE = "InvalidSchedule"
    NEVER_DUE = "NeverDue"
    CLOCK_BEHIND = "ClockBehind"
    SECRET_UNUSABLE = "SecretUnusable"
    BROKER_UNREACHABLE = "BrokerUnreachable"
    DEAD_LETTERS_REFUSED = "DeadLettersRefused"
    UNREADABLE = "Unreadable"


class Cron(Model):
    """A Task at set times."""

    schedule: Annotated[str, StringConstraints(min_length=9, max_length=256)] = Field(
        description="When, in the five fields of cron: minute, hour, day of the month, month, day of the week."
    )
    time_zone: Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=_ZONE)] = Field(
        default="UTC", description="The time zone of the schedule, by its name in the IANA database: Europe/Berlin."
    )
    starting_deadline_seconds: Annotated[int, Field(ge=1, le=86_400)] = Field(
        default=60, description="A run that cannot be made within so many seconds of its time counts as missed."
    )
    missed: OnMissed = Field(
        default=OnMissed.ONE,
        description="What becomes of missed runs: Skip (nothing), One (the latest is made up for, unless a later run "
        "is in time) or All (each is made up for).",
    )
    most_missed: Annotated[int, Field(ge=1, le=MAX_CATCH_UP)] = Field(
        default=100, description="With missed All: the latest so many; what is older is skipped."
    )


class RabbitMQ(Model):
    """A Task of each message of a RabbitMQ queue (AMQP 0-9-1)."""

    host: Host = Field(description="Name or address of the broker, such as rabbitmq.messaging.svc.")
    port: Port | None = Field(default=None, description="Its port. Absent: 5671 with TLS, 5672 without.")
    virtual_host: VirtualHost = Field(default="/", description="The virtual host in which the queue is.")
    queue: AmqpName = Field(
        description="The queue that is consumed. It is there already, and nobody else consumes it meanwhile."
    )
    tls: bool = Field(default=True, description="Whether the connection is encrypted, and the broker's name verified.")
    secret_name: SecretName = Field(
        description="A Secret of the source's namespace: username and password; with TLS also ca.crt (absent: the "
        "authorities of the system), and tls.crt and tls.key where the broker asks for a certificate."
    )
    prefetch: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=64, description="The most messages that are in hand: handed over by the broker, not acknowledged yet."
    )
    dead_letter_exchange: AmqpName = Field(
        description="The exchange to which messages are published of which no Task can be made. It is there already, "
        "and has a queue bound to it."
    )
    dead_letter_routing_key: RoutingKey | None = Field(
        default=None, description="The routing key that they then have. Absent: the name of the queue."
    )


class StartFrom(StrEnum):
    """The end of a topic at which a group begins that has read nothing yet."""

    EARLIEST = "Earliest"
    LATEST = "Latest"


class Kafka(Model):
    """A Task of each message of Kafka topics."""

    bootstrap: Bootstrap = Field(description="Brokers that are asked for all others, such as kafka.messaging.svc:9093.")
    topics: Annotated[list[Topic], Field(min_length=1, max_length=32)] = Field(
        description="The topics that are read. They are there already.", json_schema_extra=AS_SET
    )
    group: Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=KAFKA_NAME)] = Field(
        description="The consumer group whose offsets say what was read. Members of one group share its partitions: "
        "give each source its own."
    )
    start_from: StartFrom = Field(
        default=StartFrom.EARLIEST, description="Where it begins in partitions of which the group has no offset yet."
    )
    tls: bool = Field(default=True, description="Whether connections are encrypted, and the brokers' names verified.")
    sasl: Sasl | None = Field(default=None, description="How username and password are shown. Absent: none are.")
    secret_name: SecretName | None = Field(
        default=None,
        description="A Secret of the source's namespace: username and password with sasl; with TLS also ca.crt "
        "(absent: the authorities of the system), and tls.crt and tls.key where brokers ask for a certificate.",
    )
    prefetch: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=64, description="The most messages that are in hand: read, and not dealt with yet."
    )
    dead_letter_topic: Topic = Field(
        description="The topic to which messages are written of which no Task can be made. It is there already."
    )


class SQS(Model):
    """A Task of each message of a queue of Amazon SQS. A queue whose name ends in .fifo is kept in order by group."""

    queue_url: QueueUrl = Field(
        description="Address of the queue: https://sqs.eu-central-1.amazonaws.com/123456789012/orders."
    )
    region: Region = Field(description="The region that it is in, such as eu-central-1.")
    endpoint: Endpoint | None = Field(
        default=None,
        description="Where SQS is asked, such as an endpoint of a private network. Absent: the region's own.",
    )
    secret_name: SecretName | None = Field(
        default=None,
        description="A Secret of the source's namespace: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and "
        "AWS_SESSION_TOKEN where the key is a temporary one. Absent: the identity of the process that runs sources, "
        "where its settings let this namespace use it.",
    )
    prefetch: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=64, description="The most messages that are in hand: received, not deleted yet."
    )
    visibility_seconds: Annotated[int, Field(ge=10, le=3600)] = Field(
        default=60,
        description="For so long a message in hand is hidden from others; extended while it is. So late it comes again "
        "if the process dies.",
    )
    dead_letter_queue_url: QueueUrl | None = Field(
        default=None,
        description="The queue to which messages are sent of which no Task can be made. Absent: they are left to the "
        "redrive policy of the queue, which then has to have one.",
    )


class TaskSourceSpec(Model):
    """Spec of a source: what its Tasks are made of, and how. Exactly one kind of source is named."""

    suspend: bool = Field(
        default=False,
        description="Make no Tasks. Runs of cron meanwhile are skipped, not missed; messages stay in their queue.",
    )
    task: TaskTemplate = Field(description="How what comes in becomes a Task.")
    cron: Cron | None = Field(default=None, description="A Task at set times.")
    rabbitmq: RabbitMQ | None = Field(default=None, description="A Task of each message of a RabbitMQ queue.")
    kafka: Kafka | None = Field(default=None, description="A Task of each message of Kafka topics.")
    webhook: Webhook | None = Field(
        default=None, description="A Task of each signed delivery that is posted to the HTTP door."
    )
    sqs: SQS | None = Field(default=None, description="A Task of each message of a queue of Amazon SQS.")


class CronStatus(Model):
    """The runs of a cron source: the last one, the next one, and what was skipped."""

    last_scheduled_time: datetime | None = Field(default=None, description="The time of the last run that was made.")
    last_task: Annotated[str, Field(max_length=253)] = Field(default="", description="Name of its Task.")
    next_scheduled_time: datetime | None = Field(default=None, description="When the next run is due.")
    handled_until: datetime | None = Field(
        default=None, description="All runs up to this time were made or skipped; later ones are yet to be."
    )
    skipped: Annotated[int, Field(ge=0)] = Field(
        default=0, description="How many runs were skipped as missed: of the latest 1,000 at each time."
    )
    schedule: Annotated[str, Field(max_length=400)] = Field(
        default="", description="The schedule and time zone of which this speaks: with another one, runs count anew."
    )


class Backlog(Model):
    """The backlog of a source: messages that have no Task yet."""

    messages: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Messages: those that the broker holds ready, and those in hand."
    )
    oldest: datetime | None = Field(
        default=None, description="When the oldest of those in hand was published, where messages tell that."
    )
    at: datetime | None = Field(default=None, description="When this was so.")


class Rejected(Model):
    """The last message of which no Task could be made."""

    reason: Annotated[str, Field(max_length=63)] = Field(description="Why, in a word.")
    message: Message = Field(default="", description="Why, for people: the field and the path.")
    at: datetime | None = Field(default=None, description="When.")


class TaskSourceStatus(Model):
    """Status of a source: conditions, counts, last and next run. Only the process `taskdist sources` writes it."""

    observed_generation: Annotated[int, Field(ge=0)] = Field(
        default=0, description="The generation of the spec that this status speaks of."
    )
    created: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Tasks that were created, about: what was not written before a crash is not counted."
    )
    rejected: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Messages of which no Task could be made, about."
    )
    last_rejected: Rejected | None = Field(default=None, description="The last of them.")
    cron: CronStatus | None = Field(default=None, description="Of a cron source: its runs.")
    backlog: Backlog | None = Field(default=None, description="Of a broker's source: what waits there.")
    conditions: Annotated[list[Condition], Field(max_length=8)] = Field(
        default_factory=list,
        description="Ready: whether it makes Tasks now; Reconciling; Stalled: it needs a change.",
        json_schema_extra=as_map("type"),
    )


class TaskSource(Model):
    """A TaskSource makes Tasks of what comes in from elsewhere, or at set times."""

    kind: ClassVar[str] = "TaskSource"
    plural: ClassVar[str] = "tasksources"

    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    spec: TaskSourceSpec
    status: TaskSourceStatus = Field(default_factory=TaskSourceStatus, json_schema_extra={"default": {}})
