"""That tests meant for the compiled core run with it, and all others with its source; module by module."""

import os
import pkgutil
from importlib import import_module

import pytest

import taskdist.core
from taskdist.core import COMPILED

# Compiled they would be slower: see hatch_build.py.
PLAIN = frozenset({"taskdist.core.forecasting.position"})
MODULES = sorted(
    found.name for found in pkgutil.walk_packages(taskdist.core.__path__, "taskdist.core.") if not found.ispkg
)


def test_the_core_is_compiled_exactly_where_that_was_asked_for() -> None:
    assert ("compiled" in os.environ.get("PYTHONPATH", "")) == COMPILED


def test_all_rooms_of_the_core_are_looked_at() -> None:
    assert len({name.split(".")[2] for name in MODULES if name.count(".") > 2}) == 10
    assert set(MODULES) > PLAIN


@pytest.mark.parametrize("name", MODULES)
def test_each_module_runs_in_the_form_that_the_core_as_a_whole_says(name: str) -> None:
    file = str(import_module(name).__file__)
    assert file.endswith(".py") == (not COMPILED or name in PLAIN), file
