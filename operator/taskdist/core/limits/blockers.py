"""Limits as things that hold Tasks: what each counts, when it lets go, and what it says of itself.

One object stands for one limit of one queue, tenant or key, for as long as it is used; identity is all that tells them
apart. Owns the words. Refuses to know which Tasks it holds.
"""

from abc import ABC, abstractmethod
from math import inf
from sys import maxsize
from typing import ClassVar

from taskdist.api import Reason
from taskdist.core import model
from taskdist.core.limits.token_bucket import Bucket, under
from taskdist.core.model import Queue, TokenRate

# The message, and what would unblock a Task.
Words = tuple[str, str]


class Scope:
    """The usage of one queue, or of one tenant in it, with its token bucket and the limits that held Tasks."""

    __slots__ = ("bucket", "few", "full", "leased", "no_token", "payload_bytes", "slots", "slots_full", "waiting")

    def __init__(self) -> None:
        self.waiting = 0
        self.leased = 0
        self.slots = 0
        self.payload_bytes = 0
        self.bucket: Bucket | None = None
        # Its limits, once they have held a Task.
        self.full: FullQuota | None = None
        self.slots_full: FullSlots | None = None
        self.few: FewSlots | None = None
        self.no_token: NoToken | None = None

    @property
    def bounds(self) -> model.Quota:
        """Its quotas."""
        return self.book.rules.quota

    @property
    def rate(self) -> TokenRate | None:
        return self.book.rules.rate

    @property
    def path(self) -> str:
        """Where in the queue's spec its quotas stand."""
        return "spec.quota"

    @property
    def rate_path(self) -> str:
        return "spec.rate.queue"

    @property
    def book(self) -> "Book":
        """Its queue's."""
        assert isinstance(self, Book)
        return self

    @property
    def tenant(self) -> str | None:
        return None

    def __str__(self) -> str:
        return f"Queue {self.book.rules.name}"

    def held(self, bounds: model.Quota, slots: int) -> "Blocker | None":
        """Return which quota forbids that a Task of so many slots starts; None if none does."""
        if bounds.leased is not None and self.leased >= bounds.leased:
            if self.full is None:
                self.full = FullQuota(self)
            return self.full
        if bounds.slots is not None and self.slots + slots > bounds.slots:
            if slots > bounds.slots:
                if self.few is None:
                    self.few = FewSlots(self)
                return self.few
            if self.slots_full is None:
                self.slots_full = FullSlots(self)
            return self.slots_full
        return None

    def room(self) -> int:
        """Return how many more Tasks its quotas let run at most."""
        bounds = self.bounds
        leased = maxsize if bounds.leased is None else bounds.leased - self.leased
        slots = maxsize if bounds.slots is None else bounds.slots - self.slots
        return max(0, min(leased, slots))

    def tokens(self, rate: TokenRate, now: float) -> Bucket:
        """Return the bucket under its present terms."""
        self.bucket = bucket = under(self.bucket, rate, now)
        return bucket


class Book(Scope):
    """The usage of one queue: in all, by tenant (`accounts`) and by concurrency key (`keys`), with its rules."""

    __slots__ = (
        "accounts",
        "applied",
        "budgets",
        "keys",
        "limited",
        "most_waiting",
        "rules",
        "tenant_most_waiting",
        "watched",
    )

    def __init__(self, rules: Queue, *, applied: bool) -> None:
        super().__init__()
        # Whether these are the queue's own rules, or defaults because it does not exist.
        self.applied = applied
        self.rules = rules
        self.accounts: dict[str, Account] = {}
        self.keys: dict[str, KeyUse] = {}
        # By name: the budgets that are defined.
        self.budgets: dict[str, model.Budget] = {}
        # Blockers that were handed out since they last were reported.
        self.watched: dict[Blocker, None] = {}
        # More than so many that wait are too many, of all and of a tenant.
        self.most_waiting = self.tenant_most_waiting = inf
        # Whether there is anything to ask about at a grant, besides keys and the level Emergency.
        self.limited = False
        self.apply(rules)

    def full_keys(self) -> "list[FullKey]":
        """Return the concurrency keys that are held as often as may be, as what holds Tasks."""
        found: list[FullKey] = []
        for use in self.keys.values():
            if use.held >= self.rules.concurrency_limit:
                if use.blocker is None:
                    use.blocker = FullKey(use)
                found.append(use.blocker)
        return found

    def apply(self, rules: Queue) -> None:
        self.rules = rules
        self.budgets = {each.name: each for each in rules.budgets}
        full = rules.overflow.high_water if rules.overflow is not None else None
        self.most_waiting = min((each for each in (rules.quota.waiting, full) if each is not None), default=inf)
        self.tenant_most_waiting = inf if rules.tenant_quota.waiting is None else rules.tenant_quota.waiting
        bounds = (rules.quota.leased, rules.quota.slots, rules.tenant_quota.leased, rules.tenant_quota.slots)
        self.limited = any(each is not None for each in (*bounds, rules.rate, rules.tenant_rate))


class Account(Scope):
    """The usage of one tenant of one queue."""

    __slots__ = ("emergency", "emergency_full", "forbidden", "idle", "name", "of")

    def __init__(self, book: Book, tenant: str) -> None:
        super().__init__()
        self.of = book
        self.name = tenant
        # Leased Tasks of that level.
        self.emergency = 0
        self.emergency_full: FullEmergency | None = None
        self.forbidden: Forbidden | None = None
        # Kept although empty, for its bucket.
        self.idle = False

    @property
    def book(self) -> Book:
        return self.of

    @property
    def tenant(self) -> str:
        return self.name

    @property
    def bounds(self) -> model.Quota:
        return self.of.rules.tenant_quota

    @property
    def rate(self) -> TokenRate | None:
        return self.of.rules.tenant_rate

    @property
    def path(self) -> str:
        return "spec.quota.perTenant"

    @property
    def rate_path(self) -> str:
        return "spec.rate.perTenant"

    def __str__(self) -> str:
        return f"Tenant {self.name} of queue {self.of.rules.name}"

    def watched_blockers(self) -> "list[Blocker]":
        """Return the tenant's own limits that hold Tasks."""
        if not self.of.watched:
            return []
        own = (self.full, self.slots_full, self.few, self.no_token, self.emergency_full, self.forbidden)
        return [each for each in own if each is not None and each.watched]


class KeyUse:
    """How many leased Tasks of one queue have one concurrency key."""

    __slots__ = ("blocker", "book", "held", "key")

    def __init__(self, book: Book, key: str) -> None:
        self.book = book
        self.key = key
        self.held = 0
        self.blocker: FullKey | None = None


class Blocker(ABC):
    """A limit that holds Tasks: those of its tenant, unless that is None.

    `watched`: it was handed out and not yet reported, so some Task may be parked under it.
    `whole`: it parks a share, group or line; else single Tasks.
    `by_slots`, `by_budgets`: it holds only profiles that ask for as many slots, or take of the budget.
    `timed`: time alone opens it, by the alarm `name`.
    `after_keys`: it is asked only once the Task's concurrency key is free.
    """

    __slots__ = ("book", "name", "tenant", "watched")

    reason: ClassVar[Reason] = Reason.QUOTA_EXCEEDED
    whole: ClassVar[bool] = True
    by_slots: ClassVar[bool] = False
    by_budgets: ClassVar[bool] = False
    timed: ClassVar[bool] = False
    after_keys: ClassVar[bool] = False

    def __init__(self, book: Book, tenant: str | None) -> None:
        self.book = book
        self.name = ""
        self.tenant = tenant
        self.watched = False

    @property
    def limit(self) -> object:
        """The thing that is used up: one object for all blockers that wait for the same."""
        return self

    @property
    def queue(self) -> str:
        return f"TaskQueue {self.book.rules.name}"

    @property
    def final(self) -> bool:
        """Whether waiting is in vain: it lets the Task go only once the limit itself is another."""
        return False

    @abstractmethod
    def open(self, now: float) -> bool:
        """Whether it lets some Task go that it held."""

    def opens_at(self, _now: float) -> float | None:
        """Return when time alone opens it; None if it does not."""
        return None

    @abstractmethod
    def describe(self, now: float) -> Words:
        """Return what is used up, of what and whose, and what would unblock a Task."""


class FullQuota(Blocker):
    """As many Tasks run as may."""

    __slots__ = ("scope",)

    def __init__(self, scope: Scope) -> None:
        super().__init__(scope.book, scope.tenant)
        self.scope = scope

    def open(self, _now: float) -> bool:
        return _room(self.scope.leased, self.scope.bounds.leased, 1)

    def describe(self, _now: float) -> Words:
        scope = self.scope
        return (
            f"{scope} runs {scope.leased} of at most {scope.bounds.leased} Tasks.",
            f"Wait for one of them to end, or raise {scope.path}.leased of {self.queue}.",
        )


class FullSlots(Blocker):
    """As many slots are occupied as may be, or fewer are left than are asked for."""

    __slots__ = ("least", "scope")

    by_slots = True

    def __init__(self, scope: Scope) -> None:
        super().__init__(scope.book, scope.tenant)
        self.scope = scope
        # The fewest slots that any Task asked for in vain.
        self.least = 0

    def want(self, slots: int) -> None:
        self.least = min(self.least, slots) if self.watched else slots

    def open(self, _now: float) -> bool:
        return _room(self.scope.slots, self.scope.bounds.slots, self.least)

    def describe(self, _now: float) -> Words:
        scope = self.scope
        return (
            f"{scope} occupies {scope.slots} of at most {scope.bounds.slots} slots.",
            f"Wait for Tasks to end, or raise {scope.path}.slots of {self.queue}.",
        )


class FewSlots(Blocker):
    """More slots are asked for than may be occupied in all."""

    __slots__ = ("scope",)

    by_slots = True

    def __init__(self, scope: Scope) -> None:
        super().__init__(scope.book, scope.tenant)
        self.scope = scope

    @property
    def final(self) -> bool:
        return True

    def open(self, _now: float) -> bool:
        # Only another quota lets such a Task go; then all limits of the queue are reported anyway.
        return False

    def describe(self, _now: float) -> Words:
        scope = self.scope
        return (
            f"{scope} may occupy {scope.bounds.slots} slots in all: the Task asks for more.",
            f"Raise {scope.path}.slots of {self.queue}, or create the Task again with fewer slots.",
        )


class Forbidden(Blocker):
    """The tenant may not use the level Emergency."""

    __slots__ = ()

    reason = Reason.TENANT_NOT_ALLOWED

    @property
    def final(self) -> bool:
        return True

    def open(self, _now: float) -> bool:
        return self.tenant in self.book.rules.emergency

    def describe(self, _now: float) -> Words:
        return (
            f"Tenant {self.tenant} may not use the level Emergency in queue {self.book.rules.name}.",
            f"Lower the Task's priority, or add the tenant to spec.tenants.emergency of {self.queue}.",
        )


class FullEmergency(Blocker):
    """As many Tasks of the level Emergency run as the tenant may have."""

    __slots__ = ("account",)

    def __init__(self, account: Account) -> None:
        super().__init__(account.book, account.tenant)
        self.account = account

    def open(self, _now: float) -> bool:
        return self.account.emergency < self.book.rules.emergency_leased

    def describe(self, _now: float) -> Words:
        account = self.account
        return (
            f"{account} runs {account.emergency} of at most {self.book.rules.emergency_leased} Tasks of the level "
            "Emergency.",
            f"Wait for one of them to end, or raise spec.tenants.emergencyLeased of {self.queue}.",
        )


class FullKey(Blocker):
    """As many Tasks of the concurrency key run as may."""

    __slots__ = ("use",)

    reason = Reason.KEY_IN_USE
    whole = False

    def __init__(self, use: KeyUse) -> None:
        super().__init__(use.book, None)
        self.use = use

    @property
    def held(self) -> int:
        """How many Tasks of the key run: it may have been given back and taken by others since it was found full."""
        use = self.book.keys.get(self.use.key)
        return 0 if use is None else use.held

    def open(self, _now: float) -> bool:
        return self.held < self.book.rules.concurrency_limit

    def describe(self, _now: float) -> Words:
        rules = self.book.rules
        held, most = self.held, rules.concurrency_limit
        said = f"Queue {rules.name} runs {held} of at most {most} Tasks of the concurrency key {self.use.key}"
        if held < most:
            return (f"{said}; others of the key go first.", "Wait for those to run and end.")
        return (
            f"{said}.",
            f"Wait for one of them to end; if more may run at once, raise spec.concurrencyLimit of {self.queue}.",
        )


class NoToken(Blocker):
    """No token is left. Emergency Tasks do not wait for one."""

    __slots__ = ("scope",)

    reason = Reason.RATE_LIMITED
    timed = True
    after_keys = True

    def __init__(self, scope: Scope) -> None:
        super().__init__(scope.book, scope.tenant)
        self.scope = scope
        # Namespace, queue, tenant: none of the former two holds a slash.
        self.name = "/".join((*self.book.rules.key, *([] if scope.tenant is None else [scope.tenant])))

    def open(self, now: float) -> bool:
        rate = self.scope.rate
        return rate is None or self.scope.tokens(rate, now).has_token(now)

    def opens_at(self, now: float) -> float | None:
        rate = self.scope.rate
        return now if rate is None else self.scope.tokens(rate, now).opens_at()

    def describe(self, now: float) -> Words:
        rate, opens = self.scope.rate, self.opens_at(now)
        if rate is None or opens is None or opens <= now:
            return (f"{self.scope} may start a Task now.", "Wait.")
        wait = opens - now
        return (
            f"{self.scope} may start {rate.per_second:g} attempts a second, {rate.burst} at once; the next in "
            f"{wait:.3g} s.",
            f"Wait {wait:.3g} s, or raise {self.scope.rate_path} of {self.queue}.",
        )


def _room(used: int, most: int | None, wanted: int) -> bool:
    return most is None or used + wanted <= most


def no_token(scope: Scope, rate: TokenRate | None, now: float) -> NoToken | None:
    """Return what holds Tasks of the queue or tenant that wait for a token; None if there is one, or no rate."""
    if rate is None:
        return None
    bucket = scope.bucket
    if bucket is None or bucket.rate is not rate:
        bucket = scope.tokens(rate, now)
    if bucket.has_token(now):
        return None
    if scope.no_token is None:
        scope.no_token = NoToken(scope)
    return scope.no_token
