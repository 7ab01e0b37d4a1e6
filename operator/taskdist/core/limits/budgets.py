"""Budgets: amounts that Tasks of several queues share, held while an attempt runs, or spent when it starts.

Owns what is held and spent of each budget, and the words. A budget is defined by one queue; Tasks name it by that queue
and its own name. What is held is counted whatever the budget's kind, so that it is right when that changes. Emergency
Tasks wait for what others hold, but not for what comes with time: they overdraw it.

What comes with time is for the first Task in order that only budgets keep waiting: it has a claim, and none of its
level or below takes of these budgets before it has started, but for those before it in its own share. So one that asks
for much does not wait for all that ask for less. Refuses to know which Tasks a budget holds: all that a tenant has of
one profile take of the same budgets, so that it holds them by groups where there is not enough for the one that takes
least.
"""

from collections.abc import Iterable
from heapq import heappop, heappush

from taskdist.api import Reason
from taskdist.core.limits.blockers import Blocker, Book, Words
from taskdist.core.limits.token_bucket import Bucket
from taskdist.core.model import Budget, TokenRate


class Purse:
    """The usage of one budget: what is held, its bucket, its claim, and the amounts that are waited for."""

    __slots__ = ("book", "bucket", "claim", "held", "missing", "name", "shorts", "users")

    def __init__(self, book: Book, name: str) -> None:
        """`book` is that of the queue that defines it, or should."""
        self.book = book
        self.name = name
        self.held = 0
        self.bucket: Bucket | None = None
        # How many Tasks that have not ended name it.
        self.users = 0
        # What holds Tasks, by their level and the amount that they take; the level only matters where time opens it.
        self.shorts: dict[tuple[int, int], Short] = {}
        # The Task for which what comes is kept.
        self.claim: Claim | None = None
        self.missing: NoBudget | None = None

    @property
    def terms(self) -> Budget | None:
        """Its definition; None if there is none."""
        return self.book.budgets.get(self.name)

    @property
    def path(self) -> str:
        return f"{self.book.rules.name}/{self.name}"

    def tokens(self, rate: TokenRate, now: float) -> Bucket:
        """Return what it may spend under its present terms."""
        bucket = self.bucket
        if bucket is None:
            bucket = self.bucket = Bucket(rate)
        elif bucket.rate is not rate:
            bucket.adopt(rate, now)
        return bucket

    def blocker(self, uid: str, level: int, amount: int, emergency: bool, now: float) -> Blocker | None:
        """Return what holds a Task of this level that takes so much; None if nothing does."""
        terms = self.terms
        if terms is None:
            if self.missing is None:
                self.missing = NoBudget(self)
            return self.missing
        if terms.rate is None:
            level = 0
        elif emergency:
            return None
        claim = self.claim
        behind = claim is not None and level <= claim.level and claim.uid != uid
        if not behind and self.enough(terms, amount, now):
            return None
        short = self.shorts.get((level, amount))
        if short is None:
            short = self.shorts[level, amount] = Short(self, level, amount)
        return short

    def enough(self, terms: Budget, amount: int, now: float) -> bool:
        """Whether so much may be taken."""
        if terms.limit is not None:
            return self.held + amount <= terms.limit
        if terms.rate is not None:
            return amount <= terms.rate.burst and self.tokens(terms.rate, now).has(float(amount), now)
        return True

    def there_at(self, amount: int, now: float) -> float | None:
        """Return when time has brought so much; None if time alone never does."""
        terms = self.terms
        if terms is None or terms.rate is None or amount > terms.rate.burst:
            return None
        return self.tokens(terms.rate, now).opens_at(float(amount))

    def take(self, amount: int, now: float, *, spend: bool) -> bool:
        """An attempt starts; `spend` False: it was started before this life. Return whether it has spent the amount."""
        self.held += amount
        terms = self.terms
        if not spend or terms is None or terms.rate is None:
            return False
        self.tokens(terms.rate, now).take(now, float(amount))
        return True

    def give_back(self, amount: int, now: float, since: float) -> None:
        """So much was spent at `since` and not used; below zero: so much was used beyond what was spent."""
        terms = self.terms
        if terms is not None and terms.rate is not None:
            self.tokens(terms.rate, now).give_back(now, amount=float(amount), since=since)


class Claim:
    """A Task's reservation of budgets: nobody of its level or below takes of them before it has started.

    Only those that go before it in its own share do.
    """

    __slots__ = ("level", "name", "parts", "uid")

    def __init__(self, uid: str, name: str, level: int, parts: list[tuple[Purse, int]]) -> None:
        self.uid = uid
        self.name = name
        self.level = level
        self.parts = parts

    def open(self, now: float) -> bool:
        """Whether there is enough of all."""
        for purse, amount in self.parts:
            terms = purse.terms
            if terms is None or not purse.enough(terms, amount, now):
                return False
        return True

    def opens_at(self, now: float) -> float | None:
        """Return when time has brought enough of all; None if it never does."""
        last = now
        for purse, amount in self.parts:
            at = purse.there_at(amount, now)
            if at is None:
                return None
            last = max(last, at)
        return last


class NoBudget(Blocker):
    """Nobody defines the budget."""

    __slots__ = ("purse",)

    reason = Reason.BUDGET_NOT_FOUND
    by_budgets = True
    after_keys = True

    def __init__(self, purse: Purse) -> None:
        super().__init__(purse.book, None)
        self.purse = purse

    @property
    def final(self) -> bool:
        return True

    def open(self, _now: float) -> bool:
        return self.purse.terms is not None

    def describe(self, _now: float) -> Words:
        purse = self.purse
        where = f"{self.queue} defines no budget {purse.name}"
        if not purse.book.applied:
            where = f"TaskQueue {purse.book.rules.name} does not exist"
        return (
            f"It takes of the budget {purse.path}, which is not there: {where}.",
            f"Add {purse.name} to spec.budgets of {self.queue}, or create the Task again with another budget.",
        )


class Short(Blocker):
    """Less is left of the budget than is to be taken, or another's claim comes first."""

    __slots__ = ("amount", "level", "purse", "seen")

    reason = Reason.BUDGET_SHORT
    by_budgets = True
    timed = True
    after_keys = True

    def __init__(self, purse: Purse, level: int, amount: int) -> None:
        super().__init__(purse.book, None)
        self.purse = purse
        self.level = level
        self.amount = amount
        # The decision in which the first of its Tasks that have room was judged last.
        self.seen = -1
        # No rate's name begins with a slash.
        self.name = "/".join(("", *purse.book.rules.key, purse.name, str(level), str(amount)))

    @property
    def limit(self) -> object:
        return self.purse

    @property
    def claim(self) -> Claim | None:
        """The claim, its own or another's, that its Tasks wait for."""
        claim = self.purse.claim
        return claim if claim is not None and self.level <= claim.level else None

    @property
    def rings(self) -> bool:
        """True if an alarm is to be set for it. Those behind another's claim are reported with that claim."""
        claim = self.claim
        if claim is None or self.level != claim.level:
            return claim is None
        return any(purse is self.purse and amount == self.amount for purse, amount in claim.parts)

    @property
    def final(self) -> bool:
        terms = self.purse.terms
        most = None if terms is None else terms.limit if terms.rate is None else terms.rate.burst
        return most is not None and self.amount > most

    @property
    def ever(self) -> bool:
        """True if the budget is a rate whose burst can cover this amount."""
        return self._of_rate and not self.final

    @property
    def never(self) -> bool:
        """True if the budget is a rate and the amount exceeds its burst: waiting is in vain."""
        return self._of_rate and self.final

    @property
    def _of_rate(self) -> bool:
        terms = self.purse.terms
        return terms is not None and terms.rate is not None

    def open(self, now: float) -> bool:
        terms, claim = self.purse.terms, self.claim
        if claim is not None and self.ever:
            return claim.open(now)
        return terms is not None and self.purse.enough(terms, self.amount, now)

    def opens_at(self, now: float) -> float | None:
        if not self.ever:
            return None
        claim = self.claim
        return self.purse.there_at(self.amount, now) if claim is None else claim.opens_at(now)

    def describe(self, now: float) -> Words:
        purse, amount = self.purse, self.amount
        terms, raised = purse.terms, f"of the budget {purse.name} in spec.budgets of {self.queue}"
        if terms is not None and terms.limit is not None:
            said = (
                f"The Task takes {amount} of the budget {purse.path}, of which {purse.held} of {terms.limit} are held."
            )
            if amount > terms.limit:
                return (said, f"It will never do for this Task: raise limit {raised} if there is more of it.")
            return (said, f"Wait for Tasks that hold it to end; if there is more of it, raise limit {raised}.")
        if terms is not None and terms.rate is not None:
            rate = terms.rate
            bucket = purse.tokens(rate, now)
            said = (
                f"The Task takes {amount} of the budget {purse.path}, of which {max(0.0, bucket.tokens(now)):.6g} of "
                f"{rate.burst} are left and {rate.per_second:g} come a second"
            )
            if amount > rate.burst:
                return (f"{said}.", f"It will never do for this Task: raise burst {raised} if there is more of it.")
            claim, opens = self.claim, self.opens_at(now)
            wait = max(0.0, bucket.opens_at(float(amount)) - now)
            if claim is not None and opens is not None and opens - now > wait:
                wait = opens - now
                said += f". Task {claim.name} goes first"
            return (
                f"{said}: enough in {wait:.3g} s.",
                f"Wait {wait:.3g} s; if there is more of it, raise perSecond {raised}.",
            )
        return (f"The budget {purse.path} may have enough now.", "Wait.")


class Amounts:
    """A multiset of amounts whose minimum is found at once: by how many lines each is taken."""

    __slots__ = ("_counts", "_heap")

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._heap: list[int] = []

    def add(self, amount: int) -> None:
        count = self._counts.get(amount, 0)
        self._counts[amount] = count + 1
        if not count:
            heappush(self._heap, amount)
            if len(self._heap) > 16 + 2 * len(self._counts):
                self._heap = sorted(self._counts)

    def remove(self, amount: int) -> None:
        count = self._counts[amount] - 1
        if count:
            self._counts[amount] = count
        else:
            del self._counts[amount]

    @property
    def least(self) -> int:
        """There must be one."""
        while self._heap[0] not in self._counts:
            heappop(self._heap)
        return self._heap[0]


def amount_taken(short: Short, budgets: Iterable[tuple[str, str, int]]) -> int:
    """Return how much of these amounts is of that budget."""
    purse = short.purse
    for queue, name, amount in budgets:
        if name == purse.name and queue == purse.book.rules.name:
            return amount
    return 0
