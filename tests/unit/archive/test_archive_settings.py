"""Settings of the archive, and months: pure arithmetic."""

from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from taskdist.archive.schema import migrations, month_of, months_before, next_month, partition
from taskdist.archive.settings import Settings
from taskdist.common.environment import SettingsError

LEAST = {"TASKDIST_ARCHIVE_DSN": "postgresql://db/tasks", "TASKDIST_NAMESPACE": "taskdist-system"}


def test_the_defaults() -> None:
    found = Settings.from_env(LEAST)
    assert (found.installation, found.watch_namespaces, found.keep_months) == ("taskdist", (), 0)
    assert (found.metrics_port, found.health_port, found.lock) == (8080, 8081, "/taskdist-system/taskdist")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"TASKDIST_ARCHIVE_DSN": ""}, "TASKDIST_ARCHIVE_DSN is not set: set it to postgresql://"),
        ({"TASKDIST_NAMESPACE": ""}, "TASKDIST_NAMESPACE is not set"),
        ({"TASKDIST_ARCHIVE_KEEP_MONTHS": "-1"}, "TASKDIST_ARCHIVE_KEEP_MONTHS is '-1'"),
        ({"TASKDIST_ARCHIVE_HEALTH_PORT": "8080"}, "TASKDIST_ARCHIVE_HEALTH_PORT is 8080, and so is"),
        ({"TASKDIST_LOG_LEVEL": "loud"}, "TASKDIST_LOG_LEVEL is 'loud'"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(change: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env(LEAST | change)
    assert words in str(caught.value)
    assert "db/tasks" not in str(caught.value), "a DSN holds a password"


def test_a_list_of_namespaces_names_each_once() -> None:
    assert Settings.from_env(LEAST | {"TASKDIST_ARCHIVE_NAMESPACES": "a, b,,a"}).watch_namespaces == ("a", "b")


@pytest.mark.parametrize(
    ("moment", "month"),
    [
        (datetime(2026, 11, 30, 23, 59, tzinfo=UTC), date(2026, 11, 1)),
        (datetime(2026, 12, 1, 0, 30, tzinfo=timezone(timedelta(hours=1))), date(2026, 11, 1)),
    ],
)
def test_months_are_of_utc(moment: datetime, month: date) -> None:
    assert month_of(moment) == month


def test_months_follow_each_other() -> None:
    assert next_month(date(2026, 12, 1)) == date(2027, 1, 1)
    assert [months_before(date(2026, 2, 1), count) for count in (0, 1, 2, 14)] == [
        *(date(2026, 2, 1), date(2026, 1, 1), date(2025, 12, 1), date(2024, 12, 1)),
    ]
    assert partition("tasks", date(2026, 2, 1)) == "tasks_2026_02"


def test_migrations_are_numbered_without_a_gap() -> None:
    found = migrations()
    assert [each.version for each in found] == list(range(1, len(found) + 1))
    assert all(each.name and each.text for each in found)
