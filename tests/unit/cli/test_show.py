"""Ages read as kubectl's do."""

from datetime import UTC, datetime

import pytest

from taskdist.cli import show
from taskdist.common import times


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (200, "3m20s"),
        (720, "12m"),
        (7199, "119m"),
        (7200, "2h"),
        (18600, "5h10m"),
        (172799, "47h"),
        (172800, "2d"),
        (356400, "4d3h"),
        (86400 * 400, "400d"),
    ],
)
def test_span(seconds: float, text: str) -> None:
    assert times.span(seconds) == text


def test_age() -> None:
    now = datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
    assert times.age("2026-01-01T00:00:00Z", now) == "60s"
    assert times.age(None, now) == "-"


@pytest.mark.parametrize("odd", ["2030-01-01T00:00:00+99:99", "0000-01-01T00:00:00Z", "2030-01-01t00:00:00x5Z", "soon"])
def test_a_time_that_no_calendar_has_is_shown_as_kubectl_shows_it(odd: str) -> None:
    now = datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
    assert (times.age(odd, now), times.distance(odd, now)) == (times.INVALID, times.INVALID)


def test_a_time_in_small_letters_is_a_time() -> None:
    assert times.age("2026-01-01t00:00:00z", datetime(2026, 1, 1, 0, 1, tzinfo=UTC)) == "60s"


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 40 columns."""
    monkeypatch.setattr(show, "_width", lambda: 40)


@pytest.mark.usefixtures("narrow")
def test_a_row_is_one_whole_line_on_a_narrow_terminal_too(capsys: pytest.CaptureFixture[str]) -> None:
    name, message = "a-name-of-a-task-that-is-longer-than-forty-columns", "a message\nof several\nlines " + "x" * 40
    show.table(("NAME", "PHASE", "MESSAGE"), [(name, "Succeeded", message)])
    _, row = capsys.readouterr().out.splitlines()
    assert row.split() == [name, "Succeeded", *message.split()]


@pytest.mark.usefixtures("narrow")
def test_prose_fits_the_terminal_and_a_command_stays_whole(capsys: pytest.CaptureFixture[str]) -> None:
    command = 'kubectl patch tk a-name --type merge -p \'{"spec": {"suspend": false}}\''
    show.fields([("Message", "word " * 20), ("Command", command)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].split("  ", 1)[1].strip() == command
    assert len(lines) > 3
    assert all(len(line) <= 40 for line in lines[:-1])
