"""Conditions of an object's status: what is said, and since when."""

from collections.abc import Iterable
from datetime import UTC, datetime

from taskdist.api import Condition

# The most characters of a message in a status.
MESSAGE_LENGTH = 1024


def timestamp(wall: float) -> datetime:
    """Return a Unix time as an aware datetime of whole seconds, as conditions carry it."""
    return datetime.fromtimestamp(int(wall), UTC)


def merge_conditions(old: Iterable[Condition], new: Iterable[Condition], wall: float) -> list[Condition]:
    """Return the new conditions, each keeping its transition time unless its status changed."""
    before = {c.type: c for c in old}
    merged = []
    for condition in new:
        known = before.get(condition.type)
        unchanged = known is not None and known.status == condition.status and known.last_transition_time is not None
        since = known.last_transition_time if known is not None and unchanged else timestamp(wall)
        merged.append(condition.model_copy(update={"last_transition_time": since}))
    return merged


def told_conditions(
    old: Iterable[Condition],
    reason: str,
    message: str,
    generation: int | None,
    wall: float,
    *,
    ready: bool,
    stalled: bool,
    settled: bool,
) -> list[Condition]:
    """Return Ready, Reconciling and Stalled of an object, as kstatus reads them.

    Args:
        stalled: whether only a change of the object helps.
        settled: whether it is as was asked, or stays as it is: else it may pass by itself.
    """
    states = {"Ready": ready, "Reconciling": not settled, "Stalled": stalled}
    told = [
        Condition.model_validate(
            {
                "type": kind,
                "status": "True" if holds else "False",
                "reason": reason,
                "message": message[:MESSAGE_LENGTH],
                "observedGeneration": generation,
            }
        )
        for kind, holds in states.items()
    ]
    return merge_conditions(old, told, wall)
