"""A timer on the clock of leases (`common.boottime`).

Timers of asyncio and poll() count CLOCK_MONOTONIC, which stands still in suspend: with them, work would go on after
its lease ended during a suspend. A timerfd on CLOCK_BOOTTIME fires at once on resume.
"""

import ctypes
import errno
import os
import time

_NEEDS_LINUX = "timerfd_create(CLOCK_BOOTTIME) failed: an agent needs a Linux kernel"
_TFD_TIMER_ABSTIME = 1
_TFD_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC


class _Timespec(ctypes.Structure):
    _fields_ = (("sec", ctypes.c_long), ("nsec", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class BootTimer:
    """A file descriptor that turns readable at a boot time. The standard library has no timerfd before 3.13."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        try:
            self.fd: int = self._libc.timerfd_create(time.CLOCK_BOOTTIME, _TFD_FLAGS)
        except AttributeError as error:  # of the C library or of `time`
            raise OSError(errno.ENOSYS, _NEEDS_LINUX) from error
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), _NEEDS_LINUX)

    def set(self, boot: float | None) -> None:
        """Fire at `boot` (at once if that is past); None disarms."""
        spec = _Itimerspec()
        if boot is not None:
            # A value of zero would disarm: the past is at least one nanosecond after boot.
            nanoseconds = max(1, int(boot * 1e9))
            spec.value = _Timespec(nanoseconds // 1_000_000_000, nanoseconds % 1_000_000_000)
        if self._libc.timerfd_settime(self.fd, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None) != 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime failed")

    def clear(self) -> None:
        """Take note that it fired, so that the descriptor is not readable any more."""
        try:
            os.read(self.fd, 8)
        except BlockingIOError:
            return

    def close(self) -> None:
        os.close(self.fd)
