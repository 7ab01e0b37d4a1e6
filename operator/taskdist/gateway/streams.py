"""Server-sent events: what becomes of Tasks, as it happens."""

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from taskdist.gateway.board import Board, Overrun, Row
from taskdist.gateway.shapes import TaskRow

MEDIA_TYPE = "text/event-stream"
HEARTBEAT_SECONDS = 15.0


async def events(
    board: Board, namespace: str, wants: Callable[[Row], bool], *, last: str = "", until_settled: str = ""
) -> AsyncGenerator[bytes, None]:
    """Yield events: `task` for each Task that is there or changes, `gone` for one that is deleted. A reader that
    is too slow gets `overrun`, and the end.

    Args:
        last: the version of the last event that the caller has seen: what has not changed since is left out.
        until_settled: the uid of the one Task that is followed: the stream ends when it has settled or is gone.
    """
    try:
        async with aclosing(board.follow(namespace, wants, heartbeat=HEARTBEAT_SECONDS)) as changes:
            async for change in changes:
                if change is None:
                    yield b": still here\n\n"
                    continue
                row, gone = change
                if gone or not _seen(row.version, last):
                    yield event("gone" if gone else "task", TaskRow.of(row).to_wire(), row.version)
                if row.uid == until_settled and (gone or row.settled):
                    return
    except Overrun:
        yield event("overrun", {"detail": "too slow: changes were missed. Connect again for the present state"})


def event(name: str, data: dict[str, Any], version: str = "") -> bytes:
    """Return one event. JSON holds no line breaks, so one line of data is enough."""
    mark = f"id: {version}\n" if version else ""
    return f"event: {name}\n{mark}data: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


def _seen(version: str, last: str) -> bool:
    return version.isdecimal() and last.isdecimal() and len(last) < 40 and int(version) <= int(last)
