"""Names in order, of which few are taken at a time: what a paged list goes by."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator

BUCKET = 512


class Names:
    """A sorted set of names, in buckets: one more costs the same however many there are."""

    def __init__(self) -> None:
        self._buckets: list[list[str]] = []
        self._last: list[str] = []  # of each bucket

    def __bool__(self) -> bool:
        return bool(self._buckets)

    def add(self, name: str) -> None:
        """Safe to repeat."""
        if not self._buckets:
            self._buckets.append([name])
            self._last.append(name)
            return
        at = min(bisect_left(self._last, name), len(self._last) - 1)
        bucket = self._buckets[at]
        place = bisect_left(bucket, name)
        if place < len(bucket) and bucket[place] == name:
            return
        insort(bucket, name)
        self._last[at] = bucket[-1]
        if len(bucket) > 2 * BUCKET:
            self._buckets[at : at + 1] = [bucket[:BUCKET], bucket[BUCKET:]]
            self._last[at : at + 1] = [bucket[BUCKET - 1], bucket[-1]]

    def discard(self, name: str) -> None:
        """Safe to repeat."""
        at = bisect_left(self._last, name)
        if at == len(self._last):
            return
        bucket = self._buckets[at]
        place = bisect_left(bucket, name)
        if place == len(bucket) or bucket[place] != name:
            return
        del bucket[place]
        if bucket:
            self._last[at] = bucket[-1]
        else:
            del self._buckets[at], self._last[at]

    def after(self, name: str) -> Iterator[str]:
        """Yield those that come after this one, which need not be there. Nothing may change meanwhile."""
        at = bisect_right(self._last, name)
        if at < len(self._buckets):
            bucket = self._buckets[at]
            yield from bucket[bisect_right(bucket, name) :]
            for bucket in self._buckets[at + 1 :]:
                yield from bucket


class NamesByNamespace:
    """The names in each namespace."""

    def __init__(self) -> None:
        self._of: dict[str, Names] = {}

    def add(self, namespace: str, name: str) -> None:
        """Safe to repeat."""
        self._of.setdefault(namespace, Names()).add(name)

    def discard(self, namespace: str, name: str) -> None:
        """Safe to repeat."""
        names = self._of.get(namespace)
        if names is not None:
            names.discard(name)
            if not names:
                del self._of[namespace]

    def after(self, namespace: str, name: str) -> Iterator[str]:
        """Yield the namespace's names after this one, in order."""
        names = self._of.get(namespace)
        return names.after(name) if names is not None else iter(())
