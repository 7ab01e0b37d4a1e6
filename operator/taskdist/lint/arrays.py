"""Rules on arrays: what of their fields the API server refuses, said before anything is applied."""

from collections.abc import Iterator

from taskdist.lint.findings import Flaw, Mend, Severity, patch, rule
from taskdist.lint.setup import Setup


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


RULES = (array_without_items, array_completions, array_payload, array_in_order)
