"""Frames of AMQP 0-9-1 as the client library can read them, whatever a publisher wrote.

A broker hands on what a publisher wrote: a name that is no UTF-8, a time beyond the year 9999, a table in a table a
thousand levels deep. The library then gives up the connection; the message comes again with the next one, and nothing
behind it is ever reached. So each frame of a message is tried first, and one that cannot be read is replaced by one
that says so.
"""

import asyncio
import struct
from typing import Any, Final

import pamqp.frame
from aiormq import TransportFactory
from pamqp.commands import Basic
from pamqp.header import ContentHeader
from yarl import URL

# The header by which a message tells that its properties could not be read.
UNREADABLE: Final = "x-taskdist-unreadable"

_HEAD: Final = struct.Struct(">BHI")
_METHOD, _CONTENT_HEADER, _END = 1, 2, b"\xce"
_DELIVER: Final = struct.pack(">HH", 60, 60)


def mended(frame: bytes) -> bytes:
    """The frame, or one in its place that can be read."""
    kind, channel, _ = _HEAD.unpack_from(frame)
    payload = frame[_HEAD.size : -1]
    delivers = kind == _METHOD and payload.startswith(_DELIVER)
    if not (delivers or kind == _CONTENT_HEADER):
        return frame
    try:
        pamqp.frame.unmarshal(frame)
    except Exception as error:
        if delivers:
            return _framed(kind, channel, _readable_names(payload))
        (size,) = struct.unpack_from(">Q", payload, 4)
        properties = Basic.Properties(headers={UNREADABLE: f"{type(error).__name__}: {error}"[:200]})
        return pamqp.frame.marshal(ContentHeader(0, size, properties), channel)
    return frame


def _readable_names(payload: bytes) -> bytes:
    """A delivery whose names have a `?` for each byte that is no text."""
    start = len(_DELIVER)
    end = start + 1 + payload[start] + 8 + 1  # its tags, and whether it came before
    fixed, rest = payload[:end], payload[end:]
    names = []
    while rest:
        name, rest = rest[1 : 1 + rest[0]], rest[1 + rest[0] :]
        readable = name.decode("utf-8", "replace").replace("\ufffd", "?").encode()
        names.append(bytes([len(readable)]) + readable)
    return fixed + b"".join(names)


def _framed(kind: int, channel: int, payload: bytes) -> bytes:
    return _HEAD.pack(kind, channel, len(payload)) + payload + _END


class MendingReader:
    """A stream of frames, each mended. It has what the library asks of a stream."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._ready = b""

    def at_eof(self) -> bool:
        return not self._ready and self._reader.at_eof()

    async def readexactly(self, size: int) -> bytes:
        if not self._ready:
            self._ready = await self._frame()
        while len(self._ready) < size:
            self._ready += await self._frame()
        found, self._ready = self._ready[:size], self._ready[size:]
        return found

    async def read(self, size: int = -1) -> bytes:
        found, self._ready = self._ready, b""
        return found or await self._reader.read(size)

    async def _frame(self) -> bytes:
        head = await self._reader.readexactly(_HEAD.size)
        if head.startswith(b"AMQP"):  # a broker of another version: no frame
            return head
        return mended(head + await self._reader.readexactly(_HEAD.unpack(head)[2] + 1))


class Transport(TransportFactory):
    """Connects, and mends what comes. `tls`: none is an unencrypted connection."""

    def __init__(self, tls: Any) -> None:
        self._tls = tls

    async def create(self, url: URL, **_: Any) -> tuple[Any, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(url.host, url.port, ssl=self._tls)
        return MendingReader(reader), writer
