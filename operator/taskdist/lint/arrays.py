"""Rules on arrays: what of their fields the API server refuses, and what of them does not do what it says."""

import json
import math
from collections.abc import Iterator

from taskdist.lint.findings import Flaw, Mend, Severity, patch, rule
from taskdist.lint.setup import PoolDoc, Setup, TaskDoc

# One array is written so often a second, and its chunks begin and end with these writes.
WRITES_PER_SECOND = 5.0
# What maxItems may be.
MOST_IN_CHUNK = 100_000
# An array that takes longer than this by its writes alone is worth a word, in seconds.
LONG = 600.0
# Bytes of JSON that the items of one array have, and the share of them from which on it is said.
MOST_BYTES = 64 * 1024
NEAR = 0.9


@rule(Severity.ERROR)
def array_without_items(setup: Setup) -> Iterator[Flaw]:
    """An array that says neither how many items it has nor which, or both.

    The API server refuses it: count and items exclude each other.
    """
    for doc in setup.tasks.values():
        array = doc.spec.get("array")
        if array is None or (array.get("count") is None) != (not array.get("items")):
            continue
        mend = Mend("Say count where only the index differs, else items.", patch("spec.array.count", None))
        if not array.get("items"):
            mend = Mend("Say how many items there are, or which.", patch("spec.array.count", 1))
        yield Flaw(doc.manifest, "spec.array", "it has neither count nor items, or both", mend)


@rule(Severity.ERROR)
def array_completions(setup: Setup) -> Iterator[Flaw]:
    """An array that wants more items to succeed than it has.

    It could never succeed. The API server refuses it.
    """
    for doc in setup.tasks.values():
        array = doc.spec.get("array") or {}
        count, wanted = array.get("count") or len(array.get("items") or ()), array.get("completions") or 0
        if 0 < count < wanted:
            mend = Mend("Want at most as many.", patch("spec.array.completions", count))
            yield Flaw(doc.manifest, "spec.array.completions", f"it has {count} items", mend)


@rule(Severity.ERROR)
def array_payload(setup: Setup) -> Iterator[Flaw]:
    """An array with items of its own, and a payload besides.

    The items are the payloads, so that nobody would get the other one. The API server refuses it.
    """
    for doc in setup.tasks.values():
        if not (doc.spec.get("array") or {}).get("items"):
            continue
        for field in ("payload", "payloadRef"):
            if doc.spec.get(field):
                mend = Mend("Leave it out, or say it in each item.", patch(f"spec.{field}", None))
                yield Flaw(doc.manifest, f"spec.{field}", "each item of the array is a payload of its own", mend)


@rule(Severity.ERROR)
def array_in_order(setup: Setup) -> Iterator[Flaw]:
    """An array with an ordering key.

    Its chunks are Tasks of the key like others, which would run between them. The API server refuses it.
    """
    for doc in setup.tasks.values():
        if doc.spec.get("array") and doc.spec.get("orderingKey"):
            mend = Mend("Leave the key out, or set array.parallelism to 1.", patch("spec.orderingKey", None))
            yield Flaw(doc.manifest, "spec.orderingKey", "an array cannot have one", mend)


@rule(Severity.ERROR)
def array_unserved(setup: Setup) -> Iterator[Flaw]:
    """An array in a queue whose agents take no chunks.

    Commands, HTTP endpoints and in-process handlers get single Tasks only, so it would wait for ever (SkillMissing).
    """
    for doc in _arrays(setup):
        pools = _pools(setup, doc)
        if pools and all(each.single for each in pools):
            names = ", ".join(sorted(each.manifest.name for each in pools))
            mend = Mend("Have a pool run Python handlers in worker processes, or create a Task for each item.")
            yield Flaw(doc.manifest, "spec.array", f"no agent of {names} takes chunks of items", mend)


@rule(Severity.HINT)
def array_parallelism(setup: Setup) -> Iterator[Flaw]:
    """An array that allows more chunks at once than its pools can ever run.

    It bounds nothing then: as many chunks run as there are slots.
    """
    for doc in _arrays(setup):
        asked, room = doc.spec["array"].get("parallelism"), _room(_pools(setup, doc), doc)
        if asked is not None and room is not None and 0 < room < asked:
            mend = Mend("Say how many may run, or leave it out.", patch("spec.array.parallelism", room))
            message = f"its pools have room for {room} at most, however they grow"
            yield Flaw(doc.manifest, "spec.array.parallelism", message, mend)


@rule(Severity.HINT)
def array_nearly_full(setup: Setup) -> Iterator[Flaw]:
    """An array whose items nearly fill a Task.

    All items of one array have 64 KiB of JSON together: a few more, and the API server or the operator refuses it.
    """
    for doc in _arrays(setup):
        size = len(json.dumps(doc.spec["array"].get("items") or [], separators=(",", ":"), ensure_ascii=False).encode())
        if NEAR * MOST_BYTES < size <= MOST_BYTES:
            mend = Mend("Split it into several arrays, as map does, or pass references to larger data.")
            message = f"its items are {size} bytes of JSON, of {MOST_BYTES} at most"
            yield Flaw(doc.manifest, "spec.array.items", message, mend)


@rule(Severity.HINT)
def array_small_chunks(setup: Setup) -> Iterator[Flaw]:
    """An array whose chunks are so small that its writes bound it, and not its agents.

    An array is written five times a second at most, and a write can hand out and end as many chunks as run at once.
    """
    for doc in _arrays(setup):
        array = doc.spec["array"]
        most, count = (array.get("chunk") or {}).get("maxItems"), array.get("count") or len(array.get("items") or ())
        at_once = min(array.get("parallelism") or 200, _room(_pools(setup, doc), doc) or 1000)
        seconds = count / (WRITES_PER_SECOND * at_once * (most or 1000))
        if most is not None and seconds > LONG:
            enough = min(MOST_IN_CHUNK, math.ceil(count / (WRITES_PER_SECOND * at_once * LONG)))
            mend = Mend("Let chunks have more items.", patch("spec.array.chunk.maxItems", max(most + 1, enough)))
            message = f"with {at_once} chunks of {most} at once its writes alone take {seconds / 60:.0f} minutes"
            yield Flaw(doc.manifest, "spec.array.chunk.maxItems", message, mend)


def _arrays(setup: Setup) -> Iterator[TaskDoc]:
    yield from (doc for doc in setup.tasks.values() if isinstance(doc.spec.get("array"), dict))


def _pools(setup: Setup, doc: TaskDoc) -> list[PoolDoc]:
    """The pools that may run it; none where some are not known here."""
    queue = setup.queue_of(doc.task)
    return [] if queue is None or setup.missing_pools(doc, queue) else setup.pools_of(doc, queue)


def _room(pools: list[PoolDoc], doc: TaskDoc) -> int | None:
    """How many chunks the pools can run at once, however they grow; None if it is not known."""
    if not pools:
        return None
    agents = [each.spec.scaling.max_replicas if each.spec.scaling else each.spec.replicas for each in pools]
    return sum(most * (each.shape.slots // doc.task.slots) for most, each in zip(agents, pools, strict=True))


WRITTEN = (array_without_items, array_completions, array_payload, array_in_order)
RULES = (*(array_unserved, array_parallelism, array_nearly_full, array_small_chunks),)
