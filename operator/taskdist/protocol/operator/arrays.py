"""Arrays: Tasks that stand for many items, split into parts that are Tasks like any other to the rest of the protocol.

An array itself is never handed out, nor told to the core. For the items that nobody has it keeps blanks: parts without
items, which wait for an agent as Tasks do. A blank gets its items once an agent is found for it, so that a chunk is as
large as fits then. Whatever parts have to write becomes one write of their array; see `ArrayCommits`.

How items end, how large a chunk is and when one is tried again stands in `protocol/arrays`.
"""

from collections.abc import Sequence
from dataclasses import replace

from taskdist.api import OnExhausted, Phase, Reason
from taskdist.protocol import task_status
from taskdist.protocol.arrays import account as accounts
from taskdist.protocol.arrays import settling
from taskdist.protocol.arrays.indexes import EMPTY, IndexSet
from taskdist.protocol.arrays.sizing import blanks, bounds_waiting
from taskdist.protocol.observations import ArrayView, Now, ObservedTask
from taskdist.protocol.operator.array_books import ArrayBook, is_blank
from taskdist.protocol.operator.books import Deletion, Ending, LeaseStage, Part, TaskEntry
from taskdist.protocol.operator.core_view import CoreView
from taskdist.protocol.operator.dead_letters import DeadLetters
from taskdist.protocol.operator.dependents import Dependents
from taskdist.protocol.operator.endings import Endings
from taskdist.protocol.operator.state import State
from taskdist.protocol.operator.timers import TimerKind
from taskdist.protocol.operator.whole import Whole

# So much after items are due they are looked at: two clocks take part, and neither is to be asked too early.
TICK_SECONDS = 0.001


class Arrays:
    """Splits arrays into parts, and ends an array once its items have ended.

    Owns which items a part gets and how many parts there are. It writes nothing but the array's end, and decides
    nothing of a part that is not decided of a Task.
    """

    def __init__(
        self,
        state: State,
        view: CoreView,
        endings: Endings,
        letters: DeadLetters,
        dependents: Dependents,
        whole: Whole,
    ) -> None:
        self._state = state
        self._view = view
        self._endings = endings
        self._letters = letters
        self._dependents = dependents
        self._whole = whole

    # --- the array ---

    def advance(self, entry: TaskEntry, now: Now) -> None:
        """Take the array's next step, and that of each of its parts."""
        book = self.sync(entry)
        for part in list(book.parts.values()):
            self._whole.advance(part, now)
        phase = entry.record.phase
        if entry.deletion is not Deletion.NONE or phase.terminal:
            if not book.parts:
                self._view.forget(entry, now, final=entry.deletion is Deletion.NONE)
        elif phase is Phase.DEAD_LETTERED:
            if not book.parts:
                self._letters.advance(entry, now)
        elif entry.aside:
            return
        elif (entry.ending is None or entry.ending.on is not None) and (ending := self._end(entry)) is not None:
            # It goes before what was decided of the items that wait.
            entry.ending, book.stopping = ending, True
            self._state.arrays_again[entry.uid] = None
        elif entry.ending is None:
            self._split(book, now)
        elif not book.parts or entry.ending.spill_to:
            self._endings.write(entry, entry.ending, now)

    def sync(self, entry: TaskEntry) -> ArrayBook:
        """Have the books say of each part what its array's status says. Items that no part has wait."""
        view, uid = _view(entry), entry.uid
        book = self._state.arrays.get(uid)
        if book is None or book.entry is not entry:
            rules, task = view.rules, entry.record.task
            sizes = self._state.paces.begin((task.queue_key, task.type), rules.most_items, rules.target_seconds)
            book = self._state.arrays[uid] = ArrayBook(entry, sizes)
        if entry.ending is None:
            book.stopping = False
        book.gone = book.gone & view.parts.keys() if entry.deletion is not Deletion.NONE else set()
        for key, record in view.parts.items():
            if key in book.gone:
                continue
            stored = view.account.parts[key]
            part = book.parts.get(key)
            if part is None:
                part = book.parts[key] = TaskEntry(record, part=Part(uid, key))
                self._state.tasks[part.uid] = part
            assert part.part is not None
            part.part.stored, part.part.items, part.part.failures = True, stored.items, stored.failures
            part.record = record
        for key, part in book.parts.items():
            if key not in view.parts:
                part.record = self._not_shown(part, entry.record, key)
            if book.stopping or entry.record.phase.settled:
                part.record = replace(part.record, cancel=True)
            part.deletion, part.aside = entry.deletion, entry.aside
        self._pool(book)
        return book

    def _not_shown(self, entry: TaskEntry, whole: ObservedTask, key: str) -> ObservedTask:
        """Return the record of a part that status does not show: a blank, or one that is over."""
        part = entry.part
        assert part is not None
        if not part.stored:
            return task_status.part(whole, key, {})
        ended, attempt = Phase.CANCELLED, entry.record.attempt
        if entry.outcome is not None and entry.outcome_tried and part.succeeding <= _account(whole).succeeded:
            ended, attempt = Phase.SUCCEEDED, entry.outcome.lease.attempt
        elif entry.ending is not None and entry.ending.phase.terminal:
            ended = entry.ending.phase
        return replace(entry.record, phase=ended, attempt=attempt, resource_version=whole.resource_version)

    def _end(self, entry: TaskEntry) -> Ending | None:
        """Return how the array ends, if it does by now. What runs of it yet is stopped first."""
        record, account, rules = entry.record, _account(entry.record), _view(entry).rules
        if record.cancel:
            told = f"cancelled: {len(account.succeeded)} of {rules.count} items succeeded"
            return Ending(Phase.CANCELLED, Reason.CANCELLED, told)
        if record.fault is not None:
            return Ending(Phase.FAILED, *record.fault)
        letter = self._state.queue_of(record).retry.on_exhausted is OnExhausted.DEAD_LETTER
        found = settling.end(account, rules, letter)
        if found is None or found[0] is Phase.SUCCEEDED:
            return None if found is None else Ending(*found)
        return Ending(*found, failures=record.failures)

    # --- blanks ---

    def _split(self, book: ArrayBook, now: Now) -> None:
        """Have as many blanks as there is work for, within the array's bounds."""
        entry = book.entry
        original = self._state.duplicates.original(entry.uid) if entry.record.idempotency is not None else None
        if original is not None:
            self._dependents.follow(entry, original, now)
            return
        there, alone = book.blanks(), bounds_waiting(self._state.queue_of(entry.record))
        running, left = len(book.parts) - len(there), self._left(book, now)
        wanted = blanks(left, book.sizes.next(left, running), running, _view(entry).rules.parallelism, alone=alone)
        for blank in there[wanted:]:
            self._view.forget(blank, now, final=False)
        for _ in range(wanted - len(there)):
            key = self._state.next_key()
            blank = TaskEntry(task_status.part(entry.record, key, {}), part=Part(entry.uid, key))
            self._state.tasks[blank.uid] = book.parts[key] = blank
            self._whole.advance(blank, now)
        due = min((each.not_before for each in book.again if each.not_before > now.wall), default=None)
        if due is None:
            return
        at = now.boot + due - now.wall + TICK_SECONDS
        if not now.boot < book.timer <= at:
            book.timer = at
            self._state.timers.add(at, TimerKind.ADVANCE, entry.uid)

    def keeps(self, entry: TaskEntry, part: Part, now: Now) -> bool:
        """A part waits without a lease: return whether it goes on. A blank for which no items are left is forgotten."""
        if part.stored:
            return True
        book = self._state.arrays[part.array]
        if part.items:  # its assignment was taken back
            part.items = EMPTY
            self._pool(book)
        whole = book.entry
        over = whole.record.phase.settled or whole.record.cancel or whole.record.fault is not None
        if over or whole.ending is not None or not self._left(book, now):
            self._view.forget(entry, now, final=False)
            return False
        return True

    def lets(self, entry: TaskEntry, part: Part, now: Now) -> bool:
        """Return whether a part may take its next step now. A blank for which an agent was found gets its items.

        A part whose array is being written waits for the answer: its next write is made of what stands then.
        """
        lease = entry.lease
        plain = entry.ending is None and entry.outcome is None and entry.deletion is Deletion.NONE and not entry.aside
        if self._state.is_closed(entry, now):
            return plain and lease is not None and lease.stage is LeaseStage.UNSENT
        if plain and lease is not None and lease.stage is LeaseStage.PLANNED and not (part.stored or part.items):
            return self._cut(self._state.arrays[part.array], entry, part, now)
        return True

    def _cut(self, book: ArrayBook, entry: TaskEntry, part: Part, now: Now) -> bool:
        """Give a blank its items: first of those that failed before and are due, then of those that were not tried."""
        running = sum(not is_blank(each) or each.lease is not None for each in book.parts.values())
        size = book.sizes.next(self._left(book, now), running)
        due = [each for each in book.again if each.not_before <= now.wall]
        if due:
            first = min(due, key=lambda each: (each.failures, each.not_before))
            part.items, part.failures = first.items.take(min(size, first.most or size)), first.failures
            book.again.remove(first)
            if rest := first.items - part.items:
                book.again.append(first._replace(items=rest))
        else:
            part.items, part.failures = book.untried.take(size), 0
            book.untried -= part.items
        if not part.items:
            self._view.forget(entry, now, final=False)
            return False
        self._state.arrays_again[part.array] = None  # it waits no more: perhaps another is to
        return True

    def _pool(self, book: ArrayBook) -> None:
        """Count anew which items wait and are in no part."""
        account = _account(book.entry.record)
        taken = IndexSet.union(part.items for part in _parts(book) if not part.stored or part.key not in account.parts)
        book.untried = account.untried - taken
        book.again = [each._replace(items=left) for each in account.again if (left := each.items - taken)]

    def _left(self, book: ArrayBook, now: Now) -> int:
        """Return how many items may be handed out now."""
        return len(book.untried) + sum(len(each.items) for each in book.again if each.not_before <= now.wall)


def _parts(book: ArrayBook) -> Sequence[Part]:
    return [each.part for each in book.parts.values() if each.part is not None]


def _view(entry: TaskEntry) -> ArrayView:
    assert entry.record.array is not None
    return entry.record.array


def _account(record: ObservedTask) -> accounts.Account:
    assert record.array is not None
    return record.array.account
