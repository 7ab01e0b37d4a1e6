"""A Task's log lines, out of the log of the agent that ran it.

An agent's log holds the lines of all its Tasks, each a JSON object that names its own. Where the kubelet does not
answer (pods that run as processes on this machine have none), the file that such a pod's annotation names is read
instead.
"""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from taskdist.api import LOG_PATH_ANNOTATION
from taskdist.cli.cluster import Cluster
from taskdist.cli.run import FAILED, OK, Problem, note
from taskdist.client.states import status_of, story
from taskdist.kube import PODS, TASKS, ApiError, Obj, name_of, namespace_of, uid_of
from taskdist.protocol.convert import AGENT_CONTAINER


async def logs(cluster: Cluster, name: str, *, attempt: int | None, follow: bool, raw: bool) -> int:
    """Print the lines that the agent wrote for this Task."""
    task = await cluster.get(TASKS, name)
    attempt, agent = _where(task, attempt, cluster.options)
    try:
        pod = await cluster.get(PODS, agent)
    except ApiError as error:
        if error.is_not_found:
            raise Problem(
                f"the agent {agent}, which ran attempt {attempt} of task {name}, is gone, and its log with it"
            ) from None
        raise
    found = False
    async for line in _lines(cluster, pod, follow):
        entry = _entry(line)
        if entry is not None and belongs(entry, task, attempt):
            found = True
            print(line if raw else pretty(entry), flush=True)
    if not found:
        note(
            f"the log of agent {agent} has no line of attempt {attempt} of task {name}: "
            "its handler wrote none, or the log was rotated"
        )
    return OK if found else FAILED


def _where(task: Obj, attempt: int | None, options: str) -> tuple[int, str]:
    """Which attempt is meant, and which agent ran it. `options`: what a suggested command needs."""
    status = status_of(task)
    last = int(status.get("attempt") or 0)
    if not last:
        raise Problem(
            f"{story(task)}\nNo agent has run it yet, so there is no log. "
            f"See why: taskdist explain {name_of(task)}{options}"
        )
    wanted = attempt or last
    agents = {int(each["attempt"]): str(each.get("agent") or "") for each in status.get("attempts") or ()}
    if status.get("agent"):
        agents[last] = str(status["agent"])
    if not agents.get(wanted):
        known = ", ".join(str(each) for each in sorted(agents) if agents[each])
        raise Problem(
            f"it is not known which agent ran attempt {wanted} of task {name_of(task)}; "
            f"known attempts: {known or 'none'}"
        )
    return wanted, agents[wanted]


async def _lines(cluster: Cluster, pod: Obj, follow: bool) -> AsyncIterator[str]:
    try:
        async with cluster.log(name_of(pod), _container(pod), follow=follow) as lines:
            async for line in lines:
                yield str(line, "utf-8", "replace")
            return
    except ApiError as error:
        path = (pod["metadata"].get("annotations") or {}).get(LOG_PATH_ANNOTATION)
        rest = _file(path) if path else None
        if rest is None:
            raise Problem(
                f"the log of pod {name_of(pod)} cannot be had: {error.message or error}"
                + (f"\nIts process ran on another machine, or its log {path} is gone." if path else "")
            ) from None
    note(f"no kubelet serves the log of pod {name_of(pod)}, which runs as a process on this machine; reading {path}")
    if follow:
        note("a file is not followed: these are the lines so far")
    for text in rest:
        yield text


def _file(path: str) -> list[str] | None:
    """The file's lines; None if it cannot be read here."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None


def _container(pod: Obj) -> str:
    names = [str(each["name"]) for each in pod["spec"]["containers"]]
    return AGENT_CONTAINER if AGENT_CONTAINER in names else names[0]


def _entry(line: str) -> dict[str, Any] | None:
    if not line.startswith("{"):
        return None
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def belongs(entry: dict[str, Any], task: Obj, attempt: int) -> bool:
    """Whether the line speaks of this attempt of this Task."""
    if entry.get("attempt") != attempt:
        return False
    uid = entry.get("uid") or entry.get("task_uid")
    if uid:
        return bool(uid == uid_of(task))
    names = (name_of(task), f"{namespace_of(task)}/{name_of(task)}", uid_of(task))
    # An agent serves one namespace, so that a bare name is enough.
    return entry.get("task") in names


def pretty(entry: dict[str, Any]) -> str:
    """A line for people: time, level, text, then what else it says."""
    rest = dict(entry)
    for known in ("task", "attempt", "uid", "task_uid", "agent", "logger"):
        rest.pop(known, None)
    time = rest.pop("timestamp", None) or rest.pop("time", "")
    level = str(rest.pop("level", "info"))
    text = rest.pop("event", None) or rest.pop("message", "")
    trace = rest.pop("exception", None)
    more = " ".join(f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in rest.items())
    head = " ".join(part for part in (str(time), f"{level:<7}", str(text), more) if part)
    return f"{head}\n{trace}" if trace else head
