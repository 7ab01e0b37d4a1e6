"""From a sink's spec to its receiver, with what its Secret holds."""

from taskdist.api import SinkReason, TaskSink
from taskdist.kube import Client
from taskdist.kube.secret_values import SecretUnusable, read_secret
from taskdist.outgoing.addresses import Allowed
from taskdist.sinks.http import open_http
from taskdist.sinks.receiver import Open, Receiver, Trouble

_GRANT = "grant `taskdist sinks` get on it, as docs/sinks.md shows"


def connect(client: Client, sink: TaskSink, allowed: Allowed) -> Open | None:
    """How to open the receiver of this sink; None where this release knows none such."""
    spec, namespace = sink.spec.http, sink.metadata.namespace
    if spec is None:
        return None

    async def open_it() -> Receiver:
        try:
            secret = await read_secret(client, namespace, spec.secret_name, (), _GRANT) if spec.secret_name else {}
        except SecretUnusable as error:
            raise Trouble(SinkReason.SECRET_UNUSABLE, str(error)) from None
        return open_http(spec, secret, allowed, sink.spec.in_flight)

    return open_it
