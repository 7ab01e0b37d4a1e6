"""What waits to be sent is bounded; what is read is bounded too."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskdist.link.session import BURST, BYTES_PER_MESSAGE, RATE, AgentStream, End, Outbox, Throttle
from taskdist.protocol.messages import AgentIdentity


async def drain(outbox: Outbox) -> list[bytes]:
    items = []
    while (item := await outbox.get()) is not None:
        items.append(item)
    return items


@pytest.mark.parametrize(
    ("messages", "size", "puts", "taken"),
    [
        pytest.param(2, 100, [b"a", b"b", b"c"], [True, True, False], id="messages"),
        pytest.param(9, 5, [b"abc", b"abc", b"ab"], [True, False, True], id="bytes"),
        pytest.param(9, 5, [b"abcdef"], [False], id="one too large"),
    ],
)
async def test_the_bound(messages: int, size: int, puts: list[bytes], taken: list[bool]) -> None:
    outbox = Outbox(messages, size)
    assert [outbox.put(each) for each in puts] == taken
    outbox.close()
    assert await drain(outbox) == [each for each, ok in zip(puts, taken, strict=True) if ok]


async def test_what_was_given_out_makes_room() -> None:
    outbox = Outbox(1, 3)
    for _ in range(5):
        assert outbox.put(b"abc")
        assert await outbox.get() == b"abc"


async def test_who_waits_is_woken_and_told_of_the_end() -> None:
    outbox = Outbox()
    waiting = asyncio.create_task(drain(outbox))
    await asyncio.sleep(0)
    outbox.put(b"a")
    outbox.close()
    outbox.put(b"late")
    async with asyncio.timeout(5):
        assert await waiting == [b"a"]


async def test_the_first_reason_stands() -> None:
    session = AgentStream(AgentIdentity("u", "p", "ns", "pool"), 0.0, 1.0, Outbox(), Throttle())
    assert session.open
    session.end(End.SILENT, "first")
    session.end(End.TOKEN, "second")
    assert session.ended.result() == (End.SILENT, "first")


@given(st.lists(st.tuples(st.floats(0, 0.01), st.integers(0, 200_000)), min_size=1, max_size=300))
def test_a_flood_is_held_to_the_rate(messages: list[tuple[float, int]]) -> None:
    """Who waits as told never gets more through than the burst and the rate allow."""
    throttle = Throttle()
    now = through = 0.0
    for gap, size in messages:
        now += gap
        through += 1 + size / BYTES_PER_MESSAGE
        pause = throttle.take(size, now)
        now += pause
        assert through <= BURST + RATE * now + 1e-6


def test_an_agent_at_work_is_not_held_back() -> None:
    throttle = Throttle()
    assert not any(throttle.take(200, n / 500) for n in range(10_000))


def test_a_pod_is_forgotten_once_nothing_of_its_budget_is_spent() -> None:
    throttle = Throttle()
    assert throttle.is_full(0.0)
    throttle.charge(RATE, 0.0)
    assert not throttle.is_full(0.9)
    assert throttle.is_full(1.0)
