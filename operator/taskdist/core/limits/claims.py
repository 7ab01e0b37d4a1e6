"""Accounts of shared budgets: the usage of each, the spending of each attempt, whose turn it is at each rate.

`limits` asks it and judges. Says when a budget that held some may hold them no longer. Refuses to know who has room,
and what else holds a Task: whoever calls `claim` and `drop_claim` does.
"""

from collections.abc import Iterable

from taskdist.core.limits.active import ActiveBlockers
from taskdist.core.limits.blockers import Blocker, Book
from taskdist.core.limits.budgets import Claim, NotYet, Purse
from taskdist.core.model import Key, Queue, Task


class Claims:
    """Usage and claims of all budgets. A budget that no queue defines holds every Task that names it."""

    def __init__(self, books: dict[Key, Book], active: ActiveBlockers) -> None:
        """`books` are those of all queues, by key: one is made where a Task names a queue that is not there."""
        self._books = books
        self._active = active
        # By queue and name: what is there of the budgets that Tasks have named.
        self.purses: dict[Key, dict[str, Purse]] = {}
        # What leased attempts have spent of budgets, by uid, queue and name: none that was granted in another life.
        self.spent: dict[str, dict[tuple[str, str], int]] = {}
        # When leased attempts took tokens, by uid: as above.
        self.took: dict[str, float] = {}
        # By uid of the Task whose turn it is.
        self.claims: dict[str, Claim] = {}

    def due(self, now: float) -> list[Blocker]:
        """Return what holds no Task any more since the last call, or may not by now."""
        active = self._active
        if not active.closed and not active.timed:
            return []
        opened = active.take_closed()
        while (blocker := active.ring(now)) is not None:
            if blocker.open(now):
                opened.append(active.report(blocker))
            else:
                active.wait(blocker, now)
        return opened

    # Rates.

    def rates(self, task: Task) -> list[tuple[Purse, int]]:
        """Return what the Task takes of rates."""
        purses = [(self.purse(task, queue, name), amount) for queue, name, amount in task.budgets]
        return [(purse, amount) for purse, amount in purses if purse.rate is not None]

    def not_yet(self, task: Task, uid: str, level: int, now: float) -> NotYet | None:
        """Return what holds the Task until time has brought enough; None if it has. `uid`: whose claim is its own."""
        rates = self.rates(task)
        for purse, amount in rates:
            claim = purse.claim
            if claim is not None and level <= claim.level and claim.uid != uid:
                return NotYet(purse, level, amount, uid)
        for purse, amount in rates:
            if not purse.has(amount, now):
                return NotYet(purse, level, amount, uid)
        return None

    def of_level(self, found: NotYet, now: float) -> NotYet:
        """Return the one that holds all of its level."""
        one = found.purse.later.get(found.level)
        if one is None:
            return found
        if found.amount < one.amount:
            one.amount = found.amount
            self._active.wait(one, now)
        return one

    def rivals(self, task: Task, level: int) -> list[Blocker]:
        """Report what holds Tasks of its level or above that wait for no claim: they may have got room since."""
        return [
            self._active.report(each)
            for purse, _ in self.rates(task)
            for each in list(purse.later.values())
            if each.level >= level and each.claim is None
        ]

    def claim(self, task: Task, level: int, now: float) -> list[Blocker]:
        """Give the Task the turn at all its rates: while it waits for one, others must not use up the next.

        Return what held those behind claims of lower levels, which end by that.
        """
        opened: list[Blocker] = []
        rates = self.rates(task)
        for purse, _ in rates:
            if purse.claim is not None:
                opened += self.drop_claim(purse.claim)
        claim = self.claims[task.uid] = Claim(task.uid, task.name, level, rates)
        for purse, _ in rates:
            purse.claim = claim
        self.await_all(rates[0][0], now)
        return opened

    def drop_claim(self, claim: Claim) -> list[Blocker]:
        """Its Task has started, or waits for something else. Report what holds all behind it."""
        del self.claims[claim.uid]
        for purse, _ in claim.parts:
            purse.claim = None
        behind = [each for purse, _ in claim.parts for each in purse.later.values() if each.level <= claim.level]
        return [self._active.report(each) for each in behind]

    def await_all(self, purse: Purse, now: float) -> None:
        """What is left of the rate is another amount now: set its alarms anew, and those of its claim."""
        for each in self._awaited(purse):
            self._active.wait(each, now)

    def settle_up(self, purse: Purse, amount: int, now: float, since: float) -> list[Blocker]:
        """Return so much of what was spent at `since` to the budget; below zero: take so much more."""
        purse.give_back(amount, now, since)
        opened = [self._active.report(each) for each in self._awaited(purse) if each.open(now)]
        self.await_all(purse, now)
        return opened

    def _awaited(self, purse: Purse) -> list[NotYet]:
        purses = [purse] if purse.claim is None else [each for each, _ in purse.claim.parts]
        return [each for one in purses for each in one.later.values()]

    # Accounts.

    def correct(self, task: Task, used: Iterable[tuple[str, str, int]], now: float) -> list[Blocker]:
        """Charge what the leased attempt used in place of what it spent at its grant. Return what may have opened."""
        spent = self.spent.get(task.uid)
        opened: list[Blocker] = []
        if spent is None:
            return opened
        for queue, name, amount in used:
            before = spent.get((queue, name))
            if before is not None and before != amount:
                spent[queue, name] = amount
                purse = self.purse(task, queue, name)
                opened += self.settle_up(purse, before - amount, now, self.took[task.uid])
        return opened

    def purse(self, task: Task, queue: str, name: str) -> Purse:
        key = (task.namespace, queue)
        purses = self.purses.get(key)
        if purses is None:
            purses = self.purses[key] = {}
        purse = purses.get(name)
        if purse is None:
            book = self._books.get(key)
            if book is None:
                book = self._books[key] = Book(Queue(*key), applied=False)
            purse = purses[name] = Purse(book, name)
        return purse

    def given_back(self, purse: Purse, amount: int, now: float) -> list[Blocker]:
        """So much is held no more. Report what lets some Task go by that."""
        purse.held -= amount
        return [self._active.report(each) for each in list(purse.shorts.values()) if each.open(now)]

    def forget_purses(self, book: Book) -> None:
        """Forget budgets that nobody defines and no Task names. Who was held there is gone."""
        key = book.rules.key
        purses = self.purses.get(key, {})
        for name, purse in list(purses.items()):
            if purse.users or purse.terms is not None:
                continue
            holding: list[Blocker | None] = [*purse.shorts.values(), *purse.later.values(), purse.missing]
            self._active.closed += [self._active.report(each) for each in holding if each is not None and each.watched]
            del purses[name]
        if not purses:
            self.purses.pop(key, None)
            if not book.accounts and not book.applied:
                self._books.pop(key, None)
