"""An explanation as scripts read it, whoever has told it: the leader, or the client over the cluster's objects."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from taskdist.api import Phase
from taskdist.api import view as shapes
from taskdist.client.states import phase_of, status_of
from taskdist.common import times
from taskdist.kube import Obj, as_object, name_of, namespace_of
from taskdist.protocol import explanations
from taskdist.protocol.arrays import counts


def as_status_has_it(task: Obj) -> shapes.Explanation:
    """A Task that does not wait."""
    status = status_of(task)
    return shapes.Explanation(
        task=f"{namespace_of(task)}/{name_of(task)}",
        queue=task["spec"]["queue"],
        phase=phase_of(task),
        reason=status.get("reason") or "",
        message=status.get("message") or "",
        agent=status.get("agent") or "",
        pool=status.get("pool") or "",
        attempt=status.get("attempt") or 0,
        assigned_at=times.read(status.get("assignedAt")),
        progress=explanations.progress(status.get("progress")),
        items=items_of(task),
    )


def items_of(task: Obj) -> shapes.Items | None:
    """How the items of an array stand; None of a Task that is none, or one that cannot be read."""
    seen = counts.seen(task)
    return None if seen is None else counts.counts(seen[1])


def document(told: shapes.Explanation, task: Obj, operator: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What scripts read, whoever has told it. What only status has is taken from there."""
    status = status_of(task)
    story: dict[str, Any] = {"task": told.task, "queue": task["spec"]["queue"], "phase": told.phase}
    items = told.items or items_of(task)
    story |= {} if items is None else {"items": items.model_dump(exclude_defaults=True)}
    if items is not None and told.phase == Phase.ASSIGNED:
        story |= {} if not told.reason or not items.waiting else {"waits": waiting(told)}
        story |= {"stalled": told.stalled} if told.stalled else {}
    elif told.phase == Phase.PENDING:
        story |= waiting(told)
        story |= {} if operator is None else {"operator": dict(operator)}
        story |= {"stalled": told.stalled} if told.stalled else {}
        story |= {} if told.outside is None else {"outside": outside(told.outside)}
    elif told.phase == Phase.ASSIGNED:
        story |= _running(told)
    else:
        story |= {"reason": told.reason, "message": told.message or status.get("message") or ""}
    route = told.route or status.get("route")
    cost, energy = (
        mine if mine is not None else its
        for mine, its in ((told.cost, status.get("cost")), (told.energy_wh, status.get("energyWh")))
    )
    beside = {"route": route or None, "cost": cost, "energy_wh": energy}
    beside["attempts"] = told.attempts or status.get("attempts") or None
    beside["errors"] = None if items is None else (as_object(status.get("array")).get("errors") or None)
    return story | {name: value for name, value in beside.items() if value is not None}


def waiting(told: shapes.Explanation) -> dict[str, Any]:
    """Why it waits, and its place in the order."""
    since = {} if told.phase == Phase.ASSIGNED else {"since": "" if told.since is None else _utc(told.since)}
    story: dict[str, Any] = since | {
        "reason": told.reason,
        "message": told.message,
        "unblock": told.unblock,
        "command": told.command,
    }
    if told.rejections:
        story["rejections"] = [{"agents": each.agents, "why": each.why} for each in told.rejections]
    if told.position is not None:
        story |= {"position": told.position, "position_exact": told.position_exact, "waiting": told.waiting}
        story["expected_start"] = _span(told.expected_start)
    return story


def _utc(moment: datetime) -> str:
    return times.utc(moment.timestamp())


def outside(told: shapes.Outside) -> dict[str, Any]:
    """Return the backlog of a queue at its sources, as scripts read it."""
    story: dict[str, Any] = {"messages": told.messages}
    story |= {"source": told.source} if told.source else {}
    return story | ({} if told.oldest is None else {"oldest": times.utc(told.oldest.timestamp())})


def outside_line(story: Mapping[str, Any], now: datetime) -> str:
    """Return the backlog of a queue at its sources in a sentence."""
    messages, source = story["messages"], story.get("source")
    said = f"{messages} message{'' if messages == 1 else 's'} without a Task yet"
    if story.get("oldest"):
        return f"{said}; the oldest, at source {source}, was published {times.age(story['oldest'], now)} ago"
    return f"{said}; most of them at source {source}" if source else said


def _running(told: shapes.Explanation) -> dict[str, Any]:
    since = None if told.assigned_at is None else told.assigned_at.isoformat()
    story: dict[str, Any] = {
        "agent": told.agent,
        "pool": told.pool,
        "attempt": told.attempt,
        "running": times.age(since, times.now()),
    }
    if told.progress is not None:
        story["progress"] = f"{told.progress.fraction:.0%} {told.progress.message}".rstrip()
    return story


def compared(told: shapes.WhatIf) -> dict[str, Any]:
    """When it would start as things are, and changed; and in which part of the runs it starts at all."""
    return {"runs": told.runs} | {
        name: {"expected_start": _span(each.expected_start), "starts": each.starts}
        for name, each in (("as_it_is", told.as_it_is), ("changed", told.changed))
    }


def _span(start: shapes.ExpectedStart | None) -> dict[str, str] | str:
    span = None if start is None else (start.earliest.timestamp(), start.latest.timestamp())
    return course(None if start is None else start.at.timestamp(), span)


def course(start: float | None, interval: tuple[float, float] | None) -> dict[str, str] | str:
    """When it is expected to start."""
    if start is None or interval is None:
        return "unknown"
    return {"at": times.utc(start), "earliest": times.utc(interval[0]), "latest": times.utc(interval[1])}
