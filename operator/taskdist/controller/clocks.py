"""The two clocks of this machine, for those who hand the time to what has none of its own."""

import time

from taskdist.common.boottime import boottime
from taskdist.protocol.observations import Now


def read_clocks() -> Now:
    """Return both clocks of this machine, now."""
    return Now(boottime(), time.time())
