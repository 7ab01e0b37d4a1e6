"""The keeper of objects at work: what is begun, handed on, and told when an object is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from taskdist.elected.keeper import Keeper, Key

KEY = ("team", "a")


def body(generation: int = 1, uid: str = "u") -> dict[str, Any]:
    return {"metadata": {"namespace": "team", "name": "a", "uid": uid, "generation": generation}}


class Told:
    """All that happened, in order. The work of a state goes on until it is cancelled, and has a last word."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self.failures: list[BaseException] = []
        self.error: Exception | None = None
        self.keeper: Keeper[str] = Keeper("thing", self.live, self.gone, self.failures.append)

    async def live(self, body: dict[str, Any], former: str | None, carry: Callable[[str], None]) -> None:
        state = f"{body['metadata']['uid']}{body['metadata']['generation']}"
        self.all.append(f"begin {state} after {former}")
        carry(state)
        if self.error is not None:
            raise self.error
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            self.all.append(f"end {state}")

    def gone(self, key: Key) -> None:
        assert key == KEY
        self.all.append("gone")

    async def turn(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)


async def test_one_that_is_deleted_is_gone_after_its_last_word() -> None:
    told = Told()
    told.keeper.seen(body())
    await told.turn()
    told.keeper.deleted(KEY)
    await told.turn()
    assert told.all == ["begin u1 after None", "end u1", "gone"]


async def test_one_that_is_made_anew_at_once_is_not_gone() -> None:
    told = Told()
    told.keeper.seen(body())
    await told.turn()
    told.keeper.deleted(KEY)
    told.keeper.seen(body(uid="v"))
    await told.turn()
    assert "gone" not in told.all
    await told.keeper.close()


async def test_the_next_state_begins_once_the_former_has_ended_with_what_that_handed_on() -> None:
    told = Told()
    told.keeper.seen(body())
    await told.turn()
    told.keeper.seen(body(generation=2))
    told.keeper.seen(body())  # an old view of it
    await told.turn()
    assert told.all == ["begin u1 after None", "end u1", "begin u2 after u1"]
    await told.keeper.close()
    told.keeper.seen(body(generation=3))
    assert told.all[-1] == "end u2"


async def test_what_ends_a_task_is_told() -> None:
    told = Told()
    told.error = RuntimeError("a defect")
    told.keeper.seen(body())
    await told.keeper.settled()
    await told.turn()
    assert told.failures == [told.error]
