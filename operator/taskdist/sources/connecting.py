"""Opening a session with the broker that a source names. The libraries for brokers are extras, and loaded here."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from taskdist.api import SQS, Kafka, RabbitMQ, SourceReason, StartFrom, TaskSource
from taskdist.common.extras import Missing, extra
from taskdist.kube import Client
from taskdist.sources.broker import Open, Session, Told, Trouble
from taskdist.sources.secrets import read_secret, text_of, tls_of


def connect(client: Client, source: TaskSource, identity_namespaces: Collection[str] = ()) -> Open:
    """Return what opens a session for this source.

    `identity_namespaces`: the namespaces whose sources may act as this process at AWS.
    """
    rabbitmq, kafka, sqs = source.spec.rabbitmq, source.spec.kafka, source.spec.sqs

    async def open_it(told: Told) -> Session:
        if rabbitmq is not None:
            return await _open_rabbitmq(client, source, rabbitmq, told)
        if kafka is not None:
            return await _open_kafka(client, source, kafka, told)
        assert sqs is not None, "the caller knows what source it is"
        return await _open_sqs(client, source, sqs, told, identity_namespaces)

    return open_it


@contextmanager
def _extra(name: str) -> Iterator[None]:
    """Say what to install where a library is missing, and nothing else is."""
    try:
        with extra(name):
            yield
    except Missing as missing:
        words = f"this process lacks {missing.library}: {missing.install}"
        raise Trouble(SourceReason.BROKER_UNREACHABLE, words) from None


async def _open_rabbitmq(client: Client, source: TaskSource, spec: RabbitMQ, told: Told) -> Session:
    with _extra("rabbitmq"):
        from taskdist.brokers.amqp import Login
        from taskdist.sources.amqp import Address, open_session
    namespace = source.metadata.namespace
    secret = await read_secret(client, namespace, spec.secret_name, ("username", "password"))
    source_name = f"{namespace}/{source.metadata.name}"
    login = Login(
        host=spec.host,
        port=spec.port,
        virtual_host=spec.virtual_host,
        username=text_of(secret, "username"),
        password=text_of(secret, "password"),
        tls=tls_of(secret) if spec.tls else None,
        name=source_name,
    )
    address = Address(
        login=login,
        queue=spec.queue,
        prefetch=spec.prefetch,
        dead_letter_exchange=spec.dead_letter_exchange,
        dead_letter_routing_key=spec.dead_letter_routing_key or spec.queue,
        source=source_name,
    )
    return await open_session(address, told)


async def _open_kafka(client: Client, source: TaskSource, spec: Kafka, told: Told) -> Session:
    with _extra("kafka"):
        from taskdist.brokers.kafka import Login
        from taskdist.sources.kafka import Address, open_session
    namespace = source.metadata.namespace
    needed = ("username", "password") if spec.sasl is not None else ()
    secret = await read_secret(client, namespace, spec.secret_name, needed) if spec.secret_name is not None else {}
    source_name = f"{namespace}/{source.metadata.name}"
    login = Login(
        bootstrap=tuple(spec.bootstrap),
        tls=tls_of(secret) if spec.tls else None,
        sasl=None if spec.sasl is None else str(spec.sasl),
        username=text_of(secret, "username") if needed else "",
        password=text_of(secret, "password") if needed else "",
        name=source_name,
    )
    address = Address(
        login=login,
        topics=tuple(spec.topics),
        group=spec.group,
        from_earliest=spec.start_from is StartFrom.EARLIEST,
        prefetch=spec.prefetch,
        dead_letter_topic=spec.dead_letter_topic,
        source=source_name,
    )
    return await open_session(address, told)


async def _open_sqs(
    client: Client, source: TaskSource, spec: SQS, told: Told, identity_namespaces: Collection[str]
) -> Session:
    with _extra("sqs"):
        from taskdist.brokers.sqs import Login
        from taskdist.sources.sqs import open_session
        from taskdist.sources.sqs_access import Address
    namespace, login = source.metadata.namespace, None
    if spec.secret_name is not None:
        secret = await read_secret(client, namespace, spec.secret_name, ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
        token = text_of(secret, "AWS_SESSION_TOKEN") if secret.get("AWS_SESSION_TOKEN") else None
        login = Login(text_of(secret, "AWS_ACCESS_KEY_ID"), text_of(secret, "AWS_SECRET_ACCESS_KEY"), token)
    elif namespace not in identity_namespaces and "*" not in identity_namespaces:
        # Else whoever may create a source would act at AWS as this process.
        raise Trouble(
            SourceReason.SECRET_UNUSABLE,
            "spec.sqs names no Secret, and this process's own identity is not for this namespace: set "
            "spec.sqs.secretName, or have the namespace added to TASKDIST_SOURCES_IDENTITY_NAMESPACES",
        )
    address = Address(
        queue=spec.queue_url,
        region=spec.region,
        endpoint=spec.endpoint,
        login=login,
        prefetch=spec.prefetch,
        visibility=spec.visibility_seconds,
        dead_letters=spec.dead_letter_queue_url,
        source=f"{namespace}/{source.metadata.name}",
    )
    return await open_session(address, told)
