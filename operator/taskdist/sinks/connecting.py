"""From a sink's spec to its receiver, with what its Secret holds. The libraries for brokers are extras, loaded here."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from taskdist.api import SinkReason, TaskSink
from taskdist.api.tasksink import Http, KafkaTarget, RabbitMQTarget, SqsTarget
from taskdist.common.extras import Missing, extra
from taskdist.kube import Client
from taskdist.kube.secret_values import SecretUnusable, read_secret, text_of, tls_of
from taskdist.outgoing.addresses import Allowed
from taskdist.sinks.http import open_http
from taskdist.sinks.receiver import Open, Receiver, Trouble

_GRANT: Final = "grant `taskdist sinks` get on it, as docs/sinks.md shows"
_LOGIN: Final = ("username", "password")
_ACCESS_KEY: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def connect(
    client: Client,
    sink: TaskSink,
    allowed: Allowed,
    ticks: Callable[[], float],
    identity_namespaces: Collection[str] = (),
) -> Open | None:
    """Return how to open the receiver of this sink; None where this release knows none such.

    `identity_namespaces`: the namespaces whose sinks may act as this process at AWS.
    """
    made = _Made(client, sink, allowed, ticks)
    http, rabbitmq, kafka, sqs = sink.spec.http, sink.spec.rabbitmq, sink.spec.kafka, sink.spec.sqs
    if http is not None:
        return lambda: made.http(http)
    if rabbitmq is not None:
        return lambda: made.rabbitmq(rabbitmq)
    if kafka is not None:
        return lambda: made.kafka(kafka)
    return None if sqs is None else lambda: made.sqs(sqs, identity_namespaces)


class _Made:
    """Receivers of one sink."""

    def __init__(self, client: Client, sink: TaskSink, allowed: Allowed, ticks: Callable[[], float]) -> None:
        self._client = client
        self._namespace = sink.metadata.namespace
        self._name = f"{sink.metadata.namespace}/{sink.metadata.name}"
        self._in_flight = sink.spec.in_flight
        self._allowed = allowed
        self._ticks = ticks

    async def http(self, spec: Http) -> Receiver:
        with _unusable_is_told():
            secret = await self._secret(spec.secret_name)
        return open_http(spec, secret, self._allowed, self._in_flight)

    async def rabbitmq(self, spec: RabbitMQTarget) -> Receiver:
        with _extra("rabbitmq"):
            from taskdist.brokers.amqp import Login
            from taskdist.sinks.rabbitmq import RabbitMQReceiver

        async def login() -> Login:
            with _unusable_is_told():
                secret = await self._secret(spec.secret_name, _LOGIN)
                return Login(
                    host=spec.host,
                    port=spec.port,
                    virtual_host=spec.virtual_host,
                    username=text_of(secret, "username"),
                    password=text_of(secret, "password"),
                    tls=tls_of(secret) if spec.tls else None,
                    name=self._name,
                )

        return RabbitMQReceiver(login, self._allowed, spec.exchange, spec.routing_key, self._ticks)

    async def kafka(self, spec: KafkaTarget) -> Receiver:
        with _extra("kafka"):
            from taskdist.brokers.kafka import Login
            from taskdist.sinks.kafka import KafkaReceiver
        needed = () if spec.sasl is None else _LOGIN

        async def login() -> Login:
            with _unusable_is_told():
                secret = await self._secret(spec.secret_name, needed)
                return Login(
                    bootstrap=tuple(spec.bootstrap),
                    tls=tls_of(secret) if spec.tls else None,
                    sasl=None if spec.sasl is None else str(spec.sasl),
                    username=text_of(secret, "username") if needed else "",
                    password=text_of(secret, "password") if needed else "",
                    name=self._name,
                )

        return KafkaReceiver(login, self._allowed, spec.topic, self._ticks)

    async def sqs(self, spec: SqsTarget, identity_namespaces: Collection[str]) -> Receiver:
        with _extra("sqs"):
            from taskdist.brokers.sqs import Access, Login
            from taskdist.sinks.sqs import Dial, SqsReceiver

        async def login() -> Login | None:
            if spec.secret_name is None:
                if self._namespace in identity_namespaces or "*" in identity_namespaces:
                    return None
                # Else whoever may create a sink would act at AWS as this process.
                raise Trouble(
                    SinkReason.SECRET_UNUSABLE,
                    "spec.sqs names no Secret, and this process's own identity is not for this namespace: set "
                    "spec.sqs.secretName, or have the namespace added to TASKDIST_SINKS_IDENTITY_NAMESPACES",
                )
            with _unusable_is_told():
                secret = await self._secret(spec.secret_name, _ACCESS_KEY)
                token = text_of(secret, "AWS_SESSION_TOKEN") if secret.get("AWS_SESSION_TOKEN") else None
                key, password = (text_of(secret, name) for name in _ACCESS_KEY)
                return Login(key, password, token)

        async def access(dial: Dial) -> Access:
            return Access(spec.region, spec.endpoint, await login(), self._name, self._in_flight, dial)

        return SqsReceiver(access, self._allowed, spec.queue_url, self._ticks)

    async def _secret(self, name: str | None, needed: tuple[str, ...] = ()) -> Mapping[str, bytes]:
        return {} if name is None else await read_secret(self._client, self._namespace, name, needed, _GRANT)


@contextmanager
def _unusable_is_told() -> Iterator[None]:
    try:
        yield
    except SecretUnusable as error:
        raise Trouble(SinkReason.SECRET_UNUSABLE, str(error)) from None


@contextmanager
def _extra(name: str) -> Iterator[None]:
    """Say what to install where a library is missing, and nothing else is."""
    try:
        with extra(name):
            yield
    except Missing as missing:
        words = f"this process lacks {missing.library}: {missing.install}"
        raise Trouble(SinkReason.BROKER_UNREACHABLE, words) from None
