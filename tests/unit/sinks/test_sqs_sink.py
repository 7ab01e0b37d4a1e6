"""The receiver that is a queue of SQS: what is sent, what answers mean, and who is dialled."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from taskdist.api import SinkReason, TaskSink
from taskdist.brokers.sqs import Access, Login
from taskdist.outgoing.addresses import PUBLIC_ONLY, Allowed, parse_allowed
from taskdist.outgoing.delivery import Failure
from taskdist.outgoing.ends import End
from taskdist.sinks.broker import PAUSE_SECONDS
from taskdist.sinks.connecting import connect
from taskdist.sinks.receiver import NotTold, Trouble
from taskdist.sinks.sqs import MOST_BYTES, Dial, SqsReceiver, group_of

HERE = parse_allowed(("127.0.0.1",))
ORDERED, PLAIN = "https://sqs.a-1.amazonaws.com/1/q.fifo", "https://sqs.a-1.amazonaws.com/1/q"


def body_of(result: str) -> bytes:
    return json.dumps({"id": "u.0.succeeded", "data": {"name": "t", "result": result}}).encode()


END = End("u.0.succeeded", "team", "t", "u", 7, "orders/7", "", body_of("three"))


class Server:
    """Whoever is asked: keeps what it is asked, and answers as it is told, then as SQS does."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.answers: list[tuple[int, dict[str, Any]]] = []
        self.most = 2**20
        self.port = 0

    async def answer(self, request: web.Request) -> web.Response:
        asked = await request.json()
        self.asked.append(asked)
        status, said = self.answers.pop(0) if self.answers else (200, {"MessageId": "m"})
        if len(asked["MessageBody"]) > self.most:
            status, said = refusal("InvalidParameterValue", "Message must be shorter")
        return web.json_response(said, status=status)


def refusal(name: str, words: str = "no") -> tuple[int, dict[str, Any]]:
    return 400, {"__type": f"com.amazonaws.sqs#{name}", "message": words}


class Desk:
    """A receiver, its server and a clock."""

    def __init__(self, server: Server, allowed: Allowed = HERE, queue: str = ORDERED) -> None:
        self.server = server
        self.now = 0.0
        self.logins = 0
        self.trouble: Trouble | None = None
        self.receiver = SqsReceiver(self._access, allowed, queue, lambda: self.now)

    async def _access(self, dial: Dial) -> Access:
        self.logins += 1
        if self.trouble is not None:
            raise self.trouble
        return Access("a-1", f"http://127.0.0.1:{self.server.port}", Login("key", "hunter2"), "team/s", 4, dial)

    async def refused(self, end: End = END) -> NotTold:
        with pytest.raises(NotTold) as caught:
            await self.receiver.tell(end)
        assert "hunter2" not in str(caught.value)
        return caught.value


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    application = web.Application(client_max_size=2**21)
    application.router.add_post("/{rest:.*}", made.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.port = runner.addresses[0][1]
    yield made
    await runner.cleanup()


@pytest.fixture
async def desk(server: Server) -> AsyncIterator[Desk]:
    made = Desk(server)
    yield made
    await made.receiver.close()


async def test_an_end_is_sent_in_its_group_and_deduplicated_by_its_id(desk: Desk) -> None:
    await desk.receiver.tell(END)
    (asked,) = desk.server.asked
    told = (asked["QueueUrl"], asked["MessageBody"], asked["MessageGroupId"], asked["MessageDeduplicationId"])
    assert told == (ORDERED, END.body.decode(), "orders/7", END.id)
    assert asked["MessageAttributes"]["content-type"]["StringValue"] == "application/cloudevents+json"


async def test_a_queue_without_order_is_told_of_none(server: Server) -> None:
    desk = Desk(server, queue=PLAIN)
    await desk.receiver.tell(END)
    assert not {"MessageGroupId", "MessageDeduplicationId"} & set(server.asked[0])
    await desk.receiver.close()


@pytest.mark.parametrize("key", ["", "a b", "schl\u00fcssel", "x" * 129, "a\n"])
def test_a_key_that_no_group_may_be_called_is_told_by_its_hash(key: str) -> None:
    assert group_of(key).startswith("sha256:")
    assert len(group_of(key)) <= 128
    assert group_of(key) != group_of(key + "!")


async def test_a_result_that_is_too_large_for_sqs_is_left_out(desk: Desk) -> None:
    await desk.receiver.tell(replace(END, body=body_of("x" * MOST_BYTES)))
    (asked,) = desk.server.asked
    assert json.loads(asked["MessageBody"])["data"] == {"name": "t", "resultOmitted": True}


async def test_a_result_that_is_too_large_for_the_queue_is_left_out(desk: Desk) -> None:
    desk.server.most = 100
    await desk.receiver.tell(replace(END, body=body_of("x" * 200)))
    assert [len(each["MessageBody"]) > 100 for each in desk.server.asked] == [True, False]


async def test_an_end_that_is_too_large_without_its_result_is_refused_with_its_size(desk: Desk) -> None:
    body = json.dumps({"data": {"labels": {"a": "x" * MOST_BYTES}}}).encode()
    refused = await desk.refused(replace(END, body=body))
    assert refused.failure is Failure.REJECTED
    assert str(MOST_BYTES) in str(refused)
    assert desk.server.asked == []
    desk.server.most = 10
    refused = await desk.refused()
    assert refused.failure is Failure.REJECTED
    assert "Message must be shorter" in str(refused)


BROKER, SECRET = SinkReason.BROKER_UNREACHABLE, SinkReason.SECRET_UNUSABLE
REFUSALS = [
    pytest.param("QueueDoesNotExist", BROKER, "there is no queue", 2, id="no queue"),
    pytest.param("AccessDeniedException", BROKER, "sqs:SendMessage", 2, id="no right"),
    pytest.param("KmsAccessDenied", BROKER, "kms:GenerateDataKey", 2, id="no right to the key"),
    pytest.param("InvalidClientTokenId", SECRET, "AWS_ACCESS_KEY_ID", 2, id="an unknown key"),
    pytest.param("KmsThrottled", SinkReason.RETRYING, "KmsThrottled", 1, id="asked too often"),
]


@pytest.mark.parametrize(("name", "reason", "words", "logins"), REFUSALS)
async def test_a_refusal_is_waited_for_with_its_reason(
    desk: Desk, name: str, reason: SinkReason, words: str, logins: int
) -> None:
    desk.server.answers = [refusal(name)] * 4
    refused = await desk.refused()
    assert (refused.failure, refused.reason) == (Failure.UNAVAILABLE, reason)
    assert words in str(refused)
    desk.server.answers.clear()
    await desk.receiver.tell(END)
    assert desk.logins == logins, "a login that may be at fault is read anew"


async def test_an_answer_without_an_id_is_none(desk: Desk) -> None:
    desk.server.answers = [(200, {})]
    assert (await desk.refused()).reason is BROKER


async def test_a_secret_that_is_unusable_is_read_again(desk: Desk) -> None:
    desk.trouble = Trouble(SECRET, "there is no Secret login: create it")
    for _ in range(3):
        assert (await desk.refused()).reason is SECRET
    assert desk.logins == 1
    desk.trouble = None
    desk.now += PAUSE_SECONDS
    await desk.receiver.tell(END)


@pytest.mark.parametrize("allowed", [PUBLIC_ONLY, parse_allowed(("10.0.0.0/8",))])
async def test_an_address_that_is_not_allowed_is_not_dialled(
    server: Server, monkeypatch: pytest.MonkeyPatch, allowed: Allowed
) -> None:
    # A proxy would dial it for whoever asks.
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{server.port}")
    desk = Desk(server, allowed)
    refused = await desk.refused()
    assert (refused.failure, refused.reason) == (Failure.UNAVAILABLE, SinkReason.ADDRESS_REFUSED)
    assert server.asked == []
    await desk.receiver.close()


async def test_the_identity_of_the_process_is_for_the_namespaces_that_may_use_it() -> None:
    sqs = {"queueUrl": PLAIN, "region": "a-1"}
    sink = TaskSink.model_validate({"metadata": {"name": "s", "namespace": "team"}, "spec": {"sqs": sqs}})
    client: Any = None
    opening = connect(client, sink, HERE, lambda: 0.0, ("other",))
    assert opening is not None
    receiver = await opening()
    with pytest.raises(NotTold, match="TASKDIST_SINKS_IDENTITY_NAMESPACES") as caught:
        await receiver.tell(END)
    assert caught.value.reason is SECRET
