"""The scheduling cycle: the next Task, and the agent for it.

The first Task in order that no limit holds gets the best agent that has room for it. Tasks before it are set aside
under what holds them. Reserved agents are backfilled behind the Task that they are reserved for. Sizes no pool.
"""

from collections.abc import Iterator
from math import inf
from typing import Final

from taskdist.api import Reason, Strategy
from taskdist.core import order
from taskdist.core.agents.roster import AgentRecord
from taskdist.core.decisions import Assign, Decision
from taskdist.core.engine.task_states import TaskStates
from taskdist.core.fleet.equivalence import Contest, Demand
from taskdist.core.fleet.routes import step_taken
from taskdist.core.limits.budgets import NotYet, Short
from taskdist.core.model import Task
from taskdist.core.ordering.fair_sharing import Share
from taskdist.core.ordering.lines import Group, Line, TaskRecord
from taskdist.core.placement.pickers import picker
from taskdist.core.placement.reservations import has_room
from taskdist.core.placement.strategies import Strategies, current_contest
from taskdist.core.primitives.bitsets import has
from taskdist.core.scaling.autoscaler import Autoscaler

# Named once: compiled code finds a constant at once, the member of a class by asking the class.
ADAPTIVE: Final = Strategy.ADAPTIVE
ASSIGNED: Final = Reason.ASSIGNED
# No name of a tenant.
ALL: Final = "/"


class Cycle:
    """Places waiting Tasks on agents, first in order first, until nothing more fits."""

    def __init__(self, states: TaskStates) -> None:
        self._states = states
        self._catalogue = states.catalogue
        self._fleet = states.fleet
        self._reservations = states.reservations
        self._limits = states.limits
        self._parking = states.parking
        self._tasks = states.tasks
        self._waiting = states.waiting
        self.strategies = Strategies(self._fleet.agents, self._catalogue.pools, picker)
        self.autoscaler = Autoscaler(self._catalogue, self._fleet)

    def place(self, decisions: list[Decision], most: int, now: float) -> bool:
        """Place waiting Tasks on free slots, first in order first. Return False if `most` decisions cut it short."""
        if self._reservations:
            self._reservations.let_go(now)
        self._check_claims(now)
        while (record := self._first(self._fleet.free.union, now, claims=True)) is not None:
            if len(decisions) >= most:
                return False
            decisions.append(self._assign(record, now))
            self._check_claims(now)
        return True

    def backfill(self, decisions: list[Decision], most: int, now: float) -> bool:
        """Place Tasks on reserved agents. Return False if `most` decisions cut it short."""
        for record, agent in self._for_reserved(now) if self._reservations else ():
            if len(decisions) >= most:
                return False
            decisions.append(self._assign(record, now, agent))
        return True

    def _check_claims(self, now: float) -> None:
        """End the claims of Tasks that have started, or wait for something else than what time brings to rates."""
        budgets = self._limits.budgets
        for claim in list(budgets.claims.values()):
            record = self._tasks.get(claim.uid)
            if record is None or record.level != claim.level or not self._waits_for_time(record, now):
                self._parking.open(budgets.drop_claim(claim))

    def _waits_for_time(self, record: TaskRecord, now: float) -> bool:
        """Whether the Task has room, and nothing holds it but rates of budgets."""
        profile = record.shape.profile
        if record.line is None or profile is None or not has(self._fleet.free.union, profile.number):
            return False
        found = self._limits.holding(record.task, record.level, now)
        return (found is None or isinstance(found, NotYet)) and self._limits.in_turn(record.task)

    def claimed_demands(self) -> list[Demand]:
        """Return the demands of Tasks with a claim that are parked, and so not counted in their demand."""
        records = [self._tasks[uid] for uid in self._limits.budgets.claims if uid in self._tasks]
        parked = [each.shape.demand for each in records if each.line is not None and each.line.blocker is not None]
        return [demand for demand in parked if demand is not None]

    def _first(self, free: int, now: float, claims: bool = False) -> TaskRecord | None:
        """Return the first Task in order, among those of the given profiles, that no limit holds; park those before it.

        `claims`: these are all profiles that have room, so that who waits for budgets alone gets a claim on them.
        """
        overtaken = self._waiting.overtaken
        while (record := self._waiting.best(free, now)) is not None:
            if overtaken:
                for each in overtaken:
                    self._parking.key_free(each.task, now)
                overtaken.clear()
            elif not self._set_aside(record, now, claims):
                return record
        return None

    def _set_aside(self, record: TaskRecord, now: float, claims: bool = False) -> bool:
        """Park the Task if a limit holds it, or let others be judged before it; return whether it must wait."""
        if record.task.ordering_key is not None and not self._limits.in_turn(record.task):
            tried = record.trying
            self._park(record, Reason.OUT_OF_TURN)
            if tried:
                self._parking.key_free(record.task, now)
            return True
        if claims and record.task.budgets and self._let_rivals_try(record):
            return True
        found = self._limits.holding(record.task, record.level, now)
        if found is None:
            return False
        least = _least_of_group(record, found) if isinstance(found, Short) else None
        blocker = self._limits.hold(least or found, record.task, now)
        if not blocker.whole:
            self._park(record, blocker.reason)
        self._parking.add(record, blocker, now, alone=isinstance(found, Short) and least is None)
        if claims and isinstance(blocker, NotYet) and blocker.claim is None:
            self._parking.open(self._limits.budgets.claim(record.task, record.level, now))
        return True

    def _let_rivals_try(self, record: TaskRecord) -> bool:
        """Let those be judged first that go before the Task at its rates. Return whether there are any.

        Those of its level or above that wait there without a claim had no room when they were set aside. Who has a
        claim may have come later: in their own share the order decides.
        """
        budgets, line = self._limits.budgets, record.line
        opened = budgets.rivals(record.task, record.level)
        for purse, _ in budgets.rates(record.task):
            claim = purse.claim
            first = None if claim is None else self._tasks.get(claim.uid)
            if claim is None or first is None or first.line is None or line is None:
                continue
            if first.line.share is line.share and record.before(first):
                opened += budgets.drop_claim(claim)
        self._parking.open(opened)
        return bool(opened)

    def set_all_aside(self, now: float) -> bool:
        """Park all that limits hold, whether there is room or not, and count as excess what quotas would not let start:
        pools do not grow for either. Return whether there was any."""
        found = False
        left: dict[str, dict[str, int]] = {}
        for share in self._waiting.tenants():
            while (record := self._waiting.first_of(share)) is not None and self._set_aside(record, now):
                found = True
            if (
                record is not None
                and self._limits.limited(record.task)
                and not order.is_emergency(record.shape.queue, record.task)
            ):
                found = self._leave_out(share, record.task, left) or found
        return found

    def _leave_out(self, share: Share[Group, Line], task: Task, left: dict[str, dict[str, int]]) -> bool:
        """Count as excess what quotas have no room for. `left`: what they have room for, by queue of each tenant, and
        of the queue itself under the name of all, which no tenant has."""
        assert share.parent is not None, "a tenant's share is one of its queue's"
        name, tenant = share.parent.key, task.tenant
        of_queue, of_tenant = self._limits.room(task)
        rooms = left.get(name)
        if rooms is None:
            rooms = left[name] = {ALL: of_queue}
        own = rooms.get(tenant, of_tenant)
        wanted = share.wanted
        startable = min(min(wanted, own), rooms[ALL])
        rooms[ALL] -= startable
        rooms[tenant] = own - startable
        excess = wanted - startable
        if not excess:
            return False
        for demand, tasks in share.demands.items():
            over = min(tasks, excess)
            demand.excess += over
            excess -= over
        return True

    def _park(self, record: TaskRecord, reason: Reason) -> None:
        self._states.withdraw(record)
        record.gate, record.trying = reason, False
        self._states.count_gated(record, reason)

    def _for_reserved(self, now: float) -> Iterator[tuple[TaskRecord, AgentRecord]]:
        """Yield what goes to reserved agents: the Task that each is reserved for, or what should end before it fits."""
        self._reservations.make(now)
        for reservation in self._reservations:
            agent, holder = reservation.agent, reservation.record
            if holder.line is None:
                # It has just started elsewhere: its hold is let go next.
                continue
            while agent.kind is not None and agent.busy < agent.slots:
                if has_room(agent, holder) and self._may_go(holder, now):
                    yield holder, agent
                    break
                free = 0
                for roster in agent.kind.rosters.values():
                    if agent.fits(roster.resources):
                        free |= roster.masks[agent.slots - agent.busy]
                record = self._first(free, now)
                if record is None or now + self._states.service(record) > reservation.fits_at:
                    break
                yield record, agent

    def _may_go(self, record: TaskRecord, now: float) -> bool:
        """Whether no limit holds the eligible Task."""
        task = record.task
        return self._limits.in_turn(task) and self._limits.blocker(task, record.level, now) is None

    def _assign(self, record: TaskRecord, now: float, agent: AgentRecord | None = None) -> Assign:
        task, shape = record.task, record.shape
        strategy, score = shape.strategy, 0.0
        contest: Contest | None = None
        if strategy is None:
            contest = current_contest(shape, agent)
            strategy = contest.strategy
        if agent is None:
            profile = shape.profile
            assert profile is not None, "a Task of a closed shape was found"
            self._states.estimate(shape)
            left = inf if task.deadline is None else task.deadline - now
            if strategy is ADAPTIVE and task.placement is None and task.sticky_key is None:
                agent = profile.choose(shape, left)
                score = agent.busy / agent.slots
                message = f"Adaptive: quickest and least busy, {agent.busy} of {agent.slots} slots."
            else:
                choice = self.strategies.choose(task, shape, profile, contest or current_contest(shape), left)
                agent, score, message = choice.agent, choice.score, choice.message
        else:
            message = "It has room there while the agent is held, as what needs much room at once waits for it."
        assert agent.pool is not None
        service = self._states.service(record)
        if self._catalogue.timed and not task.attempted and not self._limits.concerns(task):
            since = max(task.created, task.not_before)
            self.autoscaler.started(agent.pool, now - since, shape.demand)
        self._waiting.charge(record, agent.pool, service, now)
        charge, record.charge = record.charge, None
        record.trying = False
        self._states.take_out(record, now)
        record.charge = charge
        record.relaxed, record.patience = False, inf
        self._limits.grant(task, now)
        if task.concurrency_key is not None and self._limits.key_open(task):
            self._parking.key_free(task, now)
        record.fresh = False
        self._states.lease(record, agent, now + service, now)
        _, pool = agent.pool
        rule, step = step_taken(shape.route, pool)
        return Assign(task.uid, agent.uid, agent.name, pool, ASSIGNED, message, rule, step, strategy, score)


def _least_of_group(record: TaskRecord, short: Short) -> Short | None:
    """Return what holds all of the Task's group, as there is not enough for the one that takes least; None if there is.

    What asks for more than there can ever be holds up none of the others.
    """
    line = record.line
    assert line is not None, "what is found stands in a line"
    assert line.group is not None, "and that in a group"
    least = None if short.final else short.purse.lack(line.group.least(short.purse), False)
    return least if isinstance(least, Short) else None
