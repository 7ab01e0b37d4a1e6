"""Which gates hold a waiting Task at which time, counted from the log of a run alone.

Quotas, concurrency keys, shared budgets and the cap on emergency Tasks are recounted, token buckets are replayed,
ordering keys and dependencies follow from who ended when. Nothing of the core's accounting is used. Refuses to know
agents: what does not fit anywhere is not gated.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from math import inf

from taskdist.api import OnDependencyFailure, OrderPolicy, Phase
from taskdist.core.model import EMERGENCY, Budget, Key, Queue, Task, TokenRate
from taskdist.simulation.record import Outcome, Record, Step, TaskLife
from taskdist.simulation.spans import Interval

NEARLY = 1e-6
"""How near to whole a token has to be; sums of fractions of tokens are not exact."""

Name = tuple[object, ...]
_ENDS = {
    Outcome.COMPLETED: Phase.SUCCEEDED,
    Outcome.FAILED: Phase.FAILED,
    Outcome.DEAD_LETTERED: Phase.DEAD_LETTERED,
    Outcome.CANCELLED: Phase.CANCELLED,
    Outcome.WITHDRAWN: Phase.CANCELLED,
}


class _Count:
    """A number that changes with starts and stops, and when it was what."""

    __slots__ = ("history", "value")

    def __init__(self) -> None:
        self.value = 0
        self.history: list[tuple[float, int]] = []

    def add(self, amount: int, at: float) -> None:
        self.value += amount
        self.history.append((at, self.value))

    def above(self, most: int, end: float) -> list[Interval]:
        """The times in which it was above."""
        found: list[Interval] = []
        since: float | None = None
        for at, value in self.history:
            if value > most and since is None:
                since = at
            elif value <= most and since is not None:
                found.append((since, at))
                since = None
        if since is not None:
            found.append((since, end))
        return found


class _Bucket:
    """A token bucket: full at first, `per_second` more up to `burst`, less with each start, be it below zero."""

    __slots__ = ("rate", "since", "takes", "tokens")

    def __init__(self, rate: TokenRate, begun: float) -> None:
        self.rate = rate
        self.tokens = float(rate.burst)
        self.since = begun
        # When something was taken, and what was left then.
        self.takes: list[tuple[float, float]] = []

    def filled(self, at: float) -> float:
        return min(float(self.rate.burst), self.tokens + (at - self.since) * self.rate.per_second)

    def take(self, at: float, amount: int = 1) -> None:
        self.tokens, self.since = self.filled(at) - amount, at
        self.takes.append((at, self.tokens))

    def closed(self, amount: int) -> list[Interval]:
        """The times in which less was there."""
        if amount > self.rate.burst:
            return [(0.0, inf)]
        return [(at, at + (amount - left) / self.rate.per_second) for at, left in self.takes if left < amount - NEARLY]


class Gates:
    """What holds Tasks, as the log goes on: `follow` each entry, after asking what was so just before it."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._counts: dict[Name, _Count] = defaultdict(_Count)
        self._buckets: dict[Name, _Bucket] = {}
        self._ends: dict[tuple[str, str], tuple[float, Phase]] = {}
        # By queue and ordering key: the Tasks that came and have not ended, in their order.
        self._lines: dict[tuple[Key, str], dict[str, None]] = {}
        self._turns: dict[str, float] = {}
        self._gated = {key for key, queue in record.queues.items() if _limited(queue)}
        # Mostly there is nothing to count.
        self._any = bool(self._gated) or any(
            life.task.concurrency_key is not None or life.task.priority == EMERGENCY or bool(life.task.budgets)
            for life in record.tasks
        )
        self._most = self._most_spent(life.task for life in record.tasks)

    def queue(self, task: Task) -> Queue:
        """Return the rules of the queue in which the Task waits."""
        return self._record.queues.get(task.queue_key) or Queue(*task.queue_key)

    def _most_spent(self, tasks: Iterable[Task]) -> dict[Name, tuple[TokenRate, int]]:
        """By budget that is spent: the most that any of these Tasks takes of it, of what may ever be there."""
        found: dict[Name, tuple[TokenRate, int]] = {}
        for task in tasks:
            for name, rate, amount in self._spent(task, taking=True) if task.budgets else ():
                if amount <= rate.burst:
                    found[name] = (rate, max(amount, found[name][1] if name in found else 0))
        return found

    def group(self, task: Task) -> Name:
        """Tasks of one class of agents and one group are held by the same counts and buckets at all times."""
        if not self._counted(task):
            return ()
        return (task.tenant, task.concurrency_key, task.slots, _emergency(task, self.queue(task)), task.budgets)

    def _counted(self, task: Task) -> bool:
        if not self._any:
            return False
        keyed = task.concurrency_key is not None or bool(task.budgets)
        return task.queue_key in self._gated or keyed or _emergency(task, self.queue(task))

    # What is so now.

    def shut(self, task: Task, at: float) -> bool:
        """Whether a count or a bucket holds the Task: the same for all of its group."""
        if not self._counted(task):
            return False
        queue = self.queue(task)
        if queue.paused or (_emergency(task, queue) and task.tenant not in queue.emergency):
            return True
        if any(self._counts[name].value > most for name, most in _bounds(task, queue)):
            return True
        if any(self._counts[name].value > most for name, most, _ in self._held(task)):
            return True
        spent = list(self._spent(task))
        if spent and any(
            self._bucket(name, rate).filled(at) < most - NEARLY for name, (rate, most) in self._most.items()
        ):
            # It may be kept for another one that asks for more.
            return True
        return any(
            self._bucket(name, rate).filled(at) < amount - NEARLY
            for name, rate, amount in [*_rates(task, queue), *spent]
        )

    def _budgets(self, task: Task) -> Iterator[tuple[Name, Budget | None, int]]:
        """The budgets that the Task takes of, and how much."""
        for queue, name, amount in task.budgets:
            rules = self._record.queues.get((task.namespace, queue))
            budget = next((each for each in rules.budgets if each.name == name), None) if rules is not None else None
            yield ("budget", task.namespace, queue, name), budget, amount

    def _held(self, task: Task) -> Iterator[tuple[Name, int, int]]:
        """The counts of budgets that hold the Task when they are above so much, and how much it adds."""
        for name, budget, amount in self._budgets(task):
            if budget is None:
                yield name, -1, 0
            elif budget.limit is not None:
                yield name, budget.limit - amount, amount

    def _spent(self, task: Task, taking: bool = False) -> Iterator[tuple[Name, TokenRate, int]]:
        """The buckets of budgets, and how much it takes; emergency Tasks wait for none."""
        if task.budgets and (taking or not _emergency(task, self.queue(task))):
            for name, budget, amount in self._budgets(task):
                if budget is not None and budget.rate is not None:
                    yield name, budget.rate, amount

    def own(self, life: TaskLife) -> bool:
        """Whether the Task is held by its turn or by others on which it depends."""
        task = life.task
        if task.ordering_key is not None:
            line = self._lines.get((task.queue_key, task.ordering_key))
            if line and next(iter(line)) != task.uid:
                return True
        return any(self._parent_ended(task, parent.name) == inf for parent in task.parents)

    @staticmethod
    def individual(task: Task) -> bool:
        """Whether anything but counts and buckets may hold it."""
        return task.ordering_key is not None or bool(task.parents)

    def _parent_ended(self, task: Task, name: str) -> float:
        """When the parent ended so that it holds the child no longer; infinite if it has not."""
        at, phase = self._ends.get((task.namespace, name), (inf, Phase.PENDING))
        passes = phase is Phase.SUCCEEDED or (phase.terminal and task.on_parent_failure is OnDependencyFailure.RUN)
        return at if passes else inf

    def _bucket(self, name: Name, rate: TokenRate) -> _Bucket:
        found = self._buckets.get(name)
        if found is None:
            found = self._buckets[name] = _Bucket(rate, self._record.begun)
        return found

    # The log.

    def follow(self, at: float, step: Step, life: TaskLife) -> None:
        """Take the next entry of the log."""
        task = life.task
        if task.ordering_key is not None and step in (Step.WAITS, Step.ENDS):
            self._line(life, at, step)
        if step is Step.ENDS:
            self._ends[task.namespace, task.name] = (at, _ENDS[life.outcome])
        elif step in (Step.STARTS, Step.STOPS) and self._counted(task):
            queue = self.queue(task)
            sign = 1 if step is Step.STARTS else -1
            for name, _ in _bounds(task, queue):
                self._counts[name].add(sign * (task.slots if "slots" in name else 1), at)
            for name, _, amount in self._held(task):
                self._counts[name].add(sign * amount, at)
            if step is Step.STARTS:
                for name, rate, amount in [*_rates(task, queue, taking=True), *self._spent(task, taking=True)]:
                    self._bucket(name, rate).take(at, amount)

    def _line(self, life: TaskLife, at: float, step: Step) -> None:
        task = life.task
        assert task.ordering_key is not None
        line = self._lines.setdefault((task.queue_key, task.ordering_key), {})
        if step is Step.WAITS:
            # Tasks come in the order of their creation and uid; those that wait again keep their place.
            line.setdefault(task.uid)
        else:
            line.pop(task.uid, None)
        if line:
            self._turns.setdefault(next(iter(line)), at)

    # After the log.

    def spans(self, life: TaskLife) -> list[Interval]:
        """Return when the Task waited with no gate holding it. Ask when the whole log was followed."""
        task, ended = life.task, self._record.ended
        waits = [wait for wait in life.waits(ended) if wait[1] > wait[0]]
        if not waits:
            return []
        opens = 0.0
        if task.ordering_key is not None:
            opens = self._turns.get(task.uid, inf)
        for parent in task.parents:
            opens = max(opens, self._parent_ended(task, parent.name))
        waits = [(max(begin, opens), end) for begin, end in waits if end > opens]
        if not waits or not self._counted(task):
            return waits
        queue = self.queue(task)
        if queue.paused or (_emergency(task, queue) and task.tenant not in queue.emergency):
            return []
        shut: list[Interval] = []
        for name, most in _bounds(task, queue):
            shut += self._counts[name].above(most, ended)
        for name, most, _ in self._held(task):
            shut += self._counts[name].above(most, ended) if most >= 0 else [(0.0, ended)]
        for name, rate, amount in [*_rates(task, queue), *self._spent(task)]:
            shut += self._bucket(name, rate).closed(amount)
        return list(without(waits, sorted(shut)))


def without(spans: Iterable[Interval], holes: list[Interval]) -> Iterator[Interval]:
    """Yield what of the spans is in none of the holes, which are in the order of their begins."""
    for begin, end in spans:
        reached = begin
        for since, until in holes:
            if since >= end:
                break
            if since > reached:
                yield reached, since
            reached = max(reached, until)
        if reached < end:
            yield reached, end


def _emergency(task: Task, queue: Queue) -> bool:
    return task.priority == EMERGENCY and queue.policy is OrderPolicy.PRIORITY


def _limited(queue: Queue) -> bool:
    bounds = (queue.quota.leased, queue.quota.slots, queue.tenant_quota.leased, queue.tenant_quota.slots)
    return queue.paused or any(each is not None for each in (*bounds, queue.rate, queue.tenant_rate))


def _bounds(task: Task, queue: Queue) -> Iterator[tuple[Name, int]]:
    """The counts that hold the Task when they are above so much."""
    key = queue.key
    for name, limits in (((key,), queue.quota), ((key, task.tenant), queue.tenant_quota)):
        if limits.leased is not None:
            yield ("leased", *name), limits.leased - 1
        if limits.slots is not None:
            yield ("slots", *name), limits.slots - task.slots
    if task.concurrency_key is not None:
        yield ("key", key, task.concurrency_key), queue.concurrency_limit - 1
    if _emergency(task, queue):
        yield ("emergency", key, task.tenant), queue.emergency_leased - 1


def _rates(task: Task, queue: Queue, taking: bool = False) -> Iterator[tuple[Name, TokenRate, int]]:
    """The buckets that the Task takes a token from, and those that it waits for: emergency Tasks wait for none."""
    if taking or not _emergency(task, queue):
        if queue.rate is not None:
            yield ("rate", queue.key), queue.rate, 1
        if queue.tenant_rate is not None:
            yield ("rate", queue.key, task.tenant), queue.tenant_rate, 1
