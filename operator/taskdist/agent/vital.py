"""Background tasks and callbacks whose failure ends the agent.

An exception in an asyncio task or callback is kept or logged by the loop, and all else goes on: leases would be renewed
of work that nobody hears any more. So each such part of the agent is started here, and its failure ends the agent.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

P = ParamSpec("P")
Broke = Callable[[BaseException], None]


def vital_task(broke: Broke, coroutine: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
    """Run the coroutine as a task; `broke` is told if it raises anything but its cancellation."""

    def over(task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            broke(error)

    task = asyncio.get_running_loop().create_task(coroutine)
    task.add_done_callback(over)
    return task


def vital(broke: Broke, function: Callable[P, None]) -> Callable[P, None]:
    """Return the function as a callback for the loop; `broke` is told if it raises."""

    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except Exception as error:
            broke(error)

    return call
