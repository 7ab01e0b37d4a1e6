"""A world in virtual time around the real two ends of the lease protocol: machines, clocks, network, API server.

Everything that happens follows from the seed, so that a failing history replays exactly. The checker looks on from
here: the world tells it what truly runs, which neither end can see.
"""

import heapq
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from faults.api_model import Api, StoredTask
from faults.checker import Checker
from faults.fates import OTHER_QUEUE, FatefulCore, WatchedCore
from faults.machines import AgentMachine
from faults.operators import Operator
from faults.plan import Plan, draw_array
from faults.shared import DEVICE
from faults.timings import QUICK, SHIPPED
from faults.trouble import FAULTS
from taskdist.api import Phase, Reclaim
from taskdist.core import Core
from taskdist.core.model import Overflow, Pool, Queue, Quota, RetryPolicy, Task, Timeouts
from taskdist.protocol.agent import AgentEnd
from taskdist.protocol.observations import ObservedPod
from taskdist.protocol.operator import Leader
from taskdist.protocol.rules import ALL, Rules


class World:
    """One history."""

    def __init__(
        self,
        seed: int,
        plan: Plan,
        leader: Callable[..., Leader] = Leader,
        agent: Callable[..., AgentEnd] = AgentEnd,
        *,
        rules: Rules = ALL,
        settings: Mapping[str, float] | None = None,
        clocks_count_suspend: bool = True,
        agents_know_limits: bool = True,
        trace: bool = False,
    ) -> None:
        """Prepare a history.

        Args:
            seed: all that is drawn follows from it.
            plan: what there is and what goes wrong.
            leader: makes the operator's end.
            agent: makes the agent's end.
            rules: lines of the protocol that both ends keep.
            settings: of leaders, instead of the world's.
            clocks_count_suspend: whether agents' clocks do, as CLOCK_BOOTTIME does.
            agents_know_limits: whether agents are expected to keep the limits of attempts by themselves.
            trace: whether all that happens is written down.
        """
        self.t = 0.0
        self.seed = seed
        self.rng = random.Random(seed)
        self.plan = plan
        self.timings = SHIPPED if plan.shipped else QUICK
        self.make_leader = partial(leader, rules=rules)
        self.make_end = partial(agent, rules=rules)
        self.leader_settings = replace(self.timings.leader, **(settings or {}))  # type: ignore[arg-type]
        self.clocks_count_suspend = clocks_count_suspend
        self.agents_know_limits = agents_know_limits
        self.lines: list[str] | None = [] if trace else None
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0
        self.api = Api(lambda: self.t)
        self.api.watch = self._watch
        self.check = Checker(self)
        self.queue = Queue(
            "ns",
            "q",
            pools=("p",),
            dispatch=plan.dispatch,
            delivery=plan.delivery,
            reclaim=plan.reclaim,
            lease_seconds=self.timings.lease,
            hold_seconds=self.timings.hold,
            retry=RetryPolicy(
                limit=3,
                initial_seconds=0.5,
                factor=2.0,
                max_seconds=2.0,
                jitter=0.5,
                agent_deaths=plan.agent_deaths,
                on_exhausted=plan.on_exhausted,
            ),
            timeouts=Timeouts(plan.waiting, plan.execution, plan.progress),
            overflow=Overflow(1, 0, plan.overflow, OTHER_QUEUE) if plan.overflow is not None else None,
            quota=Quota(waiting=1) if plan.overflow is not None else Quota(),
        )
        if plan.shared is not None:
            self.queue = plan.shared.rules(self.queue)
        self.decided: dict[tuple[int, str], Task] = {}  # by epoch and uid: on which Task a core decided
        self.pool = Pool(
            "ns",
            "p",
            slots=plan.slots,
            resources=((DEVICE, plan.devices),) if plan.devices else (),
            elastic=plan.elastic,
            minimum=0 if plan.elastic else plan.pods,
            maximum=plan.pods,
            scale_down_delay=1.0,
            cost_per_hour=3600.0 * plan.slots,  # so that a slot costs 1 a second
        )
        self.wanted = 0 if plan.elastic else plan.pods
        self.sessions = 0
        self.slow_until = 0.0  # links, watches and writes are slow until then
        self.slow_watch_until = 0.0
        self.slow_writes_until = 0.0
        self.slow_hello_until = 0.0
        self.lost_answers_until = 0.0
        self.no_election_until = 0.0
        self.calm_at = max((at + lasts for at, _, lasts in plan.faults), default=0.0)
        self.agents: dict[str, AgentMachine] = {}
        self._ordinal = 0
        self.lease_holder: Operator | None = None
        self.lease_renewed = -100.0
        self.lease_epoch = 0
        self.operators = [Operator(self, n) for n in range(plan.operators)]
        self.done = False
        self.queue_there = self.pool_there = True

    @property
    def queues(self) -> tuple[Queue, ...]:
        mine = (self.queue,) if self.queue_there else ()
        return (*mine, replace(self.queue, name=OTHER_QUEUE, overflow=None))

    def make_core(self, epoch: int) -> Core:
        return (FatefulCore if self.plan.fateful else WatchedCore)(self, epoch)  # type: ignore[return-value]

    # --- time ---

    def after(self, delay: float, what: Callable[..., None], *args: Any) -> None:
        self._count += 1
        heapq.heappush(self._heap, (self.t + delay, self._count, what, args))

    def say(self, who: str, what: object) -> None:
        if self.lines is not None:
            self.lines.append(f"{self.t:8.3f} {who:6} {what}")

    def run(self) -> None:
        """Run to the end; raises `Violation`."""
        plan, rng = self.plan, self.rng
        draws = random.Random(self.seed * 15485863 + 3)
        for _ in range(self.wanted):
            self.create_pod()
        for n in range(plan.tasks):
            task = StoredTask(f"t{n}", f"task-{n}", 0.0, payload_bytes=100_000 if rng.random() < 0.01 else 2)
            if plan.shared is not None:
                task.spec = plan.shared.spec(n, draws)
                task.twin = plan.shared.twin(task.spec, draws)
            if plan.arrays:
                task.array = draw_array(draws)
            self.after(rng.choice((0.0, 0.5, rng.uniform(0, 5))), self._create, task)
        for operator in self.operators:
            self.after(0.01 + 0.1 * operator.number, operator.campaign)
        for at, kind, lasts in plan.faults:
            self.after(at, self._fault, kind, lasts)
        self.after(max(self.calm_at, 6.0), self._calm)
        heap = self._heap
        while heap and not self.done:
            self.t, _, what, args = heapq.heappop(heap)
            what(*args)

    def _calm(self) -> None:
        """Faults are over: everything must come to its end within the bound."""
        for task in self.api.tasks.values():
            if task.suspend and not task.deleted:
                task.suspend = False
                self.api.touch(task)
        self._look(self.t + self.timings.liveness)

    def _look(self, deadline: float) -> None:
        if self.check.all_over():
            self.check.at_the_end()
            self.done = True
        elif self.t > deadline:
            self.check.not_over()
        else:
            self.after(0.5, self._look, deadline)

    @property
    def calm(self) -> bool:
        return self.t >= self.calm_at

    # --- delays ---

    def link_delay(self) -> float:
        if self.t < self.slow_until and self.rng.random() < 0.3:
            return self.rng.uniform(0.5, self.rng.choice((3.5, 9.0)))
        return self.rng.uniform(0.001, 0.02)

    def watch_delay(self) -> float:
        if self.t < self.slow_watch_until:
            return self.rng.uniform(0.5, 8.0)
        return self.rng.uniform(0.001, 0.05)

    # --- the API server's effects ---

    def _watch(self, kind: str, uid: str, value: Any) -> None:
        if value is not None and kind == "task":
            self.say("api", f"{uid} v{value.resource_version} {value.phase} a{value.attempt} e{value.epoch}")
            if self.lines is not None and value.array is not None:
                self.say("api", f"{uid} {self.api.tasks[uid].status.get('array')}")
        if value is not None and kind == "task" and value.phase is Phase.DEAD_LETTERED:
            self._react(uid)
        for operator in self.operators:
            operator.hear_of(kind, uid, value, self.watch_delay())

    def _react(self, uid: str) -> None:
        """Whoever owns the Task looks at the dead letter, perhaps."""
        draw = self.rng.random()
        if draw < self.plan.letters:
            self.after(self.rng.choice((0.0, 0.3, 3.0)), self._answer_letter, uid, draw < 0.75 * self.plan.letters)

    def _answer_letter(self, uid: str, redrive: bool) -> None:
        task = self.api.tasks[uid]
        if task.deleted or self.api.phase(uid) is not Phase.DEAD_LETTERED:
            return
        if redrive and task.redrive < 3:
            task.redrive += self.rng.choice((1, 1, 2))
        elif not task.cancel:
            task.cancel = True
        else:
            return
        self.check.answered.add(uid)
        self.api.touch(task)

    def _create(self, task: StoredTask) -> None:
        task.created = self.t
        self.api.create(task)

    def create_pod(self) -> None:
        if sum(1 for pod in self.api.pods.values() if not pod.deleting) >= self.wanted:
            return
        self._ordinal += 1
        uid = f"pod{self._ordinal}"
        self.api.put_pod(ObservedPod(uid, "ns", f"p-{self._ordinal}", "p", self.t, ready=True, may_run=True))
        machine = AgentMachine(self, uid)
        self.agents[uid] = machine
        self.after(0.2, machine.start)

    def fill(self) -> None:
        """The pool's keeper: as many pods as are wanted, those being deleted not counted."""
        alive = sum(1 for p in self.api.pods.values() if not p.deleting)
        for _ in range(self.wanted - alive):
            self.create_pod()

    def scale(self, replicas: int) -> None:
        self.wanted = replicas
        self.after(0.3, self.fill)

    # --- faults ---

    def _fault(self, kind: str, lasts: float) -> None:
        self.say("fault", f"{kind} {lasts}")
        rng = self.rng
        machines = [m for m in self.agents.values() if not m.gone]
        machine = rng.choice(machines) if machines else None
        operator = self._leading() or rng.choice(self.operators)
        tasks = [t for t in self.api.tasks.values() if not t.deleted]
        task = rng.choice(tasks) if tasks else None
        until = self.t + lasts
        if kind == "cut" and machine is not None:
            machine.cut(lasts if rng.random() < 0.5 and not self.plan.gentle else 0.0)
        elif kind == "slow_link":
            self.slow_until = until
        elif kind == "slow_watch":
            self.slow_watch_until = until
        elif kind == "slow_writes":
            self.slow_writes_until = until
        elif kind == "slow_hello":
            self.slow_hello_until = until
            if machine is not None:
                machine.cut(0.0)
        elif kind == "lost_answers":
            self.lost_answers_until = until
        elif kind == "freeze":
            operator.freeze(lasts)
        elif kind == "operator_crash":
            operator.crash(min(lasts, 4.0))
        elif kind == "partition":
            operator.partitioned_until = until
        elif kind == "step_down":
            operator.step_down(min(lasts, 4.0))
        elif kind == "agent_crash" and machine is not None:
            machine.crash(min(lasts, 3.0))
        elif kind == "pod_death" and machine is not None:
            machine.die(min(lasts, 3.0))
        elif kind == "pod_deleted" and machine is not None:
            machine.delete()
        elif kind in FAULTS:
            FAULTS[kind](self, lasts)
        elif kind == "suspend_machine" and machine is not None:
            machine.suspend(lasts)
        elif kind == "lower_size" and self.plan.elastic is False and self.pool.minimum > 1:
            self.resize(self.pool.minimum - 1)
        elif task is not None and not self.api.phase(task.uid).terminal:
            if kind == "cancel":
                task.cancel = True
            elif kind == "suspend":
                task.suspend = True
                self.after(lasts, self._resume, task)
            elif kind == "priority":
                task.priority = (task.priority + 1) % 5
            elif kind == "redrive":
                task.redrive += 1
            elif kind == "delete":
                self.api.delete(task)
                return
            else:
                return
            self.api.touch(task)

    def resize(self, replicas: int) -> None:
        self.pool = replace(self.pool, minimum=replicas, maximum=replicas)
        self.wanted = replicas
        self._tell_of_pool()

    def set_ready(self, uid: str, ready: bool) -> None:
        pod = self.api.pods.get(uid)
        if pod is not None:
            self.api.put_pod(replace(pod, ready=ready))

    def edit_queue(self, queue: Queue) -> None:
        self.queue = queue
        self._tell_of_queue()

    def show_queue(self, there: bool) -> None:
        self.queue_there = there
        self._tell_of_queue()

    def edit_pool(self, pool: Pool) -> None:
        self.pool = pool
        self._tell_of_pool()

    def show_pool(self, there: bool) -> None:
        self.pool_there = there
        self._tell_of_pool()

    def _tell_of_queue(self) -> None:
        for operator in self.operators:
            self.after(self.watch_delay(), self._hear_of_queue, operator)

    def _tell_of_pool(self) -> None:
        for operator in self.operators:
            self.after(self.watch_delay(), self._hear_of_pool, operator)

    def _hear_of_queue(self, operator: Operator) -> None:
        """However late it comes, it is the queue as it stands: an older state of it is never taken for a newer."""
        if self.queue_there:
            operator.feed("queue_applied", self.queue)
        else:
            operator.feed("queue_deleted", self.queue.key)

    def _hear_of_pool(self, operator: Operator) -> None:
        if self.pool_there:
            operator.feed("pool_applied", self.pool)
        else:
            operator.feed("pool_deleted", self.pool.key)

    def _resume(self, task: StoredTask) -> None:
        if task.suspend and not task.deleted:
            task.suspend = False
            self.api.touch(task)

    def _leading(self) -> Operator | None:
        return next((o for o in self.operators if o.leader is not None), None)

    def reachable(self) -> list[Operator]:
        """Operators that an agent may reach: those that believe that they lead."""
        return [o for o in self.operators if o.alive and o.leader is not None and not o.leader.over]

    @property
    def overlap_allowed(self) -> bool:
        return self.plan.reclaim is Reclaim.FAST
