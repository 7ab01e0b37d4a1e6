"""Waiting for what other processes do: on the condition, never for a time."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

T = TypeVar("T")

PATIENCE = 60.0


def until(
    condition: Callable[[], T | Literal[False] | None], what: str | Callable[[], str], timeout: float = PATIENCE
) -> T:
    """Wait for a condition on the world, and return what made it true. `what` is said, or asked, if it fails."""
    end = time.monotonic() + timeout
    while not (answer := condition()):
        assert time.monotonic() < end, f"not within {timeout:g} s: {what if isinstance(what, str) else what()}"
        time.sleep(0.05)
    return answer


class Stopwatch:
    """A clock that tells how long something takes, and for how much of that a busy machine may be to blame."""

    def __init__(self) -> None:
        self._began, self._held_up = time.monotonic(), held_up()

    @property
    def seconds(self) -> float:
        """The seconds since it was made."""
        return time.monotonic() - self._began

    @property
    def held_up(self) -> float:
        """The seconds of that in which any process of this machine waited for a CPU."""
        return held_up() - self._held_up


def held_up() -> float:
    """Return for how many seconds so far any process here waited for a CPU; 0 where the kernel does not tell."""
    try:
        some = Path("/proc/pressure/cpu").read_text().splitlines()[0]
        return int(some.rpartition("total=")[2]) / 1e6
    except (OSError, IndexError, ValueError):
        return 0.0
