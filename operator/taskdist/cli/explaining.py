"""Why a Task waits, asked of the engine that the operator runs, over a snapshot of the cluster.

There is no rule here: the snapshot becomes events, the engine answers. What only the operator can know (what agents
said of themselves on the link, leases of a former leader) it has written into status; where that is the better answer,
it is given.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from taskdist.api import POOL_LABEL, Phase, Reason
from taskdist.cli import show
from taskdist.cli.cluster import Cluster, status_of
from taskdist.cli.run import OK, note
from taskdist.cli.waiting import attempt_line, phase_of, settled
from taskdist.core import Core
from taskdist.core.decisions import Assign
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
from taskdist.core.model import Agent, Key, Pool
from taskdist.kube import AGENTPOOLS, PODS, TASKQUEUES, TASKS, Obj, name_of, namespace_of, uid_of
from taskdist.protocol import convert
from taskdist.protocol.dependencies import Lineage
from taskdist.protocol.duplicates import Duplicates
from taskdist.protocol.observations import TaskRecord

# What agents announce on the link (types, whether they can be fenced) and what a former leader left is not on the API.
ONLY_THE_OPERATOR_KNOWS = frozenset({Reason.NO_HANDLER, Reason.UNFENCED, Reason.RECOVERING})


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the engine needs of one namespace."""

    tasks: list[Obj]
    queues: list[Obj]
    pools: list[Obj]
    pods: list[Obj]


@dataclass(frozen=True, slots=True)
class Answer:
    """Why it waits."""

    reason: str
    message: str
    unblock: str = ""
    position: int | None = None
    waiting: int = 0
    """How many Tasks wait in the namespace."""


def events(snapshot: Snapshot) -> tuple[list[Event], list[str]]:
    """The snapshot as events for the engine, and what of it could not be read."""
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
        except ValueError as error:
            skipped.append(f"AgentPool {name_of(obj)} is invalid and left out: {error}")
            continue
        pools[pool.key] = pool
        made.append(PoolApplied(pool))
    for obj in snapshot.pods:
        pod = convert.pod_record(obj)
        if pod.ended or pod.deleting:
            continue
        made.append(PodSeen(pod.uid, pod.namespace, pod.name, pod.pool, pod.created))
        owner = pools.get((pod.namespace, pod.pool))
        if pod.ready and owner is not None:
            made.append(AgentReady(_agent(obj, owner)))
    records: list[TaskRecord] = []
    lineage, duplicates = Lineage(), Duplicates()
    for obj in snapshot.tasks:
        try:
            record = convert.task_record(obj)
        except ValueError as error:
            skipped.append(f"Task {name_of(obj)} is left out: {error}")
            continue
        records.append(record)
        lineage.seen(record)
        duplicates.seen(record)
    for record in records:
        task = lineage.resolved(record.task)
        if record.phase is Phase.ASSIGNED:
            made.append(TaskLeased(task, record.agent_uid))
        elif record.phase is Phase.PENDING and record.reason is Reason.RECOVERING:
            made.append(TaskHeld(task, Reason.RECOVERING))
        elif record.phase is Phase.PENDING and duplicates.original(task.uid) is not None:
            made.append(TaskHeld(task, Reason.DUPLICATE))
        elif record.phase is Phase.PENDING:
            made.append(TaskWaiting(task))
    return made, skipped


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


def answer(task: Obj, snapshot: Snapshot, now: float) -> tuple[Answer, list[str]]:
    """Why this waiting Task waits, and what of the snapshot could not be read."""
    made, skipped = events(snapshot)
    core = Core()
    for event in made:
        core.handle(event, now)
    waiting = sum(1 for event in made if isinstance(event, TaskWaiting | TaskHeld))
    recorded = _recorded(task, waiting)
    explanation = core.explain(uid_of(task), now)
    if explanation is None:
        return recorded or Answer(
            str(Reason.QUEUED), "The operator has not looked at it yet.", waiting=waiting
        ), skipped
    if recorded is not None and recorded.reason in ONLY_THE_OPERATOR_KNOWS:
        return Answer(recorded.reason, recorded.message, "", explanation.position, waiting), skipped
    given = next((d for d in core.decide(now) if isinstance(d, Assign) and d.task_uid == uid_of(task)), None)
    if given is not None:
        return (
            Answer(
                str(explanation.reason),
                f"Agent {given.agent_name} has room for it now: it should start at once.",
                "If this stays, the operator does not run or the agent is not connected: look at their pods.",
                explanation.position,
                waiting,
            ),
            skipped,
        )
    return (
        Answer(str(explanation.reason), explanation.message, explanation.unblock, explanation.position, waiting),
        skipped,
    )


def _recorded(task: Obj, waiting: int) -> Answer | None:
    status = status_of(task)
    reason = str(status.get("reason") or "")
    return Answer(reason, str(status.get("message") or ""), waiting=waiting) if reason else None


async def explain(cluster: Cluster, name: str, output: str | None) -> int:
    """Say where the Task stands, why, and what would change it."""
    task = await cluster.get(TASKS, name)
    status = status_of(task)
    story: dict[str, Any] = {
        "task": f"{namespace_of(task)}/{name_of(task)}",
        "queue": task["spec"]["queue"],
        "phase": phase_of(task),
    }
    if phase_of(task) == Phase.PENDING:
        why, skipped = answer(task, await _snapshot(cluster), time.time())
        for line in skipped:
            note(f"warning: {line}")
        story |= {"reason": why.reason, "message": why.message, "unblock": why.unblock}
        if why.position is not None:
            story |= {"position": why.position, "waiting": why.waiting}
    elif not settled(task):
        story |= _running(status)
    else:
        story |= {"reason": status.get("reason") or "", "message": status.get("message") or ""}
    if status.get("attempts"):
        story["attempts"] = status["attempts"]
    if output:
        show.document(story, output)
    else:
        _print(story)
    return OK


async def _snapshot(cluster: Cluster) -> Snapshot:
    pages = await asyncio.gather(
        # Ended Tasks hold nothing, and there may be very many of them.
        cluster.list(TASKS, fields=f"status.phase={Phase.PENDING}"),
        cluster.list(TASKS, fields=f"status.phase={Phase.ASSIGNED}"),
        cluster.list(TASKQUEUES),
        cluster.list(AGENTPOOLS),
        cluster.list(PODS, labels=POOL_LABEL),
    )
    pending, assigned, queues, pools, pods = (page.items for page in pages)
    # A Task that changed phase between the two lists is in both: the later view counts.
    tasks = {uid_of(each): each for each in [*pending, *assigned]}
    return Snapshot(list(tasks.values()), queues, pools, pods)


def _running(status: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {
        "agent": status.get("agent") or "",
        "pool": status.get("pool") or "",
        "attempt": status.get("attempt") or 0,
        "running": show.age(status.get("assignedAt"), show.now()),
    }
    if progress := status.get("progress"):
        told["progress"] = f"{progress.get('fraction', 0):.0%} {progress.get('message', '')}".rstrip()
    return told


def _print(story: dict[str, Any]) -> None:
    pairs = [(key.capitalize(), str(value)) for key, value in story.items() if key not in ("attempts", "waiting")]
    if "position" in story:
        pairs = [(k, f"{v} of {story['waiting']} waiting" if k == "Position" else v) for k, v in pairs]
    show.fields(pairs)
    for each in story.get("attempts", ()):
        print(f"  {attempt_line(each)}")
