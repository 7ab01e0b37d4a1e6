"""The tool *load-balancer*: pools, agents, how loaded they are, how one is picked, and what holds work up."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field

from taskdist.api import AgentPool, Phase, TaskQueue
from taskdist.api.taskqueue import TaskQueueSpec
from taskdist.kube import Obj, name_of
from taskdist.mcp.forms import Form, PoolName, QueueName
from taskdist.mcp.reading import Reading, agent_of, condition, slots_of
from taskdist.mcp.wording import counted
from taskdist.protocol import convert
from taskdist.protocol.observations import ObservedPod
from taskdist.simulation.spans import ratio, variation

DESCRIPTION = """\
How work is spread over agents. Say what you want by `request.action`:
- pools: each pool's agents, slots, skills, cost, how many agents are wanted and why, and circuit breakers.
- agents: the agents of a pool with the slots that are busy, the Tasks they run and their breakers.
- load: how full each pool is now and how unequal its agents are: `load_variance` is the coefficient of variation of \
their busy fractions, at this moment (over a period: tool get_progress).
- strategies: by which rule each queue picks an agent, and the rules there are.
- bottlenecks: what holds most waiting time of each queue and pool now, and what would help most.
It changes nothing. To change sizes, limits or a strategy edit the AgentPool or TaskQueue; try a change of sizes first \
with tool scheduler, action what_if or simulate."""


class ListPools(Form):
    """List pools, and how they stand."""

    action: Literal["pools"]
    pool: PoolName | None = None


class ListAgents(Form):
    """List the agents of a pool."""

    action: Literal["agents"]
    pool: PoolName


class Load(Form):
    """Tell how full pools are now."""

    action: Literal["load"]
    pool: PoolName | None = None


class Strategies(Form):
    """Tell by which rule queues pick agents."""

    action: Literal["strategies"]
    queue: QueueName | None = None


class Bottlenecks(Form):
    """Tell what holds work up."""

    action: Literal["bottlenecks"]


Request = Annotated[
    ListPools | ListAgents | Load | Strategies | Bottlenecks,
    Field(discriminator="action", description="What is wanted."),
]


class OpenBreaker(Form):
    """An agent that gets no Tasks, or one at a time, because it failed where others succeeded."""

    agent: str
    state: str
    since: str


class TypeFigures(Form):
    """Recent attempts of a pool's agents at one type of Task."""

    type: str
    attempts: int
    mean_seconds: float
    success_rate: float


class PoolState(Form):
    """The state of a pool."""

    name: str
    agents_ready: int
    agents_wanted: int
    agents_least: int
    agents_most: int
    wanted_because: str | None = None
    slots: int = Field(description="Of all connected agents.")
    busy_slots: int
    utilization: float | None = Field(None, description="Busy slots ÷ slots now; absent without agents.")
    slots_per_agent: int
    skills: list[str]
    resources: dict[str, int]
    cost_per_hour: float | None = Field(None, description="Of one agent; absent if the pool does not say it.")
    quality: float
    efficiency: float | None = Field(None, description="Accepted work ÷ (slot-seconds held × speed), lately.")
    types: list[TypeFigures] | None = None
    open_breakers: list[OpenBreaker] | None = None
    bottleneck: str | None = None
    stalled: str | None = Field(None, description="What keeps it from getting agents.")


class AgentState(Form):
    """The state of an agent."""

    name: str
    ready: bool
    slots: int = Field(description="As its pool says.")
    busy_slots: int
    tasks: list[str]
    breaker: str = Field(description="Closed: it gets Tasks as any other.")
    trouble: str | None = None


class PoolLoad(Form):
    """The load of a pool at this moment."""

    pool: str
    agents: int = Field(description="Agents whose pods are ready.")
    slots: int = Field(description="Of these agents, as their pool says.")
    busy_slots: int
    utilization: float | None = None
    load_variance: float | None = Field(None, description="Absent with fewer than two agents, or if none is busy.")
    fullest: str | None = None
    emptiest: str | None = None


class QueueStrategy(Form):
    """The rule by which a queue picks an agent. Steps of its routes may have another."""

    queue: str
    strategy: str
    routes: dict[str, list[str]] | None = Field(None, description="Strategies of the steps, by route.")


class Bottleneck(Form):
    """The cause of most waiting time of a queue or pool."""

    kind: str
    name: str
    what: str


class Answer(Form):
    """The findings. `said` is the same in a sentence."""

    said: str
    pools: list[PoolState] | None = None
    agents: list[AgentState] | None = None
    load: list[PoolLoad] | None = None
    strategies: list[QueueStrategy] | None = None
    rules: str | None = Field(None, description="The rules there are, and how each picks.")
    bottlenecks: list[Bottleneck] | None = None
    warnings: list[str] | None = None


class LoadBalancerTool:
    """The tool: answers requests about pools and their load."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    async def __call__(self, request: Request) -> Answer:
        match request:
            case ListPools():
                return await self._pools(request.pool)
            case ListAgents():
                return await self._agents(request.pool)
            case Load():
                return await self._load(request.pool)
            case Strategies():
                return await self._strategies(request.queue)
            case Bottlenecks():
                return await self._bottlenecks()

    async def _pools(self, name: str | None) -> Answer:
        found, odd = await self._reading.pools(name)
        states = [pool_state(each) for each in found]
        busy, slots = sum(each.busy_slots for each in states), sum(each.slots for each in states)
        ready = counted(sum(each.agents_ready for each in states), "agent")
        said = f"{counted(len(states), 'pool')}: {ready} ready, {busy} of {slots} slots busy."
        return Answer(said=said, pools=states, warnings=odd or None)

    async def _agents(self, name: str) -> Answer:
        (pool,), _ = await self._reading.pools(name)
        states = _agent_states(pool, await self._pods(), await self._running())
        said = f"Pool {name}: {sum(each.ready for each in states)} of {len(states)} agents ready"
        return Answer(said=f"{said}, {sum(each.busy_slots for each in states)} slots busy.", agents=states)

    async def _load(self, name: str | None) -> Answer:
        pools, odd = await self._reading.pools(name)
        pods, running = await self._pods(), await self._running()
        loads = [_pool_load(each, _agent_states(each, pods, running)) for each in pools]
        said = [_load_line(each) for each in loads] or ["There is no pool."]
        return Answer(said=" ".join(said), load=loads, warnings=odd or None)

    async def _strategies(self, name: str | None) -> Answer:
        queues, odd = await self._reading.queues(name)
        found = []
        for queue in queues:
            own = queue.spec.strategy
            routes = {route.name: [(step.strategy or own).value for step in route.steps] for route in queue.spec.routes}
            found.append(QueueStrategy(queue=queue.metadata.name, strategy=own.value, routes=routes or None))
        said = "; ".join(f"queue {each.queue}: {each.strategy}" for each in found) or "There is no queue"
        rules = TaskQueueSpec.model_fields["strategy"].description
        return Answer(said=f"{said}.", strategies=found, rules=rules, warnings=odd or None)

    async def _bottlenecks(self) -> Answer:
        (queues, odd), (pools, odd_pools) = await self._reading.queues(), await self._reading.pools()
        every: list[TaskQueue | AgentPool] = [*queues, *pools]
        found = []
        for each in every:
            if what := condition(each.status.conditions, "Bottleneck"):
                found.append(Bottleneck(kind=each.kind, name=each.metadata.name, what=what))
        said = "; ".join(f"{one.kind} {one.name}: {one.what}" for one in found) or "Nothing holds Tasks for long."
        return Answer(said=said, bottlenecks=found, warnings=[*odd, *odd_pools] or None)

    async def _pods(self) -> list[ObservedPod]:
        """Read the agents' pods, in the order of their names."""
        pods = [convert.observed_pod(each) for each in await self._reading.pods()]
        return sorted(pods, key=lambda each: each.name)

    async def _running(self) -> dict[str, list[Obj]]:
        """Read the Tasks that run, by their agent."""
        found: dict[str, list[Obj]] = defaultdict(list)
        async for task in self._reading.each_task(phase=Phase.ASSIGNED.value):
            found[agent_of(task)].append(task)
        return found


def pool_state(pool: AgentPool) -> PoolState:
    spec, status = pool.spec, pool.status
    scaling = spec.scaling
    because = f"{status.scaling_reason}: {status.scaling_message}" if status.scaling_reason else None
    return PoolState(
        name=pool.metadata.name,
        agents_ready=status.ready_replicas,
        agents_wanted=status.desired_replicas,
        agents_least=scaling.min_replicas if scaling else spec.replicas,
        agents_most=scaling.max_replicas if scaling else spec.replicas,
        wanted_because=because,
        slots=status.slots,
        busy_slots=status.busy_slots,
        utilization=ratio(status.busy_slots, status.slots),
        slots_per_agent=spec.slots,
        skills=spec.skills,
        resources=spec.resources,
        cost_per_hour=spec.cost_per_hour or None,
        quality=spec.quality,
        efficiency=status.efficiency,
        types=[
            TypeFigures(
                type=each.type, attempts=each.count, mean_seconds=each.mean_seconds, success_rate=each.success_rate
            )
            for each in status.performance
        ]
        or None,
        open_breakers=[
            OpenBreaker(agent=each.agent, state=each.state.value, since=each.since.isoformat())
            for each in status.breakers
        ]
        or None,
        bottleneck=condition(status.conditions, "Bottleneck"),
        stalled=condition(status.conditions, "Stalled"),
    )


def _agent_states(
    pool: AgentPool, pods: Iterable[ObservedPod], running: Mapping[str, Sequence[Obj]]
) -> list[AgentState]:
    """Tell how the pool's agents stand that have not ended. `running`: Tasks that run, by their agent."""
    breakers = {each.agent: each.state.value for each in pool.status.breakers}
    states = []
    for pod in pods:
        if pod.pool != pool.metadata.name or pod.ended:
            continue
        tasks = running.get(pod.name, ())
        states.append(
            AgentState(
                name=pod.name,
                ready=pod.ready and not pod.deleting,
                slots=pool.spec.slots,
                busy_slots=sum(slots_of(each) for each in tasks),
                tasks=sorted(name_of(each) for each in tasks),
                breaker=breakers.get(pod.name, "Closed"),
                trouble=pod.trouble.message if pod.trouble else None,
            )
        )
    return states


def _pool_load(pool: AgentPool, agents: Iterable[AgentState]) -> PoolLoad:
    ready = [each for each in agents if each.ready]
    slots, busy = sum(each.slots for each in ready), sum(each.busy_slots for each in ready)
    return PoolLoad(
        pool=pool.metadata.name,
        agents=len(ready),
        slots=slots,
        busy_slots=busy,
        utilization=ratio(busy, slots),
        load_variance=variation((each.busy_slots, each.slots) for each in ready) if len(ready) > 1 else None,
        fullest=max(ready, key=lambda each: each.busy_slots).name if ready else None,
        emptiest=min(ready, key=lambda each: each.busy_slots).name if ready else None,
    )


def _load_line(load: PoolLoad) -> str:
    if load.utilization is None:
        return f"Pool {load.pool} has no agent that is ready."
    spread = "" if load.load_variance is None else f", load variance {load.load_variance:.0%}"
    return f"Pool {load.pool}: {load.busy_slots} of {load.slots} slots busy ({load.utilization:.0%}){spread}."
