"""Budgets: amounts that Tasks of several queues share, held while an attempt runs, or spent when it starts.

Owns what is held and spent of each budget, and the words. A budget is defined by one queue; Tasks name it by that queue
and its own name. What is held is counted whatever the budget's kind, so that it is right when that changes. Emergency
Tasks wait for what others hold, but not for what comes with time: they overdraw it. Refuses to know which Tasks it
holds: those of one shape take the same, so that it holds them by lines.
"""

from taskdist.api import Reason
from taskdist.core.blockers import Blocker, Book, Words
from taskdist.core.model import Budget, TokenRate
from taskdist.core.rates import Bucket


class Purse:
    """What is there of one budget."""

    __slots__ = ("book", "bucket", "held", "missing", "name", "shorts", "users")

    def __init__(self, book: Book, name: str) -> None:
        """`book` is that of the queue that defines it, or should."""
        self.book = book
        self.name = name
        self.held = 0
        self.bucket: Bucket | None = None
        # How many Tasks that have not ended name it.
        self.users = 0
        # What holds Tasks, by the amount that they take.
        self.shorts: dict[int, Short] = {}
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

    def blocker(self, amount: int, emergency: bool, now: float) -> Blocker | None:
        """Return what holds a Task that takes so much; None if nothing does."""
        terms = self.terms
        if terms is None:
            if self.missing is None:
                self.missing = NoBudget(self)
            return self.missing
        if emergency and terms.rate is not None:
            return None
        if self.enough(terms, amount, now):
            return None
        short = self.shorts.get(amount)
        if short is None:
            short = self.shorts[amount] = Short(self, amount)
        return short

    def enough(self, terms: Budget, amount: int, now: float) -> bool:
        """Whether so much may be taken."""
        if terms.limit is not None:
            return self.held + amount <= terms.limit
        if terms.rate is not None:
            return amount <= terms.rate.burst and self.tokens(terms.rate, now).has(float(amount), now)
        return True

    def take(self, amount: int, now: float, *, spend: bool) -> bool:
        """An attempt starts; `spend` False: it was started before this life. Return whether it has spent the amount."""
        self.held += amount
        terms = self.terms
        if not spend or terms is None or terms.rate is None:
            return False
        self.tokens(terms.rate, now).take(now, float(amount))
        return True

    def give_back(self, amount: int, now: float) -> None:
        """So much was spent and not used; below zero: so much was used beyond what was spent."""
        terms = self.terms
        if terms is not None and terms.rate is not None:
            self.tokens(terms.rate, now).give_back(now, float(amount))


class NoBudget(Blocker):
    """Nobody defines the budget."""

    __slots__ = ("purse",)

    reason = Reason.BUDGET_NOT_FOUND
    by_line = True

    def __init__(self, purse: Purse) -> None:
        super().__init__(purse.book, None)
        self.purse = purse

    def open(self, now: float) -> bool:
        return self.purse.terms is not None

    def describe(self, now: float) -> Words:
        purse = self.purse
        where = f"{self.queue} defines no budget {purse.name}"
        if not purse.book.applied:
            where = f"TaskQueue {purse.book.rules.name} does not exist"
        return (
            f"It takes of the budget {purse.path}, which is not there: {where}.",
            f"Add {purse.name} to spec.budgets of {self.queue}, or create the Task again with another budget.",
        )


class Short(Blocker):
    """Less is left of the budget than is to be taken."""

    __slots__ = ("amount", "purse")

    reason = Reason.BUDGET_SHORT
    by_line = True
    timed = True

    def __init__(self, purse: Purse, amount: int) -> None:
        super().__init__(purse.book, None)
        self.purse = purse
        self.amount = amount
        # No rate's name begins with a slash.
        self.name = "/".join(("", *purse.book.rules.key, purse.name, str(amount)))

    def open(self, now: float) -> bool:
        terms = self.purse.terms
        return terms is not None and self.purse.enough(terms, self.amount, now)

    def opens_at(self, now: float) -> float | None:
        terms = self.purse.terms
        if terms is None or terms.rate is None or self.amount > terms.rate.burst:
            return None
        return self.purse.tokens(terms.rate, now).opens_at(float(self.amount))

    def describe(self, now: float) -> Words:
        purse, amount = self.purse, self.amount
        terms, raised = purse.terms, f"of the budget {purse.name} in spec.budgets of {self.queue}"
        if terms is not None and terms.limit is not None:
            said = (
                f"The Task takes {amount} of the budget {purse.path}, of which {purse.held} of {terms.limit} are held."
            )
            if amount > terms.limit:
                return (said, f"Raise limit {raised}: it will never do for this Task.")
            return (said, f"Wait for Tasks that hold it to end, or raise limit {raised}.")
        if terms is not None and terms.rate is not None:
            rate = terms.rate
            bucket = purse.tokens(rate, now)
            said = (
                f"The Task takes {amount} of the budget {purse.path}, of which {max(0.0, bucket.tokens(now)):.6g} of "
                f"{rate.burst} are left and {rate.per_second:g} come a second"
            )
            if amount > rate.burst:
                return (f"{said}.", f"Raise burst {raised}: it will never do for this Task.")
            wait = max(0.0, bucket.opens_at(float(amount)) - now)
            return (f"{said}: enough in {wait:.3g} s.", f"Wait {wait:.3g} s, or raise perSecond {raised}.")
        return (f"The budget {purse.path} may have enough now.", "Wait.")
