"""Frames of AMQP 0-9-1 as the client library can read them, whatever a publisher wrote.

A broker hands on what a publisher wrote: a name that is no UTF-8, a time beyond the year 9999, a table in a table a
thousand levels deep. The library then gives up the connection; the message comes again with the next one, and nothing
behind it is ever reached. So each frame of a message is tried first, and one that cannot be read is replaced by one
that says so.

Bodies are bounded in the same way: what is in hand takes so much memory and no more, however large messages are and
however many the broker may hand over at once.
"""

import asyncio
import secrets
import struct
from typing import Any, Final

import pamqp.frame
from aiormq import TransportFactory
from pamqp.commands import Basic
from pamqp.header import ContentHeader
from yarl import URL

# The header by which a message tells that its properties could not be read.
UNREADABLE: Final = "x-taskdist-unreadable"

# The most bytes that all messages in hand may take, and so each body; and what is small enough to be taken always.
MOST_BYTES: Final = 16 * 2**20
SMALL_BYTES: Final = 64 * 2**10
# How many bytes a byte of properties takes, at the most, once they are read: a table of three bytes an entry.
READ_FACTOR: Final = 40
# The most that a frame may have: brokers send 128 KiB, unless told otherwise.
FRAME_BYTES: Final = 4 * 2**20

_HEAD: Final = struct.Struct(">BHI")
_METHOD, _CONTENT_HEADER, _BODY, _END = 1, 2, 3, b"\xce"
_DELIVER: Final = struct.pack(">HH", 60, 60)
_CLOSE: Final = struct.pack(">HH", 10, 50)


def mended(frame: bytes) -> bytes:
    """Return the frame, or one in its place that can be read."""
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


def _said(close: bytes) -> str:
    """Return the words of a method that closes the connection."""
    start = _HEAD.size + len(_CLOSE) + 2
    return close[start + 1 : start + 1 + close[start]].decode("utf-8", "replace")


def _tag(frame: bytes) -> int:
    """Return the number of the delivery that the method announces; 0 where it is cut off, which the library refuses."""
    start = _HEAD.size + len(_DELIVER)
    start += 1 + frame[start]
    return int.from_bytes(frame[start : start + 8], "big")


def _readable_names(payload: bytes) -> bytes:
    """Return the delivery with a `?` in its names for each byte that is no text."""
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


class Hand:
    """The room that messages in hand take on one connection, and the mark of those that are cut for want of it."""

    def __init__(self) -> None:
        # No publisher can guess it, and so pretend.
        self.left_out = f"x-taskdist-left-out-{secrets.token_hex(8)}"
        # What the broker said as it closed the connection: the library does not always tell.
        self.farewell = ""
        self._taken: dict[int, int] = {}
        self._bytes = 0

    def takes(self, tag: int, size: int) -> bool:
        """Say whether a message of this size has room; then it counts until it is released."""
        if size > SMALL_BYTES and self._bytes + size > MOST_BYTES:
            return False
        self._taken[tag] = size
        self._bytes += size
        return True

    def release(self, tag: int) -> None:
        self._bytes -= self._taken.pop(tag, 0)


class MendingReader:
    """A stream of frames, each mended. It has what the library asks of a stream."""

    def __init__(self, reader: asyncio.StreamReader, hand: Hand) -> None:
        self._reader = reader
        self._hand = hand
        self._ready = b""
        # By channel: which message is being handed over, and how much of a body is still to be left out.
        self._handed_over: dict[int, int] = {}
        self._left: dict[int, int] = {}

    def at_eof(self) -> bool:
        return not self._ready and self._reader.at_eof()

    async def readexactly(self, size: int) -> bytes:
        while len(self._ready) < size:
            self._ready += await self._frame()
        found, self._ready = self._ready[:size], self._ready[size:]
        return found

    async def read(self, size: int = -1) -> bytes:
        found, self._ready = self._ready, b""
        return found or await self._reader.read(size)

    async def _frame(self) -> bytes:
        """Read the next frame; empty where it is left out."""
        head = await self._reader.readexactly(_HEAD.size)
        if head.startswith(b"AMQP"):  # a broker of another version: no frame
            return head
        kind, channel, size = _HEAD.unpack(head)
        if size > FRAME_BYTES:
            raise ConnectionError(f"the broker sends a frame of {size} bytes")
        frame = head + await self._reader.readexactly(size + 1)
        if kind == _BODY and self._left.get(channel, 0) > 0:
            self._left[channel] -= size
            return b""
        frame = mended(frame)
        if kind == _METHOD and frame.startswith(_DELIVER, _HEAD.size):
            self._handed_over[channel] = _tag(frame)
        elif kind == _METHOD and frame.startswith(_CLOSE, _HEAD.size):
            self._hand.farewell = _said(frame)
        elif kind == _CONTENT_HEADER:
            frame = self._bounded(frame, channel)
        return frame

    def _bounded(self, frame: bytes, channel: int) -> bytes:
        """Return the header of a message, or one that says that there is no room: for the message, or for its body."""
        (size,) = struct.unpack_from(">Q", frame, _HEAD.size + 4)
        if channel not in self._handed_over:
            if size > MOST_BYTES:
                raise ConnectionError(f"the broker sends back a message of {size} bytes")
            return frame
        tag, read = self._handed_over.pop(channel), READ_FACTOR * len(frame)
        beyond = size > MOST_BYTES
        crowded = not self._hand.takes(tag, min(MOST_BYTES, read + (0 if beyond else size)))
        if not crowded and not beyond:
            return frame
        self._left[channel] = size
        properties, left_out = Basic.Properties(), 0 if crowded else size
        if not crowded:
            _, _, header = pamqp.frame.unmarshal(frame)
            assert isinstance(header, ContentHeader)
            properties = header.properties
        properties.headers = {**(properties.headers or {}), self._hand.left_out: left_out}
        try:
            return pamqp.frame.marshal(ContentHeader(0, 0, properties), channel)
        except Exception:  # what could be read can not always be written
            properties = Basic.Properties(headers={self._hand.left_out: left_out})
            return pamqp.frame.marshal(ContentHeader(0, 0, properties), channel)


class Transport(TransportFactory):
    """Connects, and mends what comes. `tls`: none is an unencrypted connection."""

    def __init__(self, tls: Any, hand: Hand) -> None:
        self._tls = tls
        self._hand = hand

    async def create(self, url: URL, **_: Any) -> tuple[Any, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(url.host, url.port, ssl=self._tls)
        return MendingReader(reader, self._hand), writer
