"""Moments and lengths of time, as people and the API write them."""

import sys
from datetime import UTC, datetime, timedelta
from typing import Final

INVALID = "<invalid>"
"""What kubectl shows for a time that cannot be read."""
_EPOCH: Final = datetime.fromtimestamp(0, UTC)


def age(timestamp: str | None, now: datetime) -> str:
    """How long ago, as kubectl says it: two units at most."""
    if not timestamp:
        return "-"
    then = _moment(timestamp)
    return INVALID if then is None else span((now - then).total_seconds())


def distance(timestamp: str | None, now: datetime) -> str:
    """How far a moment is away: `in 5m`, `3h20m ago`."""
    if not timestamp:
        return ""
    then = _moment(timestamp)
    if then is None:
        return INVALID
    seconds = (then - now).total_seconds()
    return f"in {span(seconds)}" if seconds >= 0 else f"{span(-seconds)} ago"


def read(timestamp: str | None) -> datetime | None:
    """A time of the API; None where there is none, or one that cannot be read."""
    return _moment(timestamp) if timestamp else None


def _moment(timestamp: str) -> datetime | None:
    """A time of the API; None for one that no calendar has: the API server takes some of those."""
    try:
        then = datetime.fromisoformat(timestamp.upper())
        return (then if then.tzinfo else then.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def span(seconds: float) -> str:
    """A length of time: `0s`, `95s`, `3m20s`, `5h10m`, `4d3h`."""
    whole = max(int(seconds), 0)
    if whole < 120:
        return f"{whole}s"
    for size, name, minor_size, minor in ((60, "m", 1, "s"), (3600, "h", 60, "m"), (86400, "d", 3600, "h")):
        major, rest = divmod(whole, size)
        limit = {"m": 120, "h": 48, "d": sys.maxsize}[name]
        if major < limit:
            # Seconds stop to matter after a while.
            return f"{major}{name}" + (f"{rest // minor_size}{minor}" if rest // minor_size and major < 10 else "")
    raise AssertionError("unreachable: days have no limit")


def from_milliseconds(since_epoch: int) -> datetime | None:
    """Return the time of a broker's timestamp; None where there is none, or it is beyond what can be written."""
    if since_epoch < 0:
        return None
    try:
        return _EPOCH + timedelta(milliseconds=since_epoch)
    except OverflowError:
        return None


def now() -> datetime:
    return datetime.now(UTC)


def utc(seconds: float) -> str:
    """A moment as the API writes it, in whole seconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
