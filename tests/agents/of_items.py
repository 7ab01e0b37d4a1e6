"""The agent of `make bench-items`: the same three handlers that Celery and dramatiq are given."""

import time
from typing import Any

from taskdist.agent import Agent

agent = Agent()


@agent.task("nothing")
def nothing() -> None:
    """Do nothing."""


@agent.task("millisecond")
def millisecond() -> None:
    time.sleep(0.001)


@agent.task("payload")
def payload(payload: dict[str, Any]) -> dict[str, Any]:
    return payload
