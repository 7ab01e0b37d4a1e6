"""Protocol messages ↔ the wire format, both ways. Pure.

Decoding what an agent sent is also where its bounds are kept: `BadMessage` names the field, and nothing past here
needs to fear a length, a sign or a NaN. A result's body is proven to be a JSON object here, because it is later merged
into a Task's status without being parsed again. What is in bounds may still be a lie: judging it is not done here.

Text for people is cut to its bound, both ways, and never refused.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from taskdist.api import Reason
from taskdist.api.task import MAX_RESULT_BYTES
from taskdist.link import chunks, parts
from taskdist.link.parts import (
    MAX_LEADERSHIP,
    MAX_LEASES,
    MAX_MESSAGE,
    MAX_PROGRESS_MESSAGE,
    MAX_SKILLS,
    MAX_TOKEN,
    MAX_TYPES,
)
from taskdist.link.parts import BadMessage as BadMessage
from taskdist.link.proto import link_pb2 as pb
from taskdist.protocol import messages as m
from taskdist.protocol.values import parse_object

_FAILURES = {
    Reason.HANDLER_ERROR: pb.FAILURE_REASON_HANDLER_ERROR,
    Reason.HANDLER_CRASHED: pb.FAILURE_REASON_HANDLER_CRASHED,
    Reason.UNKNOWN_TYPE: pb.FAILURE_REASON_UNKNOWN_TYPE,
    Reason.INVALID_PAYLOAD: pb.FAILURE_REASON_INVALID_PAYLOAD,
    Reason.RESULT_TOO_LARGE: pb.FAILURE_REASON_RESULT_TOO_LARGE,
    Reason.RESULT_REFUSED: pb.FAILURE_REASON_RESULT_REFUSED,
    Reason.EXECUTION_TIMED_OUT: pb.FAILURE_REASON_EXECUTION_TIMED_OUT,
    Reason.PROGRESS_TIMED_OUT: pb.FAILURE_REASON_PROGRESS_TIMED_OUT,
    Reason.THROTTLED: pb.FAILURE_REASON_THROTTLED,
    Reason.OBJECT_UNAVAILABLE: pb.FAILURE_REASON_OBJECT_UNAVAILABLE,
    Reason.OBJECT_NOT_FOUND: pb.FAILURE_REASON_OBJECT_NOT_FOUND,
    Reason.OBJECT_MISMATCH: pb.FAILURE_REASON_OBJECT_MISMATCH,
    Reason.OBJECT_REFUSED: pb.FAILURE_REASON_OBJECT_REFUSED,
}
_FAILURE_REASONS: dict[int, Reason] = {number: reason for reason, number in _FAILURES.items()}
# The reasons that an agent may give for a failure. Any other is said as HandlerError.
FAILURE_REASONS = frozenset(_FAILURES)

_VERDICTS = {
    m.Verdict.ACCEPTED: pb.VERDICT_ACCEPTED,
    m.Verdict.ALREADY_FINAL: pb.VERDICT_ALREADY_FINAL,
    m.Verdict.STALE: pb.VERDICT_STALE,
    m.Verdict.GONE: pb.VERDICT_GONE,
}
_VERDICT_VALUES: dict[int, m.Verdict] = {number: verdict for verdict, number in _VERDICTS.items()}


@dataclass(frozen=True, slots=True)
class Reauthenticate:
    """A fresh token for the session. The link keeps it to itself: the protocol does not know of tokens."""

    token: str


# --- agent → operator ---


def encode_from_agent(message: m.FromAgent | Reauthenticate) -> pb.FromAgent:
    """Return the wire form of what an agent says."""
    return _ENCODE_FROM_AGENT[type(message)](message)


def decode_from_agent(wire: pb.FromAgent) -> m.FromAgent | Reauthenticate:
    """Return what an agent says, within bounds, or raise BadMessage.

    A result that is too large, no JSON object or no good reference comes out as a permanent failure that says so: the
    Task's owner is to see it, and the agent, which may know no better, gets its final reply.
    """
    kind = wire.WhichOneof("kind")
    if kind is None:
        raise BadMessage("a message without a kind that this operator knows: set exactly one, of this protocol version")
    decoded: m.FromAgent | Reauthenticate = _DECODE_FROM_AGENT[kind](getattr(wire, kind))
    return decoded


def _encode_hello(hello: m.Hello) -> pb.FromAgent:
    return pb.FromAgent(
        hello=pb.Hello(
            protocol_version=hello.protocol_version,
            instance_id=hello.instance_id,
            slots=hello.slots,
            boot=hello.boot,
            resources=dict(hello.resources),
            skills=hello.skills,
            types=None if hello.types is None else pb.TypeList(names=hello.types),
            labels=dict(hello.labels),
            fenced=hello.fenced,
            draining=hello.draining,
            leases=[parts.lease(name) for name in hello.leases],
            software=parts.text(hello.software, 256),
            held=[_encode_held(held) for held in hello.held],
            started=hello.started,
            oldest_version=hello.oldest_version,
            highest_epoch=hello.highest_epoch,
            leadership=hello.leadership,
            objects=hello.objects,
            arrays=hello.arrays,
        )
    )


def _encode_held(held: m.HeldLease) -> pb.HeldLease:
    return pb.HeldLease(
        lease=parts.lease(held.lease),
        namespace=held.namespace,
        name=held.name,
        lease_seconds=held.lease_seconds,
        hold_seconds=held.hold_seconds,
        execution_seconds=held.execution_seconds,
        progress_seconds=held.progress_seconds,
    )


def _decode_hello(wire: pb.Hello) -> m.Hello:
    if not 1 <= len(wire.instance_id) <= 64:
        parts.bad("hello.instance_id", "1 to 64 characters")
    return m.Hello(
        protocol_version=wire.protocol_version,
        instance_id=wire.instance_id,
        slots=parts.slots("hello.slots", wire.slots),
        boot=parts.seconds("hello.boot", wire.boot),
        resources=parts.resources("hello.resources", wire.resources),
        skills=parts.words("hello.skills", wire.skills, MAX_SKILLS),
        types=parts.words("hello.types", wire.types.names, MAX_TYPES) if wire.HasField("types") else None,
        labels=parts.labels(wire.labels),
        fenced=wire.fenced,
        draining=wire.draining,
        leases=parts.leases("hello.leases", wire.leases),
        software=parts.text(wire.software, 256),
        held=_held(wire.held),
        started=parts.seconds("hello.started", wire.started),
        oldest_version=wire.oldest_version,
        highest_epoch=parts.epoch("hello.highest_epoch", wire.highest_epoch),
        leadership=parts.short("hello.leadership", wire.leadership),
        objects=wire.objects,
        arrays=wire.arrays,
    )


def _held(wire: Iterable[pb.HeldLease]) -> tuple[m.HeldLease, ...]:
    held = tuple(
        m.HeldLease(
            lease=parts.name("hello.held.lease", each.lease),
            namespace=parts.object_name("hello.held.namespace", each.namespace),
            name=parts.object_name("hello.held.name", each.name),
            lease_seconds=parts.seconds("hello.held.lease_seconds", each.lease_seconds),
            hold_seconds=parts.seconds("hello.held.hold_seconds", each.hold_seconds),
            execution_seconds=parts.seconds("hello.held.execution_seconds", each.execution_seconds),
            progress_seconds=parts.seconds("hello.held.progress_seconds", each.progress_seconds),
        )
        for each in wire
    )
    if len(held) > MAX_LEASES:
        parts.bad("hello.held", f"at most {MAX_LEASES}")
    return held


def _decode_ping(wire: pb.Ping) -> m.Ping:
    return m.Ping(parts.seconds("ping.boot", wire.boot))


def _decode_progress(wire: pb.Progress) -> m.Progress:
    return m.Progress(
        lease=parts.name("progress.lease", wire.lease),
        fraction=min(1.0, max(0.0, wire.fraction)) if not math.isnan(wire.fraction) else 0.0,
        message=parts.text(wire.message, MAX_PROGRESS_MESSAGE),
    )


def _decode_result(wire: pb.Result) -> m.Result | m.Failure:
    lease = parts.name("result.lease", wire.lease)
    if wire.HasField("ref"):
        # The operator never reads what it names: whoever fetches it checks it.
        try:
            ref = parts.reference("result.ref", wire.ref)
        except BadMessage as error:
            return m.Failure(lease, Reason.RESULT_REFUSED, str(error), retryable=False, used=parts.used(wire.used))
        return m.Result(lease, ref, parts.seconds("result.since_start", wire.since_start), parts.used(wire.used))
    body = wire.body or b"{}"
    if len(body) > MAX_RESULT_BYTES:
        message = (
            f"The result has {len(body)} bytes, {MAX_RESULT_BYTES} are allowed: store it elsewhere, return a reference."
        )
        return m.Failure(lease, Reason.RESULT_TOO_LARGE, message, retryable=False, used=parts.used(wire.used))
    try:
        parse_object(body)
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError among them
        message = f"The result is not a JSON object in UTF-8 that can be kept as it is: {str(error)[:200]}."
        return m.Failure(lease, Reason.RESULT_REFUSED, message, retryable=False, used=parts.used(wire.used))
    return m.Result(lease, body, parts.seconds("result.since_start", wire.since_start), parts.used(wire.used))


def _decode_failure(wire: pb.Failure) -> m.Failure:
    reason = _FAILURE_REASONS.get(wire.reason, Reason.HANDLER_ERROR)
    return m.Failure(
        lease=parts.name("failure.lease", wire.lease),
        reason=reason,
        message=parts.text(wire.message, MAX_MESSAGE),
        retryable=not wire.permanent,
        since_start=parts.seconds("failure.since_start", wire.since_start),
        used=parts.used(wire.used),
        retry_after=parts.retry_after(wire.retry_after) if reason is Reason.THROTTLED else 0.0,
    )


def _decode_reauthenticate(wire: pb.Reauthenticate) -> Reauthenticate:
    if not 1 <= len(wire.token) <= MAX_TOKEN:
        parts.bad("reauthenticate.token", f"1 to {MAX_TOKEN} characters")
    return Reauthenticate(wire.token)


_ENCODE_FROM_AGENT: dict[type, Callable[[Any], pb.FromAgent]] = {
    m.Hello: _encode_hello,
    m.Ping: lambda x: pb.FromAgent(ping=pb.Ping(boot=x.boot)),
    m.Started: lambda x: pb.FromAgent(started=pb.Started(lease=parts.lease(x.lease), since_start=x.since_start)),
    m.Progress: lambda x: pb.FromAgent(
        progress=pb.Progress(
            lease=parts.lease(x.lease), fraction=x.fraction, message=parts.text(x.message, MAX_PROGRESS_MESSAGE)
        )
    ),
    m.Result: lambda x: pb.FromAgent(
        result=pb.Result(
            lease=parts.lease(x.lease),
            body=m.as_value(x.body),
            since_start=x.since_start,
            used=dict(x.used),
            ref=parts.encode_reference(x.body),
        )
    ),
    m.Failure: lambda x: pb.FromAgent(
        failure=pb.Failure(
            lease=parts.lease(x.lease),
            reason=_FAILURES.get(x.reason, pb.FAILURE_REASON_HANDLER_ERROR),
            message=parts.text(x.message, MAX_MESSAGE),
            permanent=not x.retryable,
            since_start=x.since_start,
            used=dict(x.used),
            retry_after=x.retry_after,
        )
    ),
    m.Stopped: lambda x: pb.FromAgent(
        stopped=pb.Stopped(lease=parts.lease(x.lease), message=parts.text(x.message, MAX_MESSAGE), never_ran=not x.ran)
    ),
    m.Draining: lambda _: pb.FromAgent(draining=pb.Draining()),
    m.Capacity: lambda x: pb.FromAgent(capacity=pb.Capacity(slots=x.slots, resources=dict(x.resources))),
    Reauthenticate: lambda x: pb.FromAgent(reauthenticate=pb.Reauthenticate(token=x.token)),
}

_DECODE_FROM_AGENT: dict[str, Callable[[Any], m.FromAgent | Reauthenticate]] = {
    "hello": _decode_hello,
    "ping": _decode_ping,
    "started": lambda wire: m.Started(
        parts.name("started.lease", wire.lease), parts.seconds("started.since_start", wire.since_start)
    ),
    "progress": _decode_progress,
    "result": _decode_result,
    "failure": _decode_failure,
    "stopped": lambda wire: m.Stopped(
        parts.name("stopped.lease", wire.lease), parts.text(wire.message, MAX_MESSAGE), not wire.never_ran
    ),
    "draining": lambda _: m.Draining(),
    "capacity": lambda wire: m.Capacity(
        parts.slots("capacity.slots", wire.slots), parts.resources("capacity.resources", wire.resources)
    ),
    "reauthenticate": _decode_reauthenticate,
}


# --- operator → agent ---


def encode_to_agent(message: m.ToAgent) -> pb.ToAgent:
    """Return the wire form of what the operator says."""
    return _ENCODE_TO_AGENT[type(message)](message)


def decode_to_agent(wire: pb.ToAgent) -> m.ToAgent:
    """Return what the operator says, or raise BadMessage if it is of no kind that this side knows."""
    kind = wire.WhichOneof("kind")
    if kind is None:
        raise BadMessage(
            "the operator sent a message of a kind that this agent does not know: it is of another version"
        )
    decoded: m.ToAgent = _DECODE_TO_AGENT[kind](getattr(wire, kind))
    return decoded


def _encode_grant(grant: m.Grant) -> pb.ToAgent:
    return pb.ToAgent(
        grant=pb.Grant(
            lease=parts.lease(grant.lease),
            namespace=grant.namespace,
            name=grant.name,
            type=grant.type,
            slots=grant.slots,
            resources=dict(grant.resources),
            ping_boot=grant.ping_boot,
            lease_seconds=grant.lease_seconds,
            hold_seconds=grant.hold_seconds,
            execution_seconds=grant.execution_seconds,
            progress_seconds=grant.progress_seconds,
            payload=m.as_value(grant.payload),
            payload_ref=parts.encode_reference(grant.payload),
            parents=[_encode_parent(each) for each in grant.parents],
            chunk=chunks.encode(grant.chunk) if grant.chunk else None,
        )
    )


def _decode_grant(wire: pb.Grant) -> m.Grant:
    return m.Grant(
        lease=parts.name("grant.lease", wire.lease),
        namespace=wire.namespace,
        name=wire.name,
        type=wire.type,
        slots=parts.slots("grant.slots", wire.slots),
        ping_boot=parts.seconds("grant.ping_boot", wire.ping_boot),
        lease_seconds=parts.seconds("grant.lease_seconds", wire.lease_seconds),
        hold_seconds=parts.seconds("grant.hold_seconds", wire.hold_seconds),
        execution_seconds=parts.seconds("grant.execution_seconds", wire.execution_seconds),
        progress_seconds=parts.seconds("grant.progress_seconds", wire.progress_seconds),
        resources=parts.resources("grant.resources", wire.resources),
        payload=parts.reference("grant.payload_ref", wire.payload_ref)
        if wire.HasField("payload_ref")
        else wire.payload or b"{}",
        parents=tuple(_decode_parent(each) for each in wire.parents),
        chunk=chunks.decode(wire.chunk) if wire.HasField("chunk") else None,
    )


def _encode_parent(parent: m.ParentResult) -> pb.ParentResult:
    return pb.ParentResult(
        name=parent.name,
        phase=parent.phase,
        result=m.as_value(parent.result),
        ref=parts.encode_reference(parent.result),
    )


def _decode_parent(wire: pb.ParentResult) -> m.ParentResult:
    ref = parts.reference("grant.parents.ref", wire.ref) if wire.HasField("ref") else None
    return m.ParentResult(wire.name, wire.phase, wire.result if ref is None else ref)


def _decode_cancel(wire: pb.Cancel) -> m.Cancel:
    try:
        reason = Reason(wire.reason)
    except ValueError:  # a word of a newer operator: stopping is what matters
        reason = Reason.CANCELLED
    return m.Cancel(parts.name("cancel.lease", wire.lease), reason, wire.message)


_ENCODE_TO_AGENT: dict[type, Callable[[Any], pb.ToAgent]] = {
    m.Welcome: lambda x: pb.ToAgent(
        welcome=pb.Welcome(
            epoch=x.epoch,
            slots=x.slots,
            ping_seconds=x.ping_seconds,
            draining=x.draining,
            protocol_version=x.protocol_version,
            leadership=x.leadership,
        )
    ),
    m.Refused: lambda x: pb.ToAgent(
        refused=pb.Refused(reason=x.reason, message=parts.text(x.message, MAX_MESSAGE), retry=x.retry)
    ),
    m.Grant: _encode_grant,
    m.Renew: lambda x: pb.ToAgent(
        renew=pb.Renew(epoch=x.epoch, ping_boot=x.ping_boot, leases=[parts.lease(name) for name in x.leases])
    ),
    m.Cancel: lambda x: pb.ToAgent(
        cancel=pb.Cancel(lease=parts.lease(x.lease), reason=str(x.reason), message=parts.text(x.message, MAX_MESSAGE))
    ),
    m.Drain: lambda x: pb.ToAgent(drain=pb.Drain(undo=x.undo)),
    m.Hold: lambda x: pb.ToAgent(hold=pb.Hold(epoch=x.epoch)),
    m.Final: lambda x: pb.ToAgent(
        final=pb.Final(
            lease=parts.lease(x.lease), verdict=_VERDICTS[x.verdict], message=parts.text(x.message, MAX_MESSAGE)
        )
    ),
}

_DECODE_TO_AGENT: dict[str, Callable[[Any], m.ToAgent]] = {
    "welcome": lambda wire: m.Welcome(
        wire.epoch,
        wire.slots,
        parts.seconds("welcome.ping_seconds", wire.ping_seconds),
        wire.draining,
        wire.protocol_version or 1,  # an operator of version 1 does not say it
        wire.leadership[:MAX_LEADERSHIP],
    ),
    "refused": lambda wire: m.Refused(wire.reason, wire.message, wire.retry),
    "grant": _decode_grant,
    "renew": lambda wire: m.Renew(
        wire.epoch, parts.seconds("renew.ping_boot", wire.ping_boot), parts.leases("renew.leases", wire.leases)
    ),
    "cancel": _decode_cancel,
    "drain": lambda wire: m.Drain(wire.undo),
    "hold": lambda wire: m.Hold(wire.epoch),
    # Any verdict means that the result is to be dropped, so one that is not known may read as another.
    "final": lambda wire: m.Final(
        parts.name("final.lease", wire.lease), _VERDICT_VALUES.get(wire.verdict, m.Verdict.STALE), wire.message
    ),
}
