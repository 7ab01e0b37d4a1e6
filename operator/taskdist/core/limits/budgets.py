"""Budgets: amounts that Tasks of several queues share, held while an attempt runs, or spent when it starts.

Owns what is held and spent of each budget, and the words. A budget is defined by one queue; Tasks name it by that queue
and its own name. What is held is counted whatever the budget's kind, so that it is right when that changes. Emergency
Tasks wait for what others hold, but not for what comes with time: they overdraw it.

What is held goes to the first Task for which there is enough: `Short` holds an amount, whoever asks for it. What comes
with time goes by order: `NotYet` holds a level, whatever its Tasks ask for, and the first of them that could start on
it has a claim on all its rates. Refuses to know which Tasks a budget holds.
"""

from collections.abc import Iterable
from heapq import heappop, heappush

from taskdist.api import Reason
from taskdist.core.limits.blockers import Blocker, Book, Words
from taskdist.core.limits.token_bucket import Bucket, under
from taskdist.core.model import Budget, TokenRate


class Purse:
    """The usage of one budget: what is held, its bucket, its claim, and the amounts that are waited for."""

    __slots__ = ("book", "bucket", "claim", "held", "later", "missing", "name", "shorts", "users")

    def __init__(self, book: Book, name: str) -> None:
        """`book` is that of the queue that defines it, or should."""
        self.book = book
        self.name = name
        self.held = 0
        self.bucket: Bucket | None = None
        # How many Tasks that have not ended name it.
        self.users = 0
        # What holds Tasks now: by their amount, and if time brings what they lack by their level.
        self.shorts: dict[int, Short] = {}
        self.later: dict[int, NotYet] = {}
        self.missing: NoBudget | None = None
        # Whose turn it is, if time brings what is lacking.
        self.claim: Claim | None = None

    @property
    def terms(self) -> Budget | None:
        """Its definition; None if there is none."""
        return self.book.budgets.get(self.name)

    @property
    def rate(self) -> TokenRate | None:
        terms = self.terms
        return None if terms is None else terms.rate

    @property
    def path(self) -> str:
        return f"{self.book.rules.name}/{self.name}"

    def tokens(self, rate: TokenRate, now: float) -> Bucket:
        """Return what it may spend under its present terms."""
        self.bucket = bucket = under(self.bucket, rate, now)
        return bucket

    def lack(self, amount: int, emergency: bool) -> "NoBudget | Short | None":
        """Return what holds a Task that takes so much, unless time alone brings what is lacking."""
        terms = self.terms
        if terms is None:
            if self.missing is None:
                self.missing = NoBudget(self)
            return self.missing
        if terms.rate is None:
            short = terms.limit is not None and self.held + amount > terms.limit
        else:
            short = amount > terms.rate.burst and not emergency
        return (self.shorts.get(amount) or Short(self, amount)) if short else None

    def brings(self, amount: int, now: float) -> float:
        """Return when time has brought so much. Meant for rates; others are not waited for by time."""
        rate = self.rate
        return now if rate is None else self.tokens(rate, now).opens_at(float(amount))

    def has(self, amount: int, now: float) -> bool:
        """Whether time has brought so much."""
        rate = self.rate
        return rate is None or self.tokens(rate, now).has(float(amount), now)

    def take(self, amount: int, now: float, *, spend: bool) -> bool:
        """An attempt starts; `spend` False: it was started before this life. Return whether it has spent the amount."""
        self.held += amount
        rate = self.rate
        if not spend or rate is None:
            return False
        self.tokens(rate, now).take(now, float(amount))
        return True

    def give_back(self, amount: int, now: float, since: float) -> None:
        """So much was spent at `since` and not used; below zero: so much was used beyond what was spent."""
        rate = self.rate
        if rate is not None:
            self.tokens(rate, now).give_back(now, amount=float(amount), since=since)


class Claim:
    """Whose turn it is to take of some rates: a Task that only they keep waiting.

    None of its level or below takes of them before it has started, but those before it in its own share.
    """

    __slots__ = ("level", "name", "parts", "uid")

    def __init__(self, uid: str, name: str, level: int, parts: list[tuple[Purse, int]]) -> None:
        self.uid = uid
        self.name = name
        self.level = level
        self.parts = parts

    def opens_at(self, now: float) -> float:
        """Return when time has brought enough of all."""
        return max([purse.brings(amount, now) for purse, amount in self.parts])

    def open(self, now: float) -> bool:
        return all(purse.has(amount, now) for purse, amount in self.parts)


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
    """Less is left of what is held than is to be taken, or more is asked of a rate than there ever is."""

    __slots__ = ("amount", "purse")

    reason = Reason.BUDGET_SHORT
    by_budgets = True
    after_keys = True

    def __init__(self, purse: Purse, amount: int) -> None:
        super().__init__(purse.book, None)
        self.purse = purse
        self.amount = amount

    @property
    def limit(self) -> object:
        return self.purse

    def note(self, holds: bool) -> None:
        """It holds Tasks from now on, or none any more: amounts may be many, so only those are kept that do."""
        if holds:
            self.purse.shorts[self.amount] = self
        else:
            del self.purse.shorts[self.amount]

    @property
    def final(self) -> bool:
        terms = self.purse.terms
        most = None if terms is None else terms.limit if terms.rate is None else terms.rate.burst
        return most is not None and self.amount > most

    def open(self, _now: float) -> bool:
        return self.purse.lack(self.amount, False) is None

    def describe(self, now: float) -> Words:
        purse, amount = self.purse, self.amount
        terms, raised = purse.terms, _raised(purse)
        if terms is not None and terms.limit is not None:
            said = (
                f"The Task takes {amount} of the budget {purse.path}, of which {purse.held} of {terms.limit} are held."
            )
            if amount > terms.limit:
                return (said, f"It will never do for this Task: raise limit {raised} if there is more of it.")
            return (said, f"Wait for Tasks that hold it to end; if there is more of it, raise limit {raised}.")
        if terms is not None and terms.rate is not None:
            return (
                f"{_left(purse, terms.rate, amount, now)}.",
                f"It will never do for this Task: raise burst {raised} if there is more of it.",
            )
        return (f"The budget {purse.path} may have enough now.", "Wait.")


class NotYet(Blocker):
    """Time is yet to bring what Tasks of a level take of a rate, or what another one takes whose turn it is."""

    __slots__ = ("amount", "level", "purse", "uid")

    reason = Reason.BUDGET_SHORT
    by_budgets = True
    timed = True
    after_keys = True

    def __init__(self, purse: Purse, level: int, amount: int, uid: str = "") -> None:
        """`amount` is the least that is waited for; `uid` is whose, if only one asks."""
        super().__init__(purse.book, None)
        self.purse = purse
        self.level = level
        self.amount = amount
        self.uid = uid
        # No rate's name begins with a slash.
        self.name = "/".join(("", *purse.book.rules.key, purse.name, str(level)))

    @property
    def limit(self) -> object:
        return self.purse

    def note(self, holds: bool) -> None:
        """It holds Tasks from now on, or none any more."""
        if holds:
            self.purse.later[self.level] = self
        else:
            del self.purse.later[self.level]

    @property
    def claim(self) -> Claim | None:
        """The claim that its Tasks wait for."""
        claim = self.purse.claim
        return claim if claim is not None and self.level <= claim.level else None

    def open(self, now: float) -> bool:
        claim = self.claim
        return self.purse.has(self.amount, now) if claim is None else claim.open(now)

    def opens_at(self, now: float) -> float | None:
        claim = self.claim
        return self.purse.brings(self.amount, now) if claim is None else claim.opens_at(now)

    def describe(self, now: float) -> Words:
        purse, rate, claim = self.purse, self.purse.rate, self.claim
        if rate is None:
            return (f"The budget {purse.path} may have enough now.", "Wait.")
        said = _left(purse, rate, self.amount, now)
        opens = purse.brings(self.amount, now)
        if claim is not None and claim.uid != self.uid and claim.opens_at(now) > max(opens, now):
            opens = claim.opens_at(now)
            said += f". Task {claim.name} goes first"
        wait = max(0.0, opens - now)
        return (
            f"{said}: enough in {wait:.3g} s.",
            f"Wait {wait:.3g} s; if there is more of it, raise perSecond {_raised(purse)}.",
        )


def _left(purse: Purse, rate: TokenRate, amount: int, now: float) -> str:
    tokens = max(0.0, purse.tokens(rate, now).tokens(now))
    return (
        f"The Task takes {amount} of the budget {purse.path}, of which {tokens:.6g} of {rate.burst} are left and "
        f"{rate.per_second:g} come a second"
    )


def _raised(purse: Purse) -> str:
    return f"of the budget {purse.name} in spec.budgets of TaskQueue {purse.book.rules.name}"


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


def amount_taken(purse: Purse, budgets: Iterable[tuple[str, str, int]]) -> int:
    """Return how much of these amounts is of that budget."""
    for queue, name, amount in budgets:
        if name == purse.name and queue == purse.book.rules.name:
            return amount
    return 0
