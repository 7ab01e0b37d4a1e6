"""Ages read as kubectl's do."""

from datetime import UTC, datetime

import pytest

from taskdist.cli import show


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
    assert show.span(seconds) == text


def test_age() -> None:
    now = datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
    assert show.age("2026-01-01T00:00:00Z", now) == "60s"
    assert show.age(None, now) == "-"
