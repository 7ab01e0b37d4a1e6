"""The results of a Task's parents, as each kind of handler gets them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from agents.peer import TIMEOUT
from taskdist.agent import Context, ParentResult, parents
from taskdist.agent.http import HttpEndpoint
from taskdist.agent.in_process import InProcess
from taskdist.agent.logs import make_logger
from taskdist.agent.pool import WorkerPool
from taskdist.agent.work import Executor
from taskdist.common.boottime import boottime
from taskdist.protocol import messages
from taskdist.protocol.messages import Grant, LeaseName
from unit.agent.recorder import Recorder

LEASE = LeaseName("uid", 1, 1)
TOLD = (
    messages.ParentResult("fetch", "Succeeded", '{"lines":["é",2]}'.encode()),
    messages.ParentResult("big.one", "Succeeded", b'{"$ref":"task/big.one"}'),
    messages.ParentResult("bad", "Failed"),
    messages.ParentResult("gone", ""),
)
AS_JSON = {
    "fetch": {"phase": "Succeeded", "result": {"lines": ["é", 2]}},
    "big.one": {"phase": "Succeeded", "result": {"$ref": "task/big.one"}},
    "bad": {"phase": "Failed", "result": None},
    "gone": {"phase": "", "result": None},
}
HANDLER = """
from taskdist.agent import Agent, Context
agent = Agent()

@agent.task("tell")
def tell(payload: dict, ctx: Context) -> dict:
    return {name: {"phase": each.phase, "result": each.result} for name, each in ctx.parents.items()}
"""


def grant(*told: messages.ParentResult) -> Grant:
    return Grant(LEASE, "ns", "task", "tell", 1, boottime(), 60.0, 120.0, payload=b'{"a":1}', parents=told)


def test_what_is_encoded_is_one_object() -> None:
    assert json.loads(parents.encode(TOLD)) == AS_JSON
    assert parents.encode(()) == b""


def test_the_context_has_them_by_name() -> None:
    ctx = Context("t", "ns", "uid", 1, "x", lambda fraction, message: None, parents=parents.encode(TOLD))
    assert ctx.parents["fetch"] == ParentResult("fetch", "Succeeded", {"lines": ["é", 2]})
    assert {name: each.reference for name, each in ctx.parents.items()} == {
        "fetch": "",
        "big.one": "task/big.one",
        "bad": "",
        "gone": "",
    }
    assert Context("t", "ns", "uid", 1, "x", lambda fraction, message: None).parents == {}


@pytest.mark.parametrize("kind", ["module", "in-process", "command"])
@pytest.mark.parametrize(("told", "expected"), [(TOLD, AS_JSON), ((), {})], ids=["parents", "none"])
async def test_handlers(
    kind: str, told: tuple[messages.ParentResult, ...], expected: dict[str, Any], tmp_path: Path
) -> None:
    module = tmp_path / "handler.py"
    module.write_text(HANDLER)
    log = make_logger(agent="test")
    made: dict[str, Executor] = {
        "module": WorkerPool("module", [str(module)], 1, log, agent="test"),
        "in-process": InProcess(str(module), 1),
        "command": WorkerPool("command", ["sh", "-c", 'printf %s "${TASKDIST_PARENTS:-}"'], 1, log, agent="test"),
    }
    events = Recorder()
    await asyncio.wait_for(made[kind].open(events), TIMEOUT)
    try:
        made[kind].start(grant(*told), boottime() + 60)
        ended, args = await events.ended(LEASE)
    finally:
        await made[kind].close()
    assert (ended, json.loads(args[0])) == ("finished", expected)


@pytest.mark.parametrize("told", [TOLD, ()], ids=["parents", "none"])
async def test_endpoints(told: tuple[messages.ParentResult, ...]) -> None:
    asked: list[dict[str, Any]] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(await request.json())
        return web.json_response({})

    app = web.Application()
    app.router.add_post("/run", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    events, endpoint = Recorder(), HttpEndpoint(f"http://127.0.0.1:{runner.addresses[0][1]}/run")
    await endpoint.open(events)
    endpoint.start(grant(*told), boottime() + 60)
    await events.ended(LEASE)
    await endpoint.close()
    await runner.cleanup()
    assert asked[0].get("parents") == (AS_JSON if told else None)
    assert asked[0]["payload"] == {"a": 1}
