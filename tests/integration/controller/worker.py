"""The agent of the end-to-end tests: handlers that leave traces in files, so that a test can see what really ran."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from taskdist.agent import Agent, Context, Permanent, Throttled

agent = Agent()


class Trace(BaseModel):
    """`file` gets a line every few milliseconds for as long as the work runs, or until `until` exists."""

    file: Path
    seconds: float = 0.0
    until: Path | None = None
    polite: bool = False  # stops by itself when it is cancelled


class Order(BaseModel):
    """A payload with a type that can be wrong."""

    amount: int


# Of the second nothing is known before the one case that uses it.
@agent.task("fresh")
@agent.task("echo")
def echo(payload: dict[str, Any]) -> dict[str, Any]:
    return payload


@agent.task("item")
def item(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """One item of an array: it fails if it is told to, and says what it was told."""
    if ctx.index in payload.get("fail", ()):
        raise ValueError(f"item {ctx.index} fails")
    return {"index": ctx.index, "count": ctx.count} | {key: payload[key] for key in ("say",) if key in payload}


@agent.task("sleep-item")
def sleep_item(payload: dict[str, Any]) -> None:
    """One item that takes a while."""
    time.sleep(payload["seconds"])


@agent.task("trace-item")
def trace_item(payload: Trace, ctx: Context) -> None:
    """One item that shows in the file when it ran, under its index."""
    end = time.monotonic() + payload.seconds
    with payload.file.open("a", buffering=1) as file:
        while time.monotonic() < end:
            file.write(json.dumps([f"item-{ctx.index}", ctx.attempt, time.monotonic()]) + "\n")
            time.sleep(0.01)


@agent.task("noop")
def noop() -> None:
    """Do nothing."""


@agent.task("order")
def order(payload: Order) -> dict[str, int]:
    return {"amount": payload.amount}


@agent.task("spend")
def spend(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """Uses so much of a budget, whatever it has taken; fails at first if so told."""
    ctx.used(payload["budget"], payload["used"])
    if payload.get("fails") and ctx.attempt == 1:
        raise Permanent("after it had spent")
    return {"used": payload["used"]}


@agent.task("trace")
def trace(payload: Trace, ctx: Context) -> dict[str, Any]:
    """Beats into the file; two attempts that ran at once show as beats that interleave."""
    end = time.monotonic() + payload.seconds
    with payload.file.open("a", buffering=1) as file:
        while time.monotonic() < end if payload.until is None else not payload.until.exists():
            file.write(json.dumps([ctx.task, ctx.attempt, time.monotonic()]) + "\n")
            time.sleep(0.01)
            if payload.polite and ctx.cancelled:
                raise RuntimeError("cancelled, as asked")
        file.write(json.dumps([ctx.task, ctx.attempt, time.monotonic()]) + "\n")
    return {"attempt": ctx.attempt, "pid": os.getpid()}


@agent.task("throttled")
def throttled(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
    if ctx.attempt == 1:
        raise Throttled("the provider answered 429", after=payload["after"])
    return {"attempt": ctx.attempt}


@agent.task("crash-once")
def crash_once(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
    if ctx.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)
    return {"attempt": ctx.attempt}


@agent.task("lively")
def lively(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """Works for so long, and says so all the time."""
    end = time.monotonic() + payload["seconds"]
    while (left := end - time.monotonic()) > 0:
        ctx.progress(1 - left / payload["seconds"])
        time.sleep(0.2)
    return {}


@agent.task("parents")
def parents(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """Tells what it was told of the Tasks that it depends on."""
    return {name: {"phase": each.phase, "result": each.result} for name, each in ctx.parents.items()}


@agent.task("fail")
def fail(payload: dict[str, Any]) -> None:
    raise ValueError("as asked")


@agent.task("fail-without")
def fail_without(payload: dict[str, Any], ctx: Context) -> dict[str, int]:
    """Fails as long as a file is missing."""
    if not Path(payload["file"]).exists():
        raise FileNotFoundError(f"attempt {ctx.attempt} misses its file")
    return {"attempt": ctx.attempt}


@agent.task("fail-permanently")
def fail_permanently(payload: dict[str, Any]) -> None:
    raise Permanent("as asked, for good")


@agent.task("large")
def large(payload: dict[str, Any]) -> dict[str, str]:
    return {"x": "y" * payload["bytes"]}


@agent.task("fail-here")
def fail_here(payload: dict[str, Any]) -> dict[str, str]:
    """Fails on agents whose address is in the file."""
    address = os.environ["TASKDIST_HEALTH_HOST"]
    if address in Path(payload["file"]).read_text().split():
        raise RuntimeError("this agent is bad")
    time.sleep(payload.get("seconds", 0.0))
    return {"address": address}
