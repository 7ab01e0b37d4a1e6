"""Why a Task waits, asked of the engine that the operator runs, over a snapshot of the cluster.

There is no rule here: the snapshot becomes events, the engine answers. How long Tasks take it learns from those that
have ended. What only the operator can know (what agents said of themselves on the link, tokens, leases of a former
leader) it has written into status; where that is the better answer, it is given. What a change would do is played
forward in this process: the operator's own is never kept waiting by a question.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard

from taskdist.api import POOL_LABEL, Phase, Reason
from taskdist.api import view as shapes
from taskdist.api.view import Changes
from taskdist.client import explained, levels, questions
from taskdist.client.backend import Asks, Backend, Source, Told
from taskdist.client.errors import NoAnswer, TaskdistError, instead
from taskdist.client.leading import Leadership, leadership
from taskdist.client.outside import outside
from taskdist.client.states import phase_of, settled, status_of
from taskdist.common import times
from taskdist.core import Core
from taskdist.core.decisions import Assign, Explanation
from taskdist.core.events import (
    AgentReady,
    Event,
    PodSeen,
    PoolApplied,
    QueueApplied,
    TaskHeld,
    TaskLeased,
    TaskWaiting,
)
from taskdist.core.model import Agent, Key, Pool, Task
from taskdist.kube import AGENTPOOLS, PODS, TASKQUEUES, TASKS, Obj, name_of, namespace_of, uid_of
from taskdist.protocol import convert, explanations
from taskdist.protocol.dependencies import Lineage
from taskdist.protocol.duplicates import Duplicates, without_ordering_key
from taskdist.protocol.observations import ObservedTask
from taskdist.protocol.task_status import ARRAYS_SKILL
from taskdist.simulation.what_if import Change, NotPlayed, what_if
from taskdist.simulation.what_if import Snapshot as Moment

# What agents announce on the link (types, whether they can be fenced or have an object store), what a former leader
# left, which agent is held for whom and which gets less than it offers is not on the API.
ONLY_THE_OPERATOR_KNOWS = frozenset(
    {
        Reason.NO_HANDLER,
        Reason.UNFENCED,
        Reason.OBJECT_STORE_MISSING,
        Reason.RECOVERING,
        Reason.AGENT_HELD,
        Reason.BREAKER_OPEN,
        Reason.SLOW_START,
    }
)
# What is left of rates and budgets is in queues' status, if the operator has told it.
LEFT = frozenset({Reason.RATE_LIMITED, Reason.BUDGET_SHORT})
# No reason of a status: nobody is there to write it.
NO_LEADER = "NoLeader"
ENDED_LOOKED_AT = 1000
"""How many ended Tasks are read to learn how long they take: there may be very many."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the engine needs of one namespace. `ended` are some of the Tasks that succeeded."""

    tasks: list[Obj]
    queues: list[Obj]
    pools: list[Obj]
    pods: list[Obj]
    ended: list[Obj] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Answer:
    """Why it waits, in the engine's words. `reason` may be one of a newer release."""

    reason: str
    explanation: Explanation


def events(snapshot: Snapshot, now: float) -> tuple[list[Event], list[str]]:
    """The snapshot as events for the engine, and what of it could not be read. Of an array its parts are told."""
    made: list[Event] = []
    skipped: list[str] = []
    pools: dict[Key, Pool] = {}
    for obj in snapshot.queues:
        try:
            made.append(QueueApplied(convert.queue(obj)))
        except ValueError as error:
            skipped.append(f"TaskQueue {name_of(obj)} is invalid and left out: {error}")
    for obj in snapshot.pools:
        try:
            pool = convert.pool(obj)
            # Whether agents take chunks they say on the link: as good as can be, here as well.
            pool = replace(pool, skills=pool.skills | {ARRAYS_SKILL})
        except ValueError as error:
            skipped.append(f"AgentPool {name_of(obj)} is invalid and left out: {error}")
            continue
        pools[pool.key] = pool
        made.append(PoolApplied(pool))
    for obj in snapshot.pods:
        pod = convert.observed_pod(obj)
        if pod.ended or pod.deleting:
            continue
        made.append(PodSeen(pod.uid, pod.namespace, pod.name, pod.pool, pod.created, trouble=pod.trouble))
        owner = pools.get((pod.namespace, pod.pool))
        if pod.ready and owner is not None:
            made.append(AgentReady(_agent(obj, owner)))
    records: list[ObservedTask] = []
    lineage, duplicates = Lineage(), Duplicates()
    for obj in snapshot.tasks:
        try:
            record = convert.observed_task(obj)
        except ValueError as error:
            skipped.append(f"Task {name_of(obj)} is left out: {error}")
            continue
        records.append(record)
        lineage.seen(record)
        duplicates.seen(record)
    for record in [part for each in records for part in _parts(each, duplicates, now)]:
        task = lineage.resolved(record.task)
        if record.phase is Phase.ASSIGNED:
            made.append(TaskLeased(task, record.agent_uid))
        elif record.phase is Phase.PENDING and record.fault is not None:
            made.append(TaskHeld(task, record.fault.reason))
        elif record.phase is Phase.PENDING and record.reason is Reason.RECOVERING:
            made.append(TaskHeld(task, Reason.RECOVERING))
        elif record.phase is Phase.PENDING and duplicates.original(task.uid) is not None:
            made.append(TaskHeld(without_ordering_key(task), Reason.DUPLICATE))
        elif record.phase is Phase.PENDING:
            made.append(TaskWaiting(task))
    return made, skipped


def _parts(record: ObservedTask, duplicates: Duplicates, now: float) -> list[ObservedTask]:
    """The parts of an array; of one that is not split, as of any other Task, it alone."""
    if record.array is None or record.fault is not None or duplicates.original(record.task.uid) is not None:
        return [record]
    return explanations.parts(record, now)


def history(snapshot: Snapshot) -> tuple[list[tuple[Task, float | None]], dict[str, float]]:
    """Tasks that were there before, with how long those that succeeded took, and since when Tasks run, by uid."""
    before: list[tuple[Task, float | None]] = []
    since: dict[str, float] = {}
    for obj in [*snapshot.ended, *snapshot.tasks]:
        try:
            record = convert.observed_task(obj)
        except ValueError:
            continue  # said when it is read as an event
        if record.array is not None:
            # Of its chunks that have ended nothing tells how long they took.
            running = [each for each in record.array.parts.values() if each.phase is Phase.ASSIGNED]
            since |= {each.task.uid: each.assigned_at for each in running}
            before += [(each.task, None) for each in running]
            continue
        status = status_of(obj)
        started = convert.seconds(status.get("startedAt")) or convert.seconds(status.get("assignedAt"))
        if record.phase is Phase.ASSIGNED:
            since[record.task.uid] = started
            before.append((record.task, None))
        elif record.phase is Phase.SUCCEEDED:
            finished = convert.seconds(status.get("finishedAt"))
            before.append((record.task, max(0.0, finished - started) if started and finished else None))
    return before, since


def _agent(pod: Obj, pool: Pool) -> Agent:
    """The pod's agent, as good as its pool allows: what it says of itself is not on the API."""
    return Agent(
        uid=uid_of(pod),
        namespace=namespace_of(pod),
        name=name_of(pod),
        pool=pool.name,
        slots=pool.slots,
        resources=pool.resources,
        skills=pool.skills,
        types=None,
        labels=tuple(sorted((pod["metadata"].get("labels") or {}).items())),
    )


class Standing:
    """The engine, brought to where the snapshot stands: asked of each Task that waits, of one or of many.

    What fits now is handed out first: only then the engine knows what is left for the rest.
    """

    def __init__(self, snapshot: Snapshot, now: float) -> None:
        self._now = now
        self._events, self.skipped = events(snapshot, now)
        self._core = Core()
        for event in self._events:
            self._core.handle(event, now)
        for each, seconds in history(snapshot)[0]:
            self._core.learn(each, seconds)
        self._rules = {each.queue.key: each.queue for each in self._events if isinstance(each, QueueApplied)}
        self._told = levels.told(snapshot.queues, [*snapshot.tasks, *snapshot.ended])
        for key, known in self._told.items():
            self._core.recall_levels(key, known)
        self._of = {each.task.uid: each.task for each in self._events if isinstance(each, TaskWaiting | TaskHeld)}
        self._given = {each.task_uid: each for each in self._core.decide(now) if isinstance(each, Assign)}

    def starts_now(self, task: Obj) -> bool:
        """Whether there is room for it now, and its turn."""
        return self.uid(task) in self._given

    def uid(self, task: Obj) -> str:
        """The uid under which the engine knows it: of an array that of the first chunk that waits."""
        uid = uid_of(task)
        return uid if uid in self._of else waiting_uid(task, self._now) or uid

    def answer(self, task: Obj) -> Answer:
        """Why this waiting Task waits."""
        uid = self.uid(task)
        of = self._of.get(uid)
        missing = [] if of is None else levels.unknown(of, self._rules, self._told)
        recorded = _recorded(task)
        given = self._given.get(uid)
        explanation = self._core.explain(uid, self._now) or _between_parts(task, self._now)
        only = ONLY_THE_OPERATOR_KNOWS | LEFT if missing else ONLY_THE_OPERATOR_KNOWS
        # Whether agents take chunks they announce, too.
        only = only | {Reason.SKILL_MISSING} if task["spec"].get("array") else only
        # Who holds a budget is on the API: what is found of it here is newer.
        found = explanation is not None and explanation.reason in LEFT
        if recorded is not None and recorded.reason in only and (given or explanation) and not found:
            kept = replace(explanation or recorded, message=recorded.message, unblock="", command="")
            if recorded.reason in LEFT:
                kept = replace(kept, message=f"{recorded.message} (as the operator wrote it)", start=None)
            return Answer(str(recorded.reason), kept)
        if missing:
            left = f"How much is left of {' and '.join(missing)} is not known"
            if given is not None:
                return Answer(
                    Reason.QUEUED,
                    Explanation(
                        Reason.QUEUED,
                        f"Agent {given.agent_name} has room for it now. {left}: if there is enough, it starts at once.",
                        "Wait: the operator tells levels of rates and budgets in the status of queues.",
                    ),
                )
            if explanation is not None:
                explanation = replace(explanation, message=f"{explanation.message} {left}.", start=None)
        if given is not None:
            explanation = explanations.starting(given.agent_name)
        if explanation is None:
            status = status_of(task)
            explanation = recorded or explanations.unseen(message=str(status.get("message") or ""))
            return Answer(str(status.get("reason") or explanation.reason), explanation)
        return Answer(str(explanation.reason), explanation)


def answer(task: Obj, snapshot: Snapshot, now: float) -> tuple[Answer, list[str]]:
    """Why this waiting Task waits, and what of the snapshot could not be read."""
    standing = Standing(snapshot, now)
    return standing.answer(task), standing.skipped


def waiting_uid(task: Obj, now: float) -> str:
    """The uid of the first chunk of an array that waits; empty if none does, or it is no array."""
    array = _array(task)
    part = None if array is None else explanations.first_waiting(explanations.parts(array, now))
    return "" if part is None else part.task.uid


def _between_parts(task: Obj, now: float) -> Explanation | None:
    """Why items of an array wait of which no chunk does."""
    record = _array(task)
    return None if record is None or record.array is None else explanations.without_part(record.array, now)


def _array(task: Obj) -> ObservedTask | None:
    """The Task as an array; None if it is none, or one that is left out."""
    if not task["spec"].get("array"):
        return None
    try:
        record = convert.observed_task(task)
    except ValueError:
        return None
    return record if record.array is not None else None


def _is_of(event: Event, uid: str) -> TypeGuard[TaskWaiting | TaskHeld]:
    return isinstance(event, TaskWaiting | TaskHeld) and event.task.uid == uid


def _recorded(task: Obj) -> Explanation | None:
    """What the operator last wrote, if this release knows the reason."""
    status = status_of(task)
    try:
        return Explanation(Reason(status.get("reason") or ""), str(status.get("message") or ""))
    except ValueError:
        return None


async def why(backend: Backend, task: Obj) -> tuple[str, str]:
    """Return the reason why this waiting Task waits, and its message."""
    snapshot, now = await _snapshot(backend), time.time()
    found, _ = answer(task, snapshot, now)
    leader = await leadership(backend, snapshot.pods, now)
    if leader.leads is False:
        found = _leaderless(found, leader, now)
    return found.reason, found.explanation.message


async def explain(
    backend: Backend,
    name: str,
    changes: Changes | None = None,
    view: Asks | None = None,
    source: Source | None = None,
) -> Told:
    """Say where the Task stands, why and what would change it.

    The leader is asked by its `view`, and then the cluster's objects; `source` is the only one to be asked.

    TaskdistError: the change makes no sense. NoAnswer: the leader does not say, and nobody else is to.
    """
    task = await backend.get(TASKS, name)
    if changes is not None and phase_of(task) != Phase.PENDING:
        raise TaskdistError(f"task {name} is {phase_of(task)}: a what-if is for Tasks that wait")
    if view is not None and source is not Source.CLUSTER and not settled(task):
        try:
            return await _of_the_leader(view, task, changes)
        except NoAnswer as error:
            if source is Source.LEADER:
                raise
            found = await _of_the_cluster(backend, task, changes)
            return found._replace(not_asked=instead(error))
    return await _of_the_cluster(backend, task, changes)


async def _of_the_leader(view: Asks, task: Obj, changes: Changes | None) -> Told:
    """Raises NoAnswer."""
    namespace, name = namespace_of(task), name_of(task)
    told = await view.ask(questions.explanation(namespace, name))
    operator = {"leads": True, "lease": view.lease, "holder": told.holder}
    story = explained.document(told, task, operator)
    if changes is not None:
        found = await view.ask(questions.what_if(namespace, name, changes))
        story["what_if"] = explained.compared(found)
    return Told(story, told_by=Source.LEADER)


async def _of_the_cluster(backend: Backend, task: Obj, changes: Changes | None) -> Told:
    """The same from the cluster's objects alone."""
    now = time.time()
    items, running = explained.items_of(task), phase_of(task) == Phase.ASSIGNED
    if phase_of(task) != Phase.PENDING and not (running and items is not None and items.waiting):
        return Told(explained.document(explained.as_status_has_it(task), task))
    snapshot = await _snapshot(backend)
    # On a thread, as below.
    why, warnings = await asyncio.to_thread(answer, task, snapshot, now)
    leader = await leadership(backend, snapshot.pods, now)
    if leader.leads is False:
        why = _leaderless(why, leader, now)
    waits = await outside(backend, snapshot.queues)
    beside = {"stalled": _stalled_pools(task, snapshot), "outside": waits.get(_queue_of(task))}
    told = _shape(task, why).model_copy(update=beside)
    if running:
        because = {name: getattr(told, name) for name in explanations.OF_WAITING}
        told = explained.as_status_has_it(task).model_copy(update=because)
    story = explained.document(told, task, leader.document())
    if changes is not None:
        # On a thread: it may take seconds, and who asks may have others to answer.
        compared, unknown = await asyncio.to_thread(_compared, task, snapshot, Change.of(changes), now)
        story["what_if"] = compared
        warnings += unknown
    return Told(story, tuple(warnings))


def _queue_of(task: Obj) -> Key:
    """The queue that it waits in."""
    return namespace_of(task), str(status_of(task).get("spilledTo") or task["spec"]["queue"])


def _shape(task: Obj, why: Answer) -> shapes.Explanation:
    """A Task that waits, in the form in which the leader would tell it."""
    created = times.read(task["metadata"].get("creationTimestamp"))
    told = explanations.waiting(namespace_of(task), name_of(task), task["spec"]["queue"], created, why.explanation)
    return told.model_copy(update={"reason": why.reason})


async def order(backend: Backend, queue: str = "") -> tuple[list[dict[str, Any]], list[str]]:
    """Return all Tasks that wait, of one queue or of all, in the order in which they would start; and what could not
    be told.

    First those that there is room for now, then by position, then those that have none; like ones by age. Positions
    count among Tasks that may use the same agents.
    """
    snapshot, now = await _snapshot(backend), time.time()
    leader = await leadership(backend, snapshot.pods, now)
    waiting = [
        each
        for each in snapshot.tasks
        if phase_of(each) == Phase.PENDING and queue in ("", each["spec"]["queue"], status_of(each).get("spilledTo"))
    ]

    def asked() -> tuple[list[tuple[Obj, Answer, bool]], list[str]]:
        standing = Standing(snapshot, now)
        return [(each, standing.answer(each), standing.starts_now(each)) for each in waiting], standing.skipped

    found, warnings = await asyncio.to_thread(asked)
    found.sort(key=_place)
    stories = []
    for task, why, _ in found:
        told = why if leader.leads is not False else _leaderless(why, leader, now)
        names = {"task": name_of(task), "queue": task["spec"]["queue"]}
        stories.append(names | explained.waiting(_shape(task, told)))
    if leader.leads is None:
        warnings.append(f"Not known: {leader.unknown}.")
    return stories, warnings


def _place(found: tuple[Obj, Answer, bool]) -> tuple[int, int, str, str]:
    task, why, now = found
    position = why.explanation.position
    rank = 0 if now else 1 if position is not None else 2
    return rank, position or 0, str(task["metadata"].get("creationTimestamp") or ""), name_of(task)


def _stalled_pools(task: Obj, snapshot: Snapshot) -> str:
    """What keeps pools that it may use from having agents, as far as the engine cannot see it: in status only."""
    queue = next((each for each in snapshot.queues if name_of(each) == task["spec"]["queue"]), None)
    named = [task["spec"]["pool"]] if task["spec"].get("pool") else []
    if not named and queue is not None:
        named = list(queue["spec"].get("pools") or ())
    return explanations.all_stalled(explanations.stalled(pool) for pool in snapshot.pools if name_of(pool) in named)


def _leaderless(why: Answer, leader: Leadership, now: float) -> Answer:
    """Nothing starts while nobody leads: that is said first, and then what would hold the Task even so."""
    found = why.explanation
    besides = "" if why.reason == Reason.QUEUED else f" Besides: {found.message}"
    return Answer(
        NO_LEADER,
        Explanation(
            found.reason,
            f"{leader.message(now)}{besides}",
            "Look at the operator's pods: whether they are there and ready, and what they log.",
            command=leader.command,
            rejections=found.rejections,
        ),
    )


# What would be if.


def _compared(task: Obj, snapshot: Snapshot, change: Change, now: float) -> tuple[dict[str, Any], list[str]]:
    """When it starts as it is and changed, and what of that is not known."""
    made, _ = events(snapshot, now)
    uid = waiting_uid(task, now) or uid_of(task)
    before, since = history(snapshot)
    services: Mapping[tuple[Key, str], list[float]] = defaultdict(list)
    for each, seconds in before:
        if seconds is not None:
            services[each.queue_key, each.type].append(seconds)
    try:
        told = levels.told(snapshot.queues, [*snapshot.tasks, *snapshot.ended])
        found = what_if(Moment(now, made, since, services, told), uid, change)
    except NotPlayed as error:
        raise TaskdistError(str(error)) from None
    rules = {each.queue.key: each.queue for each in made if isinstance(each, QueueApplied)}
    missing = next((levels.unknown(one.task, rules, told) for one in made if _is_of(one, uid)), [])
    return explained.compared(found.told()), [
        f"how much is left of {limit} is not known: it is played as if that were full" for limit in missing
    ]


async def _snapshot(backend: Backend) -> Snapshot:
    pages = await asyncio.gather(
        # Ended Tasks hold nothing, and there may be very many of them: a part of them tells how long they take.
        backend.list(TASKS, fields=f"status.phase={Phase.PENDING}"),
        backend.list(TASKS, fields=f"status.phase={Phase.ASSIGNED}"),
        backend.list(TASKS, fields=f"status.phase={Phase.SUCCEEDED}", most=ENDED_LOOKED_AT),
        backend.list(TASKQUEUES),
        backend.list(AGENTPOOLS),
        backend.list(PODS, labels=POOL_LABEL),
    )
    pending, assigned, succeeded, queues, pools, pods = (page.items for page in pages)
    # A Task that changed phase between two lists is in both: the later view counts.
    tasks = {uid_of(each): each for each in [*pending, *assigned]}
    # By their ends, so that what is learnt last counts most.
    succeeded.sort(key=lambda each: str(status_of(each).get("finishedAt") or ""))
    gone = {uid_of(each) for each in succeeded}
    return Snapshot([each for uid, each in tasks.items() if uid not in gone], queues, pools, pods, succeeded)
