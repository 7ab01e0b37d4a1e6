"""Deliveries of webhooks: how they are signed, by what others publish; and CloudEvents as messages."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskdist.api import TaskSourceSpec
from taskdist.intake.cloudevents import MAX_EVENTS, Attributes, TooManyEvents, UnknownFormat
from taskdist.intake.mapping import MappingError
from taskdist.intake.message import Message, Poison
from taskdist.intake.signatures import SecretError, Stale, Unsigned
from taskdist.intake.webhooks import Headers, Hook, NotJson, compile_webhook

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
STRUCTURED, BATCHED = "application/cloudevents+json", "application/cloudevents-batch+json"


def hook(task: Mapping[str, Any] | None = None, **webhook: Any) -> Hook:
    fields = {"format": "JSON", "secretName": "s", **webhook}
    spec = {"task": {"queue": "q", "type": "t", "identity": "{hash}", **(task or {})}, "webhook": fields}
    return compile_webhook(TaskSourceSpec.model_validate(spec))


def signed_at(
    found: Hook, secret: str | bytes, headers: Mapping[str, str], body: bytes, now: datetime = NOW
) -> datetime | None:
    """Return when it was signed. Raises where the delivery is not to be taken."""
    keys = found.verifier.keys([secret.encode() if isinstance(secret, str) else secret])
    return found.verifier.verify(keys, Message(body=body, headers=Headers(headers.items())), now)


# -- what others publish -----------------------------------------------------------------------------------------------

GITHUB = {"header": "X-Hub-Signature-256", "prefix": "sha256="}
GITHUB_SECRET = "It's a Secret to Everybody"
GITHUB_SIGNATURE = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"

SLACK = {
    "header": "X-Slack-Signature",
    "prefix": "v0=",
    "content": "v0:{headers.x-slack-request-timestamp}:{text}",
    "timestamp": "{headers.X-Slack-Request-Timestamp}",
}
SLACK_SECRET = "8f742231b10e8888abcd99yyyzzz85a5"
SLACK_BODY = (
    b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar"
    b"&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.co"
    b"m%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a"
    b"14d10d2c447fce8b6703c"
)
SLACK_HEADERS = {
    "X-Slack-Request-Timestamp": "1531420618",
    "X-Slack-Signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
}

STANDARD_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
STANDARD_BODY = b'{"test": 2432232314}'
STANDARD_HEADERS = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}

STRIPE = {
    "header": "Stripe-Signature",
    "prefix": "v1=",
    "content": "{properties.t}.{text}",
    "timestamp": "{properties.t}",
}
STRIPE_SECRET = "whsec_of_an_endpoint_of_stripe"


def test_the_example_of_github_is_signed() -> None:
    found = hook(signature=GITHUB)
    assert signed_at(found, GITHUB_SECRET, {"x-hub-signature-256": GITHUB_SIGNATURE}, b"Hello, World!") is None
    assert signed_at(found, GITHUB_SECRET, {"X-Hub-Signature-256": GITHUB_SIGNATURE}, b"Hello, World!") is None
    # As a Secret has it that was made of a file.
    assert signed_at(found, GITHUB_SECRET + "\n", {"X-Hub-Signature-256": GITHUB_SIGNATURE}, b"Hello, World!") is None


def test_the_example_of_slack_is_signed_and_its_time_is_known() -> None:
    then = datetime.fromtimestamp(1531420618, UTC)
    assert signed_at(hook(signature=SLACK), SLACK_SECRET, SLACK_HEADERS, SLACK_BODY, then) == then


def test_the_example_of_standard_webhooks_is_signed_and_named() -> None:
    then = datetime.fromtimestamp(1614265330, UTC)
    found = hook({"identity": None})
    for headers in (
        STANDARD_HEADERS,
        STANDARD_HEADERS | {"webhook-signature": f"v1a,abc v1,AAAA {STANDARD_HEADERS['webhook-signature']}"},
    ):
        assert signed_at(found, STANDARD_SECRET, headers, STANDARD_BODY, then) == then
    (message,) = found.messages("application/json", Headers(STANDARD_HEADERS.items()), STANDARD_BODY, then, NOW)
    assert isinstance(message, Message)
    assert (found.mapping.of(message).identity, message.time) == ("msg_p5jXN8AQM9LWM0D4loKWxJek", then)


def test_a_header_with_parts_as_of_stripe_is_signed_and_its_time_is_known() -> None:
    body, stamp = b'{"id": "evt_1"}', int(NOW.timestamp())
    written = hmac.new(STRIPE_SECRET.encode(), b"%d.%s" % (stamp, body), hashlib.sha256).hexdigest()
    found = hook(signature=STRIPE)
    for header in (f"t={stamp},v1={written},v0=ff", f"t={stamp}, v1={'0' * 64}, v1={written}"):
        assert signed_at(found, STRIPE_SECRET, {"Stripe-Signature": header}, body) == NOW
    with pytest.raises(Unsigned):
        signed_at(found, STRIPE_SECRET, {"Stripe-Signature": f"t={stamp + 1},v1={written}"}, body)


FORMS: dict[str, tuple[dict[str, Any], str]] = {
    "a longer hash": ({"algorithm": "SHA512"}, hmac.new(b"k" * 16, b"x", hashlib.sha512).hexdigest()),
    "in capitals": ({}, hmac.new(b"k" * 16, b"x", hashlib.sha256).hexdigest().upper()),
    "in base64": (
        {"encoding": "Base64"},
        base64.b64encode(hmac.digest(b"k" * 16, b"x", "sha256")).decode(),
    ),
    "of text around the body": (
        {"content": "a{{{text}}}b"},
        hmac.new(b"k" * 16, b"a{x}b", hashlib.sha256).hexdigest(),
    ),
    "of the body's hash": (
        {"content": "{hash}"},
        hmac.new(b"k" * 16, hashlib.sha256(b"x").hexdigest().encode(), hashlib.sha256).hexdigest(),
    ),
}


@pytest.mark.parametrize(("form", "written"), FORMS.values(), ids=FORMS.keys())
def test_a_signature_may_be(form: dict[str, Any], written: str) -> None:
    found = hook(signature={"header": "S", **form})
    assert signed_at(found, b"k" * 16, {"s": written}, b"x") is None
    for wrong in (written[:-1], f"{written}0", "", "é", " "):
        with pytest.raises(Unsigned):
            signed_at(found, b"k" * 16, {"s": wrong}, b"x")


UNSIGNED: dict[str, tuple[str, dict[str, str], bytes]] = {
    "another body": (GITHUB_SECRET, {"x-hub-signature-256": GITHUB_SIGNATURE}, b"Hello, World?"),
    "another secret": (GITHUB_SECRET + "!", {"x-hub-signature-256": GITHUB_SIGNATURE}, b"Hello, World!"),
    "no header": (GITHUB_SECRET, {"x-hub-signature": GITHUB_SIGNATURE}, b"Hello, World!"),
    "no prefix": (GITHUB_SECRET, {"x-hub-signature-256": GITHUB_SIGNATURE.removeprefix("sha256=")}, b"Hello, World!"),
    "the prefix alone": (GITHUB_SECRET, {"x-hub-signature-256": "sha256="}, b"Hello, World!"),
}


@pytest.mark.parametrize(("secret", "headers", "body"), UNSIGNED.values(), ids=UNSIGNED.keys())
def test_what_is_signed_with(secret: str, headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(Unsigned):
        signed_at(hook(signature=GITHUB), secret, headers, body)


@given(
    st.dictionaries(st.text(max_size=8) | st.sampled_from(tuple(STANDARD_HEADERS)), st.text(max_size=40), max_size=4),
    st.binary(max_size=40),
    st.sampled_from((GITHUB, SLACK, STRIPE, None)),
)
def test_nothing_that_strangers_send_is_signed(
    headers: dict[str, str], body: bytes, signature: dict[str, Any] | None
) -> None:
    with pytest.raises(Unsigned):
        signed_at(hook(signature=signature), STANDARD_SECRET, headers, body)


@given(st.binary(min_size=1, max_size=64), st.integers(0), st.integers(1, 255))
def test_one_bit_of_a_body_makes_another_signature(body: bytes, place: int, bits: int) -> None:
    written = hmac.new(b"k" * 16, body, hashlib.sha256).hexdigest()
    found = hook(signature={"header": "S"})
    assert signed_at(found, b"k" * 16, {"s": written}, body) is None
    other = bytearray(body)
    other[place % len(body)] ^= bits
    with pytest.raises(Unsigned):
        signed_at(found, b"k" * 16, {"s": written}, bytes(other))


def test_each_of_several_secrets_is_good() -> None:
    verifier = hook(signature={"header": "S"}).verifier
    keys = verifier.keys([b"old" * 8, b"new" * 8])
    for key in keys:
        headers = Headers([("s", hmac.new(key, b"x", hashlib.sha256).hexdigest())])
        assert verifier.verify(keys, Message(body=b"x", headers=headers), NOW) is None


SHORT: dict[str, tuple[bytes, dict[str, Any] | None, str]] = {
    "nothing": (b"", GITHUB, "16 bytes"),
    "line ends alone": (b"\n" * 20, GITHUB, "16 bytes"),
    "a word": (b"hunter2", GITHUB, "16 bytes"),
    "no base64 where that is asked for": (b"whsec_It's a Secret", None, "base64"),
    "too little base64": (b"whsec_c2hvcnQ=", None, "16 bytes"),
}


@pytest.mark.parametrize(("secret", "signature", "says"), SHORT.values(), ids=SHORT.keys())
def test_no_secret_is(secret: bytes, signature: dict[str, Any] | None, says: str) -> None:
    with pytest.raises(SecretError, match=says):
        hook(signature=signature).verifier.keys([secret])


def slack(stamp: str, now: datetime = NOW, **webhook: Any) -> datetime | None:
    """Return when a delivery was signed that says so in these words."""
    written = hmac.new(SLACK_SECRET.encode(), f"v0:{stamp}:x".encode("latin-1"), hashlib.sha256).hexdigest()
    headers = {"X-Slack-Request-Timestamp": stamp, "X-Slack-Signature": f"v0={written}"}
    return signed_at(hook(signature=SLACK, **webhook), SLACK_SECRET, headers, b"x", now)


TIMES = {
    "seconds": "1893499200",
    "seconds with a fraction": "1893499200.000",
    "milliseconds": "1893499200000",
    "RFC 3339": "2030-01-01T13:00:00+01:00",
}


@pytest.mark.parametrize("stamp", TIMES.values(), ids=TIMES.keys())
def test_a_time_may_be_in(stamp: str) -> None:
    assert slack(stamp) == NOW


@pytest.mark.parametrize("stamp", ["", "soon", "-1", "9" * 16, "9" * 30, "2030", "NaN", "1e9", "2030-13-01T00:00:00Z"])
def test_a_signed_time_that_is_none_is_refused(stamp: str) -> None:
    with pytest.raises(Stale):
        slack(stamp)


def test_a_delivery_is_good_for_the_tolerance_and_no_longer_and_no_sooner() -> None:
    stamp = str(int(NOW.timestamp()))
    for seconds in (-60, 0, 60):
        assert slack(stamp, NOW + timedelta(seconds=seconds), toleranceSeconds=60) == NOW
    for seconds in (-61, 61):
        with pytest.raises(Stale):
            slack(stamp, NOW + timedelta(seconds=seconds), toleranceSeconds=60)


ODD: dict[str, tuple[dict[str, Any], str, str]] = {
    "a time that nobody signed": (
        GITHUB | {"timestamp": "{headers.date}"},
        "spec.webhook.signature.timestamp",
        "{headers.date} is no part of what is signed",
    ),
    "a time that is always the same": (GITHUB | {"timestamp": "now"}, "spec.webhook.signature.timestamp", "the same"),
    "a body that nobody signed": (
        GITHUB | {"content": "{headers.date}"},
        "spec.webhook.signature.content",
        "anyone could change it",
    ),
    "a part that is never signed": (
        GITHUB | {"content": "{time}.{text}"},
        "spec.webhook.signature.content",
        "{time} is nothing that is signed",
    ),
    "braces without a path": (GITHUB | {"content": "{body}"}, "spec.webhook.signature.content", "no path in braces"),
}


@pytest.mark.parametrize(("signature", "field", "says"), ODD.values(), ids=ODD.keys())
def test_a_signature_is_refused_with(signature: dict[str, Any], field: str, says: str) -> None:
    with pytest.raises(MappingError, match=says.replace("{", r"\{").replace("}", r"\}")) as refused:
        hook(signature=signature)
    assert refused.value.field == field


def test_a_time_within_the_body_is_signed_with_it() -> None:
    body = json.dumps({"sent": "2030-01-01T12:00:00Z"}).encode()
    written = hmac.new(GITHUB_SECRET.encode(), body, hashlib.sha256).hexdigest()
    found = hook(signature=GITHUB | {"timestamp": "{$.sent}"})
    assert signed_at(found, GITHUB_SECRET, {"X-Hub-Signature-256": f"sha256={written}"}, body) == NOW


# -- what they hold ----------------------------------------------------------------------------------------------------

EVENT = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "order.placed"}
BINARY = {f"ce-{name}": value for name, value in EVENT.items()}


def events(media_type: str, body: bytes, headers: Mapping[str, str] | None = None) -> list[Message | Poison]:
    found = hook({"identity": None}, format="CloudEvents")
    return found.messages(media_type, Headers((headers or {}).items()), body, None, NOW)


def structured(**more: Any) -> Message:
    (found,) = events(STRUCTURED, json.dumps(EVENT | more).encode())
    assert isinstance(found, Message)
    return found


def test_the_three_modes_give_the_same_message() -> None:
    more = {"time": "2030-01-01T11:00:00Z", "partitionkey": "k", "subject": "s", "ext": "e"}
    headers = BINARY | {f"Ce-{name}": value for name, value in more.items()}
    (binary,) = events("application/json", b'{"n":1}', headers | {"content-type": "application/json"})
    whole = EVENT | more | {"datacontenttype": "application/json", "data": {"n": 1}, "dataschema": None}
    (batched,) = events(BATCHED, json.dumps([whole]).encode())
    for message in (binary, structured(**whole), batched):
        assert isinstance(message, Message)
        assert (message.body, message.id, message.key) == (b'{"n":1}', "/shop 1", "k")
        assert message.time == NOW - timedelta(hours=1)
        assert message.properties == EVENT | more | {"datacontenttype": "application/json"}


DATA: dict[str, tuple[dict[str, Any], bytes]] = {
    "an object": ({"data": {"a": [1, 2.5, "é", None, True]}}, b'{"a":[1,2.5,"\\u00e9",null,true]}'),
    "a text that is JSON": ({"data": "x"}, b'"x"'),
    "a text that is none": ({"data": "<é/>", "datacontenttype": "application/xml"}, "<é/>".encode()),
    "an object of an odd type": ({"data": {}, "datacontenttype": "text/plain"}, b"{}"),
    "a kind of JSON": ({"data": "x", "datacontenttype": "application/vnd.a+json; charset=utf-8"}, b'"x"'),
    "bytes": ({"data_base64": "AAH/"}, b"\x00\x01\xff"),
    "null": ({"data": None}, b"null"),
    "none": ({}, b""),
}


@pytest.mark.parametrize(("more", "body"), DATA.values(), ids=DATA.keys())
def test_the_data_of_an_event_may_be(more: dict[str, Any], body: bytes) -> None:
    assert structured(**more).body == body


VALUES = {
    "plain": ("plain", "plain"),
    "percent-encoded": ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
    "encoded once": ("%2541", "%41"),
    "quoted": (r'"a \"b\" c"', 'a "b" c'),
    "as UTF-8": ("é".encode().decode("latin-1"), "é"),
}


@pytest.mark.parametrize(("written", "meant"), VALUES.values(), ids=VALUES.keys())
def test_a_header_of_an_event_may_be(written: str, meant: str) -> None:
    (message,) = events("text/plain", b"", BINARY | {"ce-subject": written})
    assert isinstance(message, Message)
    assert message.properties["subject"] == meant


NO_EVENT: dict[str, tuple[str, Any, dict[str, str], str]] = {
    "nothing": (STRUCTURED, None, {}, "body: an event is an object, and this is null"),
    "a list": (STRUCTURED, [EVENT], {}, "body: an event is an object, and this is a list"),
    "no id": (STRUCTURED, {**EVENT, "id": None}, {}, "id: Field required"),
    "an empty id": (STRUCTURED, EVENT | {"id": ""}, {}, "id: "),
    "an id that is a number": (STRUCTURED, EVENT | {"id": 1}, {}, "id: "),
    "an older version": (STRUCTURED, EVENT | {"specversion": "0.3"}, {}, "specversion: "),
    "a source with a space": (STRUCTURED, EVENT | {"source": "a b"}, {}, "source: "),
    "a time that is none": (STRUCTURED, EVENT | {"time": "now"}, {}, "time: "),
    "a day that is none": (STRUCTURED, EVENT | {"time": "2030-02-31T00:00:00Z"}, {}, "time: "),
    "an odd name": (STRUCTURED, EVENT | {"my-ext": "a"}, {}, "my-ext: names of attributes"),
    "an extension that is an object": (STRUCTURED, EVENT | {"ext": {}}, {}, "ext: "),
    "both kinds of data": (STRUCTURED, EVENT | {"data": 1, "data_base64": "AA=="}, {}, "data_base64: "),
    "no base64": (STRUCTURED, EVENT | {"data_base64": "?"}, {}, "data_base64: "),
    "base64 that is a number": (STRUCTURED, EVENT | {"data_base64": 7}, {}, "data_base64: "),
    "half a character in a text": (
        STRUCTURED,
        EVENT | {"data": "\ud800", "datacontenttype": "text/plain"},
        {},
        "data: it holds what cannot be kept",
    ),
    "a batch that is an event": (BATCHED, EVENT, {}, "body: a batch is a list, and this is an object"),
    "no headers": ("application/json", {}, {}, "ce-specversion: Field required"),
    "half of the headers": ("application/json", {}, {"ce-specversion": "1.0", "ce-id": "1"}, "ce-source: "),
    "a header that is no UTF-8": ("application/json", {}, BINARY | {"ce-subject": "%C0%A0"}, "ce-subject: "),
}


@pytest.mark.parametrize(("kind", "value", "headers", "says"), NO_EVENT.values(), ids=NO_EVENT.keys())
def test_no_event_is(kind: str, value: Any, headers: dict[str, str], says: str) -> None:
    with pytest.raises(Poison) as refused:
        events(kind, json.dumps(value).encode(), headers)
    assert str(refused.value).startswith(says)


def test_an_event_that_is_none_spoils_no_other_of_its_batch() -> None:
    first, second, third = events(BATCHED, json.dumps([EVENT, {"id": 1}, EVENT | {"id": "2"}]).encode())
    assert isinstance(second, Poison)
    assert [each.id for each in (first, third) if isinstance(each, Message)] == ["/shop 1", "/shop 2"]
    assert events(BATCHED, b"[]") == []


def test_batches_are_bounded_and_other_formats_are_said_to_be_so() -> None:
    assert len(events(BATCHED, json.dumps([EVENT] * MAX_EVENTS).encode())) == MAX_EVENTS
    with pytest.raises(TooManyEvents):
        events(BATCHED, json.dumps([EVENT] * (MAX_EVENTS + 1)).encode())
    for kind in ("application/cloudevents+avro", "application/cloudevents"):
        with pytest.raises(UnknownFormat):
            events(kind, b"")
    with pytest.raises(NotJson):
        hook(signature=GITHUB).messages("application/x-www-form-urlencoded", Headers([]), b"a=b", None, NOW)


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
NAMES = st.sampled_from((*Attributes.model_fields, "data", "data_base64", "ext")) | st.text(max_size=8)
BODIES = (
    st.binary(max_size=64)
    | JSONS.map(lambda value: json.dumps(value).encode())
    | st.lists(st.dictionaries(NAMES, JSONS, max_size=5).map(lambda more: EVENT | more), max_size=3).map(
        lambda batch: json.dumps(batch).encode()
    )
    | st.dictionaries(NAMES, JSONS, max_size=5).map(lambda more: json.dumps(EVENT | more).encode())
    | st.sampled_from((b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5000, b'"\\ud800"', b"1e999"))
)


@given(
    kind=st.sampled_from((STRUCTURED, BATCHED, "application/json", "text/plain", "")),
    body=BODIES,
    headers=st.dictionaries(NAMES.map(lambda name: f"ce-{name}"), st.text(max_size=12), max_size=6),
    whole=st.booleans(),
)
def test_whatever_comes_is_a_message_or_is_refused(
    kind: str, body: bytes, headers: dict[str, str], whole: bool
) -> None:
    found = hook({"identity": None}, format="CloudEvents")
    given_headers = Headers(((BINARY if whole else {}) | headers).items())
    try:
        messages = found.messages(kind, given_headers, body, None, NOW)
    except Poison:
        return
    for message in messages:
        if isinstance(message, Message):
            try:
                found.mapping.of(message)
            except Poison:
                continue


def test_headers_are_found_in_any_letters_and_credentials_never() -> None:
    headers = Headers([("X-Tenant", "a"), ("x-tenant", "b"), ("Authorization", "Bearer t"), ("Cookie", "c")])
    assert dict(headers) == {"x-tenant": "a, b"}
    found = hook({"tenant": "{headers.X-Tenant}", "payload": {"all": "{headers}"}}, signature=GITHUB)
    headers = Headers([("x-tenant", "a")])
    (message,) = found.messages("", headers, b"{}", None, NOW)
    assert isinstance(message, Message)
    assert found.mapping.of(message).spec == {
        "queue": "q",
        "type": "t",
        "tenant": "a",
        "payload": {"all": {"x-tenant": "a"}},
    }
