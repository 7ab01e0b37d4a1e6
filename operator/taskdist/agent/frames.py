"""The messages between supervisor and worker: length-prefixed JSON with an optional body of raw bytes.

A frame is two big-endian 32-bit lengths, a JSON object, and the body (payload or result, JSON that the supervisor
never parses). Both ends run the same version, so there is no version in it.
"""

import asyncio
import json
import socket
import struct
from typing import Any, NamedTuple

from taskdist.agent.results import limit

_LENGTHS = struct.Struct(">II")
# What a frame holds beside payloads, parents and results of the object store: those are at most 64 KiB without one, and
# messages are bounded. Anything near this is not one of our frames.
MAX_FRAME = 4 * 1024 * 1024


class Frame(NamedTuple):
    """A message between supervisor and worker: a JSON object, and raw bytes."""

    head: dict[str, Any]
    body: bytes = b""


def encode(head: dict[str, Any], body: bytes = b"") -> bytes:
    # errors="replace": a lone surrogate in an exception's text must not keep the failure from being told.
    text = json.dumps(head, ensure_ascii=False, separators=(",", ":")).encode("utf-8", errors="replace")
    return _LENGTHS.pack(len(text), len(body)) + text + body


def _sizes(prefix: bytes) -> tuple[int, int]:
    head, body = _LENGTHS.unpack(prefix)
    # Parents in the head, as JSON in JSON; a payload or result in the body.
    if head + body > MAX_FRAME and head + body > MAX_FRAME + 3 * limit():
        raise EOFError(f"a frame of {head + body} bytes: the peer does not speak this protocol")
    return head, body


def receive(sock: socket.socket) -> Frame:
    """Read one frame, blocking. EOFError: the peer is gone."""

    def exactly(size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            part = sock.recv(size - len(parts))
            if not part:
                raise EOFError("the peer closed the connection")
            parts += part
        return bytes(parts)

    head, body = _sizes(exactly(_LENGTHS.size))
    return Frame(json.loads(exactly(head)), exactly(body))


async def read(reader: asyncio.StreamReader) -> Frame:
    """Read one frame. EOFError (IncompleteReadError is one): the peer is gone."""
    head, body = _sizes(await reader.readexactly(_LENGTHS.size))
    return Frame(json.loads(await reader.readexactly(head)), await reader.readexactly(body))
