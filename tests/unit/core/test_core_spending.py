"""What attempts cost: by cases, and in pieces as in one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import PoolBuilder, make_pool
from taskdist.core.cost import NOTHING, Spent, share, spent

DEAR = make_pool().worth(cost_per_hour=3.6, watts_busy=180.0)


@pytest.mark.parametrize(
    ("before", "pool", "slots", "agent_slots", "seconds", "expected"),
    [
        pytest.param(NOTHING, DEAR, 1, 1, 3600.0, Spent(3.6, 180.0), id="an-agent-for-an-hour"),
        pytest.param(NOTHING, DEAR, 1, 4, 3600.0, Spent(0.9, 45.0), id="one-slot-of-four"),
        pytest.param(NOTHING, DEAR, 3, 4, 60.0, Spent(0.045, 2.25), id="three-of-four-for-a-minute"),
        pytest.param(Spent(1.0, 5.0), DEAR, 1, 1, 10.0, Spent(1.01, 5.5), id="beside-what-others-cost"),
        pytest.param(Spent(1.0), DEAR, 1, 1, 10.0, Spent(1.01, 0.5), id="the-first-that-says-its-watts"),
        pytest.param(Spent(1.0, 5.0), make_pool(), 1, 1, 10.0, Spent(1.0, 5.0), id="a-pool-that-says-nothing"),
        pytest.param(NOTHING, make_pool(), 1, 1, 10.0, NOTHING, id="nothing-known-at-all"),
        pytest.param(NOTHING, make_pool().worth(watts_busy=36.0), 1, 1, 100.0, Spent(None, 1.0), id="only-watts"),
        pytest.param(NOTHING, DEAR, 1, 1, 0.0, Spent(0.0, 0.0), id="no-time"),
        pytest.param(NOTHING, DEAR, 1, 1, -5.0, Spent(0.0, 0.0), id="a-clock-set-back"),
    ],
)
def test_one_more_attempt(
    before: Spent, pool: PoolBuilder, slots: int, agent_slots: int, seconds: float, expected: Spent
) -> None:
    found = spent(before, pool.build(), slots, agent_slots, seconds)
    assert [value is None for value in found] == [value is None for value in expected]
    assert [value or 0.0 for value in found] == pytest.approx([value or 0.0 for value in expected])


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=9), st.integers(1, 9), st.integers(1, 9))
def test_all_slots_of_an_agent_cost_what_the_agent_does(seconds: list[float], slots: int, an_hour: int) -> None:
    """However the time is divided among attempts and slots, it adds up."""
    pool, found = make_pool().worth(cost_per_hour=an_hour, watts_busy=an_hour).build(), NOTHING
    for each in seconds:
        for _ in range(slots):
            found = spent(found, pool, 1, slots, each)
    whole = share(slots * sum(seconds), slots, an_hour)
    assert whole == pytest.approx(sum(seconds) / 3600 * an_hour)
    assert (found.cost, found.energy) == pytest.approx((whole, whole))
