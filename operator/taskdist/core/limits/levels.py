"""What is left of a queue's rates and budgets: told where others can read it, and taken in again from there.

Owns the names that limits have in a queue's status. Refuses to decide when it is told.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from taskdist.core.limits.blockers import Book, Scope
from taskdist.core.limits.budgets import Purse
from taskdist.core.limits.token_bucket import Bucket
from taskdist.core.model import TokenRate

RATE: Final = "rate.queue"
TENANT: Final = "rate.perTenant"
BUDGET: Final = "budgets/"
# The most tenants of a queue whose fill levels are told: those with least left.
TENANTS: Final = 16


@dataclass(frozen=True, slots=True)
class Level:
    """The fill level of a rate or budget at a time (wall clock, seconds): what was left of it.

    `name` says which limit of the queue's spec it is.

    `per_second` of it come back, up to `capacity`; 0 where it comes back with the end of attempts.
    """

    name: str
    level: float
    capacity: int
    per_second: float
    at: float

    def expected(self, now: float) -> float:
        """Return what is left later if nothing more is taken."""
        return min(float(self.capacity), self.level + max(0.0, now - self.at) * self.per_second)


def levels(book: Book, purses: Mapping[str, Purse], now: float) -> tuple[Level, ...]:
    """Return what is left of each rate and budget that the queue defines."""
    rules = book.rules
    found: list[Level] = []
    if rules.rate is not None:
        found.append(_of_bucket(RATE, book.bucket, rules.rate, now))
    if rules.tenant_rate is not None:
        tenants = [
            _of_bucket(f"{TENANT}/{account.name}", account.bucket, rules.tenant_rate, now)
            for account in book.accounts.values()
            if account.bucket is not None
        ]
        told = sorted(tenants, key=lambda each: (each.level, each.name))[:TENANTS]
        found += sorted(told, key=lambda each: each.name)
        if len(told) == len(tenants):
            # Each of the others has its burst.
            found.append(_of_bucket(TENANT, None, rules.tenant_rate, now))
    for budget in rules.budgets:
        purse = purses.get(budget.name)
        if budget.rate is not None:
            bucket = None if purse is None else purse.bucket
            found.append(_of_bucket(f"{BUDGET}{budget.name}", bucket, budget.rate, now))
        elif budget.limit is not None:
            left = budget.limit - (0 if purse is None else purse.held)
            found.append(Level(f"{BUDGET}{budget.name}", float(left), budget.limit, 0.0, now))
    return tuple(found)


def recall(book: Book, purses: Mapping[str, Purse], told: Iterable[Level]) -> None:
    """Restore the fill levels of rates that the queue still has. Amounts that Tasks hold are counted from these."""
    rules = book.rules
    rates = {each.name: each.rate for each in rules.budgets}
    for each in told:
        if each.name == RATE and rules.rate is not None:
            _fill(book, rules.rate, each)
        elif each.name.startswith(f"{TENANT}/") and rules.tenant_rate is not None:
            account = book.accounts.get(each.name.removeprefix(f"{TENANT}/"))
            if account is not None:
                _fill(account, rules.tenant_rate, each)
        elif each.name.startswith(BUDGET):
            name = each.name.removeprefix(BUDGET)
            rate, purse = rates.get(name), purses.get(name)
            if rate is not None and purse is not None:
                purse.tokens(rate, each.at).fill(each.level, each.at)


def _fill(scope: Scope, rate: TokenRate, told: Level) -> None:
    scope.tokens(rate, told.at).fill(told.level, told.at)


def _of_bucket(name: str, bucket: Bucket | None, rate: TokenRate, now: float) -> Level:
    left = float(rate.burst) if bucket is None else min(float(rate.burst), bucket.tokens(now))
    return Level(name, left, rate.burst, rate.per_second, now)
