"""Chunks of items: how they end in the world, and what must hold for the items of arrays in every history."""

from __future__ import annotations

import random
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from faults.api_model import TOO_LARGE
from faults.violation import Violation
from taskdist.api import Delivery, Phase, Reason, Reclaim
from taskdist.protocol.arrays.chunk_results import ChunkResult, FailedItems, decode, encode
from taskdist.protocol.arrays.indexes import EMPTY, IndexSet, Span
from taskdist.protocol.messages import LeaseName, array_uid
from taskdist.protocol.observations import ObservedTask, WriteStatus

if TYPE_CHECKING:
    from faults.machines import Work
    from faults.world import World


def items_of(work: Work) -> IndexSet:
    """Return the items of a work; none if it is of a single Task."""
    chunk = work.grant.chunk
    return EMPTY if chunk is None else IndexSet(tuple(Span(*span) for span in chunk.spans))


class End(Enum):
    """Ends of an item that an agent tells."""

    SUCCEEDED = auto()
    FAILED = auto()
    FAILED_FOR_GOOD = auto()
    LOST = auto()  # it was begun, and nothing is known of its end


_TOLD = {
    End.FAILED: (Reason.HANDLER_ERROR, True),
    End.FAILED_FOR_GOOD: (Reason.HANDLER_ERROR, False),
    End.LOST: (Reason.GIVEN_BACK, True),
}


def draw_ends(work: Work, rng: random.Random, *, stopped: bool, failing: bool) -> tuple[dict[int, End], IndexSet]:
    """Draw how each item ended, and which were not begun."""
    items = items_of(work)
    begun = items.take(rng.randint(0, len(items))) if stopped else items
    ends = (End.SUCCEEDED, *End) if failing else (End.SUCCEEDED,)
    return {index: rng.choice(ends) for index in begun}, items - begun


def result(work: Work, ends: dict[int, End], left: IndexSet, *, too_large: bool) -> bytes:
    """Return what the agent says of a chunk: each item that succeeded returned the name of its work."""
    text = f'"{work.number}{TOO_LARGE.decode() if too_large else ""}"'
    failed = tuple(
        FailedItems(IndexSet.of(some), reason, "it broke", retryable)
        for how, (reason, retryable) in _TOLD.items()
        if (some := [index for index, end in ends.items() if end is how])
    )
    succeeded = {index: text for index, end in ends.items() if end is End.SUCCEEDED}
    return encode(ChunkResult(succeeded, failed, left))


# Ways in which an attempt ends that do not tell which of its items is at fault.
LOST = (Reason.AGENT_LOST, Reason.LEASE_EXPIRED, Reason.EXECUTION_TIMED_OUT, Reason.PROGRESS_TIMED_OUT)


class Chunks:
    """Looks on at the items of arrays. Nothing here changes the world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.works: dict[str, list[Work]] = {}  # by array
        self.bodies: dict[LeaseName, ChunkResult] = {}
        self.begun: dict[str, IndexSet] = {}  # by array: items that may have been begun since it was redriven last
        self.heard: set[LeaseName] = set()  # whose results a leader has got
        self.crashed: set[LeaseName] = set()  # whose worker died, though not of an item

    def produced(self, work: Work, body: bytes, left: IndexSet) -> None:
        """An agent has the result of a chunk."""
        self.bodies[work.grant.lease] = decode(body)
        uid = array_uid(work.grant.lease.task_uid)
        self.begun[uid] = self.begun[uid] - (left - self._begun_before(work))

    def _begun_before(self, work: Work) -> IndexSet:
        uid = array_uid(work.grant.lease.task_uid)
        return IndexSet.union(items_of(each) for each in self.works[uid] if each is not work)

    def started(self, work: Work) -> None:
        """An item is run by one agent at a time, and never again once its success stands."""
        uid, items = array_uid(work.grant.lease.task_uid), items_of(work)
        if not items:
            return
        stored = self.world.api.tasks[uid]
        array = self.world.api.last_record(uid).array
        assert array is not None
        if not stored.deleted and (again := items & array.account.succeeded):
            raise Violation("again", f"items {again} of {uid} are started again as {work.grant.lease}")
        former = self.works.setdefault(uid, [])
        for other in former:
            if other.grant.lease.task_uid != work.grant.lease.task_uid and items & items_of(other):
                self.world.check.no_overlap(work, other)
        if self.world.plan.delivery is Delivery.AT_MOST_ONCE and (twice := items & self.begun.get(uid, EMPTY)):
            raise Violation("at-most-once", f"items {twice} of {uid} were started again as {work.grant.lease}")
        former.append(work)
        self.begun[uid] = self.begun.get(uid, EMPTY) | items

    def resumed(self, work: Work) -> None:
        items = items_of(work)
        for other in self.works.get(array_uid(work.grant.lease.task_uid), ()) if items else ():
            if other is not work and items & items_of(other):
                self.world.check.no_overlap(work, other)

    def landed(self, action: WriteStatus, before: ObservedTask, after: ObservedTask) -> None:
        """A write of an array stands."""
        uid, old, new = action.uid, before.array, after.array
        assert old is not None
        assert new is not None
        for key, part in new.parts.items():
            if part.phase is Phase.ASSIGNED:
                self.world.check.recorded.add((part.task.uid, part.attempt, part.epoch, part.agent_uid))
            if key in old.parts and old.account.parts[key].items != new.account.parts[key].items:
                raise Violation("items", f"{uid}: part {key} has other items than before")
            if key in old.parts and part.attempt < old.parts[key].attempt:
                raise Violation("items", f"{uid}: part {key} has lost an attempt")
        if not old.account.succeeded <= new.account.succeeded:
            raise Violation("items", f"{uid}: {old.account.succeeded} had succeeded, now {new.account.succeeded}")
        redriven = before.phase is Phase.DEAD_LETTERED and after.phase is Phase.PENDING
        if redriven:
            self.begun.pop(uid, None)
        elif not old.account.failed <= new.account.failed:
            raise Violation("items", f"{uid}: {old.account.failed} had failed, now {new.account.failed}")
        self._accepted(action, before, after)
        self._blamed(action, before, after)
        if after.phase.settled and not before.phase.settled:
            self._ended(uid, after)

    def _accepted(self, action: WriteStatus, before: ObservedTask, after: ObservedTask) -> None:
        """Each item that has newly succeeded did so in the latest attempt of the part that had it."""
        assert before.array is not None
        assert after.array is not None
        gained = after.array.account.succeeded - before.array.account.succeeded
        results = (action.status.get("array") or {}).get("results") or {}
        for key, stored in before.array.account.parts.items():
            some = gained & stored.items
            gained -= some
            if not some:
                continue
            part = before.array.parts[key]
            if key in after.array.parts:
                raise Violation("items", f"{action.uid}: items {some} of part {key} have succeeded, and it goes on")
            lease = next((name for name in self.bodies if name[:2] == (part.task.uid, part.attempt)), None)
            if lease is None or not some <= self._succeeded(lease, stored.items):
                raise Violation("result", f"{action.uid}: nobody said that {some} of {part.lease_name} succeeded")
            newer = [n for n in self.world.check.names if n.task_uid == part.task.uid and n[1:] > lease[1:]]
            if newer:
                raise Violation("stale", f"{action.uid}: the result of {lease} was accepted though {newer} was granted")
            for index in some:
                if str(index) in results and results[str(index)] != self.bodies[lease].results[index]:
                    raise Violation("result", f"{action.uid}: item {index} has {results[str(index)]}, not of {lease}")
        if gained:
            raise Violation("result", f"{action.uid}: items {gained} have succeeded and were in no part")

    def _blamed(self, action: WriteStatus, before: ObservedTask, after: ObservedTask) -> None:
        """Of several items that were lost with their agent, or were too slow together, none has failed for that."""
        assert before.array is not None
        assert after.array is not None
        failed = after.array.account.failed - before.array.account.failed
        for key, stored in before.array.account.parts.items():
            part, some = before.array.parts[key], failed & stored.items
            name = part.task.uid, part.attempt
            told = any(lease[:2] == name for lease in (*self.bodies, *self.crashed))
            if len(stored.items) > 1 and some and not told and self.world.plan.delivery is not Delivery.AT_MOST_ONCE:
                raise Violation("blamed", f"{action.uid}: items {some} have failed as {part.lease_name} was lost")
        for key, part in after.array.parts.items():
            items = after.array.account.parts[key].items
            if part.phase is Phase.PENDING and part.reason in LOST and len(items) > 1:
                raise Violation("blamed", f"{action.uid}: items {items} are tried again together: {part.reason}")

    def _succeeded(self, lease: LeaseName, items: IndexSet) -> IndexSet:
        told = self.bodies[lease]
        return items - IndexSet.union((told.left, *(each.items for each in told.failed)))

    def _ended(self, uid: str, after: ObservedTask) -> None:
        """An array ends once nothing of it runs that this leadership knows of, as its items did."""
        assert after.array is not None
        rules, account = after.array.rules, after.array.account
        if after.phase is Phase.SUCCEEDED and len(account.succeeded) < rules.needed:
            raise Violation("items", f"{uid} succeeded with {account.succeeded} of {rules.needed}")
        all_failed = after.reason is Reason.RETRIES_EXHAUSTED
        if all_failed and len(account.succeeded) + len(account.failed) != rules.count:
            raise Violation("items", f"{uid} ended as all items have, and {account.untried} have not")
        if all_failed and len(account.succeeded) >= rules.needed:
            raise Violation("items", f"{uid} failed with {account.succeeded} of {rules.needed}")
        if account.parts:
            raise Violation("items", f"{uid} has ended with parts {dict(account.parts)}")
        for work in self.works.get(uid, ()):
            runs = work.active and not work.machine.suspended and not work.woke
            if runs and work.grant.lease.epoch == after.epoch and self.world.plan.reclaim is not Reclaim.FAST:
                raise Violation("cancel", f"{uid} is {after.phase} while {work.grant.lease} runs")

    def status_of(self, uid: str) -> dict[str, Any]:
        """Return the status of a Task, or of a part within its array's."""
        status = self.world.api.tasks[array_uid(uid)].status
        if uid == array_uid(uid):
            return status
        found: dict[str, Any] = status.get("array", {}).get("parts", {}).get(uid.partition(".")[2], {})
        return found

    def is_accepted(self, lease: LeaseName) -> bool:
        """Return whether what an agent was told to be accepted stands."""
        uid = array_uid(lease.task_uid)
        stored, told = self.world.api.tasks[uid], self.bodies.get(lease)
        array = self.world.api.last_record(uid).array
        if told is None or stored.deleted or array is None or lease not in self.heard:
            return True
        work = next(each for each in self.works[uid] if each.grant.lease == lease)
        refused = any(TOO_LARGE.decode() in text for text in told.results.values())
        return refused or self._succeeded(lease, items_of(work)) <= array.account.succeeded
