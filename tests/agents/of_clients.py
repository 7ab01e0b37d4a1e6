"""The agent of the client's tests, for the fake and for the real cluster alike."""

import time
from typing import Any

from pydantic import BaseModel

from taskdist.agent import Agent, Context, Permanent

agent = Agent()


class Order(BaseModel):
    amount: int


class Bill(BaseModel):
    total: int


@agent.task("echo")
def echo(payload: dict[str, Any]) -> dict[str, Any]:
    return payload


@agent.task("bill")
def bill(payload: Order) -> Bill:
    return Bill(total=payload.amount * 2)


@agent.task("fail")
def fail(payload: dict[str, Any]) -> None:
    raise RuntimeError("as asked")


@agent.task("refuse")
def refuse(payload: dict[str, Any]) -> None:
    raise Permanent("never")


@agent.task("slow")
def slow(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """Runs until it is cancelled."""
    ctx.progress(0.5, "half way")
    deadline = time.monotonic() + 60
    while not ctx.cancelled and time.monotonic() < deadline:
        time.sleep(0.01)
    return {}
