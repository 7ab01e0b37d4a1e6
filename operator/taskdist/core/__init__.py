"""The distribution core: events in, decisions out.

A deterministic state machine that decides which agent runs which Task and when, what follows a failed attempt,
how many agents a pool should have and which go first, and why a Task waits. It imports the standard library and
the API's enums only: no I/O, no clock, no randomness of its own. `now` is an argument.

Its rooms, each of which imports only those after it: `engine`, `forecasting`, `explaining`, `placement`, `ordering`,
`scaling`, `fleet`, `limits`, `agents`, and `primitives` below the values that all share. docs/core.md walks a Task
through them.
"""

import sys

from taskdist.core.engine.engine import Core
from taskdist.core.views import AgentState, PoolView

# Whether it runs as machine code (a wheel built with TASKDIST_COMPILE=1) or as plain Python.
COMPILED = not str(sys.modules[Core.__module__].__file__).endswith(".py")

__all__ = ["COMPILED", "AgentState", "Core", "PoolView"]
