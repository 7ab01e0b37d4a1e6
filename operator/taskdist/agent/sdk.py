"""The SDK: what a handler's author writes against. It registers handlers and describes an attempt to them.

It runs nothing: handlers are called in worker processes, which the supervisor starts.

    from taskdist.agent import Agent, Context

    agent = Agent()

    @agent.task("analyse")
    def analyse(payload: Source, ctx: Context) -> dict:
        ...

    if __name__ == "__main__":
        agent.run()
"""

import asyncio
import inspect
import os
import re
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter
from structlog.typing import FilteringBoundLogger

from taskdist.agent.attempt import retry_after
from taskdist.agent.logs import make_logger
from taskdist.agent.parents import ParentResult, decode

WORKER_ENV = "TASKDIST_WORKER"
THROTTLED_SECONDS = 30.0

HandlerT = TypeVar("HandlerT", bound=Callable[..., Any])
_WORD = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


class Permanent(Exception):
    """Raise it when trying again would fail the same way: the Task is not retried."""


class Throttled(Exception):
    """Raise it when what the handler needs takes no more for now, as a provider's 429 says.

    The Task is tried again after `after` seconds (at least one). That is no failure and costs no retry, unless it adds
    up to more than the `retry.throttledSeconds` of its queue. `after` may be the text of a Retry-After header as well:
    seconds or a date; a text that is neither counts as 30 seconds.
    """

    def __init__(self, message: str = "", *, after: float | str = THROTTLED_SECONDS) -> None:
        super().__init__(message)
        seconds = retry_after(after) if isinstance(after, str) else float(after)
        self.after = THROTTLED_SECONDS if seconds is None else seconds


class Context:
    """The attempt that a handler runs: what it is, how far it is, and whether it should stop.

    `task` and `namespace` name the Task resource, `uid` is its uid, `attempt` counts from 1. Of an array `index` is the
    item's, from 0, and `count` how many items there are; else both are None.
    """

    def __init__(
        self,
        task: str,
        namespace: str,
        uid: str,
        attempt: int,
        type: str,
        report: Callable[[float, str], None],
        agent: str = "",
        parents: str | bytes = "",
        index: int | None = None,
        count: int | None = None,
    ) -> None:
        self.task = task
        self.namespace = namespace
        self.uid = uid
        self.attempt = attempt
        self.type = type
        self.index = index
        self.count = count
        self._agent = agent
        self._parents = parents
        self._report = report
        self._lock = threading.Lock()
        self._cancelled = False
        self._seen = False
        self._reason = ""
        self._on_cancel: list[Callable[[], object]] = []
        self._used: dict[str, float] = {}

    def progress(self, fraction: float, message: str = "") -> None:
        """Report how far the work is, from 0 to 1. Cheap: of many reports only the latest few a second are sent."""
        self._report(min(1.0, max(0.0, float(fraction))), str(message)[:1024])

    def used(self, budget: str, amount: float) -> None:
        """Report how much the attempt has used in all of a budget that its Task takes of: `queue/name`, or `name` of
        the Task's own queue. The last report counts, and is told with the attempt's end, be it a result or a failure.

        The rest of what the attempt took goes back to a Rate budget; what it used beyond is taken from it.
        """
        self._used[str(budget)] = amount if isinstance(amount, int) else float(amount)

    @cached_property
    def log(self) -> FilteringBoundLogger:
        """A logger that says with each line which attempt it is, and of an array which item."""
        item = {} if self.index is None else {"index": self.index}
        return make_logger(
            task=self.task,
            namespace=self.namespace,
            uid=self.uid,
            attempt=self.attempt,
            type=self.type,
            agent=self._agent,
            **item,
        )

    @cached_property
    def parents(self) -> Mapping[str, ParentResult]:
        """How the Tasks ended that this one depends on, by name, with their results. Empty if it depends on none."""
        return decode(self._parents)

    @property
    def cancelled(self) -> bool:
        """True once the work should stop. What a handler returns after it has seen this true is dropped."""
        if self._cancelled:
            self._seen = True
        return self._cancelled

    @property
    def cancel_reason(self) -> str:
        """Why the work should stop; empty while it should not."""
        return self._reason

    async def wait_cancelled(self) -> None:
        """Return once the work should stop."""
        if self.cancelled:
            return
        loop = asyncio.get_running_loop()
        told = asyncio.Event()
        self.on_cancel(lambda: loop.call_soon_threadsafe(told.set))
        await told.wait()
        self._seen = True

    def on_cancel(self, call: Callable[[], object]) -> None:
        """Call `call` (on another thread, quickly) when the work should stop; at once if that is so already."""
        with self._lock:
            if not self._cancelled:
                self._on_cancel.append(call)
                return
        call()

    # The rest is for the worker.

    def cancel(self, reason: str) -> None:
        """Tell the handler to stop."""
        with self._lock:
            if self._cancelled:
                return
            self._reason = reason
            self._cancelled = True
            calls, self._on_cancel = self._on_cancel, []
        for call in calls:
            try:
                call()
            except Exception as error:
                self.log.error("a function given to on_cancel failed", exc_info=error)

    @property
    def usage(self) -> dict[str, float]:
        """What the handler said it used of budgets, by name."""
        return dict(self._used)

    @property
    def cancel_seen(self) -> bool:
        """Whether the handler noticed that it should stop."""
        return self._seen


@dataclass(frozen=True, slots=True)
class Handler:
    """A registered function and how to call it."""

    type: str
    function: Callable[..., Any]
    payload: TypeAdapter[Any] | None
    payload_name: str
    context_name: str
    is_async: bool


def _describe(type_: str, function: Callable[..., Any]) -> Handler:
    """Read the handler's signature: at most one payload parameter and one Context, in any order."""
    hints = get_type_hints(function, include_extras=True)
    payload_name = context_name = ""
    for parameter in inspect.signature(function).parameters.values():
        name = parameter.name
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise TypeError(
                f"handler {function.__name__!r}: parameter {name!r} must be a plain one; "
                "a handler takes `payload` and, if it wants, `ctx: Context`"
            )
        hint = hints.get(name)
        if hint is Context or (hint is None and name in ("ctx", "context")):
            context_name = name
        elif not payload_name:
            payload_name = name
        elif parameter.default is parameter.empty:
            raise TypeError(
                f"handler {function.__name__!r}: {payload_name!r} is the payload already, so {name!r} is one too many; "
                "declare one payload parameter (a pydantic model, dataclass, TypedDict or dict) and `ctx: Context`"
            )
    hint = hints.get(payload_name, dict[str, Any])
    adapter: TypeAdapter[Any] | None = TypeAdapter(hint) if payload_name else None
    is_async = inspect.iscoroutinefunction(function)
    return Handler(type_, function, adapter, payload_name, context_name, is_async)


class Agent:
    """The handlers of an agent, by the type of Task that they take."""

    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {}

    def task(self, type: str) -> Callable[[HandlerT], HandlerT]:
        """Register a sync or async function as the handler of Tasks of this type.

        It takes the payload (converted to the type hint of its parameter) and, if it declares one, a `Context`.
        It returns a JSON object: a dict, a pydantic model, a dataclass, or None. One of more than 64 KiB needs an agent
        with an object store.
        """
        if not _WORD.fullmatch(type):
            raise ValueError(f"{type!r} is no Task type: use letters, digits, '-', '_' and '.', at most 63 of them")

        def register(function: HandlerT) -> HandlerT:
            if type in self.handlers:
                raise ValueError(f"type {type!r} has a handler already: {self.handlers[type].function.__name__}")
            self.handlers[type] = _describe(type, function)
            return function

        return register

    def run(self) -> None:
        """Run this agent: for the end of `my_agent.py`. Options come from TASKDIST_… variables; does not return.

        The process is replaced by the supervisor, which runs no user code; its workers import this module again.
        """
        if os.environ.get(WORKER_ENV):
            return  # imported by a worker, without an `if __name__ == "__main__"`
        os.execv(sys.executable, [sys.executable, "-m", "taskdist.agent", "--module", self._target(), *sys.argv[1:]])

    def _target(self) -> str:
        """Name this agent in a way that a worker can import: `module:attribute` or `/file.py:attribute`."""
        main = sys.modules["__main__"]
        attributes = [name for name, value in vars(main).items() if value is self]
        if not attributes:
            raise RuntimeError("agent.run() must be called from the module that holds the agent as a global variable")
        spec = getattr(main, "__spec__", None)
        if spec is not None:
            name = spec.name.removesuffix(".__main__") if spec.name.endswith(".__main__") else spec.name
            return f"{name}:{attributes[0]}"
        file = getattr(main, "__file__", None)
        if file is None:
            raise RuntimeError("agent.run() needs a module that workers can import; write the agent into a file")
        return f"{Path(file).resolve()}:{attributes[0]}"
