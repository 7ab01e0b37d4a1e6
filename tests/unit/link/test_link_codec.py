"""Every message survives the wire; nothing out of bounds passes it."""

import json
import math
from dataclasses import fields, replace
from typing import Any, get_args

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from taskdist.api import Reason
from taskdist.api.task import MAX_RESULT_BYTES
from taskdist.link import codec
from taskdist.link.codec import BadMessage, Reauthenticate
from taskdist.link.proto import link_pb2 as pb
from taskdist.protocol import messages as m

LEASE = m.LeaseName("0a1b", 3, 7)
WIRE_LEASE = pb.LeaseName(task_uid="0a1b", attempt=3, epoch=7)

words = st.from_regex(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,10}[A-Za-z0-9])?", fullmatch=True)
object_names = st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,20}[a-z0-9])?", fullmatch=True)
texts = st.text(max_size=40)
seconds = st.floats(0, 2**40)
leases = st.builds(
    m.LeaseName, task_uid=st.text(min_size=1, max_size=36), attempt=st.integers(1, 2**31), epoch=st.integers(0, 2**31)
)
lease_sets = st.lists(leases, max_size=4).map(tuple)
resources = st.dictionaries(words, st.integers(0, 10**9), max_size=4).map(lambda d: tuple(sorted(d.items())))
labels = st.dictionaries(texts.filter(bool), texts, max_size=4).map(lambda d: tuple(sorted(d.items())))
word_lists = st.lists(words, max_size=4).map(tuple)
slots = st.integers(0, 1000)
references = st.builds(
    m.ObjectRef,
    uri=st.from_regex(r"s3://[a-z0-9]{3,20}/[A-Za-z0-9/_.=+@-]{1,40}", fullmatch=True),
    size=st.integers(2, 2**30),
    sha256=st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
    content_type=st.just("application/json"),
)
values = st.dictionaries(texts, st.integers(-(2**53), 2**53) | texts | st.none(), max_size=3).map(lambda d: _json(d))


bodies = values | references


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


BY_FIELD: dict[str, st.SearchStrategy[Any]] = {
    "protocol_version": st.integers(1, 2**31),
    "held": st.lists(
        st.builds(
            m.HeldLease,
            lease=leases,
            namespace=object_names,
            name=object_names,
            lease_seconds=seconds,
            hold_seconds=seconds,
            execution_seconds=seconds,
            progress_seconds=seconds,
        ),
        max_size=2,
    ).map(tuple),
    "started": seconds,
    "oldest_version": st.integers(0, 2**31),
    "highest_epoch": st.integers(0, 2**53),
    "leadership": texts,
    "objects": st.booleans(),
    "ran": st.booleans(),
    "instance_id": st.text(min_size=1, max_size=64),
    "slots": slots,
    "boot": seconds,
    "ping_boot": seconds,
    "lease_seconds": seconds,
    "hold_seconds": seconds,
    "execution_seconds": seconds,
    "progress_seconds": seconds,
    "since_start": seconds,
    "retry_after": st.floats(1, 3600),
    "ping_seconds": seconds,
    "resources": resources,
    "used": st.dictionaries(texts.filter(bool), st.integers(0, 10**9), max_size=4).map(
        lambda d: tuple(sorted(d.items()))
    ),
    "skills": word_lists,
    "types": st.none() | word_lists,
    "labels": labels,
    "fenced": st.booleans(),
    "arrays": st.booleans(),
    "chunk": st.none()
    | st.builds(
        m.Chunk,
        spans=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), max_size=3).map(tuple),
        count=st.integers(1, 10**6),
        payloads=st.lists(values, max_size=3).map(tuple),
    ),
    "draining": st.booleans(),
    "retryable": st.booleans(),
    "retry": st.booleans(),
    "undo": st.booleans(),
    "leases": lease_sets,
    "software": texts,
    "lease": leases,
    "fraction": st.floats(0, 1),
    "message": texts,
    "body": bodies,
    "payload": bodies,
    "parents": st.lists(st.builds(m.ParentResult, name=texts, phase=texts, result=bodies), max_size=3).map(tuple),
    "epoch": st.integers(0, 2**31),
    "namespace": texts,
    "name": texts,
    "type": texts,
    "verdict": st.sampled_from(m.Verdict),
    "token": st.text(min_size=1, max_size=100),
}
REASONS: dict[type, st.SearchStrategy[Any]] = {
    m.Failure: st.sampled_from(sorted(codec.FAILURE_REASONS)),
    m.Cancel: st.sampled_from(Reason),
    m.Refused: texts,
}


def any_of(kind: type) -> st.SearchStrategy[Any]:
    """Every field drawn: a field that is added and not carried fails here, since no default is left to hide it."""
    made = st.builds(kind, **{f.name: REASONS[kind] if f.name == "reason" else BY_FIELD[f.name] for f in fields(kind)})
    # Of any other failure there is no such word.
    return made.map(_without_retry_after) if kind is m.Failure else made


def _without_retry_after(failure: Any) -> Any:
    return failure if failure.reason is Reason.THROTTLED else replace(failure, retry_after=0.0)


FROM_AGENT: tuple[type, ...] = (*get_args(m.FromAgent), Reauthenticate)
TO_AGENT: tuple[type, ...] = get_args(m.ToAgent)


@pytest.mark.parametrize("kind", FROM_AGENT, ids=lambda k: k.__name__)
def test_what_an_agent_says_survives(kind: type) -> None:
    @given(any_of(kind))
    def survives(message: Any) -> None:
        wire = codec.encode_from_agent(message).SerializeToString()
        assert codec.decode_from_agent(pb.FromAgent.FromString(wire)) == message

    survives()


@pytest.mark.parametrize("kind", TO_AGENT, ids=lambda k: k.__name__)
def test_what_the_operator_says_survives(kind: type) -> None:
    @given(any_of(kind))
    def survives(message: Any) -> None:
        wire = codec.encode_to_agent(message).SerializeToString()
        assert codec.decode_to_agent(pb.ToAgent.FromString(wire)) == message

    survives()


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_a_message_or_refused(wire: bytes) -> None:
    try:
        parsed = pb.FromAgent.FromString(wire)
    except DecodeError:
        return
    try:
        message = codec.decode_from_agent(parsed)
    except BadMessage:
        return
    assert isinstance(message, FROM_AGENT)


def hello(**changes: Any) -> pb.FromAgent:
    given: dict[str, Any] = {"protocol_version": 1, "instance_id": "i", "slots": 1, "boot": 1.0} | changes
    return pb.FromAgent(hello=pb.Hello(**given))


@pytest.mark.parametrize(
    ("wire", "named"),
    [
        pytest.param(pb.FromAgent(), "kind", id="no kind"),
        pytest.param(hello(instance_id=""), "hello.instance_id", id="no instance"),
        pytest.param(hello(instance_id="x" * 65), "hello.instance_id", id="long instance"),
        pytest.param(hello(slots=1001), "hello.slots", id="slots"),
        pytest.param(hello(boot=math.nan), "hello.boot", id="boot NaN"),
        pytest.param(hello(boot=math.inf), "hello.boot", id="boot infinite"),
        pytest.param(hello(boot=-1.0), "hello.boot", id="boot negative"),
        pytest.param(hello(resources={"gpu": -1}), "hello.resources[gpu]", id="resource negative"),
        pytest.param(hello(resources={"gpu": 10**10}), "hello.resources[gpu]", id="resource large"),
        pytest.param(hello(resources={"": 1}), "hello.resources", id="resource unnamed"),
        pytest.param(hello(resources={f"r{n}": 1 for n in range(17)}), "hello.resources", id="resources many"),
        pytest.param(hello(skills=["a b"]), "'a b'", id="skill no word"),
        pytest.param(hello(skills=["a\n"]), "hello.skills", id="skill ends in newline"),
        pytest.param(hello(skills=["a"] * 65), "hello.skills", id="skills many"),
        pytest.param(hello(types=pb.TypeList(names=["x" * 64])), "hello.types", id="type long"),
        pytest.param(hello(types=pb.TypeList(names=["x"] * 257)), "hello.types", id="types many"),
        pytest.param(hello(labels={"": "x"}), "hello.labels", id="label unnamed"),
        pytest.param(hello(labels={"k": "x" * 64}), "hello.labels[k]", id="label value long"),
        pytest.param(hello(labels={f"k{n}": "" for n in range(33)}), "hello.labels", id="labels many"),
        pytest.param(hello(leases=[WIRE_LEASE] * 2049), "hello.leases", id="leases many"),
        pytest.param(hello(leases=[pb.LeaseName(attempt=1)]), "hello.leases.task_uid", id="lease unnamed"),
        pytest.param(
            hello(held=[pb.HeldLease(lease=WIRE_LEASE, namespace="../x", name="y")]), "hello.held.namespace", id="path"
        ),
        pytest.param(
            hello(held=[pb.HeldLease(lease=WIRE_LEASE, namespace="x", name="y", lease_seconds=math.inf)]),
            "hello.held.lease_seconds",
            id="held for ever",
        ),
        pytest.param(pb.FromAgent(ping=pb.Ping(boot=math.nan)), "ping.boot", id="ping NaN"),
        pytest.param(pb.FromAgent(started=pb.Started()), "started.lease", id="started nothing"),
        pytest.param(
            pb.FromAgent(started=pb.Started(lease=pb.LeaseName(task_uid="a", attempt=0))), "attempt", id="attempt 0"
        ),
        pytest.param(
            pb.FromAgent(started=pb.Started(lease=pb.LeaseName(task_uid="a", attempt=1, epoch=-1))), "epoch", id="epoch"
        ),
        pytest.param(pb.FromAgent(result=pb.Result(body=b"{}")), "result.lease", id="result of nothing"),
        pytest.param(pb.FromAgent(capacity=pb.Capacity(slots=5000)), "capacity.slots", id="capacity"),
        pytest.param(pb.FromAgent(reauthenticate=pb.Reauthenticate()), "reauthenticate.token", id="no token"),
    ],
)
def test_out_of_bounds_is_refused_by_name(wire: pb.FromAgent, named: str) -> None:
    with pytest.raises(BadMessage) as refused:
        codec.decode_from_agent(wire)
    assert named in str(refused.value)


@pytest.mark.parametrize(
    ("body", "reason", "says"),
    [
        pytest.param(b"x" * (MAX_RESULT_BYTES + 1), Reason.RESULT_TOO_LARGE, "65537 bytes", id="large"),
        pytest.param(b"[]", Reason.RESULT_REFUSED, "JSON list", id="list"),
        pytest.param(b"nonsense", Reason.RESULT_REFUSED, "Expecting value", id="no JSON"),
        pytest.param(b'{"a": NaN}', Reason.RESULT_REFUSED, "NaN is not JSON", id="NaN"),
        pytest.param(b'{"a": "\xff"}', Reason.RESULT_REFUSED, "utf-8", id="no UTF-8"),
        pytest.param(b'{}, "phase": "Failed"', Reason.RESULT_REFUSED, "Extra data", id="more than an object"),
        pytest.param(b'{"a":' + b"[" * 50_000, Reason.RESULT_REFUSED, "deep", id="deep"),
        pytest.param(b'{"a": ' + b"9" * 5000 + b"}", Reason.RESULT_REFUSED, "digits", id="endless number"),
    ],
)
def test_a_result_that_cannot_stand_on_a_task_is_a_permanent_failure(body: bytes, reason: Reason, says: str) -> None:
    message = codec.decode_from_agent(pb.FromAgent(result=pb.Result(lease=WIRE_LEASE, body=body)))
    assert isinstance(message, m.Failure)
    assert (message.lease, message.reason, message.retryable) == (LEASE, reason, False)
    assert says in message.message


GOOD: dict[str, Any] = {"uri": "s3://bucket/tasks/team/results/u/1/x", "size": 70_000, "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        pytest.param({"uri": "https://bucket/x"}, "uri", id="another scheme is refused"),
        pytest.param({"uri": "s3://bucket/" + "x" * 2000}, "uri", id="an endless name is refused"),
        pytest.param({"uri": 's3://bucket/"}'}, "uri", id="a name that JSON would have to quote is refused"),
        pytest.param({"size": 0}, "size", id="an object without bytes is refused"),
        pytest.param({"size": 2**40}, "size", id="an endless object is refused"),
        pytest.param({"sha256": "F" * 64}, "sha256", id="a hash in capitals is refused"),
        pytest.param({"content_type": "text/html"}, "contentType", id="what is no JSON is refused"),
    ],
)
def test_a_result_by_a_reference_that_no_task_may_hold_is_a_permanent_failure(
    changes: dict[str, Any], says: str
) -> None:
    wire = pb.Result(lease=WIRE_LEASE, ref=pb.ObjectRef(**(GOOD | changes)))
    message = codec.decode_from_agent(pb.FromAgent(result=wire))
    assert isinstance(message, m.Failure)
    assert (message.reason, message.retryable) == (Reason.RESULT_REFUSED, False)
    assert says in message.message


def test_who_knows_no_references_to_objects_finds_one_where_the_value_would_be() -> None:
    ref = m.ObjectRef(**GOOD)
    told = json.dumps({"$ref": ref.uri}, separators=(",", ":")).encode()
    assert codec.encode_from_agent(m.Result(LEASE, ref)).result.body == told
    grant = m.Grant(LEASE, "ns", "n", "t", 1, 0, 1, 1, payload=ref, parents=(m.ParentResult("p", "Succeeded", ref),))
    wire = codec.encode_to_agent(grant).grant
    assert (wire.payload, wire.parents[0].result) == (told, told)


@pytest.mark.parametrize(
    ("wire", "message"),
    [
        pytest.param(
            pb.FromAgent(progress=pb.Progress(lease=WIRE_LEASE, fraction=7)), m.Progress(LEASE, 1.0), id="fraction > 1"
        ),
        pytest.param(
            pb.FromAgent(progress=pb.Progress(lease=WIRE_LEASE, fraction=math.nan)),
            m.Progress(LEASE, 0.0),
            id="fraction NaN",
        ),
        pytest.param(pb.FromAgent(result=pb.Result(lease=WIRE_LEASE)), m.Result(LEASE, b"{}"), id="empty body"),
        pytest.param(
            pb.FromAgent(failure=pb.Failure(lease=WIRE_LEASE, message="x" * 9000)),
            m.Failure(LEASE, Reason.HANDLER_ERROR, "x" * 4096),
            id="failure: long text, no reason",
        ),
        pytest.param(
            codec.encode_from_agent(m.Failure(LEASE, Reason.COMPLETED, "odd")),
            m.Failure(LEASE, Reason.HANDLER_ERROR, "odd"),
            id="failure: a reason that is not an agent's to give",
        ),
        pytest.param(
            codec.encode_from_agent(m.Stopped(LEASE, "half \ud800 pair")),
            m.Stopped(LEASE, "half ? pair"),
            id="surrogate",
        ),
    ],
)
def test_what_is_mended(wire: pb.FromAgent, message: m.FromAgent) -> None:
    assert codec.decode_from_agent(wire) == message


def test_an_agent_understands_words_of_a_newer_operator() -> None:
    cancel = codec.decode_to_agent(pb.ToAgent(cancel=pb.Cancel(lease=WIRE_LEASE, reason="Novel")))
    assert cancel == m.Cancel(LEASE, Reason.CANCELLED)
    final = pb.ToAgent(final=pb.Final(lease=WIRE_LEASE))
    final.final.verdict = 99  # type: ignore[assignment]
    assert isinstance(codec.decode_to_agent(final), m.Final)
    with pytest.raises(BadMessage, match="another version"):
        codec.decode_to_agent(pb.ToAgent())


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        pytest.param({"q/b": 0, "a": 7}, (("a", 7), ("q/b", 0)), id="sorted"),
        pytest.param({"a": -1, "b": 2}, (("b", 2),), id="negative"),
        pytest.param({"a": 10**9 + 1, "b": 10**9}, (("b", 10**9),), id="too-much"),
        pytest.param({"": 1, "x" * 102: 1, "x" * 101: 1}, (("x" * 101, 1),), id="no-name"),
        pytest.param({f"b{n:02}": n for n in range(20)}, tuple((f"b{n:02}", n) for n in range(16)), id="too-many"),
    ],
)
def test_of_what_was_used_what_is_out_of_bounds_is_left_out(
    told: dict[str, int], kept: tuple[tuple[str, int], ...]
) -> None:
    result = codec.decode_from_agent(pb.FromAgent(result=pb.Result(lease=WIRE_LEASE, used=told)))
    failure = codec.decode_from_agent(pb.FromAgent(failure=pb.Failure(lease=WIRE_LEASE, used=told)))
    refused = codec.decode_from_agent(pb.FromAgent(result=pb.Result(lease=WIRE_LEASE, body=b"no", used=told)))
    assert isinstance(result, m.Result)
    assert isinstance(failure, m.Failure)
    assert isinstance(refused, m.Failure)
    assert result.used == failure.used == refused.used == kept
