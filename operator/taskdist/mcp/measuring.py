"""Figures of a period: how many Tasks were handed out, how long they waited, how even the load was, what was in time.

Measured from the Tasks and pods that the cluster holds. Owns when a figure cannot be told: then it has none, and a
reason. Refuses to estimate.

    queue time       first assignment − the later of creation and `notBefore`; of Tasks that were assigned within the
                     period at their first attempt, and depend on none. The API server keeps creation in whole seconds,
                     so that each was up to a second less.
    load variance    coefficient of variation of the agents' busy fractions in the pool where it is largest, as in
                     simulations; of the agents that are ready now, each since it was
    utilization      their busy slot-seconds ÷ their slot-seconds, by the slots that their pool gives them now
    deadline success Tasks that succeeded by their deadline ÷ all with a deadline whose fate fell within the period, but
                     those that were cancelled
    completion       Tasks that succeeded ÷ all that ended within the period, but those that were cancelled
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from taskdist.api import AgentPool, Phase, Priority, TaskQueue
from taskdist.client.states import SETTLED, phase_of, status_of
from taskdist.common import times
from taskdist.kube import Obj
from taskdist.mcp.errors import Refusal
from taskdist.mcp.reading import Reading, agent_of, slots_of
from taskdist.protocol import convert
from taskdist.simulation.spans import overlap, ratio, variation

MOST_TASKS = 50_000
"""How many Tasks are read for one answer: there may be very many that have ended."""
NO_BASELINE = (
    "how much less Tasks waited than they would have without this: the same work was not run another way; "
    "`taskdist simulate` compares policies"
)


@dataclass(slots=True)
class Use:
    """The load of an agent within the period: its slots, and those that were busy, in slot-seconds."""

    pool: str
    since: float
    slots: float
    busy: float = 0.0


@dataclass(slots=True)
class Figures:
    """Figures of a period. One that is None was not measured, and `unknown` says why. In seconds, on the wall clock."""

    begin: float
    end: float
    waiting: int = 0
    running: int = 0
    waiting_by_level: Counter[str] = field(default_factory=Counter)
    created: int = 0
    distributed: int = 0
    by_agent: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    failed_attempts: Counter[str] = field(default_factory=Counter)
    queue_seconds: tuple[float, float] | None = None
    """Bounds of the average."""
    queue_times: int = 0
    load_variance: float | None = None
    load_pool: str = ""
    utilization: float | None = None
    deadlines_met: int = 0
    deadlines: int = 0
    completion: float | None = None
    unknown: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def deadline_success(self) -> float | None:
        return ratio(self.deadlines_met, self.deadlines)

    @property
    def busy_now(self) -> bool:
        return bool(self.waiting or self.running)


async def measure(
    reading: Reading, seconds: float, now: float, *, queue: str | None = None, pool: str | None = None
) -> Figures:
    """Measure the period that ends now: of all Tasks, of a queue's, or of those that a pool's agents ran."""
    figures = Figures(now - seconds, now)
    queues = await _queues(reading, queue, figures)
    _begin_where_all_are_there(figures, queues)
    uses = await _uses(reading, pool, figures)
    sums = _Sums(figures, uses, pool)
    read = 0
    async with reading.turn:
        async for task in reading.each_task(queue):
            read += 1
            if read > MOST_TASKS:
                # A part of them is no measure of the whole.
                raise Refusal(
                    f"There are more than {MOST_TASKS} Tasks: ask for one queue, or give Tasks a time to live "
                    "(spec.ttlSecondsAfterFinished of their queue)."
                )
            sums.add(task)
    sums.close()
    return figures


async def _queues(reading: Reading, name: str | None, figures: Figures) -> list[TaskQueue] | None:
    """Read the queues concerned; None if they may not be read."""
    try:
        found, odd = await reading.queues(name)
    except Refusal as refusal:
        if name is not None:
            raise
        figures.notes.append(f"How long ended Tasks are kept is not known: {refusal}")
        return None
    figures.notes += odd
    return found


def _begin_where_all_are_there(figures: Figures, queues: list[TaskQueue] | None) -> None:
    """Shorten the period to the shortest time that ended Tasks are kept: of what was before only a part is left."""
    kept = [each.spec.ttl_seconds_after_finished for each in queues or ()]
    shortest = min((each for each in kept if each is not None), default=None)
    if shortest is not None and figures.end - shortest > figures.begin:
        figures.begin = figures.end - shortest
        figures.notes.append(
            f"The period is the last {times.span(shortest)}: ended Tasks are kept no longer "
            "(spec.ttlSecondsAfterFinished). The archive and the operator's metrics reach further back."
        )
    figures.notes.append("Tasks that were deleted, or had a shorter time to live of their own, are not counted.")


async def _uses(reading: Reading, only: str | None, figures: Figures) -> dict[str, Use]:
    """Read the agents that are ready now, by name."""
    try:
        pools, _ = await reading.pools(only)
        pods = await reading.pods()
    except Refusal as refusal:
        if only is not None:
            raise
        figures.unknown["load_variance"] = figures.unknown["utilization"] = str(refusal)
        return {}
    known: dict[str, AgentPool] = {each.metadata.name: each for each in pools}
    found: dict[str, Use] = {}
    for pod in pods:
        seen = convert.observed_pod(pod)
        since = _ready_since(pod)
        if seen.pool in known and seen.ready and not seen.deleting and since is not None:
            begin = max(since, figures.begin)
            slots = known[seen.pool].spec.slots * max(0.0, figures.end - begin)
            found[seen.name] = Use(seen.pool, begin, slots)
    return found


def _ready_since(pod: Obj) -> float | None:
    for each in (pod.get("status") or {}).get("conditions") or ():
        if each.get("type") == "Ready" and each.get("status") == "True":
            return _moment(each.get("lastTransitionTime")) or _moment(pod["metadata"].get("creationTimestamp"))
    return None


class _Sums:
    """Adds up Tasks, one by one."""

    def __init__(self, figures: Figures, uses: dict[str, Use], pool: str | None) -> None:
        self._figures = figures
        self._uses = uses
        self._pool = pool
        self._low = self._high = 0.0

    def add(self, task: Obj) -> None:
        figures, status, phase = self._figures, status_of(task), phase_of(task)
        if self._pool is not None and self._pool not in (status.get("pool"), task["spec"].get("pool")):
            return
        created = _moment(task["metadata"].get("creationTimestamp"))
        finished = _moment(status.get("finishedAt"))
        assigned = _moment(status.get("assignedAt"))
        if created is not None and created >= figures.begin:
            figures.created += 1
        if phase == Phase.PENDING:
            figures.waiting += 1
            figures.waiting_by_level[str(task["spec"].get("priority") or Priority.NORMAL.value)] += 1
        figures.running += phase == Phase.ASSIGNED
        if assigned is not None and self._within(assigned):
            figures.distributed += 1
            figures.by_agent[agent_of(task) or "unknown"] += 1
            self._queue_time(task, created, assigned)
        if phase in SETTLED and finished is not None and self._within(finished):
            figures.ended[phase] += 1
        for record in status.get("attempts") or ():
            ended = _moment(record.get("endedAt"))
            if ended is not None and self._within(ended):
                figures.failed_attempts[str(record.get("reason") or "unknown")] += 1
        self._deadline(task, phase, finished)
        for agent, begin, end in _spans(task, assigned, finished, figures.end):
            if (use := self._uses.get(agent)) is not None:
                use.busy += slots_of(task) * overlap(begin, end, (use.since, figures.end))

    def close(self) -> None:
        figures = self._figures
        if figures.queue_times:
            figures.queue_seconds = self._low / figures.queue_times, self._high / figures.queue_times
        else:
            figures.unknown["avg_queue_time"] = "no Task was assigned for the first time within the period"
        if not figures.deadlines:
            figures.unknown["deadline_success"] = "no Task with a deadline ended or ran late within the period"
        ended = figures.ended.total() - figures.ended[Phase.CANCELLED]
        figures.completion = ratio(figures.ended[Phase.SUCCEEDED], ended)
        if figures.completion is None:
            figures.unknown["completion"] = "no Task ended within the period"
        if "load_variance" not in figures.unknown:
            self._load()

    def _load(self) -> None:
        figures = self._figures
        pools: dict[str, list[Use]] = {}
        for use in self._uses.values():
            pools.setdefault(use.pool, []).append(use)
        found = {
            name: variation((use.busy, use.slots) for use in uses) for name, uses in pools.items() if len(uses) > 1
        }
        known = [(value, name) for name, value in found.items() if value is not None]
        if known:
            figures.load_variance, figures.load_pool = max(known)
        else:
            figures.unknown["load_variance"] = "no pool has two agents that are ready, of which one ran a Task"
        used = self._uses.values()
        figures.utilization = ratio(sum(each.busy for each in used), sum(each.slots for each in used))
        if figures.utilization is None:
            figures.unknown["utilization"] = "no agent is ready"

    def _within(self, moment: float) -> bool:
        return self._figures.begin <= moment <= self._figures.end

    def _queue_time(self, task: Obj, created: float | None, assigned: float) -> None:
        spec = task["spec"]
        if created is None or status_of(task).get("attempt") != 1 or spec.get("dependsOn"):
            return
        not_before = _moment(spec.get("notBefore"))
        exact = not_before is not None and not_before >= created + 1
        waited = max(0.0, assigned - (not_before if exact and not_before is not None else created))
        self._high += waited
        self._low += waited if exact else max(0.0, waited - 1)
        self._figures.queue_times += 1

    def _deadline(self, task: Obj, phase: str, finished: float | None) -> None:
        deadline = _moment(task["spec"].get("deadline"))
        if deadline is None or phase == Phase.CANCELLED:
            return
        if phase in SETTLED:
            if finished is not None and self._within(finished):
                self._figures.deadlines += 1
                self._figures.deadlines_met += phase == Phase.SUCCEEDED and finished <= deadline
        elif self._within(deadline):
            self._figures.deadlines += 1  # late already


def _spans(task: Obj, assigned: float | None, finished: float | None, now: float) -> Iterator[tuple[str, float, float]]:
    """Agent, begin and end of each attempt of which both are known."""
    status, phase = status_of(task), phase_of(task)
    if phase in (Phase.ASSIGNED, Phase.SUCCEEDED) and assigned is not None and agent_of(task):
        yield agent_of(task), assigned, now if phase == Phase.ASSIGNED else finished or assigned
    for record in status.get("attempts") or ():
        begin, end = _moment(record.get("startedAt")), _moment(record.get("endedAt"))
        if begin is not None and end is not None and record.get("agent"):
            yield str(record["agent"]), begin, end


def _moment(told: object) -> float | None:
    """Seconds of a time of the API; None where there is none, or none that a calendar has."""
    return convert.seconds(str(told or "")) or None
