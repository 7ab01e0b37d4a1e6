"""Whether the counts of the limits are right: made anew from all Tasks and compared. Reads all, changes nothing."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from taskdist.core.limits.blockers import Book, Scope
from taskdist.core.limits.budgets import Purse
from taskdist.core.limits.ordering_keys import OrderingKeys, SequenceKey
from taskdist.core.model import EMERGENCY, Key, Task

K = TypeVar("K")
# waiting, leased, slots, payload bytes.
Counts = tuple[int, int, int, int]


def findings(
    tasks: Iterable[tuple[Task, bool]],
    books: Mapping[Key, Book],
    purses: Mapping[Key, Mapping[str, Purse]],
    turns: OrderingKeys,
) -> Iterator[str]:
    """Yield where the counts differ from the Tasks, each of which comes with whether it is leased."""
    queues: dict[Key, Counts] = {}
    tenants: dict[tuple[Key, str], Counts] = {}
    emergency: Counter[tuple[Key, str]] = Counter()
    keys: Counter[tuple[Key, str]] = Counter()
    ordered: dict[SequenceKey, tuple[set[str], int]] = {}
    budgets: dict[tuple[Key, str], tuple[int, int]] = {}
    for task, leased in tasks:
        for of, name, amount in task.budgets:
            users, taken = budgets.get(((task.namespace, of), name), (0, 0))
            budgets[(task.namespace, of), name] = (users + 1, taken + amount * leased)
        key, account = task.queue_key, (task.queue_key, task.tenant)
        queues[key] = _plus(queues.get(key), task, leased)
        tenants[account] = _plus(tenants.get(account), task, leased)
        emergency[account] += leased and task.priority >= EMERGENCY
        if leased and task.concurrency_key is not None:
            keys[key, task.concurrency_key] += 1
        if task.ordering_key is not None:
            uids, number = ordered.get((*key, task.ordering_key), (set(), 0))
            uids.add(task.uid)
            ordered[*key, task.ordering_key] = (uids, number + leased)
    yield from _differ("queue", {key: _counts(book) for key, book in books.items() if not _empty(book)}, queues)
    accounts = [(key, each) for key, book in books.items() for each in book.accounts.values() if not each.idle]
    yield from _differ("tenant", {(key, each.name): _counts(each) for key, each in accounts}, tenants)
    yield from _differ("Emergency of", {(key, each.name): each.emergency for key, each in accounts}, dict(emergency))
    held = {(key, use.key): use.held for key, book in books.items() for use in book.keys.values()}
    yield from _differ("concurrency key", held, dict(keys))
    yield from _differ("ordering key", dict(turns.sizes()), ordered)
    used = {(key, name): (purse.users, purse.held) for key, named in purses.items() for name, purse in named.items()}
    yield from _differ("budget", {key: counts for key, counts in used.items() if any(counts)}, budgets)
    for book in books.values():
        for blocker in book.watched:
            # Those of time are told by it.
            if blocker.opens_at(0.0) is None and blocker.open(0.0):
                said, _ = blocker.describe(0.0)
                yield f"a limit is open and was not reported: {said}"


def _empty(book: Book) -> bool:
    return all(account.idle for account in book.accounts.values())


def _counts(scope: Scope) -> Counts:
    return (scope.waiting, scope.leased, scope.slots, scope.payload_bytes)


def _plus(counts: Counts | None, task: Task, leased: bool) -> Counts:
    waiting, running, slots, payload = counts or (0, 0, 0, 0)
    return (
        waiting + (not leased),
        running + leased,
        slots + (task.slots if leased else 0),
        payload + task.payload_bytes,
    )


def _differ(what: str, books: Mapping[K, object], real: Mapping[K, object]) -> Iterator[str]:
    for key in sorted({*books, *real}, key=str):
        if books.get(key) != real.get(key):
            yield f"{what} {key} counts {books.get(key)}, but Tasks give {real.get(key)}"
