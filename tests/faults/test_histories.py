"""Seeded random histories of the lease protocol: many small ones, each checked to its end.

TASKDIST_HISTORIES sets how many (100,000 by default), TASKDIST_SEED the first seed. A hundredth as many are of arrays.
"""

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from faults.plan import Plan, make_array_plan, make_plan
from faults.violation import Violation
from faults.world import World

HISTORIES = int(os.environ.get("TASKDIST_HISTORIES", "100000"))
FIRST = int(os.environ.get("TASKDIST_SEED", "0"))
CHUNK = 500
ROOT = Path(__file__).parents[2]


def broken(plan: Callable[[int], Plan], first: int, count: int) -> list[tuple[int, str]]:
    """Run these seeds; return what broke (the first few)."""
    found: list[tuple[int, str]] = []
    for seed in range(first, first + count):
        try:
            World(seed, plan(seed)).run()
        except Exception as error:  # whatever it is, its seed must be told
            found.append((seed, f"{type(error).__name__}: {error}"))
            if len(found) >= 3:
                break
    return found


def replay_command(seed: int, arrays: bool) -> str:
    return f"PYTHONPATH=operator:tests .venv/bin/python -m faults.replay {seed}{' arrays' if arrays else ''}"


@pytest.mark.timeout(0)
@pytest.mark.parametrize(
    ("plan", "count"),
    [
        pytest.param(make_plan, HISTORIES, id="Tasks"),
        pytest.param(make_array_plan, max(1, HISTORIES // 100), id="arrays"),
    ],
)
def test_no_history_breaks_a_promise(plan: Callable[[int], Plan], count: int) -> None:
    assert HISTORIES > 0
    starts = range(FIRST, FIRST + count, CHUNK)
    last = FIRST + count
    found: list[tuple[int, str]] = []
    # Fresh interpreters: the tests around may have started threads, which forked ones would miss.
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as pool:
        for result in pool.map(partial(broken, plan), starts, [min(CHUNK, last - start) for start in starts]):
            found += result
            if len(found) >= 3:
                pool.shutdown(cancel_futures=True)
                break
    arrays = plan is make_array_plan
    told = "\n".join(f"seed {seed}: {what}\n  replay: {replay_command(seed, arrays)}" for seed, what in found)
    assert not found, f"promises were broken:\n{told}"


@pytest.mark.parametrize("seed", [1, 7, 23])
def test_a_history_replays_exactly(seed: int) -> None:
    first, second = World(seed, make_plan(seed), trace=True), World(seed, make_plan(seed), trace=True)
    first.run()
    second.run()
    assert first.lines == second.lines
    assert first.lines


def test_a_violation_names_its_kind() -> None:
    assert Violation("overlap", "two at once").kind == "overlap"
