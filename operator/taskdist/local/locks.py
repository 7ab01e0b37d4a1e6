"""Names that one process of this machine holds at a time.

A lock is a socket in the abstract namespace: the kernel gives it back when the process ends, however it ends, and it is
as wide as loopback is (one network namespace). It leaves no file behind.
"""

from __future__ import annotations

import hashlib
import socket


def hold(*name: str) -> socket.socket | None:
    """Take the name until the socket is closed; None if another has it."""
    lock = socket.socket(socket.AF_UNIX)
    try:
        # A socket's name is short.
        lock.bind(f"\0taskdist.dev/{hashlib.sha256(repr(name).encode()).hexdigest()}")
    except OSError:
        lock.close()
        return None
    return lock
