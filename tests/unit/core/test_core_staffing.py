"""The formulas of capacity, against exact ones and against queues that are played."""

from math import ceil, exp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskdist.core.primitives.inflow import WINDOW, Inflow
from taskdist.core.scaling.staffing import INTERVAL, LATE_PART, Haste, Usual, for_arrivals, for_backlog


def erlang_late(servers: int, load: float, service: float, target: float) -> float:
    """P(W > T) of M/M/c, exactly: Erlang's C by the recursion of his B."""
    if servers <= load:
        return 1.0
    blocked = 1.0
    for number in range(1, servers + 1):
        blocked = load * blocked / (number + load * blocked)
    waits = blocked / (1.0 - load / servers * (1.0 - blocked))
    return waits * exp(-(servers - load) * target / service)


@pytest.mark.parametrize("load", [0.5, 1.0, 3.0, 10.0, 40.0, 200.0, 1000.0])
@pytest.mark.parametrize("ratio", [0.0, 0.1, 1.0, 5.0])
def test_in_whole_servers_the_square_root_rule_is_the_exact_one_or_one_below(load: float, ratio: float) -> None:
    exact = next(c for c in range(1, 2000) if erlang_late(c, load, 10.0, 10.0 * ratio) <= LATE_PART)
    assert ceil(for_arrivals(load, 10.0, 10.0 * ratio)) in (exact - 1, exact)


@pytest.mark.parametrize(
    ("busy", "waiting", "target", "start", "rate", "starting", "expected"),
    [
        pytest.param(4, 6, 0, 0, 0, 0, 10, id="no-time-to-wait-a-place-for-each"),
        pytest.param(0, 12, 20, 0, 0, 0, 4, id="in-the-target-each-place-takes-one-at-once-and-two-more"),
        pytest.param(4, 8, 20, 0, 0, 0, 4, id="what-is-busy-does-it"),
        pytest.param(4, 0, 20, 0, 0.4, 0, 4 / 3, id="less-would-do-for-what-is-there"),
        pytest.param(0, 12, 20, 10, 0, 0, 6, id="agents-that-come-late-have-less-time"),
        pytest.param(0, 12, 20, 20, 0, 0, 12, id="as-long-to-start-as-may-be-waited"),
        pytest.param(0, 12, 20, 90, 0, 0, 12, id="longer-than-may-be-waited"),
        pytest.param(3, 9, 20, 10, 1.5, 0, 8, id="what-comes-until-they-are-there"),
        pytest.param(3, 9, 20, 10, 1.5, 6, 7, id="less-what-is-on-its-way"),
        pytest.param(0, 0, 20, 10, 9, 0, 0, id="nothing-for-what-may-come"),
    ],
)
def test_capacity_for_what_waits(
    busy: float, waiting: float, target: float, start: float, rate: float, starting: float, expected: float
) -> None:
    assert for_backlog(busy, waiting, 10.0, target, start, rate, starting) == pytest.approx(expected)


amounts = st.floats(0.0, 1e4)


@given(amounts, amounts, st.floats(1e-3, 1e4), amounts, amounts, amounts, amounts)
def test_its_bounds(
    busy: float, waiting: float, service: float, target: float, start: float, rate: float, starting: float
) -> None:
    found = for_backlog(busy, waiting, service, target, start, rate, starting)
    assert 0.0 <= found <= busy + waiting + 1e-6, "never more than a place for each"
    assert found >= (busy + waiting) * service / (service + target) * (1 - 1e-9), "Little's law"
    # What waits now starts within the target, as a fluid: served by what is busy, then by all.
    late = waiting * service - busy * min(start, target) - found * max(0.0, target - start) - (found - busy) * service
    assert found >= busy + waiting - 1e-6 or found < busy or late <= 1e-6 * (1.0 + waiting * service)


def test_an_inflow_knows_load_and_service() -> None:
    inflow = Inflow()
    for number in range(2000):
        inflow.add(10.0 + 10.0 * (number % 2), number * 0.5)
    assert inflow.service == pytest.approx(15.0, rel=0.01)
    assert inflow.load(999.5) == pytest.approx(2.0 * 15.0, rel=0.01)
    assert inflow.load(999.5 + WINDOW) == pytest.approx(30.0 * exp(-1.0), rel=0.05)


def test_a_batch_is_not_taken_for_a_stream() -> None:
    inflow = Inflow()
    for _ in range(100):
        inflow.add(60.0, 0.0)
    # It would be 20 Tasks a second if it came again and again each 5 s: 1,200 at a time.
    assert inflow.load(5.0) < 100.0


@pytest.mark.parametrize("horizon", [1.0, 10.0, 60.0])
def test_the_present_rate(horizon: float) -> None:
    inflow = Inflow()
    inflow.look_ahead(horizon)
    for number in range(3000):
        inflow.add(1.0, number * 0.2)
    assert inflow.rate(599.8) == pytest.approx(5.0, rel=0.15)
    inflow.look_ahead(2 * horizon)
    assert inflow.rate(599.8) == pytest.approx(5.0, rel=0.15), "another horizon does not make it another rate"
    assert inflow.rate(599.8 + 20 * horizon) < 0.001


def test_haste_settles_where_one_in_twenty_is_late() -> None:
    haste = Haste()
    waits = [(number * 7919 % 1000) / 10.0 for number in range(200_000)]
    for wait in waits:
        # All waits grow with the target that is given: with half of it they are half as long.
        haste.started(wait * haste.part > 60.0, 1000.0)
    assert haste.part == pytest.approx(60.0 / 95.0, rel=0.05)


def test_haste_never_asks_for_more_than_the_target_and_stays_bounded() -> None:
    haste = Haste()
    for _ in range(10_000):
        haste.started(False, 100.0)
    assert haste.part == 1.0
    for _ in range(10_000):
        haste.started(True, 100.0)
    assert haste.part == pytest.approx(0.1)


def test_what_is_usual_is_the_most_of_late() -> None:
    usual, seen = Usual(), []
    for number, capacity in enumerate([5.0, 9.0, 4.0, *([3.0] * 100)]):
        usual.add(capacity, 1.0, number * INTERVAL)
        seen.append(usual.most)
    assert seen[:3] == [5.0, 9.0, 9.0]
    lasts = round(WINDOW / INTERVAL)
    assert (seen[1 + lasts], seen[2 + lasts], seen[3 + lasts]) == (9.0, 4.0, 3.0)
