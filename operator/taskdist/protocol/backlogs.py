"""Backlogs of TaskSources, as their status tells them. Pure.

Refuses nothing: whatever is odd says that nothing waits.
"""

from typing import NamedTuple

from taskdist.common.objects import as_object
from taskdist.core.model import Key
from taskdist.protocol import reading

# How long what a source says of its backlog counts, unless it says it again: each 30 s where anything waits.
BACKLOG_SECONDS = 90.0


class SeenBacklog(NamedTuple):
    """The backlog of one source: messages that have no Task yet, for this queue.

    `at`: when the source said so; the same number said again is news, as it counts from then on. `oldest`: when the
    oldest of them was published (Unix time), where it tells that.
    """

    queue: Key
    source: str
    messages: int
    at: str = ""
    oldest: float | None = None

    @property
    def none(self) -> "SeenBacklog":
        return SeenBacklog(self.queue, self.source, 0)

    def lapsed(self, now: float, grace: float = 0.0) -> bool:
        """Whether it was said too long ago to count. `grace`: by how much clocks may differ, in seconds."""
        said = _moment(self.at)
        return said is None or now - said > BACKLOG_SECONDS + grace


def seen_backlog(obj: reading.Obj) -> SeenBacklog:
    """Read a source. Whatever is odd, and a source that makes no Tasks, says that nothing waits.

    One whose messages choose their queue says nothing either: for which the messages are is not known.
    """
    metadata, spec, status = as_object(obj.get("metadata")), as_object(obj.get("spec")), as_object(obj.get("status"))
    backlog, queue = as_object(status.get("backlog")), as_object(spec.get("task")).get("queue")
    name, messages = str(metadata.get("name") or ""), backlog.get("messages")
    known = isinstance(queue, str) and "{" not in queue and spec.get("suspend") is not True
    key = (str(metadata.get("namespace") or ""), str(queue) if known else "")
    if not known or type(messages) is not int or messages <= 0:
        return SeenBacklog(key, name, 0)
    return SeenBacklog(key, name, messages, str(backlog.get("at") or ""), _moment(backlog.get("oldest")))


def _moment(told: object) -> float | None:
    try:
        return reading.moment(told) if isinstance(told, str) and told else None
    except ValueError:
        return None
