"""An agent for tests: a type for each way in which a handler can end, or not end."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from taskdist.agent import Agent, Context, Permanent

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


@agent.task("exit")
def leave(payload: dict[str, Any]) -> None:
    sys.exit(payload.get("status", 3))


@agent.task("crash")
def crash(payload: dict[str, Any]) -> None:
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


@agent.task("stubborn-family")
def stubborn_family(payload: Mark) -> None:
    """Runs for ever, and so does its child, which has fled into a session of its own."""
    leave_behind(payload)
    time.sleep(3600)


if __name__ == "__main__":
    agent.run()
