"""Levels are told coarsely: what time alone brings is no news, and writes are bounded for a queue and over all."""

from taskdist.controller.levels import A_SECOND, EVERY, ToldLevels
from taskdist.core.levels import Level

KEY = ("ns", "q")


def level(left: float, at: float, name: str = "rate.queue", per_second: float = 1.0) -> tuple[Level, ...]:
    return (Level(name, left, 100, per_second, at),)


def test_what_comes_back_with_time_is_no_news() -> None:
    told = ToldLevels()
    first = told.of(KEY, level(10.0, 0.0), 0.0)
    assert [told.of(KEY, level(10.0 + t, t), t) for t in (5.0, 30.0, 60.0)] == [first] * 3
    assert told.of(KEY, level(100.0, 500.0), 500.0) == first


def test_what_was_taken_is_told_after_a_while() -> None:
    told = ToldLevels()
    first = told.of(KEY, level(50.0, 0.0), 0.0)
    assert told.of(KEY, level(20.0, EVERY - 1), EVERY - 1) == first
    later = level(20.0, EVERY)
    assert told.of(KEY, later, EVERY) == later
    # As much as nothing.
    assert told.of(KEY, level(33.0, 2 * EVERY), 2 * EVERY) == later


def test_another_limit_is_told_at_once_another_tenant_is_not() -> None:
    told = ToldLevels()
    first = told.of(KEY, level(50.0, 0.0), 0.0)
    tenant = (*level(50.0, 1.0), *level(1.0, 1.0, "rate.perTenant/x"))
    assert told.of(KEY, tenant, 1.0) == first
    more = (*level(50.0, 2.0), *level(1.0, 2.0, "budgets/b"))
    assert told.of(KEY, more, 2.0) == more
    told.forget(KEY)
    assert told.of(KEY, (), 3.0) == ()


def test_writes_are_bounded_for_a_queue_and_over_all() -> None:
    told, seconds = ToldLevels(), 120
    keys = [("ns", f"q{number}") for number in range(50)]
    now: dict[tuple[str, str], tuple[Level, ...]] = {}
    changes = dict.fromkeys(keys, 0)
    for second in range(seconds):
        for key in keys:
            found = told.of(key, level(float(second * 37 % 100), float(second)), float(second))
            changes[key] += found != now.get(key, ())
            now[key] = found
    assert sum(changes.values()) <= seconds * A_SECOND + 1
    assert max(changes.values()) <= seconds / EVERY + 1
    # A few take turns with all others.
    assert min(changes.values()) >= 1


def test_a_clock_that_went_back_does_not_stop_it() -> None:
    told = ToldLevels()
    told.of(KEY, level(50.0, 1_000.0), 1_000.0)
    fresh = level(10.0, 100.0)
    assert told.of(KEY, fresh, 100.0) == fresh
