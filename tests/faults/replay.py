"""Replay one history with a trace: `python -m faults.replay SEED [MUTANT or arrays]`, with operator and tests on the
path."""

import sys

from faults.mutants import MUTANTS
from faults.plan import make_array_plan, make_plan
from faults.violation import Violation
from faults.world import World


def main(seed: int, mutant: str = "") -> int:
    if mutant == "arrays":
        world = World(seed, make_array_plan(seed), trace=True)
    elif mutant:
        one = next(m for m in MUTANTS if mutant in m.name)
        world = one.history(seed, trace=True)
    else:
        world = World(seed, make_plan(seed), trace=True)
    print(world.plan)
    broken = ""
    try:
        world.run()
    except Violation as violation:
        broken = str(violation)
    finally:
        print("\n".join(world.lines or ()))
    print(broken or "every promise was kept")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), *sys.argv[2:3]))
