"""RabbitMQ sources at work, in virtual time and on a broker in memory: one Task a message, whatever goes away."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskdist.api import SourceReason, TaskSource
from taskdist.intake.message import Message, Poison
from taskdist.kube import SECRETS, TASKSOURCES, ApiError, Client, Obj, Unanswered, Unreachable
from taskdist.sources.broker import Delivery, NotPublished, Open, Told, Trouble, Waiting
from unit.sources.world import World, at, denied

RABBIT = {"host": "rabbit", "queue": "orders", "secretName": "login", "deadLetterExchange": "dead"}
PREFETCH = 4


@dataclass
class Broker:
    """A broker of one queue, with the order that RabbitMQ keeps: what is given back goes where it was."""

    ready: list[int] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    dead: list[tuple[int, Poison]] = field(default_factory=list)
    session: Connection | None = None
    down: bool = False
    no_exchange: bool = False
    grouped: bool = False
    """Whether it keeps messages of one key in order, as brokers with groups do."""
    opened: int = 0
    handed: int = 0

    def publish(self, body: Any, *, key: str = "k", message_id: str | None = "") -> None:
        number = len(self.messages)
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        name = str(number) if message_id == "" else message_id
        time = at("2026-01-01T00:00:00") + timedelta(seconds=number)
        self.messages.append(Message(body=text, key=key, id=name, time=time))
        self.ready.append(number)
        if self.session is not None:
            self.session.push()

    def connect(self, client: Client, source: TaskSource) -> Open:
        async def opening(told: Told) -> Connection:
            await asyncio.sleep(0)
            self.opened += 1
            if self.down:
                raise Trouble(SourceReason.BROKER_UNREACHABLE, "connection refused")
            assert self.session is None, "one session at a time"
            self.session = Connection(self, told)
            return self.session

        return opening

    def cut(self) -> None:
        """The connection is gone, and what was not acknowledged is in the queue again."""
        session, self.session = self.session, None
        if session is not None:
            self.ready = sorted([*self.ready, *session.unacknowledged.values()])
            session.unacknowledged.clear()
            session.over = True
            session.lost("reset by peer")


class Connection:
    """A session with it."""

    def __init__(self, broker: Broker, told: Told) -> None:
        self.broker = broker
        self.arrived = told.arrived
        self.lost = told.lost
        self.withdrawn = told.withdrawn
        self.unacknowledged: dict[int, int] = {}
        self.consuming = False
        self.over = False
        self._tag = 0

    def push(self) -> None:
        while self.consuming and self.broker.ready and len(self.unacknowledged) < PREFETCH:
            number = self.broker.ready.pop(0)
            self._tag += 1
            self.broker.handed += 1
            self.unacknowledged[self._tag] = number
            message = self.broker.messages[number]
            self.arrived(Delivery(self._tag, message, number, group=message.key if self.broker.grouped else None))

    async def _turn(self) -> None:
        await asyncio.sleep(0)
        if self.over:
            raise Trouble(SourceReason.BROKER_UNREACHABLE, "reset by peer")

    async def consume(self) -> None:
        await self._turn()
        assert not self.consuming
        self.consuming = True
        self.push()

    async def pause(self) -> None:
        await self._turn()
        self.consuming = False

    async def acknowledge(self, tag: int) -> None:
        await self._turn()
        del self.unacknowledged[tag]
        self.push()

    async def give_back(self, tag: int) -> None:
        await self._turn()
        self.broker.ready = sorted([*self.broker.ready, self.unacknowledged.pop(tag)])
        self.push()

    async def dead_letter(self, delivery: Delivery, poison: Poison) -> None:
        await self._turn()
        if self.broker.no_exchange:
            raise NotPublished("no exchange 'dead'")
        self.broker.dead.append((delivery.raw, poison))

    async def backlog(self) -> Waiting:
        await self._turn()
        return Waiting(len(self.broker.ready))

    async def close(self) -> None:
        if self.broker.session is self:
            self.lost = lambda _: None
            self.broker.cut()


@dataclass
class Set:
    """A world with a broker."""

    broker: Broker
    world: World

    async def apply(self, *, task: Obj | None = None, **spec: Any) -> None:
        await self.world.apply(cron=None, rabbitmq={**RABBIT, **spec}, task=task)

    async def after(self, seconds: float) -> None:
        await self.world.clock.to((self.world.clock.now() + timedelta(seconds=seconds)).isoformat()[:-6])

    def numbers(self) -> list[int]:
        return [int(each["metadata"]["annotations"]["taskdist.dev/source-identity"]) for each in self.world.api.tasks()]

    @property
    def reason(self) -> str:
        return str(self.world.condition()["reason"])

    def metric(self, name: str, **labels: str) -> float | None:
        given = {"namespace": "ns", "source": "s"} | labels
        return self.world.metrics.registry.get_sample_value(f"taskdist_source_{name}", given)


def connected(found: Set) -> bool:
    return found.broker.session is not None


def made() -> Set:
    broker = Broker()
    return Set(broker, World(connect=broker.connect))


@pytest.fixture
async def rabbit() -> AsyncIterator[Set]:
    found = made()
    yield found
    await found.world.process.close()
    assert found.world.failures == []


async def test_each_message_makes_one_task_and_is_acknowledged(rabbit: Set) -> None:
    for number in range(10):
        rabbit.broker.publish({"number": number})
    await rabbit.apply(task={"payload": {"n": "{$.number}", "key": "{key}"}})
    await rabbit.after(6)
    assert rabbit.numbers() == list(range(10))
    assert rabbit.world.api.tasks()[3]["spec"]["payload"] == {"n": 3, "key": "k"}
    session = rabbit.broker.session
    assert session is not None
    assert session.unacknowledged == {}
    assert rabbit.broker.handed == 10
    assert rabbit.reason == "Running"
    status = rabbit.world.status()
    assert (status["created"], status["backlog"]["messages"]) == (10, 0)
    assert rabbit.metric("created_total") == 10


async def test_a_source_with_nothing_to_do_writes_nothing(rabbit: Set) -> None:
    await rabbit.apply()
    await rabbit.after(10)
    written = len(rabbit.world.api.writes)
    await rabbit.after(600)
    assert len(rabbit.world.api.writes) == written


async def test_that_messages_wait_is_said_again_before_it_is_too_old(rabbit: Set) -> None:
    said: list[str] = []
    rabbit.world.queue(accepting=False)
    rabbit.broker.publish({})
    await rabbit.apply()
    for _ in range(12):
        await rabbit.after(10)
        said.append(str(rabbit.world.status()["backlog"]["at"]))
    assert len(set(said)) in (4, 5)


async def test_a_message_that_comes_again_is_the_same_task(rabbit: Set) -> None:
    rabbit.broker.publish({})
    # Its Task is made, and the answer is lost with the connection to the broker.
    rabbit.world.api.fail("create", lambda _: Unanswered("lost"), after=True)
    await rabbit.apply()
    rabbit.broker.cut()
    rabbit.world.api.errors.clear()
    await rabbit.after(10)
    assert rabbit.numbers() == [0]
    assert rabbit.metric("duplicates_total") == 1
    assert rabbit.broker.ready == []


async def test_what_a_broker_withdraws_is_given_back_and_becomes_no_task_here(rabbit: Set) -> None:
    rabbit.world.queue(accepting=True)
    rabbit.world.api.fail("create", lambda _: Unanswered("lost"))
    for _ in range(PREFETCH):
        rabbit.broker.publish({})
    await rabbit.apply()
    session = rabbit.broker.session
    assert session is not None
    assert len(session.unacknowledged) == PREFETCH
    rabbit.world.queue(accepting=False)
    session.withdrawn(list(session.unacknowledged))
    await rabbit.after(6)
    assert session.unacknowledged == {}
    assert rabbit.world.status()["backlog"]["messages"] == PREFETCH, "they wait at the broker"
    rabbit.world.api.errors.clear()
    await rabbit.after(60)
    assert rabbit.numbers() == []


@pytest.mark.parametrize("by_policy", [False, True], ids=["by the watch", "by the policy's refusal"])
async def test_a_full_queue_stops_the_consumer_until_it_is_not(rabbit: Set, by_policy: bool) -> None:
    for _ in range(10):
        rabbit.broker.publish({})
    if by_policy:
        rabbit.world.api.fail("create", lambda _: denied())
    else:
        rabbit.world.queue(accepting=False)
    await rabbit.apply()
    await rabbit.after(6)
    assert rabbit.broker.session is not None
    assert not rabbit.broker.session.consuming
    assert rabbit.reason == "QueueClosed"
    assert rabbit.world.condition()["status"] == "False"
    assert rabbit.world.status()["backlog"] == {
        "messages": 10,
        "at": "2026-01-01T00:30:00Z",
    } | ({"oldest": "2026-01-01T00:00:00Z"} if by_policy else {})
    assert rabbit.metric("backlog_messages") == 10
    if by_policy:
        assert (rabbit.metric("lag_seconds") or 0) > 1700
        rabbit.world.api.errors.clear()
        await rabbit.after(40)
    else:
        rabbit.world.queue(accepting=True)
        await rabbit.after(6)
    assert rabbit.numbers() == list(range(10))
    assert rabbit.reason == "Running"
    assert rabbit.broker.handed == 10, "nothing was given back"


async def test_messages_of_a_group_become_tasks_in_its_order_without_an_ordering_key(rabbit: Set) -> None:
    rabbit.broker.grouped = True
    for key in "aab":
        rabbit.broker.publish({}, key=key)

    def refuse(body: Obj) -> Exception | None:
        first = body["metadata"]["annotations"]["taskdist.dev/source-identity"] == "0"
        return ApiError(403, "Forbidden", "exceeded quota") if first else None

    rabbit.world.api.fail("create", refuse)
    await rabbit.apply()
    await rabbit.after(6)
    assert rabbit.numbers() == [2]
    rabbit.world.api.errors.clear()
    await rabbit.after(60)
    assert rabbit.numbers() == [2, 0, 1]


async def test_what_no_task_can_be_made_of_lies_with_the_dead_letters(rabbit: Set) -> None:
    rabbit.broker.publish(b"no JSON")
    rabbit.broker.publish({"bad": 1})
    rabbit.broker.publish({})
    rabbit.broker.publish({}, message_id=None)

    def refuse(body: Obj) -> Exception | None:
        return ApiError(422, "Invalid", "spec.payload.bad") if "payload" in body["spec"] else None

    rabbit.world.api.fail("create", refuse)
    await rabbit.apply()
    await rabbit.after(6)
    assert rabbit.numbers() == [2]
    told = {number: (str(poison.reason), str(poison)) for number, poison in rabbit.broker.dead}
    assert [told[number][0] for number in (0, 1, 3)] == ["NotJson", "Refused", "NothingThere"]
    assert "spec.payload.bad" in told[1][1]
    assert "{id} gives nothing" in told[3][1]
    status = rabbit.world.status()
    assert (status["rejected"], status["backlog"]["messages"]) == (3, 0)
    assert rabbit.broker.ready == []


async def test_without_a_place_for_dead_letters_nothing_is_lost(rabbit: Set) -> None:
    rabbit.broker.no_exchange = True
    rabbit.broker.publish(b"no JSON")
    rabbit.broker.publish({})
    await rabbit.apply()
    await rabbit.after(6)
    assert rabbit.reason == "DeadLettersRefused"
    assert "no exchange 'dead'" in rabbit.world.condition()["message"]
    rabbit.broker.no_exchange = False
    await rabbit.after(40)
    assert rabbit.numbers() == [1]
    assert [number for number, _ in rabbit.broker.dead] == [0]
    assert rabbit.reason == "Running"


async def test_a_broker_that_is_away_is_dialled_with_growing_pauses(rabbit: Set) -> None:
    await rabbit.apply()
    rabbit.broker.down = True
    rabbit.broker.cut()
    await rabbit.after(0)
    assert rabbit.reason == "BrokerUnreachable"
    assert "reset by peer" in rabbit.world.condition()["message"]
    await rabbit.after(600)
    assert "connection refused" in rabbit.world.condition()["message"]
    assert 5 < rabbit.broker.opened < 20
    rabbit.broker.down = False
    rabbit.broker.publish({})
    await rabbit.after(70)
    assert rabbit.numbers() == [0]
    assert rabbit.reason == "Running"


async def test_an_api_server_that_is_away_costs_no_redelivery(rabbit: Set) -> None:
    await rabbit.apply()
    for verb in ("get", "create", "patch"):
        rabbit.world.api.fail(verb, lambda _: Unreachable("down"))
    for _ in range(6):
        rabbit.broker.publish({})
    await rabbit.after(300)
    assert rabbit.broker.session is not None
    assert not rabbit.broker.session.consuming
    rabbit.world.api.errors.clear()
    await rabbit.after(40)
    assert sorted(rabbit.numbers()) == list(range(6))
    assert (rabbit.broker.handed, rabbit.broker.opened) == (6, 1)
    assert rabbit.reason == "Running"


async def test_a_source_that_is_deleted_suspended_or_changed_ends_its_session(rabbit: Set) -> None:
    rabbit.world.queue(accepting=False)
    for _ in range(3):
        rabbit.broker.publish({})
    await rabbit.apply()
    await rabbit.world.apply(cron=None, rabbitmq=RABBIT, suspend=True)
    assert not connected(rabbit)
    assert rabbit.reason == "Suspended"
    assert rabbit.broker.ready == [0, 1, 2]
    await rabbit.apply(queue="others")
    assert connected(rabbit)
    await rabbit.world.delete()
    assert not connected(rabbit)
    assert rabbit.metric("backlog_messages") is None


async def test_a_deletion_that_was_not_heard_is_noticed(rabbit: Set) -> None:
    await rabbit.apply()
    await rabbit.world.delete(told=False)
    await rabbit.after(70)
    assert rabbit.broker.session is None


async def test_a_defect_is_told_and_the_messages_stay(rabbit: Set) -> None:
    rabbit.world.api.fail("create", lambda _: RuntimeError("a defect"))
    rabbit.broker.publish({})
    await rabbit.apply()
    await rabbit.after(6)
    assert rabbit.reason == "Failing"
    assert "a defect" in rabbit.world.condition()["message"]
    rabbit.world.api.errors.clear()
    await rabbit.after(60)
    assert rabbit.numbers() == [0]


@pytest.mark.parametrize(
    ("secret", "error", "words"),
    [
        pytest.param(None, None, "there is no Secret login", id="not there"),
        pytest.param({}, ApiError(403, "Forbidden", "no"), "may not be read", id="not allowed"),
        pytest.param({"username": "dXNlcg=="}, None, "has no password", id="half of it"),
        pytest.param({"username": "dXNlcg==", "password": "?"}, None, "password of Secret login", id="no base64"),
        pytest.param(
            {"username": "dQ==", "password": "cA==", "ca.crt": "eA=="}, None, "ca.crt of the Secret", id="no authority"
        ),
        pytest.param({"username": "dQ==", "password": "cA==", "tls.crt": "eA=="}, None, "has no tls.key", id="no key"),
        pytest.param(
            {"username": "dQ==", "password": "cA==", "tls.crt": "eA==", "tls.key": "eA=="},
            None,
            "no pair",
            id="no pair",
        ),
    ],
)
async def test_a_secret_that_cannot_be_used_is_told(
    secret: dict[str, str] | None, error: Exception | None, words: str
) -> None:
    world = World()
    if secret is not None:
        world.api.put(SECRETS, {"metadata": {"namespace": "ns", "name": "login"}, "data": secret})
    if error is not None:
        world.api.fail("get", lambda obj: error if obj["metadata"]["name"] == "login" else None)
    await world.apply(cron=None, rabbitmq=RABBIT)
    assert world.condition()["reason"] == "SecretUnusable"
    assert words in world.condition()["message"]
    assert world.condition("Stalled")["status"] == "False", "it may come"
    await world.process.close()
    assert world.failures == []


async def test_a_library_that_is_not_installed_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    modules: Any = sys.modules
    monkeypatch.delitem(modules, "taskdist.sources.amqp", raising=False)
    monkeypatch.setitem(modules, "aiormq", None)
    world = World()
    await world.apply(cron=None, rabbitmq=RABBIT)
    assert world.condition()["reason"] == "BrokerUnreachable"
    assert "this process lacks aiormq: pip install 'taskdist[rabbitmq]'" in world.condition()["message"]
    await world.process.close()
    assert world.failures == []


async def test_a_kafka_source_reads_its_secret_too() -> None:
    world = World()
    kafka = {"bootstrap": ["k:1"], "topics": ["t"], "group": "g", "deadLetterTopic": "d", "secretName": "login"}
    world.api.put(SECRETS, {"metadata": {"namespace": "ns", "name": "login"}, "data": {"username": "eA=="}})
    await world.apply(cron=None, kafka={**kafka, "sasl": "PLAIN"})
    assert world.condition()["reason"] == "SecretUnusable"
    assert "Secret login has no password: add it" in world.condition()["message"]
    await world.process.close()
    assert world.failures == []


FAULTS = ("publish", "cut", "restart", "down", "api", "lost", "full", "told", "second", "minute", "many")


@settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)
@given(st.lists(st.sampled_from(FAULTS), max_size=40))
async def test_whatever_goes_away_each_message_has_one_task_and_keys_keep_their_order(faults: list[str]) -> None:
    found = made()
    broker, world = found.broker, found.world

    def publish() -> None:
        number = len(broker.messages)
        broker.publish(b"odd" if number % 9 == 8 else {"key": f"k{number % 2}"})

    await found.apply(task={"orderingKey": "{$.key}"})
    for fault in faults:
        match fault:
            case "publish":
                publish()
            case "many":
                for _ in range(5):
                    publish()
            case "cut":
                broker.cut()
            case "restart":
                await world.restart()
            case "down":
                broker.down = not broker.down
            case "api" | "lost":
                if world.api.errors:
                    world.api.errors.clear()
                else:
                    world.api.fail("create", lambda _: Unanswered("lost"), after=fault == "lost")
            case "full":
                world.queue(accepting=bool(found.world.queues.closed("ns")))
            case "second":
                await found.after(1)
            case "minute":
                await found.after(60)
            case _:
                await asyncio.sleep(0)
    broker.down = False
    world.api.errors.clear()
    world.queue(accepting=True)
    await found.after(130)
    sound = [number for number in range(len(broker.messages)) if number % 9 != 8]
    assert sorted(found.numbers()) == sound
    assert {number for number, _ in broker.dead} == set(range(len(broker.messages))) - set(sound)
    for parity in (0, 1):
        order = [number for number in found.numbers() if number % 2 == parity]
        assert order == sorted(order)
    assert broker.ready == []
    assert world.api.objects[str(TASKSOURCES), "ns", "s"]["status"]["backlog"]["messages"] == 0
    await world.process.close()
    assert world.failures == []
