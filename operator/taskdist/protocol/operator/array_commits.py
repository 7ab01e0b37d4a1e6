"""Writes of arrays: all that the parts of one array have to write at a moment becomes one write of the array.

It replaces one version of the array, so it stands as a whole or not at all, and its outcome is the outcome of each wish
in it. While it is under way, and for a moment after, no part of the array may write: each wish is made of what stands.
"""

from collections.abc import Callable
from dataclasses import replace

from taskdist.api import Delivery, Phase, Reason
from taskdist.core.cost import Spent
from taskdist.protocol import status
from taskdist.protocol.arrays import account as accounts
from taskdist.protocol.arrays import settling
from taskdist.protocol.arrays.account import Account, PartEnd
from taskdist.protocol.arrays.chunk_results import decode
from taskdist.protocol.observations import (
    Conflict,
    NotSent,
    Now,
    Unknown,
    WriteOutcome,
    WriteRefused,
    Written,
)
from taskdist.protocol.operator.actions import Actions
from taskdist.protocol.operator.array_books import ArrayBook, Wish
from taskdist.protocol.operator.arrays import Arrays
from taskdist.protocol.operator.books import Part, Purpose, TaskEntry
from taskdist.protocol.operator.state import State
from taskdist.protocol.settings import LeaderSettings

# One array is written at most so often a second, over any while; a second's worth may come at once.
COMMITS_PER_SECOND = 5.0


class ArrayCommits:
    """Makes one write of all wishes of an array's parts, and hands its outcome to each of them.

    Owns the rate of an array's writes. What a wish asks for and what its outcome means is the parts' business.
    """

    def __init__(
        self,
        state: State,
        out: Actions,
        arrays: Arrays,
        settings: LeaderSettings,
        take_in: Callable[[TaskEntry, Purpose, WriteOutcome, Now], None],
    ) -> None:
        self._state = state
        self._out = out
        self._arrays = arrays
        self._settings = settings
        self._take_in = take_in

    def write(self, now: Now) -> None:
        """Write what parts have asked for since."""
        while self._state.wishing:
            uid = next(iter(self._state.wishing))
            del self._state.wishing[uid]
            if (book := self._state.arrays.get(uid)) is not None and book.wishes:
                self._write(book, now)

    def _write(self, book: ArrayBook, now: Now) -> None:
        entry, record, (wishes, book.wishes) = book.entry, book.entry.record, (book.wishes, [])
        # An array has one write at a time, also where it has just written something of its own.
        most = 0 if entry.under_way is not None else 1 if book.alone else len(wishes)
        wishes, put_off = wishes[:most], wishes[most:]
        for wish in put_off:
            self._hand_on(wish, NotSent(), now)
        if not wishes:
            return
        assert record.array is not None
        before = after = record.array.account
        top: status.Status = {}
        assigned, spent = 0, record.spent
        for wish in wishes:
            part = wish.entry.part
            assert part is not None
            if wish.purpose is Purpose.NOTE and not part.stored:
                top |= wish.patch
                continue
            if part.key not in after.parts:
                after = after.handed(part.key, part.items, part.failures, {})
            assigned += wish.purpose is Purpose.ASSIGN
            end = self._end(book, wish, part, after, now)
            if end is None:
                after = after.told(part.key, wish.patch)
            else:
                spent = _added(spent, {**after.parts[part.key].status, **wish.patch})
                after = after.ended(part.key, end, now.wall)
        book.sent = wishes
        if assigned or record.phase is Phase.ASSIGNED:
            told = f"{len(after.succeeded)} of {after.count} items succeeded"
            top = {"phase": Phase.ASSIGNED.value} | status.explained(Reason.ASSIGNED, told) | top
        if assigned:
            top["attempt"] = record.attempt + assigned
            if not record.task.attempted:
                top["startedAt"] = status.timestamp(now.wall)
        patch = accounts.changes(before, after, status.timestamp)
        patch["commit"] = self._state.next_key()
        patch = top | status.costs(spent) | {"epoch": self._state.epoch, "array": patch}
        self._out.write(entry, Purpose.COMMIT, patch)
        every = 1.0 / COMMITS_PER_SECOND
        book.slot = max(book.slot, now.boot - 1.0) + every
        if book.slot > now.boot:
            self._state.put_off(entry, book.slot - now.boot, now)

    def _end(self, book: ArrayBook, wish: Wish, part: Part, account: Account, now: Now) -> PartEnd | None:
        """Return how the part's items end by this write; None if the part goes on."""
        entry, stored = wish.entry, account.parts[part.key]
        if wish.purpose is Purpose.OUTCOME:
            outcome = entry.outcome
            assert outcome is not None
            queue, terms = self._state.queue_of(entry.record), entry.record.terms
            once = terms is not None and terms.delivery is Delivery.AT_MOST_ONCE
            try:
                # One that stands elsewhere is none that an agent could have sent: a chunk's has its bounds.
                result = decode(wish.body if isinstance(wish.body, bytes) else b"")
            except ValueError as error:
                return settling.all_failed(stored, Reason.RESULT_REFUSED, str(error))
            end = settling.by_result(stored, entry.record.task, queue, once, result, now.wall)
            part.succeeding = end.succeeded & stored.items
            begun = len(stored.items - result.left)
            if any(each.reason is Reason.HANDLER_CRASHED for each in result.failed):
                book.sizes.failed(begun)
            else:
                book.sizes.measured(begun, outcome.since_start)
                task = book.entry.record.task
                self._state.paces.measured((task.queue_key, task.type), begun, outcome.since_start)
            return end
        if wish.purpose is Purpose.ENDING and entry.ending is not None and entry.ending.halved:
            book.sizes.failed(len(stored.items))
            return settling.halved(stored, entry.ending.not_before or 0.0)
        if wish.purpose is not Purpose.ENDING or wish.patch.get("phase") == Phase.PENDING:
            return None
        if wish.patch["phase"] == Phase.CANCELLED:
            return PartEnd()
        return settling.all_failed(stored, Reason(wish.patch["reason"]), wish.patch["message"])

    def answered(self, entry: TaskEntry, outcome: WriteOutcome, now: Now) -> None:
        """The write of an array was answered: each part whose wish was in it hears so."""
        book = self._arrays.sync(entry)
        sent, book.sent = book.sent, []
        if isinstance(outcome, WriteRefused) and len(sent) > 1:
            book.alone = len(sent)  # one of them is refused, and which one is found out
            outcome = NotSent()
        elif book.alone:
            book.alone -= 1
        if isinstance(outcome, Unknown | NotSent):
            self._state.put_off(entry, self._settings.retry_seconds, now)
        for wish in sent:
            self._hand_on(wish, outcome, now)

    def _hand_on(self, wish: Wish, outcome: WriteOutcome, now: Now) -> None:
        """Tell a part what became of its wish, as if it had been written by itself."""
        entry = wish.entry
        if self._state.tasks.get(entry.uid) is not entry or entry.under_way is not wish.purpose:
            return
        entry.under_way = None
        match outcome:
            case Written():
                outcome = replace(outcome, record=entry.record)
            case Conflict():
                outcome = Conflict(entry.record)
            case Unknown(record) if record is not None:
                outcome = Unknown(entry.record)
            case _:
                pass
        self._take_in(entry, wish.purpose, outcome, now)


def _added(spent: Spent, part: status.Status) -> Spent:
    """Add what the attempts of a part have cost to what its array has cost."""
    return Spent(_sum(spent.cost, part.get("cost")), _sum(spent.energy, part.get("energyWh")))


def _sum(one: float | None, other: float | None) -> float | None:
    return one if other is None else (one or 0.0) + other
