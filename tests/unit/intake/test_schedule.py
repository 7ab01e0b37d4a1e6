"""Runs of cron sources: changes of the clock, leap days, clocks that go back, processes that were down."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskdist.api.tasksource import Cron, OnMissed
from taskdist.intake.schedule import Schedule, ScheduleError, parse_schedule, plan

HOURLY = "0 * * * *"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def cron(schedule: str, zone: str = "UTC", **fields: Any) -> Cron:
    return Cron.model_validate({"schedule": schedule, "timeZone": zone} | fields)


def runs(schedule: str, zone: str, start: str, count: int) -> list[str]:
    parsed, moment = parse_schedule(cron(schedule, zone)), at(start)
    found = []
    for _ in range(count):
        following = parsed.after(moment)
        assert following is not None
        moment = following
        found.append(moment.strftime("%Y-%m-%dT%H:%M"))
    return found


@pytest.mark.parametrize(
    ("schedule", "zone", "start", "expected"),
    [
        pytest.param("0 3 * * *", "UTC", "2026-01-01T03:00", ["2026-01-02T03:00"], id="strictly after"),
        pytest.param("0 3 * * *", "UTC", "2026-01-01T02:59:59", ["2026-01-01T03:00"], id="a second before"),
        pytest.param("0 12 29 2 *", "UTC", "2024-03-01", ["2028-02-29T12:00", "2032-02-29T12:00"], id="leap days"),
        pytest.param("0 0 31 * *", "UTC", "2026-01-31", ["2026-03-31T00:00"], id="months without a 31st"),
        pytest.param("0 0 L * *", "UTC", "2028-02-01", ["2028-02-29T00:00"], id="the last day of a month"),
        pytest.param("0 9 * * mon-fri", "UTC", "2026-01-02T10:00", ["2026-01-05T09:00"], id="over a weekend"),
        pytest.param("0 9 1 * fri", "UTC", "2026-01-02T10:00", ["2026-01-09T09:00"], id="day or weekday"),
        pytest.param("30 8 * * *", "Asia/Kolkata", "2026-01-01", ["2026-01-01T03:00"], id="a zone of half an hour"),
        # Clocks in Berlin go from 02:00 to 03:00 on 2026-03-29, and from 03:00 back to 02:00 on 2026-10-25.
        pytest.param(
            "30 2 * * *",
            "Europe/Berlin",
            "2026-03-28T02:00",
            ["2026-03-29T01:00", "2026-03-30T00:30"],
            id="a set time that is skipped comes right after",
        ),
        pytest.param(
            "0,30 2,3 * * *",
            "Europe/Berlin",
            "2026-03-29T00:00",
            ["2026-03-29T01:00", "2026-03-29T01:30", "2026-03-30T00:00"],
            id="set times that fall on one are one run",
        ),
        pytest.param(
            "30 2 * * *",
            "Europe/Berlin",
            "2026-10-24T23:00",
            ["2026-10-25T00:30", "2026-10-26T01:30"],
            id="a set time that comes twice is one run",
        ),
        pytest.param(
            "30 2 * * *", "Europe/Berlin", "2026-10-25T01:10", ["2026-10-26T01:30"], id="nor again in the second hour"
        ),
        pytest.param(
            "*/30 * * * *",
            "Europe/Berlin",
            "2026-10-25T00:00",
            ["2026-10-25T00:30", "2026-10-25T01:00", "2026-10-25T01:30", "2026-10-25T02:00"],
            id="each half hour goes on through the hour that comes twice",
        ),
        pytest.param(
            "*/30 * * * *",
            "Europe/Berlin",
            "2026-03-29T00:45",
            ["2026-03-29T01:00", "2026-03-29T01:30"],
            id="and through the one that is skipped",
        ),
        pytest.param(
            "0 0 * * *",
            "America/Sao_Paulo",
            "2017-10-14T12:00",
            ["2017-10-15T03:00", "2017-10-16T02:00"],
            id="a midnight that is skipped",
        ),
        pytest.param(
            "0 12 * * *",
            "Pacific/Apia",
            "2011-12-29T12:00",
            ["2011-12-29T22:00", "2011-12-30T10:00", "2011-12-30T22:00"],
            id="a whole day that is skipped: its run comes right after, at midnight",
        ),
    ],
)
def test_runs_come_when_the_schedule_says(schedule: str, zone: str, start: str, expected: list[str]) -> None:
    assert runs(schedule, zone, start, len(expected)) == expected


def test_a_rare_run_comes_and_after_the_end_of_all_time_none() -> None:
    assert runs("0 0 29 2 */7", "UTC", "2026-01-01", 1) == ["2032-02-29T00:00"]
    assert parse_schedule(cron(HOURLY)).after(at("9999-12-31T23:30")) is None


@pytest.mark.parametrize(
    ("schedule", "zone", "field"),
    [
        pytest.param("0 3 * *        ", "UTC", "schedule", id="four fields"),
        pytest.param("0 0 3 * * *", "UTC", "schedule", id="six fields, with seconds"),
        pytest.param("@daily xxxx", "UTC", "schedule", id="a nickname"),
        pytest.param("60 3 * * *", "UTC", "schedule", id="minute 60"),
        pytest.param("0 24 * * *", "UTC", "schedule", id="hour 24"),
        pytest.param("0 0 30 2 *", "UTC", "schedule", id="30 February"),
        pytest.param("0 0 * * fri-mon", "UTC", "schedule", id="a range that goes back"),
        pytest.param("0 0 1 JAN-32 *", "UTC", "schedule", id="no month"),
        pytest.param("0 3 * * *", "Europe/Atlantis", "timeZone", id="no such zone"),
        pytest.param("0 3 * * *", "Europe", "timeZone", id="a folder of zones"),
    ],
)
def test_what_is_no_schedule_is_refused_by_field(schedule: str, zone: str, field: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        parse_schedule(cron(schedule, zone))
    assert caught.value.field == field


# -- missed runs -------------------------------------------------------------------------------------------------------


def planned(
    missed: OnMissed, handled: str, now: str, schedule: str = HOURLY, **fields: Any
) -> tuple[list[str], int, str]:
    policy = cron(schedule, missed=missed, **fields)
    found = plan(parse_schedule(policy), policy, at(handled), at(now))
    return [run.strftime("%dT%H:%M") for run in found.make], found.skipped, found.until.strftime("%dT%H:%M")


@pytest.mark.parametrize(
    ("missed", "handled", "now", "fields", "expected"),
    [
        pytest.param(OnMissed.SKIP, "2026-01-01T03:00", "2026-01-01T03:59:59", {}, ([], 0, "01T03:00"), id="not yet"),
        pytest.param(
            OnMissed.SKIP, "2026-01-01T03:00", "2026-01-01T04:00", {}, (["01T04:00"], 0, "01T04:00"), id="to the second"
        ),
        pytest.param(
            OnMissed.SKIP, "2026-01-01T03:00", "2026-01-01T04:01", {}, (["01T04:00"], 0, "01T04:00"), id="just in time"
        ),
        pytest.param(
            OnMissed.SKIP, "2026-01-01T03:00", "2026-01-01T04:01:01", {}, ([], 1, "01T04:00"), id="too late is skipped"
        ),
        pytest.param(
            OnMissed.ONE,
            "2026-01-01T03:00",
            "2026-01-01T04:01:01",
            {},
            (["01T04:00"], 0, "01T04:00"),
            id="too late is made up for",
        ),
        pytest.param(
            OnMissed.ONE,
            "2026-01-01T03:00",
            "2026-01-02T03:30",
            {},
            (["02T03:00"], 23, "02T03:00"),
            id="down for a day: the latest",
        ),
        pytest.param(
            OnMissed.ONE,
            "2026-01-01T03:00",
            "2026-01-02T04:00",
            {},
            (["02T04:00"], 24, "02T04:00"),
            id="down for a day, and one in time",
        ),
        pytest.param(
            OnMissed.ALL,
            "2026-01-01T21:00",
            "2026-01-02T00:00",
            {},
            (["01T22:00", "01T23:00", "02T00:00"], 0, "02T00:00"),
            id="down for hours: all",
        ),
        pytest.param(
            OnMissed.ALL,
            "2026-01-01T03:00",
            "2026-01-02T00:30",
            {"mostMissed": 2},
            (["01T23:00", "02T00:00"], 19, "02T00:00"),
            id="all, but no more than the bound",
        ),
        pytest.param(
            OnMissed.SKIP,
            "2026-01-01T03:00",
            "2026-01-01T06:10",
            {"startingDeadlineSeconds": 7200},
            (["01T05:00", "01T06:00"], 1, "01T06:00"),
            id="a later deadline",
        ),
        pytest.param(
            OnMissed.ALL,
            "2026-01-01T03:00",
            "2026-01-01T01:30",
            {},
            ([], 0, "01T03:00"),
            id="a clock that went back makes nothing twice",
        ),
    ],
)
def test_missed_runs_are_made_up_for_as_the_source_says(
    missed: OnMissed, handled: str, now: str, fields: dict[str, Any], expected: tuple[list[str], int, str]
) -> None:
    assert planned(missed, handled, now, **fields) == expected


def test_a_year_of_minutes_costs_no_more_than_what_is_made_up_for() -> None:
    """Counted in runs that are looked at, as time depends on the machine."""
    looked = 0

    class Counted(Schedule):
        def _from(self, moment: datetime) -> Any:
            nonlocal looked
            for run in Schedule._from(self, moment):
                looked += 1
                yield run

    parsed = parse_schedule(cron("* * * * *"))
    policy = cron("* * * * *", missed=OnMissed.ALL, mostMissed=1000)
    found = plan(Counted(parsed.text, parsed.zone), policy, at("2025-01-01"), at("2026-01-01"))
    assert len(found.make) == 1002
    assert looked < 5000


ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/Sao_Paulo",
    "Pacific/Apia",
    "Australia/Lord_Howe",
    "Africa/Casablanca",
    "Asia/Kathmandu",
)
SCHEDULES = st.builds(
    "{} {} {} {} {}".format,
    st.sampled_from(["0", "30", "*", "*/7", "0,59", "5-10"]),
    st.sampled_from(["*", "0", "2", "1-3", "*/5", "23"]),
    st.sampled_from(["*", "1", "31", "L", "*/10"]),
    st.sampled_from(["*", "2", "MAR,OCT", "12"]),
    st.sampled_from(["*", "0", "MON-FRI", "7L", "3#2"]),
)
MOMENTS = st.datetimes(
    *(at(f"{year}-01-01").replace(tzinfo=None) for year in (1990, 2037)), timezones=st.just(UTC)
).map(lambda moment: moment.replace(second=0, microsecond=0))


@given(SCHEDULES, st.sampled_from(ZONES), MOMENTS, st.integers(0, 10_000), st.integers(1, 5))
def test_wherever_one_starts_the_runs_are_the_same(
    text: str, zone: str, start: datetime, minutes: int, most: int
) -> None:
    try:
        schedule = parse_schedule(cron(text, zone))
    except ScheduleError:
        return
    end = start + timedelta(minutes=minutes)
    chain, moment = list[datetime](), start
    while (following := schedule.after(moment)) is not None and following <= end and len(chain) < 200:
        assert following > moment
        chain.append(following)
        moment = following
    if len(chain) < 200:
        assert schedule.latest(start, end, most) == (chain[-most:], len(chain) > most)


@given(SCHEDULES, MOMENTS, st.lists(st.integers(1, 5000), min_size=1, max_size=8), st.sampled_from(OnMissed))
def test_whenever_one_looks_no_run_is_made_twice_and_those_in_time_are_all_made(
    text: str, start: datetime, steps: list[int], missed: OnMissed
) -> None:
    """Steps in minutes, of which some are long: the process was down."""
    try:
        schedule = parse_schedule(cron(text))
    except ScheduleError:
        return
    policy = cron(text, missed=missed)
    made, handled, now, looks = list[datetime](), start, start, list[datetime]()
    for step in steps:
        now += timedelta(minutes=step)
        looks.append(now)
        found = plan(schedule, policy, handled, now)
        made += found.make
        assert all(handled < run <= now for run in found.make)
        handled = found.until
    assert made == sorted(set(made))
    in_time = {
        run for look in looks for run in schedule.latest(start, look, 3)[0] if run >= look - timedelta(seconds=60)
    }
    assert in_time <= set(made)
    if missed is OnMissed.SKIP:
        assert set(made) == in_time
