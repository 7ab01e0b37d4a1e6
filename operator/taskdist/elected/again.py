"""The work of one object, begun again with growing pauses where it fails."""

from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from taskdist.common.backoff import Backoff
from taskdist.kube.own_status import Changed, Gone

# The pauses before what failed is begun, or said, again.
AGAIN: Final = Backoff(first=1.0, most=60.0)
# What went on for so long before it failed is begun again at once, in seconds.
WELL_SECONDS: Final = 60.0


class Log(Protocol):
    """A structured log."""

    def warning(self, event: str, **fields: Any) -> object: ...


async def work_again(
    once: Callable[[], Awaitable[None]],
    gone: Callable[[], None],
    failed: Callable[[Exception, float], Awaitable[bool]],
    ticks: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]],
) -> None:
    """Work until cancelled, or until the object is deleted, changed, or waits for a change.

    Args:
        once: works; returns where only a change of the object helps. Raises `Gone` and `Changed`, and what it fails by.
        gone: told where the object is deleted.
        failed: told of a failure and of the pause that follows; returns whether it is left at that.
        ticks: a clock that nobody sets, in seconds.
    """
    failures = 0
    while True:
        began = ticks()
        try:
            await once()
            return
        except Gone:
            gone()
            return
        except Changed:
            return  # what it is now is on its way
        except Exception as error:
            if ticks() - began >= WELL_SECONDS:
                failures = 0
            pause = AGAIN.full(failures)
            if await failed(error, pause):
                return
        await sleep(pause)
        failures += 1


def log_failure(log: Log, noun: str, key: tuple[str, str], error: Exception, pause: float, *, known: bool) -> None:
    """Log that an object's work failed and is begun again. What is not known is a defect, and its place is told."""
    namespace, name = key
    log.warning(
        f"a {noun} failed and is begun again",
        namespace=namespace,
        name=name,
        why=str(error) or repr(error),
        seconds=pause,
        exc_info=None if known else error,
    )
