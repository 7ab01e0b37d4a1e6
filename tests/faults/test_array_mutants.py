"""Lines of the protocol that arrays rest on: with one of them off, a promise about items breaks.

So the checker sees items, and it is these lines that keep them.
"""

from typing import Any

import pytest

from faults.plan import make_array_plan
from faults.violation import Violation
from faults.world import World
from taskdist.protocol.arrays.account import Account
from taskdist.protocol.arrays.indexes import IndexSet
from taskdist.protocol.operator import endings
from taskdist.protocol.rules import ALL, Rules

SEEDS = 400


def all_items(account: Account) -> IndexSet:
    return IndexSet.span(0, account.count - 1) - account.succeeded - account.failed


MUTANTS: list[Any] = [
    pytest.param({"rules": Rules(written_before_sent=False)}, ("unrecorded",), id="sent before it is written"),
    pytest.param({"rules": Rules(unknown_is_doubted=False)}, ("unrecorded",), id="an unknown write is believed"),
    pytest.param({"rules": Rules(takeover_waits=False)}, ("overlap",), id="a takeover does not wait"),
    pytest.param({"rules": Rules(reply_follows_write=False)}, ("accepted",), id="answered before it is written"),
    pytest.param({"untried": all_items}, ("result", "overlap", "again", "Unreadable"), id="items that parts have"),
    pytest.param({"halve": lambda *_: None}, ("blamed",), id="a lost chunk counts for its items"),
    pytest.param({"rules": Rules(hello_lists_all=False)}, ("overlap", "capacity"), id="a hello that leaves out parts"),
    pytest.param({"rules": Rules(late_assignment_is_adopted=False)}, ("liveness",), id="a late part is ignored"),
]


def kind_of(seed: int, rules: Rules) -> str:
    """Return what broke."""
    try:
        World(seed, make_array_plan(seed), rules=rules).run()
    except Violation as violation:
        return violation.kind
    except Exception as error:
        return type(error).__name__
    return ""


@pytest.mark.parametrize(("change", "kinds"), MUTANTS)
def test_without_this_line_a_promise_about_items_breaks(
    change: dict[str, Any], kinds: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    if "untried" in change:
        monkeypatch.setattr(Account, "untried", property(change["untried"]))
    if "halve" in change:
        monkeypatch.setattr(endings, "_halve", change["halve"])
    found = set()
    for seed in range(SEEDS):
        found.add(kind := kind_of(seed, change.get("rules", ALL)))
        if kind in kinds:
            return
    pytest.fail(f"{SEEDS} histories passed without the line, or broke otherwise: {found}")
