"""Measured numbers as people write them."""

from taskdist.api import Phase
from taskdist.client import TaskState
from taskdist.common import times
from taskdist.mcp.measuring import Figures


def count(number: int) -> str:
    """Write a count short: `300`, `4.5K`, `45K`, `1.2M`."""
    for size, letter in ((1_000_000, "M"), (1_000, "K")):
        # What would be rounded up to the next letter has it.
        if number >= size * 0.9995:
            value = number / size
            return f"{value:.1f}".removesuffix(".0") + letter if value < 9.95 else f"{value:.0f}{letter}"
    return str(number)


def counted(number: int, noun: str) -> str:
    """Write a count of things: `1 queue`, `2 queues`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def percent(part: float) -> str:
    """Write a part of 1: `7%`. Less than all is never 100%, and more than nothing never 0%."""
    whole = f"{part:.0%}"
    exact = (part == 1 and whole == "100%") or (part == 0 and whole == "0%")
    return f"{part:.2%}" if whole in ("0%", "100%") and not exact else whole


def length(seconds: float) -> str:
    """Write a length of time: `230ms`, `3.2s`, `3m20s`."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f}ms"
    return f"{seconds:.1f}s" if seconds < 120 else times.span(seconds)


def standing(state: TaskState, reason: str = "") -> str:
    """Say where a Task stands, in words of this server alone: who reads them may take them for its own."""
    where = f" on {state.agent} (attempt {state.attempt})" if state.phase == Phase.ASSIGNED else ""
    done = f", {state.progress:.0%} done" if state.progress is not None and not state.settled else ""
    given = reason or ("" if state.phase in (Phase.ASSIGNED, Phase.SUCCEEDED) else state.reason)
    return f"task {state.name} is {state.phase}{where}{done}{f' ({given})' if given else ''}."


def own_words(message: str, state: TaskState) -> str:
    """Return the message if it quotes nothing that an agent has written of the Task; else nothing."""
    written = [state.progress_message, *(str(each.get("message") or "") for each in state.attempts)]
    return "" if any(each and each in message for each in written) else message


def queue_time(figures: Figures) -> str | None:
    """Write the average queue time; its bounds, where whole seconds of the API make a difference."""
    if figures.queue_seconds is None:
        return None
    low, high = figures.queue_seconds
    if low >= 0.95 * high:
        return length(high)
    return f"at most {length(high)}" if low == 0 else f"{length(low)} to {length(high)}"
