"""What is left of rates and budgets, read from the status of queues, and what of it is not known.

The leader writes levels now and then; from there they are played forward: time brings more, and Tasks that were
assigned since have taken theirs.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from taskdist.api import Phase
from taskdist.client.states import status_of
from taskdist.core.limits.levels import BUDGET, RATE, TENANT, Level
from taskdist.core.model import Key, Queue, Task
from taskdist.kube import Obj, name_of, namespace_of
from taskdist.protocol import convert

Levels = Mapping[Key, list[Level]]


def told(queues: Iterable[Obj], tasks: Iterable[Obj]) -> dict[Key, list[Level]]:
    """Return by queue what its status tells, less what Tasks took that were assigned since."""
    found: dict[Key, dict[str, Level]] = {}
    for obj in queues:
        here = {each.name: each for each in _read(status_of(obj).get("limits"))}
        if here:
            found[namespace_of(obj), name_of(obj)] = here
    for obj in tasks if found else ():
        try:
            record = convert.observed_task(obj)
        except ValueError:
            continue  # said where it is read as an event
        began = convert.seconds(status_of(obj).get("assignedAt"))
        if record.phase in (Phase.ASSIGNED, Phase.SUCCEEDED) and began:
            for key, name, amount in _takes(record.task):
                level = found.get(key, {}).get(name)
                # Levels are told in whole seconds: what began within that one was counted.
                if level is not None and level.per_second and began > level.at + 1.0:
                    found[key][name] = replace(level, level=level.level - amount)
    return {key: list(levels.values()) for key, levels in found.items()}


def unknown(task: Task, queues: Mapping[Key, Queue], levels: Levels) -> list[str]:
    """Return the rates that the Task takes of and of which it is not known what is left."""
    missing: list[str] = []
    own = queues.get(task.queue_key)
    names = {each.name for each in levels.get(task.queue_key, ())}
    if own is not None and own.rate is not None and RATE not in names:
        missing.append(f"spec.rate.queue of TaskQueue {own.name}")
    if own is not None and own.tenant_rate is not None and not names & {TENANT, f"{TENANT}/{task.tenant}"}:
        missing.append(f"spec.rate.perTenant of TaskQueue {own.name}")
    for queue, name, _ in task.budgets:
        key = (task.namespace, queue)
        rules = queues.get(key)
        spent = rules is not None and any(each.name == name and each.rate is not None for each in rules.budgets)
        if spent and f"{BUDGET}{name}" not in {each.name for each in levels.get(key, ())}:
            missing.append(f"budget {queue}/{name}")
    return missing


def _takes(task: Task) -> Iterator[tuple[Key, str, int]]:
    yield task.queue_key, RATE, 1
    yield task.queue_key, f"{TENANT}/{task.tenant}", 1
    for queue, name, amount in task.budgets:
        yield (task.namespace, queue), f"{BUDGET}{name}", amount


def _read(limits: Any) -> Iterator[Level]:
    for each in limits if isinstance(limits, list) else ():
        try:
            yield Level(
                str(each["name"]),
                float(each["level"]),
                int(each["capacity"]),
                float(each.get("perSecond") or 0.0),
                convert.seconds(str(each["at"])),
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            continue  # of another release: not known, then
