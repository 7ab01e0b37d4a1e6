"""Accounts of shared budgets: the usage of each, the spending of each attempt, the claims of waiting Tasks.

`limits` asks it and judges. Says when a limit that
held some may hold them no longer.
"""

from collections.abc import Iterable

from taskdist.core.limits.active import ActiveBlockers
from taskdist.core.limits.blockers import Blocker, Book
from taskdist.core.limits.budgets import Claim, Purse, Short
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
        # What is kept of budgets for waiting Tasks, by uid; and how often `due` was asked.
        self.claims: dict[str, Claim] = {}
        self.decision = 0

    def due(self, now: float) -> list[Blocker]:
        """Return what holds no Task any more since the last call, or may not by now: a decision begins."""
        self.decision += 1
        active = self._active
        if not active.closed and not active.timed:
            return []
        opened = active.take_closed()
        while (blocker := active.ring(now)) is not None:
            claim = blocker.claim if isinstance(blocker, Short) else None
            if claim is None:
                opened.append(active.report(blocker))
            elif claim.open(now):
                opened += self.behind(claim)
            else:
                active.wait(blocker, now)
        return opened

    def rivals(self, task: Task, level: int) -> list[Blocker]:
        """Report what holds Tasks that are to be judged before this one takes of its budgets.

        These are those that wait for the same and were not judged in this decision: since they were set aside they may
        have got room on an agent.
        """
        found: list[Blocker] = []
        for queue, name, _ in task.budgets:
            purse = self.purse(task, queue, name)
            for short in list(purse.shorts.values()) if purse.shorts else ():
                waits = short.watched and short.ever and short.level >= level
                if waits and short.seen != self.decision and short.claim is None:
                    found.append(self._active.report(short))
        return found

    def drop_claim(self, uid: str) -> list[Blocker]:
        """Drop the Task's claim. Return the blockers that may have opened: all behind it."""
        return self._drop(self.claims[uid])

    def least(self, short: Short, amount: int, now: float) -> Blocker | None:
        """Return what holds a Task beside one that was judged now, if it takes so much; None if nothing does."""
        if amount == short.amount:
            return short
        found = short.purse.blocker("", short.level, amount, False, now)
        if isinstance(found, Short):
            found.seen = short.seen
        if found is not None:
            self._active.hand_out(found, now)
        return found

    def spare(self, short: Short) -> None:
        """Withdraw the blocker: nothing was parked under it. It stays only as the alarm of a claim."""
        if short.claim is None or not short.rings:
            self._active.report(short)

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

    def opened(self, purse: Purse, now: float) -> list[Blocker]:
        """Report what lets some Task go that it held."""
        claim = purse.claim
        if claim is not None and claim.open(now):
            return self.behind(claim)
        return [self._active.report(each) for each in list(purse.shorts.values()) if each.watched and each.open(now)]

    def settle_up(self, purse: Purse, amount: int, now: float, since: float) -> list[Blocker]:
        """Return so much of what was spent at `since` to the budget; below zero: take so much more."""
        purse.give_back(amount, now, since)
        opened = self.opened(purse, now)
        self.await_all(purse, now)
        return opened

    def may_claim(self, task: Task, level: int, now: float) -> bool:
        """Whether nothing but time keeps the budgets from the Task, and no claim of others of its level or above."""
        for queue, name, amount in task.budgets:
            purse = self.purse(task, queue, name)
            terms, claim = purse.terms, purse.claim
            if terms is None or (terms.rate is None and not purse.enough(terms, amount, now)):
                return False
            if terms.rate is not None and amount > terms.rate.burst:
                return False
            if claim is not None and claim.level >= level and claim.uid != task.uid:
                return False
        return True

    def claim(self, task: Task, level: int, now: float) -> None:
        """Keep for the Task what it takes of every rate: while it waits for one, others must not use up the next.

        Who of a lower level had a claim on one of them has it no more, and loses it on the others in `claim_stands`.
        """
        purses = [(self.purse(task, queue, name), amount) for queue, name, amount in task.budgets]
        parts = [
            (purse, amount) for purse, amount in purses if purse.terms is not None and purse.terms.rate is not None
        ]
        claim = self.claims[task.uid] = Claim(task.uid, task.name, level, parts)
        for purse, _ in parts:
            purse.claim = claim
        self.await_all(parts[0][0], now)

    def _drop(self, claim: Claim) -> list[Blocker]:
        """Drop the claim, as its Task has started or it was in vain. Report all that waited for it."""
        opened = self.behind(claim)
        for purse, _ in claim.parts:
            if purse.claim is claim:
                purse.claim = None
        if self.claims.get(claim.uid) is claim:
            del self.claims[claim.uid]
        return opened

    def behind(self, claim: Claim) -> list[Blocker]:
        """Report all that waits for the claim, the Task itself and those that may go before it among them."""
        opened: list[Blocker] = []
        for purse, _ in claim.parts:
            behind = [each for each in purse.shorts.values() if each.watched and each.ever and each.claim is claim]
            opened += [self._active.report(each) for each in behind]
        return opened

    def await_all(self, purse: Purse, now: float) -> None:
        """Set the alarms of this purse anew, and of all purses of its claim: the amount left has changed."""
        claim = purse.claim
        for each, _ in ((purse, 0),) if claim is None else claim.parts:
            for short in each.shorts.values():
                if short.watched:
                    self._active.wait(short, now)

    def forget_purses(self, book: Book) -> None:
        """Forget budgets that nobody defines and no Task names. Who was held there is gone."""
        key = book.rules.key
        purses = self.purses.get(key, {})
        for name, purse in list(purses.items()):
            if purse.users or purse.terms is not None:
                continue
            self._active.closed += [self._active.report(each) for each in list(purse.shorts.values()) if each.watched]
            if purse.missing is not None and purse.missing.watched:
                self._active.closed.append(self._active.report(purse.missing))
            del purses[name]
        if not purses:
            self.purses.pop(key, None)
            if not book.accounts and not book.applied:
                self._books.pop(key, None)
