"""That tests meant for the compiled core run with it, and all others with its source."""

import os

from taskdist.core import COMPILED


def test_the_core_is_compiled_exactly_where_that_was_asked_for() -> None:
    assert ("compiled" in os.environ.get("PYTHONPATH", "")) == COMPILED
