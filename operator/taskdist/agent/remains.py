"""Remains of an attempt in its worker: child processes, threads, asyncio tasks.

Whatever was there before the first attempt is the worker's own (a pool of threads that a module makes when it is
imported, say). What is beyond that after an attempt is the attempt's, and has no right to run on: beside the retry, or
inside the next Task. Children are killed here; threads and tasks cannot be, so the worker is replaced.

A ThreadPoolExecutor that the module made starts its threads with its work, so within attempts. They are the worker's
too while they wait for work; at work they are the attempt's.

Threads count if they run Python. Those of native libraries are seen by nobody here: they are kept in pools by design.
"""

import gc
import sys
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from taskdist.agent.processes import children, has_children, kill_orphans

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

# The time that is given to what is about to end, in seconds: idle threads of an executor, a task that was cancelled.
SETTLE_SECONDS = 0.2
_MOST_NAMED = 5
_POLL_SECONDS = 0.001


class Baseline:
    """The state of a worker before its first attempt. All that is beyond it later is an attempt's."""

    def __init__(self) -> None:
        self._children = children()
        self._threads = set(_threads())
        self._executors = _executors()

    def left(self, loop: "asyncio.AbstractEventLoop | None" = None) -> list[str]:
        """Kill the children that are beyond it; return what was left by an attempt, in words. Empty: all is clean."""
        return [*self._end_children(), *self._tasks_left(loop), *self._threads_left()]

    def _end_children(self) -> list[str]:
        if not has_children() or not children() - self._children:
            return []
        return [f"{kill_orphans(keep=self._children)} child processes"]

    @staticmethod
    def _tasks_left(loop: "asyncio.AbstractEventLoop | None") -> list[str]:
        if loop is None:
            return []
        from asyncio import all_tasks  # a loop is there, so it is loaded: a worker of commands has neither

        return _named("asyncio task", (task.get_name() for task in all_tasks(loop)))

    def _threads_left(self) -> list[str]:
        patience = time.monotonic() + SETTLE_SECONDS
        while left := self._beyond():
            seconds = patience - time.monotonic()
            if seconds <= 0:
                break
            first = left[0]
            if isinstance(first, threading.Thread) and first.ident is not None and first not in self._pooled():
                first.join(seconds)
            else:
                time.sleep(_POLL_SECONDS)
        return _named("thread", (each.name if isinstance(each, threading.Thread) else f"{each}" for each in left))

    def _beyond(self) -> list[threading.Thread | int]:
        left = [thread for thread in _threads() if thread not in self._threads]
        if not left or not (idle := self._idle()):
            return left
        # Looked at twice: between two calls a thread that has just taken work looks as one that waits for it.
        time.sleep(_POLL_SECONDS)
        idle &= self._idle()
        return [thread for thread in _threads() if thread not in self._threads and thread not in idle]

    def _pooled(self) -> set[threading.Thread]:
        return {thread for executor in self._executors for thread in executor._threads}

    def _idle(self) -> set[threading.Thread | int]:
        """The threads of the module's executors that wait for work, and have none waiting for them."""
        pools = [executor for executor in self._executors if executor._work_queue.empty()]
        if not pools:
            return set()
        from concurrent.futures.thread import _worker  # an executor is there, so it is loaded

        frames = sys._current_frames()
        threads = (thread for executor in pools for thread in executor._threads)
        return {each for each in threads if (at := frames.get(each.ident or 0)) and at.f_code is _worker.__code__}


def _executors() -> "Iterable[ThreadPoolExecutor]":
    """The executors that are there now, without keeping them there."""
    if "concurrent.futures.thread" not in sys.modules:
        return ()
    import weakref
    from concurrent.futures import ThreadPoolExecutor

    # By type(): isinstance() would ask each object for its class, and a proxy would run code of its module's for that.
    return weakref.WeakSet(each for each in gc.get_objects() if issubclass(type(each), ThreadPoolExecutor))


def _threads() -> list[threading.Thread | int]:
    """All threads that run Python: as objects, or by number if they were started past the threading module.

    A native thread that once called into Python leaves a dummy object for good, so that says nothing.
    """
    known = [each for each in threading.enumerate() if not isinstance(each, threading._DummyThread)]
    numbers = {each.ident for each in known}
    return [*known, *(number for number in sys._current_frames() if number not in numbers)]


def _named(what: str, names: Iterable[str]) -> list[str]:
    found = [f"{what} {name}"[:100] for name in names]
    more = len(found) - _MOST_NAMED
    return [*found[:_MOST_NAMED], f"and {more} more"] if more > 0 else found
