"""Handlers on threads of the agent's own process: what they report on the way."""

import asyncio
from pathlib import Path

from agents.peer import TIMEOUT, until
from taskdist.agent.in_process import InProcess
from taskdist.common.boottime import boottime
from taskdist.protocol.messages import Grant, LeaseName
from unit.agent.recorder import Recorder

LEASE = LeaseName("uid", 1, 1)
MODULE = """
import threading
from taskdist.agent import Agent, Context

agent, go_on = Agent(), threading.Event()


@agent.task("report")
def report(payload: dict, ctx: Context) -> None:
    for number in range(1, 1001):
        ctx.progress(number / 1000)
    ctx.on_cancel(go_on.set)
    go_on.wait()
"""


async def test_of_reports_that_come_at_once_the_last_is_told_after_a_pause(tmp_path: Path) -> None:
    module = tmp_path / "reports.py"
    module.write_text(MODULE)
    events, executor = Recorder(), InProcess(str(module), 1)
    await asyncio.wait_for(executor.open(events), TIMEOUT)
    executor.start(Grant(LEASE, "ns", "task", "report", 1, boottime(), 60.0, 120.0, payload=b"{}"), boottime() + 60)
    await until(lambda: any(args == (1.0, "") for _, _, args in events.told), "the last is told")
    executor.cancel(LEASE, "as asked")
    await events.ended(LEASE)
    assert sum(kind == "progress" for kind, _, _ in events.told) < 20
    await executor.close()
    assert not events.broken
