"""Ended Tasks of a sink's namespace, in the order of their versions: list, watch, list again.

A list comes in no such order, and may hold more than there is room for: then those of the lowest versions are taken,
and the rest by another list once they are told. While there is no room nothing is read.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog

from taskdist.common.backoff import Backoff
from taskdist.kube import TASKS, ApiError, Client, KubeError, Unanswered
from taskdist.outgoing.delivery import Delivery, Lowest
from taskdist.outgoing.ends import Selection, end_id, version

_log = structlog.get_logger("taskdist.sinks")

# How many are asked for at a time: so many are in memory as the API server sent them.
PAGE_OBJECTS: Final = 100
WATCH_SECONDS: Final = (240, 480)
STALL_SECONDS: Final = 90.0
_WAITS: Final = Backoff(first=0.2, most=5.0)


class Feed:
    """Reads one namespace into a delivery until cancelled.

    Args:
        room: waits until this is so, as ends leave.
        turn: to be had while Tasks are listed.
        stirred: told that something came in.
    """

    def __init__(
        self,
        client: Client,
        namespace: str,
        selection: Selection,
        delivery: Delivery,
        room: Callable[[Callable[[], bool]], Awaitable[None]],
        stirred: Callable[[], None],
        sleep: Callable[[float], Awaitable[None]],
        turn: asyncio.Semaphore,
        rng: random.Random | None = None,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._selection = selection
        self._delivery = delivery
        self._room = room
        self._stirred = stirred
        self._sleep = sleep
        self._turn = turn
        self._rng = rng or random.Random()
        self._failures = 0
        self.trouble = ""
        """Why nothing can be read now; empty while it can."""

    async def run(self) -> None:
        """Read until cancelled."""
        stale = True
        while True:
            try:
                if stale:
                    await self._room(lambda: self._delivery.has_room_for_a_list)
                    async with self._turn:
                        stale = await self._list()
                else:
                    await self._watch()
            except KubeError as error:
                stale = stale or (isinstance(error, ApiError) and error.is_gone)
                wait = _WAITS.wait(self._failures, self._rng)
                self._failures += 1
                asked = error.retry_after if isinstance(error, ApiError) else None
                self.trouble = str(error)
                _log.info("reading Tasks failed", namespace=self._namespace, why=str(error), again_in=round(wait, 1))
                await self._sleep(max(wait, min(asked or 0.0, 30.0)))

    async def _list(self) -> bool:
        """Return whether there is more than was taken."""
        delivery, selection = self._delivery, self._selection
        kept, listed = Lowest(delivery.room), 0
        pages = self._client.pages(
            TASKS, self._namespace, field_selector=selection.field_selector, page_size=PAGE_OBJECTS
        )
        async for page in pages:
            if not listed and (listed := _number(page.resource_version)) < delivery.heard:
                _log.warning("the API server tells of an earlier time: was etcd restored?", namespace=self._namespace)
                delivery.forget_versions()
            for obj in page.items:
                if version(obj) > delivery.heard and selection.selects(obj) and delivery.wants(end_id(obj)):
                    kept.add(selection.end(obj))
        for end in kept.in_order():
            delivery.add(end)
            if kept.more:
                delivery.heard_up_to(end.version)
        if not kept.more:
            delivery.heard_up_to(listed)
        self._well()
        self._stirred()
        return kept.more

    async def _watch(self) -> None:
        heard = False
        async with self._client.watch(
            TASKS,
            self._namespace,
            resource_version=str(self._delivery.heard),
            field_selector=self._selection.field_selector,
            seconds=self._rng.randint(*WATCH_SECONDS),
            stall=STALL_SECONDS,
        ) as events:
            async for event in events:
                heard = True
                if event.type in ("ADDED", "MODIFIED"):
                    if event.type == "ADDED" or _may_end_again(event.object):
                        await self._take(event.object)
                elif event.type == "DELETED":
                    # Its last word: what waits for its turn without its body has it no later.
                    if self._delivery.lacks_body(end_id(event.object)):
                        self._delivery.refresh(self._selection.end(event.object))
                elif event.type != "BOOKMARK":
                    raise Unanswered(f"the watch said {event.type!r}, which is no event")
                self._delivery.heard_up_to(version(event.object))
                self._well()
        if not heard:
            raise Unanswered("the watch ended and said nothing")

    async def _take(self, obj: dict[str, Any]) -> None:
        if self._selection.selects(obj) and self._delivery.wants(end_id(obj)):
            await self._room(lambda: self._delivery.room > 0)
            self._delivery.add(self._selection.end(obj))
            self._stirred()

    def _well(self) -> None:
        self._failures, self.trouble = 0, ""


def _may_end_again(obj: dict[str, Any]) -> bool:
    """Whether a change of an ended Task may be another end. A dead letter may be cancelled; all else is final, and a
    change of labels tells nothing anew."""
    status = obj.get("status")
    return isinstance(status, dict) and status.get("phase") == "Cancelled"


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0
