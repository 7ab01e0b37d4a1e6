"""How the items of an array stand, in numbers and in a sentence: for lists, explanations and whoever watches. Pure.

Both the leader and clients count here, so that they tell alike.
"""

from collections.abc import Mapping
from typing import Any

from taskdist.api import Phase
from taskdist.api.view import Items
from taskdist.protocol.arrays.account import Account, ArrayRules, read, rules_of

MOST_NAMES = 10


def counts(account: Account) -> Items:
    """Count the items of an account."""
    held = [each for each in account.parts.values() if each.status.get("phase") == Phase.ASSIGNED]
    running, succeeded, failed = sum(len(each.items) for each in held), len(account.succeeded), len(account.failed)
    again = len(account.waiting_again) + sum(
        len(each.items) for each in account.parts.values() if each.status.get("phase") != Phase.ASSIGNED
    )
    agents = sorted({str(each.status.get("agent") or "") for each in held} - {""})
    return Items(
        count=account.count,
        succeeded=succeeded,
        failed=failed,
        running=running,
        waiting=account.count - succeeded - failed - running,
        retrying=again,
        parts=len(held),
        agents=agents[:MOST_NAMES],
        more_agents=max(0, len(agents) - MOST_NAMES),
        results_dropped=account.dropped,
    )


def done(rules: ArrayRules, account: Account) -> str:
    """Return how many have succeeded of how many, as status and tables show it."""
    return f"{len(account.succeeded)}/{rules.count}"


def seen(obj: Mapping[str, Any]) -> tuple[ArrayRules, Account] | None:
    """Read the array that a Task is, and its account; None if it is none, or one that this release cannot read."""
    spec, status = obj.get("spec"), obj.get("status")
    told = spec.get("array") if isinstance(spec, Mapping) else None
    if not isinstance(told, Mapping):
        return None
    try:
        rules = rules_of(told)
        return rules, read(rules, (status or {}).get("array") or {}, _untimed)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def where(items: Items) -> str:
    """Return the agents that have chunks of it: ` on a-0, a-1 and 3 more`; empty if none is known."""
    if not items.agents:
        return ""
    more = f" and {items.more_agents} more" if items.more_agents else ""
    return f" on {', '.join(items.agents)}{more}"


def sentence(items: Items) -> str:
    """Return the numbers in a sentence; what is 0 is left out, but for the items that are done."""
    parts = f"in {items.parts} chunk{'' if items.parts == 1 else 's'}{where(items)}"
    said = [
        f"{items.succeeded} of {items.count} done",
        f"{items.failed} failed" if items.failed else "",
        f"{items.running} running {parts}" if items.running else "",
        f"{items.waiting} waiting" if items.waiting else "",
    ]
    again = f" ({items.retrying} to be tried again)" if items.retrying else ""
    dropped = f"; {items.results_dropped} results found no room in status" if items.results_dropped else ""
    return ", ".join(filter(None, said)) + (again if items.waiting else "") + dropped


def _untimed(_told: Any) -> float:
    """Take no notice of when failed items are tried again: it is not counted."""
    return 0.0
