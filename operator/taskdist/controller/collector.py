"""Python's garbage collector, set for a process with many objects that live long.

What the operator holds lives long and goes by its reference counts; the collector only looks for cycles, such as
exceptions leave. It would look at each waiting Task again and again, also while they are listed.
"""

import gc

# Containers made and not freed before the youngest are looked through; so many times before the next older ones are.
THRESHOLDS = (20_000, 20, 100)


def look_rarely() -> None:
    """Call before anything is loaded."""
    gc.set_threshold(*THRESHOLDS)


def settle_collector() -> None:
    """Call once everything that stays is there."""
    gc.collect()
    gc.freeze()
    look_rarely()
