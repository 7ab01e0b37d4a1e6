"""A session with SQS where it does not do what it is asked: what is then kept, told and tried again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

from taskdist.api import SourceReason, TaskSource
from taskdist.brokers import sqs as access
from taskdist.brokers.sqs import Login
from taskdist.common.backoff import Backoff
from taskdist.intake.message import Poison, PoisonReason
from taskdist.kube import ApiError
from taskdist.sources import sqs
from taskdist.sources.broker import Delivery, NotPublished, Told, Trouble, Waiting
from taskdist.sources.connecting import connect
from taskdist.sources.sqs import SqsSession
from taskdist.sources.sqs_access import Address, Sqs

POISON = Poison(PoisonReason.NOT_JSON, "the body is no JSON")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
QUEUE, ORDERED = "https://sqs.a-1.amazonaws.com/1/q", "https://sqs.a-1.amazonaws.com/1/q.fifo"


def refusal(code: str, message: str = "") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "Any")


@dataclass
class Queue:
    """What a client of SQS asks and is answered: messages that are ready, and failures by receipt."""

    ready: list[dict[str, Any]] = field(default_factory=list)
    failures: dict[str, list[str]] = field(default_factory=dict)
    error: Exception | None = None
    refusals: list[Exception] = field(default_factory=list)
    renewed: dict[str, str] = field(default_factory=dict)
    """The receipts that messages have who are handed out anew as soon as they are given back, by their former ones."""
    throttled: list[str] = field(default_factory=list)
    """What is asked too often, once for each time that it is here."""
    asked: list[tuple[str, Any]] = field(default_factory=list)
    stir: asyncio.Event = field(default_factory=asyncio.Event)

    def send(self, *names: str, group: str | None = None, receipt: str = "") -> None:
        attributes = {} if group is None else {"MessageGroupId": group}
        for name in names:
            self.ready.append(
                {"MessageId": name, "ReceiptHandle": receipt or name, "Body": "{}", "Attributes": attributes}
            )
        self.stir.set()

    def fail(self, error: Exception) -> None:
        self.error = error
        self.stir.set()

    async def receive_message(self, **asked: Any) -> dict[str, Any]:
        self.asked.append(("receive", asked))
        self._throttle("receive")
        while not self.ready and self.error is None:
            self.stir.clear()
            await self.stir.wait()
        if self.error is not None:
            raise self.error
        most = asked["MaxNumberOfMessages"]
        found, self.ready = self.ready[:most], self.ready[most:]
        return {"Messages": found} if found else {}

    async def delete_message_batch(self, **asked: Any) -> dict[str, Any]:
        return await self._renew(asked, self._batch("delete", asked, None))

    async def change_message_visibility_batch(self, **asked: Any) -> dict[str, Any]:
        return await self._renew(asked, self._batch("change", asked, asked["Entries"][0]["VisibilityTimeout"]))

    async def _renew(self, asked: Any, answer: dict[str, Any]) -> dict[str, Any]:
        for each in asked["Entries"]:
            if receipt := self.renewed.pop(each["ReceiptHandle"], ""):
                self.send("m", receipt=receipt)
                # Before the answer is there.
                for _ in range(10):
                    await turn()
        return answer

    def _batch(self, what: str, asked: Any, seconds: int | None) -> dict[str, Any]:
        receipts = [each["ReceiptHandle"] for each in asked["Entries"]]
        self.asked.append((what if seconds is None else f"{what} {seconds}", receipts))
        self._throttle(what)
        failed = []
        for each in asked["Entries"]:
            if codes := self.failures.get(each["ReceiptHandle"]):
                failed.append({"Id": each["Id"], "Code": codes.pop(0), "SenderFault": False})
        return {"Failed": failed} if failed else {}

    async def send_message(self, **asked: Any) -> None:
        self.asked.append(("send", asked))
        if self.refusals:
            raise self.refusals.pop(0)

    async def get_queue_attributes(self, **asked: Any) -> dict[str, Any]:
        self._throttle("count")
        return {"Attributes": {"ApproximateNumberOfMessages": "7"}}

    def _throttle(self, what: str) -> None:
        if what in self.throttled:
            self.throttled.remove(what)
            raise refusal("AWS.SimpleQueueService.RequestThrottled", "Rate exceeded")

    def told(self, what: str) -> list[Any]:
        return [asked for said, asked in self.asked if said == what]


async def turn() -> None:
    """Let everything else go on."""
    await asyncio.sleep(0)


@dataclass
class Opened:
    """A session, and what it told."""

    queue: Queue
    session: SqsSession
    deliveries: list[Delivery]
    lost: list[str]
    withdrawn: list[int]

    async def until(self, holds: Callable[[], Any]) -> None:
        """Nothing here waits for a clock, but what keeps messages hidden."""
        async with asyncio.timeout(30):
            while not holds():
                await turn()


@asynccontextmanager
async def opened(queue: str = QUEUE, visibility: int = 3000, **changes: Any) -> AsyncIterator[Opened]:
    found, lost, withdrawn = list[Delivery](), list[str](), list[int]()

    def withdraw(tags: Iterable[int]) -> None:
        withdrawn.extend(tags)

    given: dict[str, Any] = {
        "prefetch": 64,
        "dead_letters": f"{queue}-dead",
        "login": Login("a", "b"),
        "endpoint": None,
    } | changes
    address = Address(queue=queue, region="a-1", visibility=visibility, source="ns/s", **given)
    client, told = Queue(), Told(found.append, lost.append, withdraw)
    session = SqsSession(address, Sqs(access.Sqs(address.access, client, AsyncExitStack())), told, lambda: NOW)
    try:
        yield Opened(client, session, found, lost, withdrawn)
    finally:
        await session.close()


async def test_what_is_acknowledged_together_is_deleted_together_ten_at_a_time() -> None:
    async with opened() as it:
        it.queue.send(*map(str, range(12)))
        await it.session.consume()
        await it.until(lambda: len(it.deliveries) == 12)
        for each in it.deliveries:
            await it.session.acknowledge(each.tag)
        await it.until(lambda: len(it.queue.told("delete")) == 2)
    assert it.queue.told("delete") == [[str(number) for number in range(10)], ["10", "11"]]


async def test_of_a_group_each_is_deleted_before_the_next_also_where_one_has_to_be_tried_again() -> None:
    async with opened(ORDERED) as it:
        it.queue.failures["a1"] = ["InternalError"]
        it.queue.send("a1", "a2", group="a")
        it.queue.send("b1", group="b")
        await it.session.consume()
        await it.until(lambda: len(it.deliveries) == 3)
        for each in it.deliveries:
            await it.session.acknowledge(each.tag)
        await it.until(lambda: sum(map(len, it.queue.told("delete"))) == 4)
    assert it.queue.told("delete") == [["a1", "b1"], ["a1"], ["a2"]]


async def test_a_message_that_comes_again_while_it_is_in_hand_is_the_same_with_its_newer_receipt() -> None:
    async with opened() as it:
        it.queue.send("m", receipt="old")
        it.queue.send("m", receipt="new")
        it.queue.send("n")
        await it.session.consume()
        await it.until(lambda: len(it.deliveries) == 2)
        assert [each.message.id for each in it.deliveries] == ["m", "n"]
        await it.session.acknowledge(it.deliveries[0].tag)
        await it.until(lambda: it.queue.told("delete"))
    assert it.queue.told("delete") == [["new"]]


async def test_one_that_can_be_deleted_no_more_is_forgotten_and_comes_again() -> None:
    async with opened() as it:
        it.queue.failures["old"] = ["ReceiptHandleIsInvalid"]
        it.queue.send("m", receipt="old")
        await it.session.consume()
        await it.until(lambda: it.deliveries)
        await it.session.acknowledge(1)
        await it.until(lambda: it.queue.told("delete"))
        it.queue.send("m", receipt="new")
        await it.until(lambda: len(it.deliveries) == 2)
    assert [each.message.id for each in it.deliveries] == ["m", "m"]


async def test_what_cannot_be_kept_is_withdrawn_with_what_came_after_it_in_its_group() -> None:
    async with opened(ORDERED, visibility=1) as it:
        it.queue.failures["a1"] = ["InvalidParameterValue"]
        it.queue.send("b1", group="b")
        it.queue.send("a1", "a2", group="a")
        await it.session.consume()
        await it.until(lambda: it.withdrawn)
    assert it.withdrawn == [2, 3]
    assert it.queue.told("change 1")[0] == ["b1", "a1", "a2"]


async def test_at_the_end_all_that_is_in_hand_is_given_back_and_what_is_done_is_deleted() -> None:
    async with opened() as it:
        it.queue.send("a", "b", "c")
        await it.session.consume()
        await it.until(lambda: len(it.deliveries) == 3)
        await it.session.acknowledge(2)
    assert it.queue.told("delete") == [["b"]]
    assert sorted(receipt for told in it.queue.told("change 0") for receipt in told) == ["a", "c"]


async def test_what_a_question_brings_after_a_pause_is_given_back_unseen() -> None:
    async with opened() as it:
        await it.session.consume()
        await it.until(lambda: it.queue.told("receive"))
        await it.session.pause()
        it.queue.send("late")
        await it.until(lambda: it.queue.told("change 0"))
    assert (it.deliveries, it.queue.told("change 0")) == ([], [["late"]])
    assert len(it.queue.told("receive")) == 1, "and no more is asked for"


@pytest.mark.parametrize("pauses", [pytest.param(True, id="after a pause"), pytest.param(False, id="at the end")])
async def test_what_is_handed_out_anew_as_it_is_given_back_is_given_back_once_more(pauses: bool) -> None:
    async with opened() as it:
        it.queue.send("m", receipt="old")
        await it.session.consume()
        await it.until(lambda: it.deliveries and len(it.queue.told("receive")) == 2)
        it.queue.renewed = {"old": "new"}
        if pauses:
            await it.session.pause()
            await it.session.give_back(1)
            await it.until(lambda: len(it.queue.told("change 0")) == 2)
    assert it.queue.told("change 0") == [["old"], ["new"]]


async def test_what_was_received_once_more_is_deleted_by_its_newer_receipt() -> None:
    async with opened() as it:
        it.queue.send("m", receipt="old")
        await it.session.consume()
        await it.until(lambda: it.deliveries and len(it.queue.told("receive")) == 2)
        it.queue.renewed = {"old": "new"}
        await it.session.acknowledge(1)
        await it.until(lambda: len(it.queue.told("delete")) == 2)
    assert it.queue.told("delete") == [["old"], ["new"]]


async def test_poison_without_dead_letters_is_left_hidden_and_its_group_waits_for_it() -> None:
    async with opened(ORDERED, dead_letters=None) as it:
        it.queue.send("odd", "next", group="a")
        it.queue.send("other", group="b")
        await it.session.consume()
        await it.until(lambda: len(it.deliveries) == 3)
        await it.session.dead_letter(it.deliveries[0], POISON)
        assert it.withdrawn == [2]
        await it.session.acknowledge(1)
        await it.until(lambda: it.queue.told("change 3000"))
    assert (it.queue.told("change 3000"), it.queue.told("delete"), it.queue.told("send")) == ([["odd"]], [], [])


@pytest.mark.parametrize(
    ("refusals", "sent", "words"),
    [
        pytest.param([], 1, None, id="taken"),
        pytest.param(["InvalidParameterValue"] * 2, 3, None, id="too large with what it says: without"),
        pytest.param(["InvalidParameterValue"] * 3, 3, "InvalidParameterValue", id="not even then"),
        pytest.param(["AWS.SimpleQueueService.NonExistentQueue"], 1, "there is no queue", id="no such queue"),
        pytest.param(["AccessDenied"], 1, "sqs:SendMessage on .*-dead is not allowed", id="no right"),
    ],
)
async def test_a_dead_letter_is_sent_or_that_it_cannot_be_is_told(
    refusals: list[str], sent: int, words: str | None
) -> None:
    async with opened() as it:
        it.queue.refusals = [refusal(code) for code in refusals]
        it.queue.send("odd")
        await it.session.consume()
        await it.until(lambda: it.deliveries)
        if words is None:
            await it.session.dead_letter(it.deliveries[0], POISON)
        else:
            with pytest.raises(NotPublished, match=words):
                await it.session.dead_letter(it.deliveries[0], POISON)
    assert len(it.queue.told("send")) == sent


@pytest.mark.parametrize(
    ("error", "words"),
    [
        pytest.param(refusal("AccessDenied"), "sqs:ReceiveMessage", id="a right that was taken away"),
        pytest.param(EndpointConnectionError(endpoint_url="x"), "does not answer", id="nobody there"),
        pytest.param(NoCredentialsError(), "no identity at AWS", id="no identity"),
        pytest.param(RuntimeError("odd"), "does not answer as SQS does (RuntimeError)", id="an odd answer"),
    ],
)
async def test_what_ends_the_asking_ends_the_session(error: Exception, words: str) -> None:
    async with opened() as it:
        await it.session.consume()
        it.queue.fail(error)
        await it.until(lambda: it.lost)
    assert words in it.lost[0]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked too often is asked again at once."""
    monkeypatch.setattr(access, "PAUSE", Backoff(first=0, most=0))


@pytest.mark.usefixtures("impatient")
async def test_a_session_outlives_that_it_asks_too_often() -> None:
    async with opened() as it:
        it.queue.throttled = ["receive", "receive", "delete"]
        it.queue.send("m")
        await it.session.consume()
        await it.until(lambda: it.deliveries)
        await it.session.acknowledge(1)
        await it.until(lambda: len(it.queue.told("delete")) == 2)
    assert not it.lost
    assert it.queue.told("change 0") == [], "nothing was given back, which counts for a redrive policy"


async def test_a_backlog_that_may_not_be_asked_for_now_is_as_it_was() -> None:
    async with opened() as it:
        first = await it.session.backlog()
        it.queue.throttled = ["count"]
        assert await it.session.backlog() == first == Waiting(7)


@pytest.mark.usefixtures("impatient")
async def test_asking_too_often_for_long_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "THROTTLED_SECONDS", 0)
    async with opened() as it:
        it.queue.throttled = ["receive"] * 1000
        await it.session.consume()
        await it.until(lambda: it.lost)
    assert "Rate exceeded" in it.lost[0]


async def test_attributes_fill_the_hand_as_bodies_do() -> None:
    async with opened() as it:
        large = {"a": {"DataType": "String", "StringValue": "x" * 2**20}}
        it.queue.ready = [
            {"MessageId": str(number), "ReceiptHandle": "r", "Body": "{}", "MessageAttributes": large}
            for number in range(40)
        ]
        await it.session.consume()
        await it.until(lambda: len(it.deliveries) == 20)
        for _ in range(100):
            await turn()
        assert len(it.deliveries) == 20
        assert not it.session._room.is_set()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param({"Messages": [{}]}, id="a message without an id"),
        pytest.param({"Messages": [{"MessageId": "m", "ReceiptHandle": None}]}, id="a message without a receipt"),
        pytest.param({"Messages": 7}, id="no messages"),
        pytest.param([], id="no answer"),
    ],
)
async def test_who_answers_as_sqs_does_not_is_told_as_such(answer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def receive(**_: Any) -> Any:
        return answer

    async with opened() as it:
        monkeypatch.setattr(it.queue, "receive_message", receive)
        await it.session.consume()
        await it.until(lambda: it.lost)
    assert "does not answer as SQS does" in it.lost[0]


# -- who it is at AWS --------------------------------------------------------------------------------------------------


class Secrets:
    """An API server that has one Secret."""

    def __init__(self, **data: str) -> None:
        self.data = data

    async def get(self, *_: Any) -> dict[str, Any]:
        if not self.data:
            raise ApiError(404, "NotFound", "there is none", {"name": "s"})
        return {"data": self.data}


def source(**fields: Any) -> TaskSource:
    spec = {"queueUrl": QUEUE, "region": "a-1", **fields}
    return TaskSource.model_validate(
        {
            "metadata": {"namespace": "ns", "name": "s", "uid": "u"},
            "spec": {"sqs": spec, "task": {"queue": "q", "type": "t"}},
        }
    )


KEYS = {"AWS_ACCESS_KEY_ID": "YQ==", "AWS_SECRET_ACCESS_KEY": "Yg=="}


@pytest.mark.parametrize(
    ("fields", "data", "namespaces", "login"),
    [
        pytest.param({"secretName": "s"}, KEYS, (), Login("a", "b"), id="a key"),
        pytest.param(
            {"secretName": "s"},
            {**KEYS, "AWS_SESSION_TOKEN": "Yw=="},
            ("ns",),
            Login("a", "b", "c"),
            id="a temporary key",
        ),
        pytest.param({}, {}, ("ns",), None, id="the process's own identity, for this namespace"),
        pytest.param({}, {}, ("*",), None, id="the process's own identity, for all"),
    ],
)
async def test_who_a_source_is(
    fields: Any, data: dict[str, str], namespaces: tuple[str, ...], login: Login | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Address] = []

    async def note(address: Address, told: Told) -> None:
        seen.append(address)

    monkeypatch.setattr(sqs, "open_session", note)
    client: Any = Secrets(**data)
    await connect(client, source(**fields), namespaces)(Told(lambda _: None, lambda _: None))
    assert [each.login for each in seen] == [login]


@pytest.mark.parametrize(
    ("fields", "data", "words"),
    [
        pytest.param(
            {}, {}, "TASKDIST_SOURCES_IDENTITY_NAMESPACES", id="no Secret, and no right to the process's identity"
        ),
        pytest.param({"secretName": "s"}, {}, "there is no Secret s", id="no such Secret"),
        pytest.param(
            {"secretName": "s"}, {"AWS_ACCESS_KEY_ID": "YQ=="}, "has no AWS_SECRET_ACCESS_KEY", id="half a Secret"
        ),
    ],
)
async def test_who_is_nobody_is_told_what_to_set(fields: Any, data: dict[str, str], words: str) -> None:
    client: Any = Secrets(**data)
    with pytest.raises(Trouble, match=words) as caught:
        await connect(client, source(**fields), ("other",))(Told(lambda _: None, lambda _: None))
    assert caught.value.reason is SourceReason.SECRET_UNUSABLE
