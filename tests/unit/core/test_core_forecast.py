"""When a Task starts: the formula where it is exact, and how what it knows moves it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import make_pool, make_queue, make_task
from taskdist.core.fleet.catalogue import Catalogue
from taskdist.core.fleet.equivalence import Shape
from taskdist.core.forecasting.arrivals import BLOCK, NO_LOAD, Arrivals, Load
from taskdist.core.forecasting.forecast import FARTHEST, LEAST_LEFT, Backlog, backlog, forecast, gamma_interval
from taskdist.core.forecasting.overtaking import Passing, Rival
from taskdist.core.primitives.inflow import WINDOW
from taskdist.core.primitives.service_times import Estimate

QUIET = [(math.inf, NO_LOAD)]


def known(*seconds: float) -> Estimate:
    estimate = Estimate()
    for each in seconds:
        estimate.add(each)
    return estimate


def sure(mean: float, deviation: float) -> Estimate:
    """Known so well that its mean is certain."""
    estimate = Estimate()
    estimate.count, estimate.mean, estimate.variance = 10**9, mean, deviation**2
    return estimate


def exactly(tasks: float, mean: float = 1.0, deviation: float = 1.0) -> Backlog:
    return Backlog(tasks, tasks * mean, tasks * deviation**2, 0.0, tasks * mean)


@pytest.mark.parametrize(("ahead", "slots"), [(0, 1), (3, 1), (9, 8), (99, 8)])
def test_exponential_service_gives_erlangs_interval(ahead: int, slots: int) -> None:
    """The k-th departure of c busy servers is the sum of k exponential times of rate c."""
    found = forecast(exactly(ahead), exactly(1), slots, QUIET)
    assert found is not None
    assert found.mean == pytest.approx((ahead + 1) / slots)

    def erlang(x: float) -> float:
        """The distribution of the sum of `ahead + 1` exponential times of rate `slots`."""
        term = total = math.exp(-slots * x)
        for k in range(1, ahead + 1):
            term *= slots * x / k
            total += term
        return 1 - total

    assert erlang(found.low) == pytest.approx(0.1, abs=0.01)
    assert erlang(found.high) == pytest.approx(0.9, abs=0.01)


def test_without_history_nothing_is_said() -> None:
    unseen = backlog(5, 1, 10.0, None)
    assert forecast(unseen, backlog(1, 1, 10.0, None), 4, QUIET) is None
    assert forecast(exactly(3), exactly(1), 0, QUIET) is None
    # Most of it is known: better than nothing.
    assert forecast(backlog(1, 1, 1.0, None) + exactly(5), exactly(1), 4, QUIET) is not None


@pytest.mark.parametrize("tasks", [10, 1_000, 100_000, 10_000_000])
def test_what_lies_too_far_off_is_not_forecast(tasks: int) -> None:
    """Times beyond the year 9999 cannot be written, and whoever writes reasons would fail."""
    found = forecast(backlog(tasks, 1, 86_400.0, sure(86_400.0, 0.0)), exactly(1), 1, [(math.inf, Load(1.0))])
    assert found is None or found.high <= FARTHEST
    assert (found is None) == (tasks >= 1_000)


def test_higher_levels_take_their_part() -> None:
    """Half of the slots are taken by what comes above: it takes twice as long."""
    alone = forecast(exactly(9), exactly(1), 2, QUIET)
    beside = forecast(exactly(9), exactly(1), 2, [(math.inf, Load(1.0, 1.0))])
    assert alone is not None
    assert beside is not None
    assert beside.mean == pytest.approx(2 * alone.mean, rel=1e-4)
    assert beside.high - beside.low > 2 * (alone.high - alone.low)


def test_what_lifts_a_task_shortens_its_wait() -> None:
    """After 4 s it stands above what takes half of the slots: 2 slot-seconds of 5 are left, at full speed."""
    found = forecast(exactly(4), exactly(1), 1, [(4.0, Load(0.5)), (math.inf, NO_LOAD)])
    assert found is not None
    assert found.mean == pytest.approx(4 + 3, rel=1e-4)


def test_a_wait_without_end_is_bounded_by_what_is_known_of_capacity() -> None:
    found = forecast(exactly(9), exactly(1), 2, [(math.inf, Load(50.0))])
    assert found is not None
    assert found.mean == pytest.approx(10 / (2 * LEAST_LEFT), rel=1e-3)


@given(st.floats(0, 500), st.floats(0.01, 50), st.floats(0, 50), st.integers(1, 64), st.floats(0, 60), st.floats(0, 60))
def test_intervals_are_in_order_and_more_work_never_starts_sooner(
    tasks: float, mean: float, deviation: float, slots: int, load: float, noise: float
) -> None:
    phases = [(math.inf, Load(load, noise))]
    own = backlog(1, 1, mean, sure(mean, deviation))
    found = forecast(backlog(tasks, 1, mean, sure(mean, deviation)), own, slots, phases)
    more = forecast(backlog(tasks + 1, 1, mean, sure(mean, deviation)), own, slots, phases)
    assert found is not None
    assert more is not None
    assert 0 <= found.low <= found.high
    assert more.mean >= found.mean * (1 - 1e-5)
    assert math.isfinite(found.high)


def test_few_observations_widen_the_interval() -> None:
    few, many = known(0.5, 1.0, 1.5), known(*[0.5, 1.0, 1.5] * 20)
    widths = []
    for estimate in (few, many):
        found = forecast(backlog(100, 1, 1.0, estimate), backlog(1, 1, 1.0, estimate), 10, QUIET)
        assert found is not None
        widths.append(found.high - found.low)
    assert widths[0] > 2 * widths[1]


def test_the_interval_of_a_certain_time_is_that_time() -> None:
    assert gamma_interval(3.0, 0.0).low == gamma_interval(3.0, 0.0).high == 3.0


# Who passes.


@pytest.mark.parametrize(
    ("reach", "slacks", "seconds", "part"),
    [
        pytest.param(10.0, (20.0,), 5.0, 0.0, id="all-have-more-time"),
        pytest.param(10.0, (0.0,), 5.0, 1.0, id="all-have-less"),
        pytest.param(10.0, (7.0,), 6.0, 0.5, id="until-they-come-too-late-for-that"),
        pytest.param(10.0, (0.0, 20.0), 5.0, 0.5, id="half-of-them"),
        pytest.param(10.0, (), 5.0, 0.0, id="nobody-came"),
    ],
)
def test_deadlines_let_pass_who_has_to_start_sooner(
    reach: float, slacks: tuple[float, ...], seconds: float, part: float
) -> None:
    passing = Passing(Load(2.0), reach, slacks)
    assert passing.part(seconds) == pytest.approx(part)
    assert passing.work(seconds) == pytest.approx(2.0 * seconds * part)


@pytest.mark.parametrize(
    ("rival", "passed"),
    [
        pytest.param(Rival(0.0, 0.0, 1.0, Load(2.0)), 0.0, id="not-entitled-to-anything"),
        pytest.param(Rival(0.0, 100.0, 1.0, Load(2.0)), 20.0, id="all-that-comes"),
        pytest.param(Rival(0.0, 15.0, 1.0, Load(2.0)), 15.0, id="as-far-as-it-is-entitled"),
        pytest.param(Rival(12.0, 15.0, 1.0, Load(2.0)), 3.0, id="what-waits-was-counted"),
        pytest.param(Rival(40.0, 15.0, 1.0, Load(2.0)), 0.0, id="what-waits-takes-it-all"),
        pytest.param(Rival(0.0, -5.0, 1.0, Load(2.0)), 0.0, id="it-is-ahead-already"),
    ],
)
def test_other_tenants_pass_as_far_as_their_share_lets_them(rival: Rival, passed: float) -> None:
    assert Passing(tenants=(rival,)).work(10.0) == pytest.approx(passed)
    assert Passing(queues=(rival,)).work(10.0) == pytest.approx(passed)


def test_what_passes_within_lets_pass_more_beside() -> None:
    """Two slot-seconds of ours put our turn off by 2 of virtual time: a rival of weight 3 gains 6."""
    rival = Rival(100.0, 10.0, 3.0, NO_LOAD)
    assert Passing(Load(1.0), 100.0, (0.0,), tenants=(rival,)).work(2.0) == pytest.approx(2.0 + 6.0)


# What comes.


def shape() -> Shape:
    catalogue = Catalogue(*[lambda *_: None] * 4)
    catalogue.apply_queue(make_queue().build())
    catalogue.apply_pool(make_pool().build())
    return catalogue.shape_of(make_task("t").slots(2).build())


def test_the_rate_is_that_of_what_came() -> None:
    arrivals, of = Arrivals(), shape()
    for number in range(3000):
        arrivals.add(3, of, ("ns/q", "x"), 1.0, number * 0.5)
    loads, seconds = arrivals.from_level(of.pools, 1500.0, lambda queue, type: (5.0, 0.0))
    # Two a second, of two slots, five seconds each.
    assert loads[3].work == pytest.approx(20.0, rel=0.03)
    assert loads[4].work == 0.0
    assert loads[0].work == loads[3].work
    assert seconds[3] == {"ns/q": pytest.approx(5.0)}
    assert arrivals.beside(3, 1500.0)["ns/q", "x"].slots == pytest.approx(4.0, rel=0.03)


def test_a_batch_says_less_than_a_stream() -> None:
    """As many Tasks: the ones come evenly, the others all at once."""
    of, variances = shape(), []
    for times in ([number * WINDOW / 600 for number in range(600)], [WINDOW / 2] * 600):
        arrivals = Arrivals()
        for at in times:
            arrivals.add(3, of, ("ns/q", "x"), 1.0, at)
        loads, _ = arrivals.from_level(of.pools, WINDOW, lambda queue, type: (1.0, 0.0))
        variances.append(loads[3].variance)
    assert variances[1] > 20 * variances[0]


def test_what_was_long_ago_counts_for_nothing() -> None:
    arrivals, of = Arrivals(), shape()
    arrivals.add(3, of, ("ns/q", "x"), 1.0, 0.0)
    loads, _ = arrivals.from_level(of.pools, 20 * WINDOW, lambda queue, type: (1.0, 0.0))
    assert loads[3].work == 0.0


def test_what_is_heard_of_late_counts_from_when_it_came() -> None:
    """In whichever order they are heard of, as after a change of leader."""
    of, found = shape(), []
    for times in ((0.0, 100.0, 200.0), (200.0, 0.0, 100.0)):
        arrivals = Arrivals()
        for at in times:
            arrivals.add(3, of, ("ns/q", "x"), 1.0, at)
        found.append(arrivals.from_level(of.pools, 200.0 + BLOCK, lambda queue, type: (1.0, 0.0))[0][3])
    assert found[0].work == pytest.approx(found[1].work)
    assert found[0].variance == pytest.approx(found[1].variance)
