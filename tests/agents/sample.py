"""An agent for tests: a type for each way in which a handler can end, or not end."""

import _thread
import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from taskdist.agent import Agent, Context, Permanent, Throttled

agent = Agent()


class Nap(BaseModel):
    seconds: float


class Mark(BaseModel):
    """`file` is grown by one byte every `seconds` for as long as the work runs: its size tells whether it does."""

    file: Path
    seconds: float = 0.01


@agent.task("echo")
def echo(payload: dict[str, Any]) -> dict[str, Any]:
    return payload


@agent.task("echo-async")
async def echo_async(payload: dict[str, Any]) -> dict[str, Any]:
    await asyncio.sleep(0)
    return payload


@agent.task("context")
def context(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
    ctx.log.info("described")
    return {"task": ctx.task, "namespace": ctx.namespace, "attempt": ctx.attempt, "type": ctx.type, "pid": os.getpid()}


@agent.task("spend")
def spend(payload: dict[str, Any], ctx: Context) -> None:
    for amount in payload["amounts"]:
        ctx.used("q/tokens", amount)
    if payload["fails"]:
        raise ValueError("after it had spent")


@agent.task("stamp")
def stamp(payload: dict[str, Any]) -> dict[str, float]:
    return {"started": time.time()}


@agent.task("sleep")
def sleep(payload: Nap) -> dict[str, float]:
    time.sleep(payload.seconds)
    return {"slept": payload.seconds}


@agent.task("sleep-async")
async def sleep_async(payload: Nap) -> dict[str, float]:
    await asyncio.sleep(payload.seconds)
    return {"slept": payload.seconds}


@agent.task("fail")
def fail(payload: dict[str, Any]) -> None:
    raise ValueError(payload.get("message", "as asked"))


@agent.task("fail-permanently")
def fail_permanently(payload: dict[str, Any]) -> None:
    raise Permanent(payload.get("message", "as asked, for good"))


@agent.task("throttled")
def throttled(payload: dict[str, Any], ctx: Context) -> dict[str, int]:
    """Put off in its first attempts, as a provider's limit would do it."""
    if ctx.attempt <= payload.get("times", 1):
        raise Throttled("the provider answered 429", after=payload.get("after", 30))
    return {"attempt": ctx.attempt}


@agent.task("exit")
def leave(payload: dict[str, Any]) -> None:
    sys.exit(payload.get("status", 3))


@agent.task("crash")
def crash(payload: dict[str, Any]) -> None:
    if payload.get("spared"):
        return
    os.kill(os.getpid(), payload.get("signal", signal.SIGKILL))
    time.sleep(60)


@agent.task("large")
def large(payload: dict[str, Any]) -> dict[str, str]:
    return {"x": "y" * payload["bytes"]}


@agent.task("until-cancelled")
def until_cancelled(payload: dict[str, Any], ctx: Context) -> dict[str, bool]:
    ctx.progress(0.5, "waiting")
    while not ctx.cancelled:
        time.sleep(0.005)
    return {"cancelled": True}


@agent.task("until-cancelled-async")
async def until_cancelled_async(payload: dict[str, Any], ctx: Context) -> dict[str, bool]:
    ctx.progress(0.5, "waiting")
    await ctx.wait_cancelled()
    return {"cancelled": True}


@agent.task("progress")
def progress(payload: dict[str, Any], ctx: Context) -> dict[str, int]:
    steps = payload.get("steps", 3)
    for step in range(steps):
        ctx.progress((step + 1) / steps, f"step {step + 1}")
        time.sleep(payload.get("seconds", 0.0))
    return {"steps": steps}


@agent.task("stubborn")
def stubborn(payload: Mark) -> None:
    """Runs for ever, whatever it is told, and leaves a sign of life."""
    while True:
        with payload.file.open("ab") as file:
            file.write(b".")
        time.sleep(payload.seconds)


_CHILD = "import sys,time\nwhile True:\n open(sys.argv[1],'ab').write(b'.')\n time.sleep(float(sys.argv[2]))"


@agent.task("leave-behind")
def leave_behind(payload: Mark) -> dict[str, int]:
    """Returns, but leaves a child running in a session of its own."""
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(payload.file), str(payload.seconds)], start_new_session=True
    )
    while not payload.file.exists():
        time.sleep(0.005)
    return {"pid": child.pid}


_POOL = ThreadPoolExecutor(1)
_POOL.submit(int).result()
_KEPT: list[Any] = []


def _grow(mark: Mark) -> None:
    while True:
        with mark.file.open("ab") as file:
            file.write(b".")
        time.sleep(mark.seconds)


async def _grow_async(mark: Mark) -> None:
    while True:
        await asyncio.sleep(mark.seconds)
        with mark.file.open("ab") as file:
            file.write(b".")


@agent.task("leave-thread")
def leave_thread(payload: Mark) -> None:
    """The everyday case: the time-out ends the waiting, and not the work."""
    _KEPT.append(ThreadPoolExecutor(1).submit(_grow, payload))
    try:
        _KEPT[-1].result(timeout=0.05)
    except TimeoutError:
        raise ValueError("took too long") from None


@agent.task("leave-daemon")
def leave_daemon(payload: Mark) -> None:
    threading.Thread(target=_grow, args=(payload,), daemon=True).start()


@agent.task("leave-raw-thread")
def leave_raw_thread(payload: Mark) -> None:
    _thread.start_new_thread(_grow, (payload,))
    while not payload.file.exists():
        time.sleep(0.005)


@agent.task("leave-to-thread")
async def leave_to_thread(payload: Mark) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.to_thread(_grow, payload), 0.05)


@agent.task("leave-asyncio-task")
async def leave_asyncio_task(payload: Mark) -> None:
    _KEPT.append(asyncio.create_task(_grow_async(payload)))
    await asyncio.sleep(0.05)


@agent.task("clean-threads")
def clean_threads(payload: dict[str, Any]) -> dict[str, int]:
    """Threads of its own that end with it, and one of the module's that stays."""
    with ThreadPoolExecutor(2) as pool:
        return {"sum": sum(pool.map(int, "12")) + _POOL.submit(int, "3").result()}


@agent.task("clean-asyncio")
async def clean_asyncio(payload: dict[str, Any]) -> dict[str, int]:
    """What `to_thread` leaves idle, a task that is about to end, and a generator that is dropped half-way."""

    async def numbers() -> AsyncIterator[int]:
        try:
            for number in range(10):
                yield number
        finally:
            await asyncio.sleep(0)

    ending = asyncio.create_task(asyncio.sleep(0.02))
    ending.set_name("ending")
    async for number in numbers():
        if number == 3:
            break
    return {"number": await asyncio.to_thread(int, number)}


@agent.task("babble")
def babble(payload: dict[str, Any]) -> None:
    """Writes to the supervisor's socket what no worker says."""
    sockets = [fd for fd in map(int, os.listdir("/proc/self/fd")) if fd > 2 and _is_socket(fd)]
    for fd in sockets:
        with contextlib.suppress(OSError):
            os.write(fd, bytes.fromhex(payload["hex"]))
    time.sleep(60)


def _is_socket(fd: int) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
    except OSError:
        return False


@agent.task("stubborn-family")
def stubborn_family(payload: Mark) -> None:
    """Runs for ever, and so does its child, which has fled into a session of its own."""
    leave_behind(payload)
    time.sleep(3600)


if __name__ == "__main__":
    agent.run()
