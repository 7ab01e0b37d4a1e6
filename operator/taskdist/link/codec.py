"""Protocol messages ↔ the wire format, both ways. Pure.

Decoding what an agent sent is also where its bounds are kept: `BadMessage` names the field, and nothing past here
needs to fear a length, a sign or a NaN. A result's body is proven to be a JSON object here, because it is later merged
into a Task's status without being parsed again. What is in bounds may still be a lie: judging it is not done here.

Text for people is cut to its bound, both ways, and never refused.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from taskdist.api import Reason
from taskdist.api.task import MAX_RESULT_BYTES
from taskdist.link.proto import link_pb2 as pb
from taskdist.protocol import messages as m
from taskdist.protocol.values import parse_object

MAX_LEASES = 2048
MAX_RESOURCES = 16
MAX_SKILLS = 64
MAX_TYPES = 256
MAX_LABELS = 32
MAX_SLOTS = 1000
MAX_QUANTITY = 1_000_000_000
MAX_MESSAGE = 4096  # characters of text on a failure or stop
MAX_PROGRESS_MESSAGE = 1024
MAX_TOKEN = 16 * 1024
MAX_BUDGETS = 16
MAX_BUDGET_NAME = 101
MAX_LEADERSHIP = 64
MAX_RETRY_AFTER = 2_592_000.0  # seconds: 30 days

_WORD = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
# What the API server allows as a name: with it a path is built, so nothing else may pass.
_OBJECT_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_LARGEST = 2**53  # what every language's number holds exactly

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


class BadMessage(ValueError):
    """The other end broke a rule of the format; the text names the field and the rule."""


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

    A result that is too large or no JSON object comes out as a permanent failure that says so: the Task's owner is to
    see it, and the agent, which may know no better, gets its final reply.
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
            leases=[_lease(name) for name in hello.leases],
            software=_text(hello.software, 256),
            held=[_encode_held(held) for held in hello.held],
            started=hello.started,
            oldest_version=hello.oldest_version,
            highest_epoch=hello.highest_epoch,
            leadership=hello.leadership,
        )
    )


def _encode_held(held: m.HeldLease) -> pb.HeldLease:
    return pb.HeldLease(
        lease=_lease(held.lease),
        namespace=held.namespace,
        name=held.name,
        lease_seconds=held.lease_seconds,
        hold_seconds=held.hold_seconds,
        execution_seconds=held.execution_seconds,
        progress_seconds=held.progress_seconds,
    )


def _decode_hello(wire: pb.Hello) -> m.Hello:
    if not 1 <= len(wire.instance_id) <= 64:
        _bad("hello.instance_id", "1 to 64 characters")
    return m.Hello(
        protocol_version=wire.protocol_version,
        instance_id=wire.instance_id,
        slots=_slots("hello.slots", wire.slots),
        boot=_seconds("hello.boot", wire.boot),
        resources=_resources("hello.resources", wire.resources),
        skills=_words("hello.skills", wire.skills, MAX_SKILLS),
        types=_words("hello.types", wire.types.names, MAX_TYPES) if wire.HasField("types") else None,
        labels=_labels(wire.labels),
        fenced=wire.fenced,
        draining=wire.draining,
        leases=_leases("hello.leases", wire.leases),
        software=_text(wire.software, 256),
        held=_held(wire.held),
        started=_seconds("hello.started", wire.started),
        oldest_version=wire.oldest_version,
        highest_epoch=_epoch("hello.highest_epoch", wire.highest_epoch),
        leadership=_short("hello.leadership", wire.leadership),
    )


def _held(wire: Iterable[pb.HeldLease]) -> tuple[m.HeldLease, ...]:
    held = tuple(
        m.HeldLease(
            lease=_name("hello.held.lease", each.lease),
            namespace=_object_name("hello.held.namespace", each.namespace),
            name=_object_name("hello.held.name", each.name),
            lease_seconds=_seconds("hello.held.lease_seconds", each.lease_seconds),
            hold_seconds=_seconds("hello.held.hold_seconds", each.hold_seconds),
            execution_seconds=_seconds("hello.held.execution_seconds", each.execution_seconds),
            progress_seconds=_seconds("hello.held.progress_seconds", each.progress_seconds),
        )
        for each in wire
    )
    if len(held) > MAX_LEASES:
        _bad("hello.held", f"at most {MAX_LEASES}")
    return held


def _decode_ping(wire: pb.Ping) -> m.Ping:
    return m.Ping(_seconds("ping.boot", wire.boot))


def _decode_progress(wire: pb.Progress) -> m.Progress:
    return m.Progress(
        lease=_name("progress.lease", wire.lease),
        fraction=min(1.0, max(0.0, wire.fraction)) if not math.isnan(wire.fraction) else 0.0,
        message=_text(wire.message, MAX_PROGRESS_MESSAGE),
    )


def _decode_result(wire: pb.Result) -> m.Result | m.Failure:
    lease = _name("result.lease", wire.lease)
    body = wire.body or b"{}"
    if len(body) > MAX_RESULT_BYTES:
        message = (
            f"The result has {len(body)} bytes, {MAX_RESULT_BYTES} are allowed: store it elsewhere, return a reference."
        )
        return m.Failure(lease, Reason.RESULT_TOO_LARGE, message, retryable=False, used=_used(wire.used))
    try:
        parse_object(body)
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError among them
        message = f"The result is not a JSON object in UTF-8 that can be kept as it is: {str(error)[:200]}."
        return m.Failure(lease, Reason.RESULT_REFUSED, message, retryable=False, used=_used(wire.used))
    return m.Result(lease, body, _seconds("result.since_start", wire.since_start), _used(wire.used))


def _decode_failure(wire: pb.Failure) -> m.Failure:
    reason = _FAILURE_REASONS.get(wire.reason, Reason.HANDLER_ERROR)
    return m.Failure(
        lease=_name("failure.lease", wire.lease),
        reason=reason,
        message=_text(wire.message, MAX_MESSAGE),
        retryable=not wire.permanent,
        since_start=_seconds("failure.since_start", wire.since_start),
        used=_used(wire.used),
        retry_after=_retry_after(wire.retry_after) if reason is Reason.THROTTLED else 0.0,
    )


def _decode_reauthenticate(wire: pb.Reauthenticate) -> Reauthenticate:
    if not 1 <= len(wire.token) <= MAX_TOKEN:
        _bad("reauthenticate.token", f"1 to {MAX_TOKEN} characters")
    return Reauthenticate(wire.token)


_ENCODE_FROM_AGENT: dict[type, Callable[[Any], pb.FromAgent]] = {
    m.Hello: _encode_hello,
    m.Ping: lambda x: pb.FromAgent(ping=pb.Ping(boot=x.boot)),
    m.Started: lambda x: pb.FromAgent(started=pb.Started(lease=_lease(x.lease), since_start=x.since_start)),
    m.Progress: lambda x: pb.FromAgent(
        progress=pb.Progress(lease=_lease(x.lease), fraction=x.fraction, message=_text(x.message, MAX_PROGRESS_MESSAGE))
    ),
    m.Result: lambda x: pb.FromAgent(
        result=pb.Result(lease=_lease(x.lease), body=x.body, since_start=x.since_start, used=dict(x.used))
    ),
    m.Failure: lambda x: pb.FromAgent(
        failure=pb.Failure(
            lease=_lease(x.lease),
            reason=_FAILURES.get(x.reason, pb.FAILURE_REASON_HANDLER_ERROR),
            message=_text(x.message, MAX_MESSAGE),
            permanent=not x.retryable,
            since_start=x.since_start,
            used=dict(x.used),
            retry_after=x.retry_after,
        )
    ),
    m.Stopped: lambda x: pb.FromAgent(
        stopped=pb.Stopped(lease=_lease(x.lease), message=_text(x.message, MAX_MESSAGE), never_ran=not x.ran)
    ),
    m.Draining: lambda _: pb.FromAgent(draining=pb.Draining()),
    m.Capacity: lambda x: pb.FromAgent(capacity=pb.Capacity(slots=x.slots, resources=dict(x.resources))),
    Reauthenticate: lambda x: pb.FromAgent(reauthenticate=pb.Reauthenticate(token=x.token)),
}

_DECODE_FROM_AGENT: dict[str, Callable[[Any], m.FromAgent | Reauthenticate]] = {
    "hello": _decode_hello,
    "ping": _decode_ping,
    "started": lambda wire: m.Started(
        _name("started.lease", wire.lease), _seconds("started.since_start", wire.since_start)
    ),
    "progress": _decode_progress,
    "result": _decode_result,
    "failure": _decode_failure,
    "stopped": lambda wire: m.Stopped(
        _name("stopped.lease", wire.lease), _text(wire.message, MAX_MESSAGE), not wire.never_ran
    ),
    "draining": lambda _: m.Draining(),
    "capacity": lambda wire: m.Capacity(
        _slots("capacity.slots", wire.slots), _resources("capacity.resources", wire.resources)
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
            lease=_lease(grant.lease),
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
            payload=grant.payload,
            parents=[pb.ParentResult(name=each.name, phase=each.phase, result=each.result) for each in grant.parents],
        )
    )


def _decode_grant(wire: pb.Grant) -> m.Grant:
    return m.Grant(
        lease=_name("grant.lease", wire.lease),
        namespace=wire.namespace,
        name=wire.name,
        type=wire.type,
        slots=_slots("grant.slots", wire.slots),
        ping_boot=_seconds("grant.ping_boot", wire.ping_boot),
        lease_seconds=_seconds("grant.lease_seconds", wire.lease_seconds),
        hold_seconds=_seconds("grant.hold_seconds", wire.hold_seconds),
        execution_seconds=_seconds("grant.execution_seconds", wire.execution_seconds),
        progress_seconds=_seconds("grant.progress_seconds", wire.progress_seconds),
        resources=_resources("grant.resources", wire.resources),
        payload=wire.payload or b"{}",
        parents=tuple(m.ParentResult(each.name, each.phase, each.result) for each in wire.parents),
    )


def _decode_cancel(wire: pb.Cancel) -> m.Cancel:
    try:
        reason = Reason(wire.reason)
    except ValueError:  # a word of a newer operator: stopping is what matters
        reason = Reason.CANCELLED
    return m.Cancel(_name("cancel.lease", wire.lease), reason, wire.message)


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
        refused=pb.Refused(reason=x.reason, message=_text(x.message, MAX_MESSAGE), retry=x.retry)
    ),
    m.Grant: _encode_grant,
    m.Renew: lambda x: pb.ToAgent(
        renew=pb.Renew(epoch=x.epoch, ping_boot=x.ping_boot, leases=[_lease(name) for name in x.leases])
    ),
    m.Cancel: lambda x: pb.ToAgent(
        cancel=pb.Cancel(lease=_lease(x.lease), reason=str(x.reason), message=_text(x.message, MAX_MESSAGE))
    ),
    m.Drain: lambda x: pb.ToAgent(drain=pb.Drain(undo=x.undo)),
    m.Hold: lambda x: pb.ToAgent(hold=pb.Hold(epoch=x.epoch)),
    m.Final: lambda x: pb.ToAgent(
        final=pb.Final(lease=_lease(x.lease), verdict=_VERDICTS[x.verdict], message=_text(x.message, MAX_MESSAGE))
    ),
}

_DECODE_TO_AGENT: dict[str, Callable[[Any], m.ToAgent]] = {
    "welcome": lambda wire: m.Welcome(
        wire.epoch,
        wire.slots,
        _seconds("welcome.ping_seconds", wire.ping_seconds),
        wire.draining,
        wire.protocol_version or 1,  # an operator of version 1 does not say it
        wire.leadership[:MAX_LEADERSHIP],
    ),
    "refused": lambda wire: m.Refused(wire.reason, wire.message, wire.retry),
    "grant": _decode_grant,
    "renew": lambda wire: m.Renew(
        wire.epoch, _seconds("renew.ping_boot", wire.ping_boot), _leases("renew.leases", wire.leases)
    ),
    "cancel": _decode_cancel,
    "drain": lambda wire: m.Drain(wire.undo),
    "hold": lambda wire: m.Hold(wire.epoch),
    # Any verdict means that the result is to be dropped, so one that is not known may read as another.
    "final": lambda wire: m.Final(
        _name("final.lease", wire.lease), _VERDICT_VALUES.get(wire.verdict, m.Verdict.STALE), wire.message
    ),
}


# --- parts ---


def _bad(field: str, rule: str) -> NoReturn:
    raise BadMessage(f"{field}: {rule}")


def _lease(name: m.LeaseName) -> pb.LeaseName:
    return pb.LeaseName(task_uid=name.task_uid, attempt=name.attempt, epoch=name.epoch)


def _name(field: str, wire: pb.LeaseName) -> m.LeaseName:
    if not 1 <= len(wire.task_uid) <= 64:
        _bad(f"{field}.task_uid", "1 to 64 characters, as in the Grant")
    if not 1 <= wire.attempt <= _LARGEST or not 0 <= wire.epoch <= _LARGEST:
        _bad(field, "attempt and epoch as in the Grant")
    return m.LeaseName(wire.task_uid, wire.attempt, wire.epoch)


def _leases(field: str, wire: Iterable[pb.LeaseName]) -> tuple[m.LeaseName, ...]:
    names = tuple(_name(field, lease) for lease in wire)
    if len(names) > MAX_LEASES:
        _bad(field, f"at most {MAX_LEASES}")
    return names


def _epoch(field: str, epoch: int) -> int:
    if not 0 <= epoch <= _LARGEST:
        _bad(field, "as in the Welcome or Grant")
    return epoch


def _short(field: str, text: str) -> str:
    if len(text) > MAX_LEADERSHIP:
        _bad(field, f"at most {MAX_LEADERSHIP} characters, as in the Welcome")
    return text


def _slots(field: str, slots: int) -> int:
    if slots > MAX_SLOTS:
        _bad(field, f"at most {MAX_SLOTS}")
    return slots


def _seconds(field: str, seconds: float) -> float:
    if not 0.0 <= seconds <= _LARGEST:  # false for NaN too
        _bad(field, "seconds, not negative, finite")
    return seconds


def _retry_after(seconds: float) -> float:
    """At least a second, so that who is put off again and again comes to an end; a wish too far off is cut."""
    return min(max(1.0, seconds), MAX_RETRY_AFTER) if seconds == seconds else 1.0  # not a number: the least


def _object_name(field: str, name: str) -> str:
    if not _OBJECT_NAME.fullmatch(name):
        _bad(field, "the name as in the Grant")
    return name


def _words(field: str, wire: Iterable[str], limit: int) -> tuple[str, ...]:
    words = tuple(wire)
    if len(words) > limit:
        _bad(field, f"at most {limit}")
    for word in words:
        if not _WORD.fullmatch(word):
            _bad(field, f"{word[:80]!r} is no word: 1 to 63 letters, digits, '-', '_' or '.', no sign at either end")
    return words


def _resources(field: str, wire: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    """Sorted by name: a map on the wire has no order, and equal offers should be equal values."""
    names = _words(field, sorted(wire), MAX_RESOURCES)
    for name in names:
        if not 0 <= wire[name] <= MAX_QUANTITY:
            _bad(f"{field}[{name}]", f"from 0 to {MAX_QUANTITY}")
    return tuple((name, wire[name]) for name in names)


def _used(wire: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    """Sorted by name. A report that is out of bounds is not worth a result: what is wrong of it is left out."""
    if not wire:
        return ()
    found = [(name, wire[name]) for name in sorted(wire) if 0 < len(name) <= MAX_BUDGET_NAME]
    return tuple((name, amount) for name, amount in found if 0 <= amount <= MAX_QUANTITY)[:MAX_BUDGETS]


def _labels(wire: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    if len(wire) > MAX_LABELS:
        _bad("hello.labels", f"at most {MAX_LABELS}")
    for key, value in wire.items():
        if not 1 <= len(key) <= 317 or len(value) > 63:
            _bad(f"hello.labels[{key[:80]}]", "a key of 1 to 317 and a value of at most 63 characters")
    return tuple(sorted(wire.items()))


def _text(text: str, limit: int) -> str:
    """Cut to the bound; what UTF-8 cannot carry (half of a surrogate pair, from some exception) is replaced."""
    return text[:limit].encode("utf-8", "replace").decode("utf-8")
