"""The process in which one what-if is played: reads the copy from standard input, writes the answer, and ends.

It is the last that a machine under strain should run and the first that it may end: what it does is a favour to who
asks, and the operator beside it is not to wait for it.
"""

import contextlib
import json
import os
import pickle
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

from taskdist.controller.view import copying
from taskdist.simulation.what_if import Change, NotPlayed, what_if

NICE = 10
# After that, no more runs are begun: an answer of a few is better than none.
PLAY_SECONDS = 6.0


def main() -> None:
    """Play what is asked on standard input: the bounds, the question, and the parts of the copy."""
    source: BinaryIO = sys.stdin.buffer
    _bound(*map(int, sys.argv[1:]))
    uid, now, (priority, pool, agents, more) = pickle.load(source)
    told: dict[str, Any]
    try:
        until = time.monotonic() + PLAY_SECONDS
        snapshot, change = copying.read(source, now), Change(priority, pool, agents, more)
        found = what_if(snapshot, uid, change, go_on=lambda: time.monotonic() < until)
    except NotPlayed as error:
        told = {"refused": str(error)}
    except MemoryError:
        told = {"failed": "it takes more memory than a what-if may have here"}
    else:
        told = {"answer": found.told().to_wire()}
    sys.stdout.write(json.dumps(told))


def _bound(seconds: int, memory: int) -> None:
    """Give way to all else, and end by itself: also where nobody is left to end it."""
    os.nice(NICE)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    signal.alarm(seconds)


if __name__ == "__main__":
    main()
