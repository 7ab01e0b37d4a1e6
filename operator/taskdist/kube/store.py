"""The view of one resource in memory, and what lists, watch events and answers to own writes do to it. Pure.

Owns one rule: of two states of one object the newer stays, so that a late event never takes back what is known to be
later. No I/O, no clock; each method says what changed as events, and the caller passes them on.

An object that the transform cannot read is there all the same: it is set aside with a reason, keeps what was last read
of it, and is read again when it changes.

On comparing versions. By the letter a resourceVersion is opaque; in practice it is etcd's revision, one growing
integer, and since Kubernetes 1.35 clients may compare it. It is compared as an integer here. Where it is none (an
aggregated API with a store of its own), order cannot be known: then what arrives last counts as newer, as it does for
any client that does not compare, and a late event can take back an own write until the next one mends it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from taskdist.api import Reason, Unreadable
from taskdist.kube.resources import Obj, name_of, namespace_of, uid_of, version_of

T = TypeVar("T")

log = logging.getLogger(__name__)

GRAVES = 20_000
"""Deletions remembered. An answer to an own write that comes later than this many deletions could bring its object
back until the next consistency check; answers come within seconds."""


@dataclass(frozen=True, slots=True)
class Added(Generic[T]):
    """An object that was not in the view."""

    new: T


@dataclass(frozen=True, slots=True)
class Updated(Generic[T]):
    """The same object (uid) in a newer state."""

    old: T
    new: T


@dataclass(frozen=True, slots=True)
class Deleted(Generic[T]):
    """An object that is gone, or no longer matches the selector.

    `old` is its final state where the deletion was `seen`; otherwise (a list without it, a successor under its name)
    it is the last one known.
    """

    old: T
    seen: bool = True


@dataclass(frozen=True, slots=True)
class Aside:
    """An object that is there, in a state that could not be read."""

    uid: str
    namespace: str
    name: str
    version: str
    reason: Reason
    message: str


Change = Added[T] | Updated[T] | Deleted[T]
Event = Added[T] | Updated[T] | Deleted[T] | Aside


@dataclass(frozen=True, slots=True)
class Entry(Generic[T]):
    """An object in the view. `value` is what the transform made of it last; None: it could never be read.

    `aside` says why its present state could not be read.
    """

    uid: str
    namespace: str
    name: str
    version: str
    value: T | None
    aside: Aside | None = None


class DifferenceKind(StrEnum):
    """Kinds of differences between the view and a list."""

    MISSING = "missing"  # the list has it, the view has not
    STALE = "stale"  # the list has a later state of it
    EXTRA = "extra"  # the view has it, the list has not


@dataclass(frozen=True, slots=True)
class Difference:
    """One object on which a list and the view disagree."""

    kind: DifferenceKind
    uid: str
    namespace: str
    name: str
    listed: str
    """Its version in the list; for `extra`, the list's own."""


def is_newer(version: str, known: str) -> bool:
    """Whether `version` is later than `known`; for versions that are no integers, whether it differs."""
    if version.isdecimal() and known.isdecimal():
        return int(version) > int(known)
    return version != known


class Store(Generic[T]):
    """The view: objects by uid, and by namespace and name."""

    def __init__(self, transform: Callable[[Obj], T], graves: int = GRAVES) -> None:
        """`transform` makes of an object what is kept; whatever it leaves out is not held in memory.

        An object for which it raises is set aside, with the reason of `Unreadable`. What else it raises is a defect
        of it, and no less bound to the one object: it is logged with its place.
        """
        self._transform = transform
        self._by_uid: dict[str, Entry[T]] = {}
        self._by_key: dict[tuple[str, str], str] = {}
        self._aside: dict[str, Aside] = {}
        self._graves: dict[str, str | None] = {}
        """Version of the deletion; None: gone for good, whatever version is heard of it."""
        self._most_graves = graves
        self._floors: dict[str | None, str] = {}
        """By namespace (None: all): the version of the last list that is wholly in the view."""

    def __len__(self) -> int:
        return len(self._by_uid)

    def __iter__(self) -> Iterator[T]:
        """What was last read of each object that ever could be."""
        return (entry.value for entry in self._by_uid.values() if entry.value is not None)

    def readable(self) -> Iterator[T]:
        """What was read of each object whose present state can be read."""
        return (entry.value for entry in self._by_uid.values() if entry.value is not None and entry.aside is None)

    def aside(self) -> Iterable[Aside]:
        """The objects whose present state cannot be read."""
        return self._aside.values()

    def __contains__(self, uid: object) -> bool:
        return uid in self._by_uid

    def get(self, uid: str) -> T | None:
        entry = self._by_uid.get(uid)
        return None if entry is None else entry.value

    def find(self, namespace: str, name: str) -> T | None:
        uid = self._by_key.get((namespace, name))
        return None if uid is None else self._by_uid[uid].value

    def uid_at(self, namespace: str, name: str) -> str:
        """The uid of the object of this name, whether it can be read or not; empty if there is none."""
        return self._by_key.get((namespace, name), "")

    def entry(self, uid: str) -> Entry[T] | None:
        return self._by_uid.get(uid)

    def entries(self) -> Iterable[Entry[T]]:
        return self._by_uid.values()

    # -- what changes it -------------------------------------------------------------------------------------------

    def put(self, obj: Obj, *, answer: bool = False) -> list[Event[T]]:
        """Take in a state of an object, wherever it came from; nothing happens where a later one is known.

        `answer`: it is the answer to an own write, which may come late. An object that is not in the view although a
        list as of that version or later was, has come and gone in between.
        """
        uid, version = uid_of(obj), version_of(obj)
        namespace = namespace_of(obj)
        key = (namespace, name_of(obj))
        # A deletion "seen" under a selector may be a label gone; with a later version the object is back.
        if self._buried(uid, version):
            return []
        if (
            answer
            and uid not in self._by_uid
            and any(
                floor is not None and not _later(version, floor)
                for floor in (self._floors.get(None), self._floors.get(namespace))
            )
        ):
            return []
        events: list[Event[T]] = []
        holder = self._by_key.get(key)
        if holder is not None and holder != uid:
            other = self._by_uid[holder]
            if not is_newer(version, other.version):
                # A late word of a predecessor, whose name has been taken since.
                self._bury(uid, None)
                return []
            events += _gone(self._drop(other, None), seen=False)
        known = self._by_uid.get(uid)
        if known is not None and (version == known.version or not is_newer(version, known.version)):
            return events
        value = self._read(obj)
        self._graves.pop(uid, None)
        self._by_key[key] = uid
        before = None if known is None else known.value
        if isinstance(value, Aside):
            self._by_uid[uid] = Entry(uid, *key, version, before, value)
            self._aside[uid] = value
            events.append(value)
            return events
        self._by_uid[uid] = Entry(uid, *key, version, value)
        self._aside.pop(uid, None)
        events.append(Added(value) if before is None else Updated(before, value))
        return events

    def remove(self, obj: Obj) -> list[Event[T]]:
        """Take in a deletion; the object's version is that of its deletion."""
        uid, version = uid_of(obj), version_of(obj)
        known = self._by_uid.get(uid)
        if known is None:
            self._bury(uid, version)
            return []
        if is_newer(known.version, version):
            # Left the selector and came back, and the coming back was heard first (as an own write's answer).
            return []
        final, last = self._read(obj), self._drop(known, version)
        return _gone(last if isinstance(final, Aside) else final)

    def forget(self, uid: str, *, for_good: bool = True) -> list[Event[T]]:
        """A read has shown that this uid is gone, so that no later word of it is believed; or, not `for_good`, that it
        exists and does not match the selector as of the version held."""
        known = self._by_uid.get(uid)
        if known is None:
            if for_good:
                self._bury(uid, None)  # the watch may not have brought it yet
            return []
        return _gone(self._drop(known, None if for_good else known.version), seen=False)

    def sweep(self, listed: set[str], version: str, namespace: str | None = None) -> list[Event[T]]:
        """After a list as of `version` was put: drop what it does not hold, in `namespace` or (None) everywhere.

        What is newer than the list stays: an own write whose answer came while the pages were read.
        """
        self._floors[namespace] = version
        gone = [
            entry
            for entry in self._by_uid.values()
            if entry.uid not in listed
            and (namespace is None or entry.namespace == namespace)
            and not _later(entry.version, version)
        ]
        return [event for entry in gone for event in _gone(self._drop(entry, version), seen=False)]

    # -- what only looks -------------------------------------------------------------------------------------------

    def differences(self, listed: Iterable[Obj], version: str, namespace: str | None = None) -> list[Difference]:
        """Where a consistent list as of `version` knows better than the view. Objects need their metadata only."""
        found: list[Difference] = []
        uids: set[str] = set()
        for obj in listed:
            uid, at = uid_of(obj), version_of(obj)
            uids.add(uid)
            known = self._by_uid.get(uid)
            if known is None and not self._buried(uid, at):
                found.append(Difference(DifferenceKind.MISSING, uid, namespace_of(obj), name_of(obj), at))
            elif known is not None and at != known.version and is_newer(at, known.version):
                found.append(Difference(DifferenceKind.STALE, uid, known.namespace, known.name, at))
        found += (
            Difference(DifferenceKind.EXTRA, entry.uid, entry.namespace, entry.name, version)
            for entry in self._by_uid.values()
            if entry.uid not in uids
            and (namespace is None or entry.namespace == namespace)
            and not _later(entry.version, version)
        )
        return found

    def still(self, difference: Difference) -> bool:
        """Whether a difference found earlier is one yet: what a watch that merely lagged has brought since is none."""
        known = self._by_uid.get(difference.uid)
        if difference.kind is DifferenceKind.EXTRA:
            return known is not None and not _later(known.version, difference.listed)
        if known is not None:
            return is_newer(difference.listed, known.version)
        return not self._buried(difference.uid, difference.listed)

    # -- within ----------------------------------------------------------------------------------------------------

    def _buried(self, uid: str, version: str) -> bool:
        """Whether this state of the uid is from before its deletion."""
        if uid not in self._graves:
            return False
        grave = self._graves[uid]
        return grave is None or not is_newer(version, grave)

    def _read(self, obj: Obj) -> T | Aside:
        namespace, name = namespace_of(obj), name_of(obj)
        identity = (uid_of(obj), namespace, name, version_of(obj))
        try:
            return self._transform(obj)
        except Unreadable as error:
            return Aside(*identity, error.reason, str(error))
        except Exception as error:
            log.exception("%s/%s cannot be read", namespace, name)
            return Aside(*identity, Reason.UNREADABLE, f"this release cannot read it: {error!r}"[:500])

    def _drop(self, entry: Entry[T], version: str | None) -> T | None:
        del self._by_uid[entry.uid]
        self._aside.pop(entry.uid, None)
        if self._by_key.get((entry.namespace, entry.name)) == entry.uid:
            del self._by_key[entry.namespace, entry.name]
        self._bury(entry.uid, version)
        return entry.value

    def _bury(self, uid: str, version: str | None) -> None:
        if uid in self._graves:
            known = self._graves.pop(uid)
            if known is None or (version is not None and not is_newer(version, known)):
                version = known
        self._graves[uid] = version
        if len(self._graves) > self._most_graves:
            del self._graves[next(iter(self._graves))]


def _gone(last: T | None, seen: bool = True) -> list[Event[T]]:
    """Nobody heard of an object that could never be read."""
    return [] if last is None else [Deleted(last, seen)]


def _later(version: str, than: str) -> bool:
    """Strictly later than a list, where that can be known; a version that is no integer is never said to be later."""
    return version.isdecimal() and than.isdecimal() and int(version) > int(than)
