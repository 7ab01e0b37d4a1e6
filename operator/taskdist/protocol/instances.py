"""Instances of an agent: how the end of one process of it is known from its pod's status.

The process leaves its name where the kubelet looks for a container's last words. When the container has ended, whatever
ended it, status shows them. So it is known which process has ended, and no clock and no count of restarts is asked:
status comes late, and what it shows may be of a process before the present one.
"""

import re

_WORDS = re.compile(r"taskdist agent instance (\S{1,64})(\s|\Z)")


def last_words(instance_id: str) -> str:
    """Return what a process of this name writes there when it starts."""
    return f"taskdist agent instance {instance_id}\n"


def instance_of(message: object) -> str:
    """Return the name in a terminated container's message, empty if it left none."""
    found = _WORDS.match(message) if isinstance(message, str) else None
    return found.group(1) if found else ""
