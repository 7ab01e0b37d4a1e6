"""Backlogs of sources, as the operator reads them: whatever a source says, and for how long it is remembered."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from taskdist.controller import backlogs
from taskdist.kube import Client
from taskdist.protocol.backlogs import SeenBacklog, seen_backlog
from unit.kube.fakes import Script, Stream, event, make, streaming


def source(version: int = 1, messages: Any = 5, queue: Any = "q", at: str = "a", **spec: Any) -> dict[str, Any]:
    status = {"backlog": {"messages": messages, "at": at}}
    return make("s", version, spec={"task": {"queue": queue}, **spec}, status=status)


@pytest.mark.parametrize(
    ("obj", "messages"),
    [
        pytest.param(source(), 5, id="what-it-says"),
        pytest.param(source(messages=0), 0, id="nothing-waits"),
        pytest.param(source(suspend=True), 0, id="a-suspended-source-makes-no-tasks"),
        pytest.param(source(queue="{headers.queue}"), 0, id="messages-that-choose-their-queue"),
        pytest.param(source(messages="many"), 0, id="a-number-that-is-none"),
        pytest.param(source(messages=True), 0, id="a-truth-is-no-number"),
        pytest.param(source(messages=-1), 0, id="less-than-nothing"),
        pytest.param(source(queue=["q"]), 0, id="a-queue-that-is-none"),
        pytest.param(make("s", spec="odd", status=7), 0, id="odd-through-and-through"),
        pytest.param(make("s"), 0, id="nothing-said-yet"),
    ],
)
def test_a_source_is_read_whatever_it_holds(obj: dict[str, Any], messages: int) -> None:
    assert seen_backlog(obj).messages == messages


async def test_what_waits_is_told_as_sources_say_it() -> None:
    told: list[SeenBacklog] = []
    changes = [
        event("MODIFIED", source(2, messages=7, at="b")),
        event("MODIFIED", source(3, messages=7, at="b")),
        event("MODIFIED", source(4, messages=7, at="c")),
        event("MODIFIED", source(5, messages=7, at="c", queue="other")),
        event("DELETED", source(6, messages=7, at="c", queue="other")),
    ]
    script = Script(streaming(1, source(1)), Stream(changes, hang=True))
    informer = backlogs.informer(Client(script), None, told.append)
    running = asyncio.create_task(informer.run())
    await script.exhausted.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert [(each.queue[1], each.messages) for each in told] == [
        ("q", 5),
        ("q", 7),
        ("q", 7),
        ("q", 0),
        ("other", 7),
        ("other", 0),
    ]
