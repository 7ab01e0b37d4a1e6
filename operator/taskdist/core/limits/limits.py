"""What holds a Task that is about to be granted: quotas, rates, keys, shared budgets, who may use the level Emergency.

Owns the counts of what waits and what is leased, by queue, tenant and key, and who took tokens. Answers whether a
limit holds a Task, and says when one that held some may hold them no longer. Refuses to know who waits under which
limit, in which order, and which agents are free.

Calls follow a Task's life: `enter`, then any number of times `grant` and `release` (or `refund`), then `leave`, each
with the Task as the call before had it; `change` where it becomes another. All cost O(1), or O(log n) where a time or
an ordering key takes part. Counts that are empty are forgotten.
"""

from collections.abc import Iterable, Iterator

from taskdist.core.limits import admission, audit
from taskdist.core.limits.active import ActiveBlockers
from taskdist.core.limits.blockers import (
    Account,
    Blocker,
    Book,
    Forbidden,
    FullEmergency,
    FullKey,
    FullSlots,
    KeyUse,
    Scope,
    no_token,
)
from taskdist.core.limits.budgets import NotYet
from taskdist.core.limits.claims import Claims
from taskdist.core.limits.levels import Level, levels, recall
from taskdist.core.limits.ordering_keys import OrderingKeys
from taskdist.core.model import EMERGENCY, Key, Queue, Task, TokenRate
from taskdist.core.order import is_emergency


class Limits:
    """Asks every limit of every queue whether a Task may start. Without a queue: keys, budgets, the level Emergency."""

    def __init__(self) -> None:
        self._books: dict[Key, Book] = {}
        self._active = ActiveBlockers()
        self.budgets = Claims(self._books, self._active)
        self._accounts: dict[tuple[str, str, str], Account] = {}
        # The same by the uids of Tasks between `enter` and `leave`: each is asked about several times in a decision.
        self._of: dict[str, Account] = {}
        self._ordering_keys = OrderingKeys()
        # Empty accounts that are kept for their buckets, and how many there may be before they are looked through.
        self._idle: dict[Account, None] = {}
        self._idle_bound = 64

    # Queues.

    def apply_queue(self, queue: Queue) -> list[Blocker]:
        """Adopt the queue's rules. Return the blockers that may have opened by that."""
        book = self._books.get(queue.key)
        if book is None:
            self._books[queue.key] = Book(queue, applied=True)
            return []
        book.applied = True
        if book.rules == queue:
            return []
        book.apply(queue)
        opened = self._active.report_all(book)
        self.budgets.forget_purses(book)
        return opened

    def fill_buckets(self, key: Key, now: float) -> None:
        """Fill the queue's buckets up to now at the former rates, as its rules change."""
        book = self._books.get(key)
        for scope in () if book is None else (book, *book.accounts.values()):
            if scope.rate is not None and scope.bucket is not None:
                scope.tokens(scope.rate, now)
        for purse in self.budgets.purses.get(key, {}).values():
            terms = purse.terms
            if terms is not None and terms.rate is not None and purse.bucket is not None:
                purse.tokens(terms.rate, now)

    def drop_queue(self, key: Key) -> list[Blocker]:
        """Drop the queue's limits: its Tasks go on without. Return the blockers that have opened."""
        book = self._books.get(key)
        if book is None or not book.applied:
            return []
        book.applied = False
        book.apply(Queue(*key))
        opened = self._active.report_all(book)
        for account in list(book.accounts.values()):
            if account.idle:
                del self._idle[account]
                self._close(account)
        self.budgets.forget_purses(book)
        if not book.accounts and key not in self.budgets.purses:
            self._books.pop(key, None)
        return opened

    # A Task's life.

    def enter(self, task: Task) -> str | None:
        """Count an accepted Task, waiting until it is granted. Return the uid whose turn is over by that, if any."""
        account = self._accounts.get((task.namespace, task.queue, task.tenant)) or self._account(task)
        self._of[task.uid] = account
        if account.idle:
            account.idle = False
            del self._idle[account]
        book = account.of
        account.waiting += 1
        book.waiting += 1
        if task.payload_bytes:
            account.payload_bytes += task.payload_bytes
            book.payload_bytes += task.payload_bytes
        for queue, name, _ in task.budgets:
            self.budgets.purse(task, queue, name).users += 1
        return self._ordering_keys.enter(task) if task.ordering_key is not None else None

    def leave(self, task: Task) -> list[str]:
        """Stop counting a waiting Task that ended for good or is deleted. Return the uids whose turn it is."""
        account = self._of.pop(task.uid)
        book = account.of
        account.waiting -= 1
        book.waiting -= 1
        if task.payload_bytes:
            account.payload_bytes -= task.payload_bytes
            book.payload_bytes -= task.payload_bytes
        turns = self._ordering_keys.leave(task) if task.ordering_key is not None else []
        for queue, name, _ in task.budgets:
            purse = self.budgets.purse(task, queue, name)
            purse.users -= 1
            if not purse.users and purse.terms is None:
                self.budgets.forget_purses(purse.book)
        if not account.waiting and not account.leased:
            self._empty(account)
        return turns

    def change(self, former: Task, task: Task) -> list[str]:
        """Count the waiting Task with other values, or in another queue. Return whose turn is now or over, by uid.

        In its queue it keeps its place among those of its ordering key.
        """
        if _counted(former) == _counted(task):
            return []
        turns = self.leave(former)
        over = self.enter(task)
        return [uid for uid in (*turns, *(() if over is None else (over,))) if uid != task.uid]

    def in_turn(self, task: Task) -> bool:
        """Whether no other Task of its ordering key goes first.

        To be asked at the grant too: an older one may have come since, for which it waits then.
        """
        return task.ordering_key is None or self._ordering_keys.mine(task)

    def first_in_turn(self, task: Task) -> str | None:
        """Return the uid of the Task that goes next of its ordering key, if that is another one."""
        return None if task.ordering_key is None else self._ordering_keys.first(task)

    def turn(self, task: Task) -> tuple[str, int]:
        """Return whose turn it is of the Task's ordering key, by name, and how many of the key have not ended."""
        return ("", 0) if task.ordering_key is None else self._ordering_keys.ahead(task)

    def blocker(self, task: Task, level: int, now: float) -> Blocker | None:
        """Return the first limit that holds the waiting Task; None if it may be granted.

        `level` is the one at which it competes; limits go by what the Task itself says: one that another lifted, or
        that waited long, is not of the level Emergency.
        """
        found = self.holding(task, level, now)
        return None if found is None else self.hold(found, task, now)

    def hold(self, found: Blocker, task: Task, now: float) -> Blocker:
        """Note that the limit holds the Task, so that it is told of once it may not. Return under what to park it."""
        if isinstance(found, FullSlots):
            found.want(task.slots)
        elif isinstance(found, NotYet):
            found = self.budgets.of_level(found, now)
        self._active.hand_out(found, now)
        return found

    def holding(self, task: Task, level: int, now: float) -> Blocker | None:
        """Return the first limit that holds the waiting Task, as `blocker` does, for those who only ask.

        Nothing is taken, claimed, watched or kept by it: the answer is good for this moment.
        """
        return self._holding(self._of[task.uid], task, task.uid, task.concurrency_key, level, now)

    def holding_all(self, task: Task, level: int, now: float) -> Blocker | None:
        """Likewise, what holds all Tasks like this one, whatever their concurrency keys; one with a claim aside."""
        account = self._of[task.uid]
        if not account.of.limited and not task.budgets and task.priority < EMERGENCY:
            return None
        return self._holding(account, task, "", None, level, now)

    def _holding(
        self, account: Account, task: Task, uid: str, key: str | None, level: int, now: float
    ) -> Blocker | None:
        """`uid` and `key`: whose claim is its own, and the concurrency key that is asked for."""
        book = account.of
        emergency = task.priority >= EMERGENCY and is_emergency(book.rules, task)
        if not book.limited and not emergency and key is None and not task.budgets:
            return None
        return self._first(account, book, task, uid, key, emergency, level, now)

    def full_keys(self, queue: Key) -> list[FullKey]:
        """Return the concurrency keys of the queue that are held as often as may be."""
        return self._books[queue].full_keys() if queue in self._books else []

    def levels(self, queue: Key, now: float) -> tuple[Level, ...]:
        """Return what is left of the queue's rates and budgets."""
        return levels(self._books[queue], self.budgets.purses.get(queue, {}), now) if queue in self._books else ()

    def recall(self, queue: Key, told: Iterable[Level]) -> None:
        """Fill the queue's buckets with what was left of its rates. Its Tasks have to be known by now."""
        if queue in self._books:
            recall(self._books[queue], self.budgets.purses.get(queue, {}), told)

    def room(self, task: Task) -> tuple[int, int]:
        """Return how many more Tasks quotas let run at most: of the Task's queue, and of its tenant in it."""
        account = self._of[task.uid]
        return account.of.room(), account.room()

    def limited(self, task: Task) -> bool:
        """Whether the Task's queue has any quota or rate."""
        return self._of[task.uid].of.limited

    def concerns(self, task: Task) -> bool:
        """Whether any limit may have held the Task, or a Task that it waits for."""
        book = self._of[task.uid].of
        keys = task.concurrency_key is not None or task.ordering_key is not None
        return book.limited or keys or bool(task.parents) or task.priority >= EMERGENCY

    def key_open(self, task: Task) -> bool:
        """Whether the Task has a concurrency key that one more may hold."""
        if task.concurrency_key is None:
            return False
        book = self._of[task.uid].of
        use = book.keys.get(task.concurrency_key)
        return use is None or use.held < book.rules.concurrency_limit

    def grant(self, task: Task, now: float, *, token: bool = True) -> None:
        """Count the Task as leased, whatever its limits, and take tokens. `token` False: none, it was leased before."""
        account = self._of[task.uid]
        book = account.of
        account.waiting -= 1
        book.waiting -= 1
        account.leased += 1
        book.leased += 1
        account.slots += task.slots
        book.slots += task.slots
        if task.priority >= EMERGENCY:
            account.emergency += 1
        if task.concurrency_key is not None:
            use = book.keys.get(task.concurrency_key)
            if use is None:
                use = book.keys[task.concurrency_key] = KeyUse(book, task.concurrency_key)
            use.held += 1
        if task.ordering_key is not None:
            self._ordering_keys.take(task)
        for queue, name, amount in task.budgets:
            purse = self.budgets.purse(task, queue, name)
            if purse.take(amount, now, spend=token):
                self.budgets.spent.setdefault(task.uid, {})[queue, name] = amount
                self.budgets.took[task.uid] = now
                self.budgets.await_all(purse, now)
        if token and book.limited:
            rules = book.rules
            if rules.rate is not None:
                self._take(book, rules.rate, now)
                self.budgets.took[task.uid] = now
            if rules.tenant_rate is not None:
                self._take(account, rules.tenant_rate, now)
                self.budgets.took[task.uid] = now

    def release(self, task: Task, now: float) -> list[Blocker]:
        """Release the slots and keys of an attempt: the Task waits again. Return the blockers that may have opened."""
        account = self._of[task.uid]
        book = account.of
        account.waiting += 1
        book.waiting += 1
        account.leased -= 1
        book.leased -= 1
        account.slots -= task.slots
        book.slots -= task.slots
        if task.priority >= EMERGENCY:
            account.emergency -= 1
        use = None
        if task.concurrency_key is not None:
            use = book.keys[task.concurrency_key]
            use.held -= 1
            if not use.held:
                del book.keys[task.concurrency_key]
        if task.ordering_key is not None:
            self._ordering_keys.give_back(task)
        opened: list[Blocker] = []
        for queue, name, amount in task.budgets:
            opened += self.budgets.given_back(self.budgets.purse(task, queue, name), amount, now)
        if self.budgets.took:
            self.budgets.took.pop(task.uid, None)
            self.budgets.spent.pop(task.uid, None)
        if not book.watched:
            return opened
        held = (
            book.full,
            book.slots_full,
            account.full,
            account.slots_full,
            account.emergency_full,
            None if use is None else use.blocker,
        )
        opened += [self._active.report(each) for each in held if each is not None and each.watched and each.open(now)]
        return opened

    def refund(self, task: Task, now: float) -> list[Blocker]:
        """Release an attempt whose grant could not be written, and return its tokens. Return what may have opened."""
        spent, since = self.budgets.spent.get(task.uid, {}), self.budgets.took.get(task.uid, now)
        opened = self.release(task, now)
        account = self._of[task.uid]
        for scope in (account.of, account):
            if scope.rate is not None:
                scope.tokens(scope.rate, now).give_back(now, since=since)
                if scope.no_token is not None and scope.no_token.watched:
                    if scope.no_token.open(now):
                        opened.append(self._active.report(scope.no_token))
                    else:
                        self._active.wait(scope.no_token, now)
        for (queue, name), amount in spent.items():
            opened += self.budgets.settle_up(self.budgets.purse(task, queue, name), amount, now, since)
        return opened

    # Time.

    def due(self, now: float) -> list[Blocker]:
        """Return the rates that have a token now, of those that were handed out and not yet reported.

        Also limits of tenants that had no Tasks left since the last call: they hold nothing any more.
        """
        if len(self._idle) > self._idle_bound:
            self._sweep(now)
        return self.budgets.due(now)

    def next_due(self) -> float | None:
        """Return when `due` has something to say, without an event before."""
        return self._active.next_due()

    # Views.

    def over_waiting(self, task: Task) -> str | None:
        """Say why the Task, counted already, is one too many of those that wait; None if it is not.

        Meant for Tasks that are new: those that come back from an attempt were taken before.
        """
        return admission.over_waiting(self._of[task.uid])

    def over_payload(self, task: Task) -> str | None:
        """Say whose bound of payload bytes the Task, counted already, exceeds; None if none."""
        return admission.over_payload(self._of[task.uid]) if task.payload_bytes else None

    def findings(self, tasks: Iterable[tuple[Task, bool]]) -> Iterator[str]:
        """Count anew from all Tasks, each with whether it is leased; yield what the books say otherwise."""
        counted = list(tasks)
        leased = {task.uid for task, running in counted if running}
        if self._of.keys() != {task.uid for task, _ in counted}:
            yield "accounts are kept of other Tasks than are counted"
        if not self.budgets.spent.keys() <= leased:
            yield "what was spent is kept of Tasks that are not leased"
        if not self.budgets.spent.keys() <= self.budgets.took.keys() <= leased:
            yield "when tokens were taken is kept of other Tasks than are leased"
        claims = self.budgets.claims
        purses = [purse for named in self.budgets.purses.values() for purse in named.values()]
        if any(purse.claim is not None and claims.get(purse.claim.uid) is not purse.claim for purse in purses):
            yield "a budget is kept by a claim that has ended"
        if any(purse.claim is not claim for claim in claims.values() for purse, _ in claim.parts):
            yield "a claim does not keep all that its Task takes of"
        yield from audit.findings(counted, self._books, self.budgets.purses, self._ordering_keys)

    # Below.

    def _account(self, task: Task) -> Account:
        """Open the account of the Task's tenant."""
        book = self._books.get(task.queue_key)
        if book is None:
            book = self._books[task.queue_key] = Book(Queue(*task.queue_key), applied=False)
        account = book.accounts[task.tenant] = Account(book, task.tenant)
        self._accounts[task.namespace, task.queue, task.tenant] = account
        return account

    def _empty(self, account: Account) -> None:
        """Close the account without Tasks, or keep it for its bucket: that must not be full again by coming back."""
        if account.bucket is None or account.of.rules.tenant_rate is None:
            self._close(account)
        else:
            account.idle = True
            self._idle[account] = None

    def _close(self, account: Account) -> None:
        book = account.of
        # Other objects will stand for these limits: what is parked under these would wait for ever.
        self._active.closed += [self._active.report(each) for each in account.watched_blockers()]
        del book.accounts[account.name]
        del self._accounts[*book.rules.key, account.name]
        if not book.accounts and not book.applied and book.rules.key not in self.budgets.purses:
            del self._books[book.rules.key]

    def _sweep(self, now: float) -> None:
        for account in list(self._idle):
            rate = account.rate
            if rate is None or account.tokens(rate, now).full(now):
                del self._idle[account]
                self._close(account)
        self._idle_bound = max(64, 2 * len(self._idle))

    def _first(
        self,
        account: Account,
        book: Book,
        task: Task,
        uid: str,
        key: str | None,
        emergency: bool,
        level: int,
        now: float,
    ) -> Blocker | None:
        rules = book.rules
        if emergency and task.tenant not in rules.emergency:
            if account.forbidden is None:
                account.forbidden = Forbidden(book, task.tenant)
            return account.forbidden
        if book.limited:
            full = book.held(rules.quota, task.slots) or account.held(rules.tenant_quota, task.slots)
            if full is not None:
                return full
        if emergency and account.emergency >= rules.emergency_leased:
            if account.emergency_full is None:
                account.emergency_full = FullEmergency(account)
            return account.emergency_full
        if key is not None:
            use = book.keys.get(key)
            if use is not None and use.held >= rules.concurrency_limit:
                if use.blocker is None:
                    use.blocker = FullKey(use)
                return use.blocker
        for queue, name, amount in task.budgets:
            lack = self.budgets.purse(task, queue, name).lack(amount, emergency)
            if lack is not None:
                return lack
        if emergency:
            return None
        if book.limited:
            token = no_token(book, rules.rate, now) or no_token(account, rules.tenant_rate, now)
            if token is not None:
                return token
        # Last, so that who waits for these waits for nothing else.
        return self.budgets.not_yet(task, uid, level, now) if task.budgets else None

    def _take(self, scope: Scope, rate: TokenRate, now: float) -> None:
        bucket = scope.bucket
        if bucket is None or bucket.rate is not rate:
            bucket = scope.tokens(rate, now)
        bucket.take(now)
        if scope.no_token is not None and scope.no_token.watched:
            self._active.wait(scope.no_token, now)


def _counted(task: Task) -> tuple[object, ...]:
    """All that the books know of a waiting Task, but for whether it was started."""
    return (
        task.namespace,
        task.queue,
        task.tenant,
        task.payload_bytes,
        task.ordering_key,
        task.created,
        task.budgets,
    )
