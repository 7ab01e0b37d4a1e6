"""Chunks of an array's items on the wire."""

from taskdist.link.proto import link_pb2 as pb
from taskdist.protocol.messages import Chunk


def encode(chunk: Chunk) -> pb.Chunk:
    """Return the wire form of a grant's chunk."""
    spans = [pb.Span(first=first, last=last) for first, last in chunk.spans]
    return pb.Chunk(spans=spans, count=chunk.count, payloads=chunk.payloads)


def decode(wire: pb.Chunk) -> Chunk:
    """Return the chunk that a grant brought."""
    return Chunk(tuple((each.first, each.last) for each in wire.spans), wire.count, tuple(wire.payloads))
