"""The handler of errors that nobody caught: one that passed through this package ends the process.

A timer, a callback or a task whose error nobody asks for leaves its part undone for ever, while everything else goes
on and looks well. asyncio tells its loop's exception handler of these. Libraries tell it of their own as well: of a
connection that broke, of a poll that found nothing. So where the error passed through this package decides.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import structlog

import taskdist

_PACKAGE = str(Path(taskdist.__file__).parent)
_log = structlog.get_logger("taskdist.operator")


def is_ours(error: BaseException) -> bool:
    """Whether the error was raised by this package, or passed through it, itself or what caused it."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        if _passed_through(each.__traceback__):
            return True
        if isinstance(each, BaseExceptionGroup) and any(is_ours(inner) for inner in each.exceptions):
            return True
        each = each.__cause__ or each.__context__
    return False


def _passed_through(trace: TracebackType | None) -> bool:
    while trace is not None:
        if trace.tb_frame.f_code.co_filename.startswith(_PACKAGE):
            return True
        trace = trace.tb_next
    return False


def end_on_failure(loop: asyncio.AbstractEventLoop, failed: Callable[[], None]) -> None:
    """From now on call `failed`, on this loop, where an error of ours reaches nobody. It is logged first."""

    def handle(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error, said = context.get("exception"), str(context.get("message") or "an error that nobody caught")
        if not isinstance(error, BaseException) or not is_ours(error):
            _log.warning("asyncio: %s", said, exc_info=error)
            return
        _log.error("a part of the operator failed; the process ends", part=said, exc_info=error)
        failed()

    loop.set_exception_handler(handle)
