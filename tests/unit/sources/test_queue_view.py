"""The queues as a source knows them: which are closed, in which words, and when that changes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from taskdist.kube import Client, Obj
from taskdist.sources.queues import QueueView
from unit.kube.fakes import Script, Stream, event, make, streaming


def queue(name: str, version: int, accepting: object, words: object = "", namespace: str = "ns") -> Obj:
    status = {"accepting": accepting, "conditions": [{"type": "Accepting", "message": words}]}
    return make(name, version, namespace=namespace, status=status)


@contextlib.asynccontextmanager
async def running(script: Script) -> AsyncIterator[QueueView]:
    """Run a view that begins to hear what the script tells."""
    view = QueueView(Client(script), ())
    work = asyncio.create_task(view.run())
    try:
        yield view
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


@contextlib.asynccontextmanager
async def synced(*objects: Obj) -> AsyncIterator[QueueView]:
    """Run a view that knows these queues."""
    async with running(Script(streaming(9, *objects))) as view:
        await view.synced()
        yield view


async def test_it_knows_which_queues_are_closed_and_why() -> None:
    objects = [queue("full", 1, False, "1000 wait."), queue("open", 2, True), queue("full", 3, False, "", "other")]
    async with synced(*objects) as view:
        assert view.closed("ns") == {"full": "TaskQueue full takes no new Tasks now. 1000 wait."}
        assert view.closed("other") == {"full": "TaskQueue full takes no new Tasks now."}
        assert view.closed("nowhere") == {}


async def test_what_opens_closes_or_goes_is_told_to_those_of_its_namespace() -> None:
    heard: list[list[str]] = []
    unheard: list[str] = []
    changes = Stream(
        [
            event("MODIFIED", queue("q", 2, False)),
            event("MODIFIED", queue("q", 3, False)),
            event("MODIFIED", queue("q", 4, True)),
            event("MODIFIED", queue("q", 5, False)),
            event("DELETED", queue("q", 6, False)),
        ],
        hang=True,
    )
    script = Script(streaming(1, queue("q", 1, True)), changes)
    async with running(script) as view:
        view.listen("ns", lambda: heard.append(list(view.closed("ns"))))
        end = view.listen("ns", lambda: unheard.append("ended"))
        view.listen("other", lambda: unheard.append("other"))
        end()
        await script.exhausted.wait()
    assert heard == [["q"], [], ["q"], []]
    assert unheard == []


async def test_a_status_that_cannot_be_read_closes_no_queue() -> None:
    odd = [make("a", 1, status="odd"), make("b", 2, status={"accepting": "no"}), make("c", 3)]
    odd.append(make("d", 4, status={"accepting": False, "conditions": ["odd", {"type": "Accepting", "message": 7}]}))
    async with synced(*odd) as view:
        assert view.closed("ns") == {"d": "TaskQueue d takes no new Tasks now. 7"}
