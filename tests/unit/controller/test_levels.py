"""Levels are told coarsely: what time alone brings is no news, and a queue's are told every now and then."""

from taskdist.controller.levels import EVERY, ToldLevels
from taskdist.core.limits.levels import Level

KEY = ("ns", "q")


def level(left: float, at: float, name: str = "rate.queue", per_second: float = 1.0) -> tuple[Level, ...]:
    return (Level(name, left, 100, per_second, at),)


def tell(told: ToldLevels, levels: tuple[Level, ...], now: float) -> tuple[Level, ...]:
    due = told.due(KEY, levels, now)
    told.told(KEY, due)
    return due


def test_a_question_is_no_telling() -> None:
    told = ToldLevels()
    for left in (50.0, 20.0):
        assert told.due(KEY, level(left, 0.0), 0.0) == level(left, 0.0)
    told.told(KEY, level(50.0, 0.0))
    assert told.due(KEY, level(20.0, EVERY), EVERY) == level(20.0, EVERY)
    assert told.due(KEY, level(48.0, EVERY + 1), EVERY + 1) == level(48.0, EVERY + 1)


def test_what_comes_back_with_time_is_no_news() -> None:
    told = ToldLevels()
    first = tell(told, level(10.0, 0.0), 0.0)
    assert [tell(told, level(10.0 + t, t), t) for t in (5.0, 30.0, 60.0)] == [first] * 3
    assert tell(told, level(100.0, 500.0), 500.0) == first


def test_what_was_taken_is_told_after_a_while() -> None:
    told = ToldLevels()
    first = tell(told, level(50.0, 0.0), 0.0)
    assert tell(told, level(20.0, EVERY - 1), EVERY - 1) == first
    later = level(20.0, EVERY)
    assert tell(told, later, EVERY) == later
    # As much as nothing.
    assert tell(told, level(33.0, 2 * EVERY), 2 * EVERY) == later


def test_another_limit_is_told_at_once_another_tenant_is_not() -> None:
    told = ToldLevels()
    first = tell(told, level(50.0, 0.0), 0.0)
    tenant = (*level(50.0, 1.0), *level(1.0, 1.0, "rate.perTenant/x"))
    assert tell(told, tenant, 1.0) == first
    more = (*level(50.0, 2.0), *level(1.0, 2.0, "budgets/b"))
    assert tell(told, more, 2.0) == more
    told.forget(KEY)
    assert tell(told, (), 3.0) == ()


def test_changes_are_bounded_however_much_is_taken() -> None:
    told, seconds, changes = ToldLevels(), 120, 0
    last: tuple[Level, ...] = ()
    for second in range(seconds):
        found = tell(told, level(float(second * 37 % 100), float(second)), float(second))
        changes, last = changes + (found != last), found
    assert 2 <= changes <= seconds / EVERY


def test_a_clock_that_went_back_does_not_stop_it() -> None:
    told = ToldLevels()
    tell(told, level(50.0, 1_000.0), 1_000.0)
    fresh = level(10.0, 100.0)
    assert tell(told, fresh, 100.0) == fresh
