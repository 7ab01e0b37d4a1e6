"""Each line of the lease protocol, switched off, leads to a history that the checker refuses.

The same histories pass with the line on: so it is the line that keeps the promise, and the checker that sees it.
"""

from dataclasses import fields

import pytest

from faults.mutants import MUTANTS, Mutant
from faults.plan import make_plan
from faults.violation import Violation
from faults.world import World
from taskdist.api import Reason
from taskdist.protocol.rules import ALL, Rules

SEEDS = 4000


def violated(seed: int, mutant: Mutant, *, off: bool) -> str:
    """Return the kind of promise that this history breaks, if any."""
    try:
        mutant.history(seed, off=off).run()
    except Violation as violation:
        return violation.kind
    return ""


def test_the_operator_s_watch_alone_keeps_limits() -> None:
    """Agents that know of no limits: whatever they run too long is stopped all the same."""
    stopped = 0
    for seed in range(300):
        plan = make_plan(seed, execution=2.0, progress=None, longest=160.0, long_work=0.5, fenced=True)
        world = World(seed, plan, rules=Rules(agents_keep_limits=False), agents_know_limits=False)
        world.run()
        ended = [each for task in world.api.tasks.values() for each in task.status.get("attempts") or ()]
        stopped += sum(each["reason"] == Reason.EXECUTION_TIMED_OUT for each in ended)
    assert stopped > 100


def test_each_line_is_switched_off_by_a_mutant() -> None:
    names = [line.name for line in fields(Rules)]
    assert [name for name in names if all(getattr(mutant.rules, name) for mutant in MUTANTS)] == []
    assert [name for name in names if not getattr(ALL, name)] == []


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_without_this_line_a_promise_breaks(mutant: Mutant) -> None:
    for seed in range(SEEDS):
        if violated(seed, mutant, off=True) in mutant.kinds:
            assert violated(seed, mutant, off=False) == ""
            return
    pytest.fail(f"{SEEDS} histories passed without the line: {mutant.name}")
