"""Where theory says what an order achieves, the core achieves it: deadlines and shares."""

from itertools import accumulate
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sim_worlds import playing, stream

from taskdist.simulation.fairness import jain
from taskdist.simulation.record import Record
from taskdist.simulation.spans import overlap

QUIET = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
DEADLINE_FIRST = {"order": {"policy": "DeadlineFirst"}}


def one(at: float, service: float, due: float) -> dict[str, Any]:
    """One Task that comes at a time and is due at another, both from the beginning."""
    return stream({"burst": {"at": at, "count": 1}}, service, deadline={"within": due - at})


def late(record: Record) -> list[float]:
    """By how much each Task missed its deadline; 0 if it did not."""
    return [
        max(0.0, life.ended - life.job.deadline)
        for life in record.tasks
        if life.ended is not None and life.job.deadline is not None
    ]


@QUIET
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 30)), min_size=1, max_size=9))
def test_earliest_deadline_on_one_slot_with_common_release(tasks: list[tuple[int, int]]) -> None:
    """Jackson 1955: no order has a smaller maximum lateness than that of deadlines.

    So deadlines that are later by just that lateness can all be met, and are. What is expected of a Task is next to
    nothing here, since the rule knows deadlines only.
    """
    ordered = sorted(tasks, key=lambda each: each[1])
    ends = accumulate(service for service, _ in ordered)
    lateness = max(end - due for end, (_, due) in zip(ends, ordered, strict=True))
    record = playing(
        *(one(0, service, due + lateness) for service, due in tasks),
        queue={**DEADLINE_FIRST, "expectedServiceSeconds": 0.001},
    )
    assert max(late(record)) <= 1e-6


def feasible(tasks: list[tuple[int, int]], slots: int) -> bool:
    """Whether unit Tasks (release, due) can all be met on so many slots: a matching of Tasks and places in time."""
    places: dict[tuple[int, int], int] = {}

    def place(number: int, tried: set[tuple[int, int]]) -> bool:
        release, due = tasks[number]
        for where in ((at, slot) for at in range(release, due) for slot in range(slots)):
            if where not in tried:
                tried.add(where)
                if where not in places or place(places[where], tried):
                    places[where] = number
                    return True
        return False

    return all(place(number, set()) for number in range(len(tasks)))


@QUIET
@given(
    st.integers(1, 3),
    st.lists(st.tuples(st.integers(0, 6), st.integers(1, 5)), min_size=1, max_size=12),
)
def test_earliest_deadline_for_unit_tasks_on_like_slots(slots: int, given_tasks: list[tuple[int, int]]) -> None:
    """Tasks of service 1 with whole release times on like slots: deadline order meets all deadlines if any order does.

    Horn 1974, Some simple scheduling algorithms (P | r_j, p_j = 1 | L_max).
    """
    tasks = [(release, release + allowance) for release, allowance in given_tasks]
    later = 0
    while not feasible([(release, due + later) for release, due in tasks], slots):
        later += 1
    record = playing(
        *(one(release, 1, due + later) for release, due in tasks),
        pools={"p": {"replicas": slots}},
        queue={**DEADLINE_FIRST, "expectedServiceSeconds": 1},
    )
    assert max(late(record)) <= 1e-6


def two_tenants(
    slots: int,
    weights: tuple[int, int],
    longest: tuple[float, float],
    seed: int,
    due: tuple[float, float] | None = None,
    **queue: Any,
) -> tuple[Record, float]:
    """Two tenants, each with a long backlog from the beginning; and until when both have one."""
    deadlines: list[dict[str, Any]] = [{"deadline": {"within": each}} for each in due] if due else [{}, {}]
    record = playing(
        *(
            stream(
                {"burst": {"count": 60 * slots}}, {"uniform": {"low": 0.1, "high": most}}, task={"tenant": name}, **more
            )
            for name, most, more in zip("ab", longest, deadlines, strict=True)
        ),
        pools={"p": {"replicas": slots}},
        queue={
            "tenants": {"weights": [{"name": n, "weight": w} for n, w in zip("ab", weights, strict=True)]},
            "aging": {"stepSeconds": 0},
            "expectedServiceSeconds": 0.5,
            **queue,
        },
        seed=seed,
    )
    until = min(max(life.attempts[0].start for life in record.tasks if life.job.tenant == name) for name in "ab")
    return record, until


def apart(record: Record, weights: tuple[int, int], until: float) -> float:
    """The most by which slot-seconds ÷ weight of the two differ, at any start up to a moment."""
    most = 0.0
    for at in [entry[0] for entry in record.log[:: max(1, len(record.log) // 300)] if entry[0] <= until]:
        given_to = dict.fromkeys("ab", 0.0)
        for life in record.tasks:
            for attempt in life.attempts:
                assert attempt.end is not None
                given_to[life.job.tenant] += overlap(attempt.start, attempt.end, (record.begun, at))
        most = max(most, abs(given_to["a"] / weights[0] - given_to["b"] / weights[1]))
    return most


SHARED = {
    # Name: slots, weights, longest service of each.
    "one slot, alike": (1, (1, 1), (1.0, 1.0)),
    "one slot, three to one": (1, (3, 1), (1.0, 1.0)),
    "one slot, long against short": (1, (1, 1), (5.0, 0.5)),
    "eight slots, alike": (8, (1, 1), (1.0, 1.0)),
    "eight slots, two to one, long against short": (8, (2, 1), (4.0, 1.0)),
}


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(("slots", "weights", "longest"), SHARED.values(), ids=SHARED.keys())
def test_service_of_two_backlogged_tenants(
    slots: int, weights: tuple[int, int], longest: tuple[float, float], seed: int
) -> None:
    """Slot-seconds ÷ weight of two that stay backlogged differ by at most (slots + 1) · (L_a/w_a + L_b/w_b).

    Start-time fair queueing keeps virtual times within L_a/w_a + L_b/w_b on one server (Goyal, Vin, Cheng 1996). Here
    they are charged what is expected and corrected at the release, so they are wrong by at most the longest Task of
    its tenant for each slot.
    """
    record, until = two_tenants(slots, weights, longest, seed)
    bound = (slots + 1) * sum(most / weight for most, weight in zip(longest, weights, strict=True))
    assert apart(record, weights, until) <= bound
    # And it grows no further: over the whole, shares are as the weights say.
    whole = dict.fromkeys("ab", 0.0)
    for life in record.tasks:
        for attempt in life.attempts:
            whole[life.job.tenant] += overlap(attempt.start, attempt.end or 0.0, (record.begun, until))
    assert jain(whole[name] / weight for name, weight in zip("ab", weights, strict=True)) > 0.98


@pytest.mark.parametrize(("slots", "weights", "longest"), SHARED.values(), ids=SHARED.keys())
def test_deadlines_do_not_break_shares(slots: int, weights: tuple[int, int], longest: tuple[float, float]) -> None:
    """One that is always in the greater hurry gets ahead by what is under way, and no further: twice the bound."""
    record, until = two_tenants(slots, weights, longest, 1, due=(90_000, 9_000))
    bound = 2 * (slots + 1) * sum(most / weight for most, weight in zip(longest, weights, strict=True))
    assert apart(record, weights, until) <= bound


def test_first_come_first_served_breaks_the_bound() -> None:
    """The measure sees unfairness: a queue that knows no tenants gives all to who came first."""
    record, until = two_tenants(1, (1, 1), (1.0, 1.0), 1, order={"policy": "Fifo"})
    assert apart(record, (1, 1), until) > 4


def test_first_come_first_served_is_late_where_it_need_not_be() -> None:
    """The measure sees lateness, too."""
    tasks = [one(0, 5, 10), one(0, 1, 1)]
    assert max(late(playing(*tasks, queue={"order": {"policy": "Fifo"}}))) == pytest.approx(5)
    assert max(late(playing(*tasks, queue={**DEADLINE_FIRST, "expectedServiceSeconds": 0.001}))) == 0
