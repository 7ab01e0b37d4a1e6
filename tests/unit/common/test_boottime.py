"""The clock of leases is one: it counts suspend where the platform can, and falls back to one other clock."""

import re
import time
from pathlib import Path

import pytest

import taskdist
from taskdist.common.boottime import boottime

PACKAGE = Path(taskdist.__file__).parent


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        pytest.param((), "CLOCK_BOOTTIME", id="Linux counts suspend"),
        pytest.param(("CLOCK_BOOTTIME",), "CLOCK_MONOTONIC", id="a platform without such a clock"),
    ],
)
def test_the_clock_that_is_read(monkeypatch: pytest.MonkeyPatch, missing: tuple[str, ...], expected: str) -> None:
    for name in missing:
        monkeypatch.delattr(time, name)
    clock = getattr(time, expected)
    times = {clock: 7.25}
    monkeypatch.setattr(time, "clock_gettime", times.__getitem__)
    assert boottime() == 7.25


def test_it_goes_on() -> None:
    before = boottime()
    assert before <= boottime() <= before + 60


def test_no_other_place_of_the_package_chooses_a_clock_of_leases() -> None:
    readers = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if re.search(r"clock_gettime\(|def boottime", path.read_text())
    }
    assert readers == {"common/boottime.py"}
