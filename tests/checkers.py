"""Independent checkers: the core's promises by brute force, from the events and decisions alone.

Nothing here uses the core's indices: what is so is kept as plain values, and every Task is tried on every agent.
"""

from collections.abc import Collection
from dataclasses import replace
from math import inf

from state import EDGE, Bucket, State
from taskdist.api import BreakerState, OnHopeless, OnOverflow, Phase, Reason, Strategy
from taskdist.core import events
from taskdist.core.decisions import Assign, BreakerTurned, Decision, DeletePod, Drain, Fail, Scale, Spill, Undrain
from taskdist.core.model import Key, Pool, Queue, Task

# Before so many successes nothing is believed of how swift an agent is.
SUCCESSES_TO_JUDGE = 10


class Mirror(State):
    """Takes what happens and what is decided; says what is wrong with that."""

    def take(self, event: events.Event, now: float = 0.0) -> None:
        self.observe(now)
        self._take(event, now)
        self.observe(now)

    def _take(self, event: events.Event, now: float) -> None:
        match event:
            case events.QueueApplied(queue):
                self._rules(self.queues.get(queue.key), queue, now)
                self.queues[queue.key] = queue
            case events.QueueDeleted(key):
                self._rules(self.queues.pop(key, None), Queue(*key), now)
            case events.PoolApplied(pool):
                self.pools[pool.key] = pool
            case events.PoolDeleted(key):
                self.pools.pop(key, None)
                self.desired.pop(key, None)
            case events.TaskWaiting(task):
                self._wait(task, now)
            case events.TaskHeld(task, _):
                self._wait(task, now)
                self.held.add(task.uid)
            case events.TaskLeased(task, agent_uid):
                known = self._known(task.uid)
                self._lift(task.uid, now, over=True)
                self._enter(task, known)
                self.leased[task.uid] = (task, agent_uid)
                self.fresh.discard(task.uid)
            case events.TaskGone(uid, phase):
                if uid in self.leased or uid in self.waiting:
                    self.successes += phase is Phase.SUCCEEDED
                    self._lift(uid, now, over=True)
                    self.returned.pop(uid, None)
                    self.fresh.discard(uid)
                self._end(uid, phase)
            case events.TaskEnded(uid, phase):
                self._end(uid, phase)
            case events.AttemptFailed(uid):
                if uid in self.leased:
                    self.failed.add(uid)
            case events.AttemptUsed(uid, used):
                self._correct(uid, used, now)
            case events.PodSeen(uid, namespace, _, pool, _):
                self.pods[uid] = (namespace, pool)
            case events.PodGone(uid):
                self.gone.add(uid)
                self.doubted.discard(uid)
                self.ready.discard(uid)
            case events.AgentReady(agent):
                self.agents[agent.uid] = agent
                self.ready.add(agent.uid)
            case events.AgentNotReady(uid):
                self.ready.discard(uid)
            case events.AgentDrained():
                pass

    def _rules(self, former: Queue | None, queue: Queue, now: float) -> None:
        for (key, tenant), bucket in self.buckets.items():
            if key == queue.key:
                rate = queue.rate if tenant is None else queue.tenant_rate
                was = None if former is None else former.rate if tenant is None else former.tenant_rate
                if rate != was or rate is None:
                    bucket.doubt(rate or bucket.rate, now)
        for (key, name), bucket in self.purses.items():
            if key == queue.key:
                mine = {each.name: each.rate for each in queue.budgets}.get(name)
                if mine != bucket.rate or former is None or all(each.name != name for each in former.budgets):
                    bucket.doubt(mine or bucket.rate, now)

    def _known(self, uid: str) -> Task | None:
        return self.leased[uid][0] if uid in self.leased else self.waiting.get(uid)

    def _enter(self, task: Task, known: Task | None) -> None:
        if known is None or known.queue != task.queue:
            self.fresh.add(task.uid)
        if known is not None and _line(known) != _line(task):
            self.returned.pop(task.uid, None)
        self.ended.pop(task.uid, None)

    def _wait(self, task: Task, now: float) -> None:
        uid = task.uid
        known = self._known(uid)
        if uid in self.leased:
            # Its wait begins now.
            self.since.pop(uid, None)
        self._lift(uid, now, over=uid in self.failed)
        self._enter(task, known)
        self.waiting[uid] = task
        if known is not None and uid not in self.since and uid not in self.fresh:
            self.since[uid] = (now, now)

    def _lift(self, uid: str, now: float, over: bool) -> None:
        self.waiting.pop(uid, None)
        for those in (self.held, self.ending, self.turned_away, self.failed):
            those.discard(uid)
        leased = self.leased.pop(uid, None)
        if leased is None:
            return
        task = leased[0]
        if task.ordering_key is not None:
            self.returned[uid] = max(self.returned.values(), default=0) + 1
        if not over:
            for name, rate in self.rates(task):
                bucket = self.buckets.setdefault(name, Bucket.full(rate, now))
                # Found by a new leader: it is not known who paid.
                bucket.give_back(1.0, self.paid.get(uid, -inf), now)
            for purse, amount in self.spent.get(uid, {}).items():
                self._come_back(purse, amount, self.paid[uid], now)
        self.paid.pop(uid, None)
        self.spent.pop(uid, None)

    def _correct(self, uid: str, used: tuple[tuple[str, str, int], ...], now: float) -> None:
        """The last report of what an attempt used of a budget is what it spent, if it was granted here."""
        spent = self.spent.get(uid, {})
        for queue, name, amount in used:
            purse = ((self.leased[uid][0].namespace, queue), name) if uid in self.leased else None
            if purse is not None and purse in spent:
                self._come_back(purse, spent[purse] - amount, self.paid[uid], now)
                spent[purse] = amount

    def _come_back(self, purse: tuple[Key, str], amount: int, since: float, now: float) -> None:
        """To a budget that has a rate still."""
        rules = self.queues.get(purse[0])
        if rules is not None and any(each.name == purse[1] and each.rate is not None for each in rules.budgets):
            self.purses[purse].give_back(amount, since, now)

    def _end(self, uid: str, phase: Phase | None) -> None:
        former = self.ended.get(uid)
        if former is None or not former.terminal:
            self.ended[uid] = phase

    # Decisions.

    def apply(self, decision: Decision, now: float, kept: Collection[str] = ()) -> list[str]:
        """Take a decision over; return what it breaks. `kept`: held for large Tasks, or given less than they offer."""
        self.observe(now)
        match decision:
            case Assign():
                return self._assign(decision, now, kept)
            case Fail():
                return self._fail(decision, now)
            case Spill():
                return self._spill(decision)
            case Scale(pool, replicas):
                self.desired[pool] = replicas
                bounds = self.pools[pool]
                if not bounds.minimum <= replicas <= bounds.maximum:
                    return [f"pool {pool} is scaled to {replicas}, outside its bounds"]
            case Drain(uid):
                self.draining.add(uid)
                its_pool = self._pool_of(uid)
                if its_pool is not None and its_pool.elastic and not self.idle(uid):
                    return [f"agent {uid} of an elastic pool is drained although busy"]
            case Undrain(uid):
                broken = [] if uid in self.draining - self.deleting else [f"agent {uid} was not draining"]
                self.draining.discard(uid)
                return broken
            case BreakerTurned():
                return self._breaker_turned(decision)
            case DeletePod(uid):
                self.deleting.add(uid)
                if not self.idle(uid):
                    return [f"pod {uid} is deleted although it holds a lease"]
        return []

    def _breaker_turned(self, decision: BreakerTurned) -> list[str]:
        """A breaker opens, or closes again: at most as many are open or half open as may be of the ready agents."""
        uid = decision.agent_uid
        if decision.state is BreakerState.CLOSED:
            self.doubted.discard(uid)
            return []
        self.doubted.add(uid)
        pool = self.pools.get(decision.pool)
        if pool is None or pool.breaker is None:
            return [f"the breaker of agent {uid} opens although its pool has none"]
        return []

    def overheld(self) -> list[str]:
        """Return the pools whose breakers hold more of the ready agents than they may."""
        broken = []
        for key, pool in self.pools.items():
            ready = [uid for uid in self.ready if self.open(uid) and self.agents[uid].pool_key == key]
            held = sorted(self.doubted.intersection(ready))
            if pool.breaker is not None and len(held) > len(ready) * pool.breaker.most_open_percent / 100:
                broken.append(f"breakers of pool {key} hold {held} of {sorted(ready)}")
        return broken

    def _assign(self, decision: Assign, now: float, kept: Collection[str]) -> list[str]:
        uid, agent = decision.task_uid, decision.agent_uid
        task = self.waiting.get(uid)
        if task is None:
            return [f"Task {uid} is assigned although it does not wait"]
        broken = []
        if not self.eligible(task, now):
            broken.append(f"Task {uid} is assigned although it cannot start yet")
        if not self.fits(task, agent):
            broken.append(f"Task {uid} is assigned to agent {agent}, which may not or cannot take it")
        if not self.patient_enough(task, agent, now):
            broken.append(f"Task {uid} is assigned to agent {agent}, although it prefers to wait for another")
        broken += [f"Task {uid} is assigned in spite of {limit}" for limit in self.limited(task, now)]
        if self.short_of_tokens(task, now)[1]:
            broken.append(f"Task {uid} is assigned without a token")
        if agent not in kept:
            broken += self._overtaken(task, agent, now)
            broken += self._overspent(task, agent, now)
        fraction = self.busy(agent) / self.agents[agent].slots
        broken += self._routed(decision, task)
        strategy, step = self.strategy(task, decision.pool), self.step(task, decision.pool)
        broken += self._told(decision, task, strategy, None if agent in kept else fraction)
        plain, full = self._least_busy_goes(task, strategy), strategy is Strategy.PACK and self._undecided(task)
        for rival in self.ready - set(kept) if agent not in kept else ():
            theirs = self.step(task, self.agents[rival].pool)
            alike = self.agents[rival].skills == self.agents[agent].skills
            if not (self.fits(task, rival, sure=True) and self.takes_any(task, rival)) or theirs > step:
                continue
            if theirs < step:
                broken.append(f"Task {uid} goes to {agent}, although {rival} is of an earlier step")
            elif plain and alike and self.busy(rival) / self.agents[rival].slots < fraction:
                broken.append(f"Task {uid} goes to {agent}, although {rival} is less busy")
            elif full and theirs == step and self.busy(rival) / self.agents[rival].slots > fraction:
                broken.append(f"Task {uid} goes to {agent}, although {rival} is fuller")
        for name, rate in self.rates(task):
            self.buckets.setdefault(name, Bucket.full(rate, now)).take(1.0, now)
        for name, amount, _, purse in self.spending(task, now):
            purse.take(amount, now)
            self.spent.setdefault(uid, {})[name] = amount
        del self.waiting[uid]
        self.fresh.discard(uid)
        self.paid[uid] = now
        self.leased[uid] = (task, agent)
        return broken

    def _routed(self, decision: Assign, task: Task) -> list[str]:
        """The route that is told must be the one that was taken."""
        route = self.route(task)
        if route is None:
            told = ("", 0)
        else:
            number = self.step(task, decision.pool)
            told = (route.name, 0 if number == len(route.steps) else number + 1)
        if (decision.rule, decision.step) == told:
            return []
        return [f"Task {task.uid} is told to go by {decision.rule}, step {decision.step}, not by {told}"]

    def _told(self, decision: Assign, task: Task, strategy: Strategy, busy: float | None) -> list[str]:
        """The strategy that is told must be that of the step, and its score what it says.

        `busy` is the busy part of the agent's slots, None if it may have been held.
        """
        if decision.strategy is not strategy:
            return [f"Task {task.uid} is told to go by {decision.strategy}, not by {strategy}"]
        sign = {Strategy.ADAPTIVE: 1.0, Strategy.LEAST_LOADED: 1.0, Strategy.POWER_OF_TWO: 1.0, Strategy.PACK: -1.0}
        expected = busy * sign[strategy] if busy is not None and strategy in sign else None
        if expected is None or not self._undecided(task) or abs(decision.score - expected) < EDGE:
            return []
        return [f"Task {task.uid} is told a score of {decision.score}, not of {expected}"]

    def _undecided(self, task: Task) -> bool:
        """Whether nothing that the Task says goes before the strategy."""
        return task.sticky_key is None and not (task.placement is not None and task.placement.preferred)

    def _least_busy_goes(self, task: Task, strategy: Strategy) -> bool:
        """Whether of agents with the same skills the least busy is to be taken."""
        return self._undecided(task) and (
            strategy is Strategy.LEAST_LOADED or (strategy is Strategy.ADAPTIVE and self.successes < SUCCESSES_TO_JUDGE)
        )

    def _overtaken(self, task: Task, agent: str, now: float) -> list[str]:
        broken = []
        level = self.level(task, now)
        for other in self.waiting.values():
            could = self.fits(other, agent, sure=True) and self.takes_any(other, agent) and self.could_start(other, now)
            if other.uid != task.uid and could:
                higher = self.level(other, now)
                if higher > level:
                    broken.append(f"Task {task.uid} overtakes {other.uid} on agent {agent}")
                elif higher == level and self.behind(task, other):
                    broken.append(f"Task {task.uid} goes before {other.uid}, which is first in its line")
        return broken

    def _overspent(self, task: Task, agent: str, now: float) -> list[str]:
        """What comes to a budget is for the first in order that waits for that alone."""
        if self.emergency(task) or not self.spending(task, now):
            return []
        level, taken = self.level(task, now), {(queue, name) for queue, name, _ in task.budgets}
        broken = []
        for other in self.sharers(task):
            if not (self.fits(other, agent, sure=True) and self.takes_any(other, agent)):
                continue
            higher = self.level(other, now)
            before = higher > level or (higher == level and self.behind(task, other))
            if before and self.waits_for(other, now) in taken:
                broken.append(f"Task {task.uid} takes of what {other.uid} waits for")
        return broken

    def _fail(self, decision: Fail, now: float) -> list[str]:
        """A Task that waits is to end."""
        uid = decision.task_uid
        task = self.waiting.get(uid)
        if task is None or uid in self.ending or uid in self.held:
            return [f"Task {uid} is ended although it does not wait"]
        queue, wrong = self.queue(task), True
        match decision.reason:
            case Reason.WAITED_TOO_LONG:
                wrong = self._overdue(task) > now
            case Reason.DEADLINE_HOPELESS:
                wrong = task.deadline is None or queue.on_hopeless is OnHopeless.RUN or task.redriven
                dead = decision.phase is Phase.DEAD_LETTERED
                wrong = wrong or dead is not (queue.on_hopeless is OnHopeless.DEAD_LETTER)
            case Reason.DEPENDENCY_FAILED | Reason.SKIPPED:
                skipped = Phase.CANCELLED if decision.reason is Reason.SKIPPED else Phase.FAILED
                wrong = not self.blamed(task) or decision.phase is not skipped
            case Reason.QUEUE_FULL:
                wrong = task.attempted or not self.overfull(task)
                self._turn_away(uid)
            case _:
                pass
        self.ending.add(uid)
        return [f"Task {uid} is ended as {decision.reason}, which it is not"] if wrong else []

    def _spill(self, decision: Spill) -> list[str]:
        uid = decision.task_uid
        task = self.waiting.get(uid)
        if task is None or uid in self.ending or uid in self.held:
            return [f"Task {uid} is moved although it does not wait"]
        overflow = self.queue(task).overflow
        right = overflow is not None and overflow.action is OnOverflow.SPILL and overflow.spill_to == decision.queue
        right = right and self.overfull(task) and not task.spilled and not task.attempted
        right = right and (task.namespace, decision.queue) in self.queues
        self.ending.add(uid)
        self._turn_away(uid)
        return [] if right else [f"Task {uid} is moved to {decision.queue}, where it need not or cannot go"]

    def _turn_away(self, uid: str) -> None:
        self.turned_away.add(uid)
        self.returned.pop(uid, None)

    def _overdue(self, task: Task) -> float:
        """When it has waited too long."""
        limit = task.waiting_limit if task.waiting_limit is not None else self.queue(task).timeouts.waiting
        return float("inf") if limit is None or task.attempted else task.created + limit

    def _pool_of(self, uid: str) -> Pool | None:
        key = self.agents[uid].pool_key if uid in self.agents else self.pods.get(uid)
        return None if key is None else self.pools.get(key)

    # What must hold whenever the core has nothing more to say.

    def at_rest(self, now: float, kept: Collection[str] = ()) -> list[str]:
        """Return what is wrong if the core decides nothing further."""
        self.observe(now)
        waiting = [task for uid, task in self.waiting.items() if uid not in self.ending and uid not in self.held]
        agents = self.ready - set(kept)
        broken = [
            f"Task {task.uid} waits although agent {uid} could start it"
            for task in waiting
            for uid in agents
            if self.fits(task, uid, sure=True) and self.takes_any(task, uid) and self.could_start(task, now)
        ]
        for task in waiting:
            if self._overdue(task) <= now:
                broken.append(f"Task {task.uid} waits although it has waited too long")
            if self.blamed(task) and not task.suspended:
                broken.append(f"Task {task.uid} waits although a Task that it depends on did not succeed")
        return broken

    def overflown(self, fresh: Collection[str]) -> list[str]:
        """Return what is wrong if those that came last are let in."""
        return [
            f"Task {uid} was let in although its queue is full"
            for uid in sorted(fresh)
            if (task := self.waiting.get(uid)) is not None
            and uid not in self.held | self.ending
            and not task.attempted
            and self.overfull(task)
        ]

    def pinned(self, task: Task) -> Task:
        """Return the Task with its parents as they are now, as whoever reads their status would tell of it."""
        return replace(task, parents=tuple(self.parents(task)))


def _line(task: Task) -> tuple[object, ...]:
    """What makes a Task another one for those that count who waits."""
    return task.queue, task.tenant, task.payload_bytes, task.ordering_key, task.created
