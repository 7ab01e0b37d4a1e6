"""The clock of leases: seconds since boot that go on while the machine sleeps, as leases do.

Both ends of a lease and the leader election read this clock, each on its own machine, so there is one of it and one
fallback. Timers of asyncio and poll() count CLOCK_MONOTONIC, which stands still in suspend: `agent.boot_timer` has one
that does not.
"""

import time


def boottime() -> float:
    """Seconds on CLOCK_BOOTTIME; on CLOCK_MONOTONIC where the platform has no such clock (it is Linux's own).

    Only differences on one machine mean anything. The fallback lets the command and a control plane run elsewhere; an
    agent needs Linux in any case, for its timer.
    """
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
