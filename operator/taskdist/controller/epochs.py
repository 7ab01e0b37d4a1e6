"""The highest epoch that Tasks or agents have seen. The operator leads above it.

A Lease that was deleted, or that a backup brought back, counts on from a number that was used before: agents refuse
such a leader. So what they have seen is gathered for a moment, then the leadership is begun anew above it.

An agent can only be believed so far. Each pod is believed once, and leaderships are begun anew at most every 30 s, so
that one that lies again and again costs a change of leadership, and no more.
"""

from collections.abc import Callable

import structlog

from taskdist.api import Reason
from taskdist.protocol.observations import ObservedTask, PoolNotice, RaiseEpoch

# How long agents are waited for before the leadership is begun anew: each comes with what it has seen.
GATHER_SECONDS = 1.0
# The least time between two leaderships that are begun anew for this.
PAUSE_SECONDS = 30.0
# How many pods are remembered for having been believed.
MOST_BELIEVED = 10_000

_log = structlog.get_logger("taskdist.operator")


class Epochs:
    """Gathers the epochs that Tasks and agents have seen, and begins the leadership anew above them where it must.

    Args:
        clock: seconds that only grow.
        later: calls back after this many seconds.
        leading: the epoch under which this process leads, None if it does not.
        begin_anew: ends the present leadership, for one with an epoch above `seen`; told why.
        notice: makes an Event of what a user should know.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        later: Callable[[float, Callable[[], None]], object],
        leading: Callable[[], int | None],
        begin_anew: Callable[[str], None],
        notice: Callable[[PoolNotice], None],
    ) -> None:
        self.seen = 0
        self._clock = clock
        self._later = later
        self._leading = leading
        self._begin_anew = begin_anew
        self._notice = notice
        self._believed: dict[str, None] = {}  # the oldest first
        self._planned = False
        self._free_at = clock()

    def on_task(self, epoch: int) -> None:
        """A Task's status shows this epoch."""
        self.seen = max(self.seen, epoch)

    def on_agent(self, asked: RaiseEpoch) -> None:
        """An agent has seen this epoch under another leadership."""
        if asked.pod_uid in self._believed or self._leading() is None:
            return  # who was deposed hears of its successor so
        self._believed[asked.pod_uid] = None
        if len(self._believed) > MOST_BELIEVED:
            del self._believed[next(iter(self._believed))]
        self.seen = max(self.seen, asked.above)
        if self._planned:
            return
        self._planned = True
        text = f"{asked.message}: the operator begins its leadership anew, with a higher epoch"
        self._notice(PoolNotice(asked.namespace, asked.pool, Reason.EPOCH_RAISED, text))
        now = self._clock()
        due = max(now + GATHER_SECONDS, self._free_at)
        self._free_at = due + PAUSE_SECONDS
        self._later(due - now, self._begin)

    def _begin(self) -> None:
        self._planned = False
        if (epoch := self._leading()) is None or epoch > self.seen:
            return
        self._begin_anew(f"agents have seen epoch {self.seen} of another leadership")


def went_back(old: ObservedTask, new: ObservedTask) -> bool:
    """Whether a later version of a Task is of an earlier time: it had ended, or had a higher epoch.

    The rules of the CRD let no write do this: etcd was restored, and the books may be of another history.
    """
    if new.epoch >= old.epoch and (new.phase.terminal or not old.phase.terminal):
        return False
    _log.error(
        "a Task has gone back in time; the process ends, and starts with what stands: was etcd restored from a backup?",
        task=f"{new.task.namespace}/{new.task.name}",
        uid=new.task.uid,
        phase=new.phase,
        epoch=new.epoch,
    )
    return True
