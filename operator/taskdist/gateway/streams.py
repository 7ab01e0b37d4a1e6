"""Server-sent events: what becomes of Tasks, as it happens."""

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from taskdist.gateway.board import Board, Expired, Overrun, Row
from taskdist.gateway.shapes import TaskDocument, TaskRow

MEDIA_TYPE = "text/event-stream"
HEARTBEAT_SECONDS = 15.0


async def events(
    board: Board,
    namespace: str,
    wants: Callable[[Row], bool],
    *,
    since: str = "",
    whole: bool = False,
    until_settled: str = "",
) -> AsyncGenerator[bytes, None]:
    """Yield events: `task` for each Task that is there or changes, `gone` for one that is deleted.

    A reader that is too slow gets `overrun`, one that comes back too late `expired`, and both the end.

    Args:
        since: the version of the last event that the caller has seen.
        whole: with payloads and results, where a Task changes.
        until_settled: the uid of the one Task that is followed: the stream ends when it has settled or is gone.
    """
    following = board.follow(namespace, wants, heartbeat=HEARTBEAT_SECONDS, since=since, whole=whole)
    try:
        async with aclosing(following) as changes:
            async for change in changes:
                if change is None:
                    yield b": still here\n\n"
                    continue
                row, gone, full = change
                shape = TaskRow.of(row) if full is None else TaskDocument.of_object(full)
                yield event("gone" if gone else "task", shape.to_wire(), row.version)
                if row.uid == until_settled and (gone or row.settled):
                    return
    except Overrun:
        yield event("overrun", {"detail": "too slow: changes were missed. Connect again for the present state"})
    except Expired:
        yield event("expired", {"detail": "deletions since then are forgotten: list again, and connect anew"})


def event(name: str, data: dict[str, Any], version: str = "") -> bytes:
    """Return one event. JSON holds no line breaks, so one line of data is enough."""
    mark = f"id: {version}\n" if version else ""
    return f"event: {name}\n{mark}data: {json.dumps(data, separators=(',', ':'))}\n\n".encode()
