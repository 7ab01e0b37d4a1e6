"""Rules on TaskSources: what the process that runs them could never use, and what their Tasks would miss."""

import re
from collections.abc import Iterator
from difflib import get_close_matches

from taskdist.api import DeliveryFormat
from taskdist.api.rules import (
    DEAD_LETTERS_READ,
    DEAD_LETTERS_RECEIVED,
    OTHER_REGION,
    SASL_WITHOUT_SECRET,
    source_rules,
)
from taskdist.api.tasksource import SCHEDULE_PATTERN, SOURCES
from taskdist.api.template import TEMPLATE_PATTERN
from taskdist.intake.mapping import MappingError, compile_mapping
from taskdist.intake.schedule import ScheduleError, parse_schedule
from taskdist.intake.signatures import compile_signature, unsigned
from taskdist.intake.templates import TemplateError, parse
from taskdist.lint.findings import Flaw, Mend, Obj, Severity, patch, rule
from taskdist.lint.setup import Setup, SourceDoc

# For so long a message may come again after its Task was made: brokers and crashes are slow, at the worst.
REMEMBERED_SECONDS = 600
# After what hid a message has ended, it is received and its Task tried once more.
MARGIN_SECONDS = 60

_TEMPLATE = re.compile(TEMPLATE_PATTERN)
_SCHEDULE = re.compile(SCHEDULE_PATTERN)
# Hosts to which nothing goes over a network.
_HERE = ("localhost", "127.0.0.1", "::1")
# The region in an address of AWS's own.
_IN_CLEAR = re.compile(r"http://(\[[^]]*\]|[^:/]*)")
_REGION = re.compile(r"https://sqs\.([a-z0-9-]+)\.amazonaws\.com[/.]")


def host_in_clear(endpoint: str) -> str | None:
    """Return the host of an endpoint that is asked unencrypted; None where it is encrypted.

    A URL as the API server takes it need not be one that is understood: its brackets may be anywhere.
    """
    there = _IN_CLEAR.match(endpoint)
    return None if there is None else there[1].strip("[]")


def region_of(queue_url: str) -> str | None:
    """Return the region in the address of a queue of SQS; None where it is not one of AWS's own."""
    there = _REGION.match(queue_url)
    return None if there is None else there[1]


@rule(Severity.ERROR)
def source_refused(setup: Setup) -> Iterator[Flaw]:
    """A source that contradicts itself, or has braces without a path.

    The API server refuses it: exactly one kind of source, one deadline, a schedule of five fields, a Secret where Kafka
    asks for a password, dead letters elsewhere than where messages are read, the region of an SQS queue as in its
    address, what tells signed JSON apart, and in braces a path such as `$.order.id`.
    """
    for source in setup.sources.values():
        spec, at = source.spec, source.manifest
        if sum(getattr(spec, name) is not None for name in SOURCES) != 1:
            yield Flaw(at, "spec", source_rules()[1]["message"].removeprefix("spec "), Mend("Name one source."))
        if spec.task.deadline is not None and spec.task.deadline_seconds is not None:
            mend = Mend("Leave one out.", patch("spec.task.deadlineSeconds", None))
            yield Flaw(at, "spec.task.deadlineSeconds", "deadline says the deadline too", mend)
        if spec.cron is not None and not _SCHEDULE.fullmatch(spec.cron.schedule):
            yield Flaw(
                at, "spec.cron.schedule", "it has not the five fields of cron", Mend("Write one such as 0 3 * * *.")
            )
        if (kafka := spec.kafka) is not None:
            if kafka.sasl is not None and kafka.secret_name is None:
                yield Flaw(at, "spec.kafka.secretName", *_split(SASL_WITHOUT_SECRET))
            if kafka.dead_letter_topic in kafka.topics:
                yield Flaw(at, "spec.kafka.deadLetterTopic", *_split(DEAD_LETTERS_READ))
        if _nameless(source):
            mend = Mend("Name what tells them apart.", patch("spec.task.identity", "{hash}"))
            yield Flaw(at, "spec.task.identity", "nothing tells one delivery from another", mend)
        if (sqs := spec.sqs) is not None:
            there = region_of(sqs.queue_url)
            if there is not None and there != sqs.region:
                yield Flaw(at, "spec.sqs.region", *_split(OTHER_REGION, patch("spec.sqs.region", there)))
            if sqs.dead_letter_queue_url == sqs.queue_url:
                yield Flaw(at, "spec.sqs.deadLetterQueueUrl", *_split(DEAD_LETTERS_RECEIVED))
        for path, text in _texts(source):
            if not _TEMPLATE.fullmatch(text):
                yield Flaw(at, path, _no_path(text), Mend("Write a path in the braces, or each brace twice."))


@rule(Severity.ERROR)
def source_unusable(setup: Setup) -> Iterator[Flaw]:
    """A source that is taken and yet can never make a Task.

    Its status will say so (Stalled): a time zone that does not exist, a level that is none, a payload whose braces hold
    no path.
    """
    for source in setup.sources.values():
        spec, at = source.spec, source.manifest
        if spec.cron is not None and _SCHEDULE.fullmatch(spec.cron.schedule):
            try:
                parse_schedule(spec.cron)
            except ScheduleError as error:
                yield Flaw(at, f"spec.cron.{error.field}", str(error), Mend("Write one that is."))
        if any(not _TEMPLATE.fullmatch(text) for _, text in _texts(source)):
            continue
        try:
            compile_mapping(spec.task)
            if spec.webhook is not None:
                compile_signature(spec.webhook)
        except MappingError as error:
            if error.field != "spec.task.deadlineSeconds":
                yield Flaw(at, error.field, error.why, Mend("Write what the field takes."))


@rule(Severity.ERROR)
def source_queue_not_found(setup: Setup) -> Iterator[Flaw]:
    """A source's queue is not there.

    Its Tasks are made all the same, and wait (QueueNotFound) until there is such a queue.
    """
    for (namespace, _), source in setup.sources.items():
        name, known = _queue(source), setup.names("TaskQueue", namespace)
        if name is None or name in known:
            continue
        near = get_close_matches(name, known, 1)
        sure = setup.whole or bool(known)
        yield Flaw(
            source.manifest,
            "spec.task.queue",
            f"there is no TaskQueue {name}" + ("" if sure else " in the set; it may be in the cluster"),
            Mend(f"Did you mean {near[0]}?", patch("spec.task.queue", near[0]))
            if near
            else Mend("Create the queue, or name another one."),
            None if sure else Severity.WARNING,
        )


@rule(Severity.WARNING)
def source_forgets(setup: Setup) -> Iterator[Flaw]:
    """Ended Tasks of a source that are deleted so soon that a message may come again after them.

    Which messages were taken is known by their Tasks: once one is deleted, the same message makes another. A message
    comes again where a process died before it could say that it had it.
    """
    for (namespace, _), source in setup.sources.items():
        queue = setup.queues.get((namespace, _queue(source) or ""))
        ttl = queue.spec.ttl_seconds_after_finished if queue is not None else None
        webhook, sqs = source.spec.webhook, source.spec.sqs
        needed = max(
            REMEMBERED_SECONDS,
            webhook.tolerance_seconds if webhook is not None else 0,
            sqs.visibility_seconds + MARGIN_SECONDS if sqs is not None else 0,
        )
        if queue is not None and ttl is not None and ttl < needed:
            yield Flaw(
                source.manifest,
                "spec.task.queue",
                f"its queue deletes ended Tasks after {ttl} s: a message that comes again later is another Task",
                Mend(
                    "Keep them longer.",
                    patch("spec.ttlSecondsAfterFinished", max(3600, needed)),
                    on=queue.manifest,
                ),
            )


@rule(Severity.WARNING)
def source_in_clear(setup: Setup) -> Iterator[Flaw]:
    """A source that sends its password to the broker unencrypted, or whose port does not fit what it says of TLS.

    RabbitMQ takes unencrypted connections at 5672 and encrypted ones at 5671; at the other one no connection comes
    about. Kafka has no such ports. SQS is told nothing secret, but messages are read on the way.
    """
    for source in setup.sources.values():
        rabbitmq, kafka, sqs, at = source.spec.rabbitmq, source.spec.kafka, source.spec.sqs, source.manifest
        if kafka is not None and not kafka.tls and not all(_is_here(each) for each in kafka.bootstrap):
            mend = Mend("Encrypt it.", patch("spec.kafka.tls", True))
            what = "messages go" if kafka.sasl is None else "password and messages go"
            yield Flaw(at, "spec.kafka.tls", f"{what} over the network unencrypted", mend)
        endpoint = (sqs.endpoint if sqs is not None else None) or ""
        if (host := host_in_clear(endpoint)) is not None and host not in _HERE:
            mend = Mend("Encrypt it.", patch("spec.sqs.endpoint", f"https{endpoint.removeprefix('http')}"))
            yield Flaw(at, "spec.sqs.endpoint", "messages go over the network unencrypted", mend)
        if rabbitmq is None:
            continue
        if rabbitmq.port == (5672 if rabbitmq.tls else 5671):
            mend = Mend("Leave the port out.", patch("spec.rabbitmq.port", None))
            said = "takes unencrypted connections only" if rabbitmq.tls else "takes encrypted connections only"
            yield Flaw(
                at, "spec.rabbitmq.port", f"{rabbitmq.port} {said}, and tls is {str(rabbitmq.tls).lower()}", mend
            )
        elif not rabbitmq.tls and rabbitmq.host not in _HERE:
            mend = Mend("Encrypt it.", patch("spec.rabbitmq.tls", True))
            yield Flaw(at, "spec.rabbitmq.tls", "password and messages go over the network unencrypted", mend)


@rule(Severity.WARNING)
def source_replayable(setup: Setup) -> Iterator[Flaw]:
    """A webhook that tells deliveries apart by a header that is not signed.

    Whoever got hold of one delivery could send it again under another name, and each time a Task would be made of it.
    """
    for source in setup.sources.values():
        webhook, identity = source.spec.webhook, source.spec.task.identity
        if webhook is None or webhook.format is not DeliveryFormat.JSON or identity is None:
            continue
        try:
            loose = unsigned(parse(identity), compile_signature(webhook).content)
        except (TemplateError, MappingError):
            continue  # told by others
        if loose:
            mend = Mend("Tell them apart by their bodies.", patch("spec.task.identity", "{hash}"))
            yield Flaw(source.manifest, "spec.task.identity", f"{loose} is no part of what is signed", mend)


def _is_here(bootstrap: str) -> bool:
    return bootstrap.rpartition(":")[0].strip("[]") in _HERE


def _split(message: str, change: Obj | None = None) -> tuple[str, Mend]:
    """Split a message of the API server into what is wrong and what to do."""
    wrong, _, mend = message.rpartition(": ")
    return wrong, Mend(mend[0].upper() + mend[1:] + ".", change)


def _nameless(source: SourceDoc) -> bool:
    """Say whether nothing tells one delivery of a webhook from another."""
    webhook = source.spec.webhook
    return (
        webhook is not None
        and webhook.format is DeliveryFormat.JSON
        and webhook.signature is not None
        and source.spec.task.identity is None
    )


def _texts(source: SourceDoc) -> Iterator[tuple[str, str]]:
    """Yield the templates whose form the API server judges, with their paths."""
    fields = source.spec.task.to_wire()
    for name, text in fields.items():
        if isinstance(text, str):
            yield f"spec.task.{name}", text
    for name, text in fields.get("labels", {}).items():
        yield f"spec.task.labels.{name}", text
    signature = source.spec.webhook.signature if source.spec.webhook is not None else None
    if signature is not None:
        yield "spec.webhook.signature.content", signature.content
        if signature.timestamp is not None:
            yield "spec.webhook.signature.timestamp", signature.timestamp


def _no_path(text: str) -> str:
    try:
        parse(text)
    except TemplateError as error:
        return str(error)
    raise AssertionError("what the pattern refuses is refused")


def _queue(source: SourceDoc) -> str | None:
    """Return the queue of all its Tasks, if they have one."""
    text = source.spec.task.queue
    return parse(text).constant if _TEMPLATE.fullmatch(text) else None


WRITTEN = (source_refused,)
RULES = (source_unusable, source_queue_not_found, source_forgets, source_in_clear, source_replayable)
