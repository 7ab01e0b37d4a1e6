"""Waiting for what other processes do: on the condition, never for a time."""

import time
from collections.abc import Callable
from typing import Literal, TypeVar

T = TypeVar("T")

PATIENCE = 60.0


def until(condition: Callable[[], T | Literal[False] | None], what: str, timeout: float = PATIENCE) -> T:
    """Wait for a condition on the world, and return what made it true."""
    end = time.monotonic() + timeout
    while not (answer := condition()):
        assert time.monotonic() < end, f"not within {timeout:g} s: {what}"
        time.sleep(0.05)
    return answer
