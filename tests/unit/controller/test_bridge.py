"""The passage between the loops: what is said of a spec is of that spec."""

import asyncio

import pytest

from taskdist.controller.bridge import Behind, Bridge, NotLeading, PoolReport
from taskdist.controller.seen import SpecVersion
from taskdist.controller.status import PoolFacts, QueueFacts
from taskdist.core.model import Key

KEY = ("ns", "x")


class Loop:
    """The dispatch loop's side."""

    def __init__(self, seen: SpecVersion | None, leads: bool = True) -> None:
        self.seen, self.leads = seen, leads

    def version(self, key: Key) -> SpecVersion | None:
        return self.seen

    def tell_pool(self, key: Key) -> PoolReport | None:
        return PoolReport(PoolFacts(), ()) if self.leads else None

    def tell_queue(self, key: Key) -> QueueFacts | None:
        return QueueFacts(1, 2) if self.leads else None


async def ask(side: Loop, version: SpecVersion) -> None:
    bridge = Bridge(side, side.version, side.version, asyncio.get_running_loop())
    assert await bridge.tell_pool(KEY, version) == PoolReport(PoolFacts(), ())
    assert await bridge.tell_queue(KEY, version) == QueueFacts(1, 2)


@pytest.mark.parametrize("seen", [SpecVersion("u", 2), SpecVersion("u", 3)], ids=["this", "a newer"])
async def test_of_this_spec_or_a_newer_one_there_are_facts(seen: SpecVersion) -> None:
    await ask(Loop(seen), SpecVersion("u", 2))


@pytest.mark.parametrize(
    "seen",
    [None, SpecVersion("u", 1), SpecVersion("former", 7)],
    ids=["nothing", "an older spec", "the one that had the name before"],
)
async def test_what_was_not_seen_yet_has_none(seen: SpecVersion | None) -> None:
    side = Loop(seen)
    bridge = Bridge(side, side.version, side.version, asyncio.get_running_loop())
    for question in (bridge.tell_pool, bridge.tell_queue):
        with pytest.raises(Behind):
            await question(KEY, SpecVersion("u", 2))


async def test_without_leadership_there_are_none() -> None:
    with pytest.raises(NotLeading):
        await ask(Loop(SpecVersion("u", 2), leads=False), SpecVersion("u", 2))
