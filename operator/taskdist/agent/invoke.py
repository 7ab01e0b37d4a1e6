"""A call of a Python handler: payload in, outcome out. It knows neither processes nor the link.

Every way in which a handler can end is told apart here, with a message that its author can act on.
"""

import asyncio
import contextlib
import json
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pydantic import ValidationError
from pydantic_core import to_jsonable_python

from taskdist.agent.attempt import least
from taskdist.agent.outcomes import Cancelled, Failed, Outcome, Returned
from taskdist.agent.remains import SETTLE_SECONDS
from taskdist.agent.results import limit, too_large
from taskdist.agent.sdk import Agent, Context, Handler, Permanent, Throttled
from taskdist.api import Reason
from taskdist.protocol import values

MAX_MESSAGE = 4096


def bounded(message: str) -> str:
    """The message within what a status may hold: its beginning, which says what, and its end, which says why."""
    if len(message) <= MAX_MESSAGE:
        return message
    half = MAX_MESSAGE // 2 - 3
    return f"{message[:half]} … {message[-half:]}"


def invoke(agent: Agent, payload: bytes, context: Context, runner: asyncio.Runner) -> Outcome:
    """Call the handler of the context's type. `runner` keeps one event loop for all async handlers of a worker."""
    handler = agent.handlers.get(context.type)
    if handler is None:
        known = ", ".join(sorted(agent.handlers)) or "none"
        return Failed(Reason.UNKNOWN_TYPE, f"this agent has no handler for type {context.type!r}; it has: {known}")
    try:
        arguments = _arguments(handler, payload, context)
    except ValidationError as error:
        return Failed(Reason.INVALID_PAYLOAD, _say_invalid(error), retryable=False)
    try:
        if handler.is_async:
            value, raised = runner.run(_call_async(handler, arguments, context))
            if raised is not None:
                raise raised
        else:
            value = handler.function(**arguments)
    except Throttled as error:
        return Failed(Reason.THROTTLED, bounded(str(error) or "the handler is throttled"), True, least(error.after))
    except Permanent as error:
        return Failed(Reason.HANDLER_ERROR, _say_exception(error, context), retryable=False)
    except BaseException as error:
        if context.cancel_reason:
            return Cancelled(bounded(f"the handler stopped: {_last_line(error)}"))
        return Failed(Reason.HANDLER_ERROR, _say_exception(error, context))
    if context.cancel_seen:
        # It may have returned half a result: only a handler that never noticed has surely done all of its work.
        return Cancelled("the handler returned after it saw the cancellation")
    return encode_result(value)


async def _call_async(
    handler: Handler, arguments: dict[str, Any], context: Context
) -> tuple[Any, BaseException | None]:
    """Await the handler. One that takes no Context has no other way to notice a cancel than asyncio's own.

    Its exception is returned: a SystemExit that went through the event loop would leave the loop unusable. Threads of
    `asyncio.to_thread` are the attempt's own, and end with it unless they are still at work.
    """
    loop = asyncio.get_running_loop()
    threads = ThreadPoolExecutor(thread_name_prefix="taskdist-to-thread")
    loop.set_default_executor(threads)
    if not handler.context_name:
        task = asyncio.current_task()
        if task is not None:
            context.on_cancel(lambda: loop.call_soon_threadsafe(task.cancel))
    try:
        return await handler.function(**arguments), None
    except BaseException as error:
        return None, error
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        await _settle()


async def _settle() -> None:
    """Let the tasks of this loop that are about to end do so, for a moment. A cancel meanwhile changes nothing."""
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(0)  # an async generator that was dropped is closed by a task that is not there yet
        others = {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=SETTLE_SECONDS)


def _arguments(handler: Handler, payload: bytes, context: Context) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    if handler.payload is not None:
        arguments[handler.payload_name] = handler.payload.validate_json(payload)
    if handler.context_name:
        arguments[handler.context_name] = context
    return arguments


def encode_result(value: Any) -> Outcome:
    """Turn what a handler returned into the bytes of a JSON object."""
    if value is None:
        return Returned(b"{}")
    try:
        plain = to_jsonable_python(value, by_alias=True)
        body = json.dumps(plain, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8", "replace")
    except (ValueError, TypeError, RecursionError) as error:
        message = f"the handler's result is not JSON: {error}"
        return Failed(Reason.RESULT_REFUSED, bounded(message), retryable=False)
    if not isinstance(plain, dict):
        message = f"the handler returned {type(value).__name__}; return a JSON object (dict, model, dataclass) or None"
        return Failed(Reason.RESULT_REFUSED, message, retryable=False)
    wrong = values.fault(plain)
    if wrong:
        return Failed(Reason.RESULT_REFUSED, f"the handler's result cannot be kept as it is: {wrong}", retryable=False)
    if len(body) > limit():
        return Failed(*too_large(f"the result has {len(body)} bytes"), retryable=False)
    return Returned(body)


def _say_invalid(error: ValidationError) -> str:
    """Name each wrong field (the first five). The input itself is not repeated: it may be secret."""
    errors = error.errors(include_url=False, include_input=False, include_context=False)
    said = [f"{'.'.join(['payload', *map(str, one['loc'])])}: {one['msg']}" for one in errors[:5]]
    if len(errors) > 5:
        said.append(f"and {len(errors) - 5} more")
    return bounded("; ".join(said))


def _last_line(error: BaseException) -> str:
    return "".join(traceback.format_exception_only(error)).strip()


def _say_exception(error: BaseException, context: Context) -> str:
    context.log.error("handler failed", exc_info=error)
    sys.stderr.flush()
    return bounded(_last_line(error))
