"""Whatever an agent sends, or carries as a token: it ends that session with a reason, and touches nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from odd_objects import ANY_JSON
from taskdist.link import codec
from taskdist.link.auth import Authenticator, NotAdmitted, PodOwner
from taskdist.link.codec import BadMessage, Reauthenticate
from taskdist.link.proto import link_pb2 as pb
from taskdist.protocol import messages as m
from taskdist.protocol.observations import WriteStatus, Written
from unit.link.test_link_server import serving
from unit.link.tokens import status_of, token_of
from unit.protocol.desk import A1, QUEUE, Desk, assigned, record

FUZZ = settings(max_examples=100, suppress_health_check=list(HealthCheck), deadline=None)

BODIES = (
    b"",
    b"{}",
    b'{"x":null}',
    b"[]",
    b'"x"',
    b"{",
    b"\xff\xfe",
    b'{"x":NaN}',
    b'{"x":1e999}',
    b'{"x":-Infinity}',
    b'{"x":"\\ud800"}',
    b'{"x":1,"x":2}',
    b'{"\\u0000":"\\u0000"}',
    b'{"x":' + b"9" * 5000 + b"}",
    b'{"x":' + b"[" * 5000 + b"]" * 5000 + b"}",
    b'{"x":' + b"[" * 250 + b"]" * 250 + b"}",
    b"[" * 60_000,
    b'{"x":"' + b"y" * 70_000 + b'"}',
)
TEXTS = ("", "a", "uid-a", "i", "../x", "\x00", "é😀", "x" * 5000, "ns", "task-a")
NUMBERS = (0.0, 1.0, -1.0, 1e300, 2.0**60, float("nan"), float("inf"), float("-inf"), 1e-300)


def whole(low: int, high: int) -> st.SearchStrategy[int]:
    return st.sampled_from([low, high, 0, 1, 3]) | st.integers(low, high)


SCALARS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_STRING: st.sampled_from(TEXTS),
    FieldDescriptor.TYPE_BYTES: st.sampled_from(BODIES) | st.binary(max_size=20),
    FieldDescriptor.TYPE_DOUBLE: st.sampled_from(NUMBERS),
    FieldDescriptor.TYPE_FLOAT: st.sampled_from(NUMBERS),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_UINT32: whole(0, 2**32 - 1),
    FieldDescriptor.TYPE_UINT64: whole(0, 2**64 - 1),
    FieldDescriptor.TYPE_INT32: whole(-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: whole(-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_ENUM: st.integers(0, 200),
}


@st.composite
def filled(draw: st.DrawFn, message: type[Message]) -> Any:
    """A message with some of its fields set to whatever their types hold."""
    made = message()
    for each in message.DESCRIPTOR.fields:
        if draw(st.booleans()) and each.containing_oneof is None:
            _fill(draw, made, each)
    for group in message.DESCRIPTOR.oneofs:
        _fill(draw, made, draw(st.sampled_from(list(group.fields))))
    return made


def _fill(draw: st.DrawFn, made: Any, each: Any) -> None:
    times = draw(st.integers(0, 3)) if each.is_repeated else 1
    for _ in range(times):
        if each.message_type is not None and each.message_type.GetOptions().map_entry:
            key, value = (draw(SCALARS[part.type]) for part in each.message_type.fields)
            getattr(made, each.name)[key] = value
        elif each.message_type is not None:
            inner = draw(filled(each.message_type._concrete_class))
            target = getattr(made, each.name)
            (target.add() if each.is_repeated else target).CopyFrom(inner)
        elif each.is_repeated:
            getattr(made, each.name).append(draw(SCALARS[each.type]))
        else:
            setattr(made, each.name, draw(SCALARS[each.type]))


WIRES = filled(pb.FromAgent).map(lambda each: each.SerializeToString())


def read(wire: bytes) -> m.FromAgent | Reauthenticate | None:
    try:
        return codec.decode_from_agent(pb.FromAgent.FromString(wire))
    except (BadMessage, DecodeError):
        return None


@FUZZ
@given(st.binary(max_size=200) | WIRES)
def test_any_bytes_are_a_message_or_refused(wire: bytes) -> None:
    read(wire)


@st.composite
def about_a_lease(draw: st.DrawFn) -> m.FromAgent:
    """A message that decodes, about the lease that runs, or any other."""
    message = draw(WIRES.map(read).filter(lambda each: each is not None and not isinstance(each, Reauthenticate)))
    if hasattr(message, "lease") and draw(st.booleans()):
        object.__setattr__(message, "lease", A1)
    return message  # type: ignore[return-value]


@settings(FUZZ, max_examples=25)
@given(st.lists(about_a_lease(), min_size=1, max_size=6))
def test_whatever_one_agent_says_the_next_task_is_served_by_another(said: list[m.FromAgent]) -> None:
    desk = Desk(QUEUE, record())
    desk.connect(1)
    desk.answer(Written(assigned(), b"{}"))
    for number, message in enumerate(said):
        if isinstance(message, m.Hello):
            desk.do("connected", 10 + number, m.AgentIdentity("u1", "p-1", "ns", "p"), message)
            desk.says(10 + number, m.Ping(desk.t))
        else:
            desk.says(1, message)
        desk.at(desk.t + 0.5)
    desk.connect(2, 2)
    other = record(20)
    object.__setattr__(other, "task", type(other.task)("b", "ns", "task-b", "q", "work", 0.0))
    desk.do("task_observed", other)
    desk.at(desk.t + 1)
    (write,) = [each for each in desk.writes if each.uid == "b" and each.status.get("phase") == "Assigned"]
    assert isinstance(write, WriteStatus)
    assert write.status["agentUid"] in ("u1", "u2")


@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body[:12]))
def test_a_result_is_an_object_in_bounds_or_a_failure_that_says_why(body: bytes) -> None:
    wire = pb.FromAgent(result=pb.Result(lease=pb.LeaseName(task_uid="a", attempt=1, epoch=1), body=body))
    said = read(wire.SerializeToString())
    if isinstance(said, m.Failure):
        assert not said.retryable
        assert said.message
    else:
        assert isinstance(said, m.Result)


async def test_a_stream_of_anything_ends_with_a_reason_and_others_go_on() -> None:
    wires = [b"\xff" * 9, b"", pb.FromAgent(result=pb.Result(body=BODIES[14])).SerializeToString()]
    async with serving() as link, link.dial("other") as other:
        for wire in wires:
            async with link.dial() as stream:
                await stream.raw(wire)
                refused = await stream.hear()
                assert isinstance(refused, m.Refused)
                assert refused.message
                code, details = await stream.status()
                assert code.name == "INVALID_ARGUMENT"
                assert details
        await other.say(m.Ping(7.0))
        await link.recorder.until(lambda: m.Ping(7.0) in link.recorder.said())


TOKENS = st.text(max_size=30) | st.just("x" * 20_000) | st.builds(token_of, st.text(max_size=5), st.floats())


EXTRAS: tuple[Any, ...] = (
    {},
    {"authentication.kubernetes.io/pod-uid": 5, "authentication.kubernetes.io/pod-name": "p"},
    [],
    5,
    None,
)
REVIEWS = st.fixed_dictionaries(
    {
        "authenticated": st.sampled_from([True, False, "perhaps", None]),
        "audiences": st.sampled_from([["here"], ["there"], 5, "here", {"here": 1}, None]),
        "user": st.sampled_from([status_of("pod-a")["user"], True, [], None, "me"])
        | st.builds(lambda name, extra: {"username": name, "extra": extra}, ANY_JSON, st.sampled_from(EXTRAS)),
        "error": st.sampled_from([None, 5, "expired", ["audience"], "x" * 5000]),
    }
)


@FUZZ
@given(TOKENS, REVIEWS | ANY_JSON)
def test_any_token_is_admitted_or_refused(token: str, status: Any) -> None:
    async def review(token: str, audiences: Sequence[str]) -> Mapping[str, Any]:
        return status  # type: ignore[no-any-return]

    async def nobody(namespace: str, name: str) -> PodOwner | None:
        return None

    async def ask() -> None:
        authenticator = Authenticator(review, "here", lambda uid: None, nobody, lambda namespace, name: None)
        with pytest.raises(NotAdmitted):
            await authenticator.authenticate(token)

    asyncio.run(ask())
