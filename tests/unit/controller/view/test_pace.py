"""The view's share of the loop holds, whoever asks how much; one caller does not shut out the others."""

import asyncio

import pytest

from taskdist.controller.view.pace import AROUND_SECONDS, MOST_OF_ONE, MOST_WAITING, Pace
from taskdist.controller.view.problems import Problem


class Clock:
    """Time passes by work and by sleep only."""

    def __init__(self) -> None:
        self.now, self.worked = 0.0, 0.0

    def work(self, seconds: float) -> None:
        self.now += seconds
        self.worked += seconds

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


async def test_steps_take_no_more_than_their_share() -> None:
    clock = Clock()
    pace = Pace(0.25, lambda: clock.now, clock.sleep)
    for seconds in (0.004, 0.001, 0.003) * 20:
        await pace.step("c", lambda seconds=seconds: clock.work(seconds))  # type: ignore[misc]
    await pace.step("c", lambda: None)
    assert clock.worked + 60 * AROUND_SECONDS == pytest.approx(0.25 * (clock.now + 60 * AROUND_SECONDS), rel=0.01)


async def test_a_step_that_fails_is_charged_and_lets_the_next_one_go() -> None:
    clock = Clock()
    pace = Pace(0.5, lambda: clock.now, clock.sleep)

    def fails() -> None:
        clock.work(0.01)
        raise Problem(404, "none")

    with pytest.raises(Problem):
        await pace.step("c", fails)
    assert await pace.step("c", lambda: clock.now) >= 0.02


async def test_who_asks_too_much_is_put_off_and_others_are_not() -> None:
    gate = asyncio.Event()

    async def sleep(_seconds: float) -> None:
        await gate.wait()

    pace = Pace(0.1, lambda: 0.0, sleep)
    await pace.step("first", lambda: None)
    greedy = [asyncio.ensure_future(pace.step("greedy", lambda: "done")) for _ in range(MOST_OF_ONE)]
    await asyncio.sleep(0)
    with pytest.raises(Problem, match="too many") as refused:
        await pace.step("greedy", lambda: None)
    assert (refused.value.status, refused.value.retry_after) == (429, 1)
    callers = [f"c{i}" for i in range(MOST_WAITING - MOST_OF_ONE)]
    others = [asyncio.ensure_future(pace.step(caller, lambda: "done")) for caller in callers]
    await asyncio.sleep(0)
    with pytest.raises(Problem, match="too many"):
        await pace.step("late", lambda: None)
    gate.set()
    assert await asyncio.gather(*greedy, *others) == ["done"] * MOST_WAITING
    assert await pace.step("greedy", lambda: "again") == "again"
