"""The operator's end of the lease protocol. `Leader` is all of it that others need."""

from taskdist.protocol.operator.leader import Leader, LeaderStats

__all__ = ["Leader", "LeaderStats"]
