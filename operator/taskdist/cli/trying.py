"""`agent try`: one handler, one payload, here and now."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

from taskdist.agent.options import AgentOptions, OptionError
from taskdist.agent.trial import Tried, try_once
from taskdist.agent.work import StartError
from taskdist.api import Reason
from taskdist.cli import show
from taskdist.cli.run import FAILED, OK, USAGE, complain, note


def run(options: AgentOptions, type: str, payload: dict[str, Any]) -> int:
    """Run it, with progress on stderr and the result on stdout; return the exit code."""
    from taskdist.agent.logs import make_logger
    from taskdist.agent.processes import adopt_orphans
    from taskdist.agent.runner import make_executor

    body = json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
    adopt_orphans()
    try:
        options.check()
        executor = make_executor(options, make_logger(agent="try"))
        with _stdout_on_stderr():
            tried = asyncio.run(try_once(executor, type, body, _report))
    except OptionError as error:
        complain(str(error))
        return USAGE
    except StartError as error:
        complain(f"the agent cannot start: {error}")
        return FAILED
    if tried.used:
        note(f"used of budgets: {json.dumps(tried.used)}")
    if tried.result is not None:
        print(show.as_json(json.loads(tried.result)))
        return OK
    complain(_ending(tried))
    return FAILED


@contextlib.contextmanager
def _stdout_on_stderr() -> Iterator[None]:
    """Let what a handler prints, here or in a worker, go to stderr: stdout is for the result."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _report(fraction: float, message: str) -> None:
    note(f"{fraction:4.0%}  {message}".rstrip())


def _ending(tried: Tried) -> str:
    """What would become of a Task whose attempt ended so."""
    failed = tried.failed
    if failed is None:
        return "it was stopped"
    what = "its Task would fail at once"
    if failed.reason is Reason.THROTTLED:
        what = (
            f"its Task would be tried again after {failed.retry_after:g} s, unless its queue delivers at most once "
            "or its retry.throttledSeconds is used up"
        )
    elif failed.retryable:
        what = "its Task would be tried again, as its queue's retry says"
    return f"{failed.reason}: {failed.message}\n{what}"
