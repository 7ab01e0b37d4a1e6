"""Rules on TaskSinks: what the process that runs them could never use, and what they would not tell."""

from collections.abc import Iterator
from difflib import get_close_matches

from taskdist.api.rules import OTHER_REGION, SASL_WITHOUT_SECRET, sink_rules
from taskdist.api.tasksink import RESERVED_HEADERS, TARGETS
from taskdist.lint.findings import Flaw, Mend, Severity, patch, rule
from taskdist.lint.setup import Setup
from taskdist.lint.sources import host_in_clear, region_of
from taskdist.outgoing.ends import InvalidKey, key_template

# So long a receiver, or the process that tells it, may be away at an ordinary upgrade, in seconds.
AWAY_SECONDS = 600


@rule(Severity.ERROR)
def sink_refused(setup: Setup) -> Iterator[Flaw]:
    """A sink that contradicts itself.

    The API server refuses it: exactly one target, waits that do not begin above their bound, a Secret where Kafka
    asks for a password, and the region of an SQS queue as in its address.
    """
    for sink in setup.sinks.values():
        spec, at = sink.spec, sink.manifest
        if sum(getattr(spec, name) is not None for name in TARGETS) != 1:
            yield Flaw(at, "spec", sink_rules()[0]["message"].removeprefix("spec "), Mend("Name one target."))
        if spec.retry.initial_seconds > spec.retry.max_seconds:
            mend = Mend("Raise the bound.", patch("spec.retry.maxSeconds", spec.retry.initial_seconds))
            yield Flaw(at, "spec.retry.initialSeconds", "it is more than maxSeconds", mend)
        if spec.kafka is not None and spec.kafka.sasl is not None and spec.kafka.secret_name is None:
            wrong, _, said = SASL_WITHOUT_SECRET.rpartition(": ")
            yield Flaw(at, "spec.kafka.secretName", wrong, Mend(said[0].upper() + said[1:] + "."))
        if spec.sqs is not None and (there := region_of(spec.sqs.queue_url)) not in (None, spec.sqs.region):
            wrong, _, said = OTHER_REGION.rpartition(": ")
            mend = Mend(said[0].upper() + said[1:] + ".", patch("spec.sqs.region", there))
            yield Flaw(at, "spec.sqs.region", wrong, mend)


@rule(Severity.ERROR)
def sink_unusable(setup: Setup) -> Iterator[Flaw]:
    """A sink whose key is no template over events.

    The API server or the sink's status says so: braces without a path, or a path elsewhere than into the event.
    """
    for sink in setup.sinks.values():
        if sink.spec.key is None:
            continue
        try:
            key_template(sink.spec.key)
        except InvalidKey as error:
            yield Flaw(sink.manifest, "spec.key", str(error), Mend("Write a path such as {$.data.tenant}."))


@rule(Severity.WARNING)
def sink_queue_not_found(setup: Setup) -> Iterator[Flaw]:
    """A sink selects a queue that is not there.

    Nothing is told of it until there is such a queue.
    """
    for (namespace, _), sink in setup.sinks.items():
        known = setup.names("TaskQueue", namespace)
        for number, name in enumerate(sink.spec.selector.queues):
            if name in known or not (setup.whole or known):
                continue
            near = get_close_matches(name, known, 1)
            path = f"spec.selector.queues[{number}]"
            mend = Mend(f"Did you mean {near[0]}?") if near else Mend("Create the queue, or name another one.")
            yield Flaw(sink.manifest, path, f"there is no TaskQueue {name}", mend)


@rule(Severity.WARNING)
def sink_forgets(setup: Setup) -> Iterator[Flaw]:
    """Ended Tasks that are deleted so soon that a sink may not have told them.

    What is deleted while the receiver or the process is away is never told, unless the sink holds it.
    """
    for (namespace, _), sink in setup.sinks.items():
        chosen = sink.spec.selector.queues
        for (where, name), queue in setup.queues.items():
            ttl = queue.spec.ttl_seconds_after_finished
            if where != namespace or (chosen and name not in chosen) or ttl is None:
                continue
            if ttl + sink.spec.hold_seconds < AWAY_SECONDS:
                said = f"queue {name} deletes ended Tasks after {ttl} s, told or not"
                mend = Mend("Hold them for a day.", patch("spec.holdSeconds", 86_400))
                yield Flaw(sink.manifest, "spec.holdSeconds", said, mend)


@rule(Severity.WARNING)
def sink_header_left_out(setup: Setup) -> Iterator[Flaw]:
    """A header that is the request's own.

    It is left out: what is sent, to whom and how it is signed is not for a header to say. A token is the Secret's.
    """
    for sink in setup.sinks.values():
        for name in sink.spec.http.headers if sink.spec.http is not None else ():
            if name.lower() in RESERVED_HEADERS:
                said = f"{name} is the request's own, and not sent"
                yield Flaw(sink.manifest, "spec.http.headers", said, Mend("Leave it out."))


@rule(Severity.HINT)
def sink_in_clear(setup: Setup) -> Iterator[Flaw]:
    """A sink whose events go over the network unencrypted.

    Results can be read on their way. Without TLS they go only to what whoever runs taskdist allows.
    """
    for sink in setup.sinks.values():
        http, rabbitmq, kafka, sqs = sink.spec.http, sink.spec.rabbitmq, sink.spec.kafka, sink.spec.sqs
        at = sink.manifest
        if http is not None and http.url.startswith("http://"):
            mend = Mend("Write https, where the receiver has a certificate.")
            yield Flaw(at, "spec.http.url", "results go over the network unencrypted", mend)
        if rabbitmq is not None and not rabbitmq.tls:
            mend = Mend("Encrypt it.", patch("spec.rabbitmq.tls", True))
            yield Flaw(at, "spec.rabbitmq.tls", "password and results go over the network unencrypted", mend)
        if kafka is not None and not kafka.tls:
            mend = Mend("Encrypt it.", patch("spec.kafka.tls", True))
            what = "results go" if kafka.sasl is None else "password and results go"
            yield Flaw(at, "spec.kafka.tls", f"{what} over the network unencrypted", mend)
        endpoint = (sqs.endpoint if sqs is not None else None) or ""
        if host_in_clear(endpoint) is not None:
            mend = Mend("Encrypt it.", patch("spec.sqs.endpoint", f"https{endpoint.removeprefix('http')}"))
            yield Flaw(at, "spec.sqs.endpoint", "results go over the network unencrypted", mend)


WRITTEN = (sink_refused,)
RULES = (sink_unusable, sink_queue_not_found, sink_forgets, sink_header_left_out, sink_in_clear)
