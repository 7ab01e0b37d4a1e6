"""Seeded random histories of the lease protocol: many small ones, each checked to its end.

TASKDIST_HISTORIES sets how many (100,000 by default), TASKDIST_SEED the first seed.
"""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from faults.plan import make_plan
from faults.violation import Violation
from faults.world import World

HISTORIES = int(os.environ.get("TASKDIST_HISTORIES", "100000"))
FIRST = int(os.environ.get("TASKDIST_SEED", "0"))
CHUNK = 500
ROOT = Path(__file__).parents[2]


def broken(first: int, count: int) -> list[tuple[int, str]]:
    """Run these seeds; return what broke (the first few)."""
    found: list[tuple[int, str]] = []
    for seed in range(first, first + count):
        try:
            World(seed, make_plan(seed)).run()
        except Exception as error:  # whatever it is, its seed must be told
            found.append((seed, f"{type(error).__name__}: {error}"))
            if len(found) >= 3:
                break
    return found


def replay_command(seed: int) -> str:
    return f"PYTHONPATH=operator:tests .venv/bin/python -m faults.replay {seed}"


@pytest.mark.timeout(0)
def test_no_history_breaks_a_promise() -> None:
    assert HISTORIES > 0
    starts = range(FIRST, FIRST + HISTORIES, CHUNK)
    last = FIRST + HISTORIES
    found: list[tuple[int, str]] = []
    # Fresh interpreters: the tests around may have started threads, which forked ones would miss.
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as pool:
        for result in pool.map(broken, starts, [min(CHUNK, last - start) for start in starts]):
            found += result
            if len(found) >= 3:
                pool.shutdown(cancel_futures=True)
                break
    told = "\n".join(f"seed {seed}: {what}\n  replay: {replay_command(seed)}" for seed, what in found)
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
