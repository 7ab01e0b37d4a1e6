"""What a message of SQS is to the template, what its dead letter says, and what each error asks for."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from taskdist.brokers.sqs_errors import Why, trouble_of
from taskdist.intake.message import Poison, PoisonReason
from taskdist.sources.broker import Delivery
from taskdist.sources.sqs_messages import dead_letters_of, message_of, size_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
QUEUE = "https://sqs.eu-central-1.amazonaws.com/1/orders"
POISON = Poison(PoisonReason.NOT_JSON, "the body is no JSON\x00")


def raw(attributes: dict[str, Any] | None = None, /, **told: str) -> dict[str, Any]:
    return {
        "MessageId": "m",
        "ReceiptHandle": "r",
        "Body": "{}",
        "Attributes": told,
        "MessageAttributes": attributes or {},
    }


def delivery(message: dict[str, Any]) -> Delivery:
    return Delivery(1, message_of(message, NOW), message)


def test_a_message_is_told_apart_by_its_id_and_not_by_what_deduplicates_it() -> None:
    """A deduplication id stands for five minutes only: later, the same one is another message, sent on purpose."""
    found = message_of(raw(MessageDeduplicationId="d", MessageGroupId="g"), NOW)
    assert (found.id, found.key) == ("m", "g")
    assert found.properties == {"messageId": "m", "messageDeduplicationId": "d", "messageGroupId": "g"}


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        pytest.param({"DataType": "String", "StringValue": "é"}, "é", id="a text"),
        pytest.param({"DataType": "String.json", "StringValue": "1"}, "1", id="a text with a type of its own"),
        pytest.param({"DataType": "Number", "StringValue": "7"}, 7, id="a whole number"),
        pytest.param({"DataType": "Number.float", "StringValue": "-0.5"}, -0.5, id="a fraction"),
        pytest.param({"DataType": "Number", "StringValue": "9" * 38}, "9" * 38, id="more digits than JSON keeps"),
        pytest.param({"DataType": "Number", "StringValue": "0." + "1" * 30}, "0." + "1" * 30, id="a finer fraction"),
        pytest.param({"DataType": "Number", "StringValue": "9" * 5000}, "9" * 5000, id="more than is read of a number"),
        pytest.param({"DataType": "Number", "StringValue": "1e2"}, 100.0, id="a power"),
        pytest.param({"DataType": "Number", "StringValue": "1_0"}, "1_0", id="a number as Python has it"),
        pytest.param({"DataType": "Number", "StringValue": "1e999"}, "1e999", id="a number that JSON has not"),
        pytest.param({"DataType": "Number", "StringValue": "odd"}, "odd", id="a number that is none"),
        pytest.param({"DataType": "Binary", "BinaryValue": b"\xff"}, "/w==", id="bytes are base64"),
        pytest.param({}, "", id="nothing"),
    ],
)
def test_attributes_are_headers(attribute: dict[str, Any], value: Any) -> None:
    assert message_of(raw({"a": attribute}), NOW).headers == {"a": value}


@pytest.mark.parametrize(
    ("told", "time"),
    [
        pytest.param("1767225600123", datetime(2026, 1, 1, 0, 0, 0, 123000, UTC), id="when it was sent"),
        pytest.param("odd", NOW, id="none that can be read: now"),
        pytest.param("9" * 15, NOW, id="beyond all years: now"),
        pytest.param("9" * 5000, NOW, id="more than is read of a number: now"),
    ],
)
def test_its_time_is_when_it_was_sent(told: str, time: datetime) -> None:
    assert message_of(raw(SentTimestamp=told), NOW).time == time


def test_attributes_count_as_what_is_in_hand() -> None:
    told: dict[str, Any] = {"a": {"DataType": "String", "StringValue": "x" * 10_000}}
    told |= {"b": {"DataType": "Binary", "BinaryValue": b"x" * 10_000}}
    assert 22_000 < size_of(raw(told), b"x" * 2000) < 23_000


def test_a_dead_letter_says_why_and_keeps_as_many_attributes_as_there_is_room_for() -> None:
    theirs = {f"a{number}": {"DataType": "String", "StringValue": "x"} for number in range(10)}
    first, second, last = dead_letters_of(delivery(raw(theirs)), POISON, "ns/s", fifo=False)
    ours = {name: value["StringValue"] for name, value in second["MessageAttributes"].items()}
    assert ours == {
        "x-taskdist-reason": "NotJson",
        "x-taskdist-message": "the body is no JSON ",
        "x-taskdist-source": "ns/s",
        "x-taskdist-id": "m",
    }
    assert set(first["MessageAttributes"]) == {*ours, *(f"a{number}" for number in range(6))}
    assert last == {"MessageBody": "{}"}


@pytest.mark.parametrize(
    ("told", "group"),
    [
        pytest.param({"MessageGroupId": "g"}, "g", id="in its group"),
        pytest.param({}, "taskdist", id="of a queue without groups: in one for all"),
    ],
)
def test_a_dead_letter_of_a_queue_in_order_is_taken_once(told: dict[str, str], group: str) -> None:
    for letter in dead_letters_of(delivery(raw(None, **told)), POISON, "ns/s", fifo=True):
        assert (letter["MessageGroupId"], letter["MessageDeduplicationId"]) == (group, "m")


BROKER, SECRET = Why.BROKER_UNREACHABLE, Why.SECRET_UNUSABLE


@pytest.mark.parametrize(
    ("code", "said", "operation", "why", "words"),
    [
        pytest.param(
            "NonExistentQueue",
            "The specified queue does not exist.",
            "ReceiveMessage",
            BROKER,
            f"there is no queue {QUEUE} in eu-west-1: create it, or mend",
            id="no such queue",
        ),
        pytest.param(
            "InvalidAddress",
            "The address is not valid for this endpoint.",
            "ReceiveMessage",
            BROKER,
            "mend spec.sqs.region",
            id="another region",
        ),
        pytest.param(
            "SignatureDoesNotMatch",
            "Credential should be scoped to a valid region.",
            "ReceiveMessage",
            BROKER,
            "mend spec.sqs.region",
            id="signed for another region",
        ),
        pytest.param(
            "AccessDenied",
            "User x is not authorized",
            "ReceiveMessage",
            BROKER,
            f"sqs:ReceiveMessage on {QUEUE} is not allowed: allow it",
            id="no right to receive",
        ),
        pytest.param(
            "AccessDeniedException",
            "",
            "ChangeMessageVisibility",
            BROKER,
            "sqs:ChangeMessageVisibility on",
            id="no right to extend",
        ),
        pytest.param("AccessDenied", "", "DeleteMessage", BROKER, "sqs:DeleteMessage on", id="no right to delete"),
        pytest.param(
            "InvalidClientTokenId",
            "The security token is invalid.",
            "ReceiveMessage",
            SECRET,
            "mend AWS_ACCESS_KEY_ID",
            id="no such access key",
        ),
        pytest.param(
            "SignatureDoesNotMatch",
            "The signature does not match.",
            "ReceiveMessage",
            SECRET,
            "not that of the access key",
            id="another secret",
        ),
        pytest.param(
            "SignatureDoesNotMatch",
            "Signature expired: 2026 is now earlier than 2027",
            "ReceiveMessage",
            BROKER,
            "clock of this process's node is wrong: set it",
            id="a clock behind",
        ),
        pytest.param(
            "InvalidSignatureException",
            "Signature not yet current",
            "ReceiveMessage",
            BROKER,
            "clock of this process's node is wrong",
            id="a clock ahead",
        ),
        pytest.param("RequestExpired", "", "ReceiveMessage", BROKER, "clock", id="a request that has expired"),
        pytest.param(
            "ExpiredToken",
            "",
            "ReceiveMessage",
            SECRET,
            "session token has expired: write a new one",
            id="a session that is over",
        ),
        pytest.param("KmsAccessDenied", "", "ReceiveMessage", BROKER, "allow kms:Decrypt", id="no right to the key"),
        pytest.param("OverLimit", "", "ReceiveMessage", BROKER, "too many messages", id="too many in flight"),
        pytest.param("", "", "ReceiveMessage", BROKER, "ReceiveMessage on", id="an error without a name"),
        pytest.param("404", "", "ReceiveMessage", BROKER, "none of SQS (HTTP 404)", id="somebody else's error"),
        pytest.param("AccessDenied", "", "AssumeRole", SECRET, "mend the role or its trust", id="no right to a role"),
    ],
)
def test_an_error_names_what_mends_it(code: str, said: str, operation: str, why: Why, words: str) -> None:
    trouble = trouble_of(code, said, operation, QUEUE, "eu-west-1")
    assert trouble.why is why
    assert words in str(trouble)


@pytest.mark.parametrize(
    ("code", "said", "kept"),
    [
        pytest.param("500", "secret: hunter2", False, id="what no SQS said"),
        pytest.param("<html>", "secret: hunter2", False, id="what has no name of an error"),
        pytest.param("SignatureDoesNotMatch", "No.\nx-amz-security-token:hunter2", False, id="the request as it came"),
        pytest.param("Odd", "hunter2", True, id="the words of SQS"),
    ],
)
def test_a_status_repeats_the_words_of_sqs_and_nobody_elses(code: str, said: str, kept: bool) -> None:
    assert ("hunter2" in str(trouble_of(code, said, "ReceiveMessage", QUEUE, "eu-west-1"))) is kept


def test_what_a_terminal_obeys_is_not_repeated() -> None:
    assert str(trouble_of("Odd", "a\x1b[2Jb", "ReceiveMessage", QUEUE, "eu-west-1")).isprintable()
