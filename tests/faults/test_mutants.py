"""Each line of the lease protocol, switched off, leads to a history that the checker refuses.

The same histories pass with the line on: so it is the line that keeps the promise, and the checker that sees it.
"""

import pytest

from faults.mutants import MUTANTS, Mutant
from faults.plan import make_plan
from faults.switched_off import KeepsNoLimitUnseen
from faults.violation import Violation
from faults.world import World

SEEDS = 4000


def violated(seed: int, mutant: Mutant, *, off: bool) -> str:
    """Return the kind of promise that this history breaks, if any."""
    plan = make_plan(seed, mutant.faults, mutant.least, **(mutant.plan if off else mutant.plan | mutant.sound))
    world = World(seed, plan, mutant.leader, mutant.agent) if off else World(seed, plan)
    try:
        world.run()
    except Violation as violation:
        return violation.kind
    return ""


def test_the_operator_s_watch_alone_keeps_limits() -> None:
    """Agents that know of no limits: whatever they run too long is stopped all the same."""
    for seed in range(300):
        plan = make_plan(seed, execution=2.0, progress=None, longest=160.0, long_work=0.5, fenced=True)
        World(seed, plan, agent=KeepsNoLimitUnseen).run()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_without_this_line_a_promise_breaks(mutant: Mutant) -> None:
    for seed in range(SEEDS):
        if violated(seed, mutant, off=True) in mutant.kinds:
            assert violated(seed, mutant, off=False) == ""
            return
    pytest.fail(f"{SEEDS} histories passed without the line: {mutant.name}")
