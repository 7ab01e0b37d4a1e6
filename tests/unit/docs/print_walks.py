"""Prints the walks of docs/core.md: how far one input goes through the files of the package, and of the core."""

from collections.abc import Callable
from dataclasses import replace

from taskdist.core.model import Quota
from taskdist.protocol.messages import Capacity
from taskdist.protocol.observations import Written
from unit.protocol.desk import POOL, QUEUE, Desk, assigned, record
from walks import walk


def desk(bounds: Quota | None = None) -> Desk:
    """One queue, one pool, one agent of two slots."""
    queue = QUEUE if bounds is None else replace(QUEUE, quota=bounds)
    one = Desk(queue, pods=1, pool=replace(POOL, slots=2, minimum=1, maximum=1))
    one.connect(1, slots=2)
    return one


def observed() -> Callable[[], object]:
    one = desk()
    return lambda: one.do("task_observed", record())


def answered() -> Callable[[], object]:
    one = desk()
    one.do("task_observed", record())
    return lambda: one.answer(Written(assigned(), b"{}"))


def held() -> Callable[[], object]:
    one = desk(Quota(leased=1))
    one.do("task_observed", record())
    one.answer(Written(assigned(), b"{}"))
    first = record()
    second = replace(first, task=replace(first.task, uid="b", name="task-b"), resource_version=20)
    return lambda: one.do("task_observed", second)


def reported() -> Callable[[], object]:
    one = desk()
    return lambda: one.says(1, Capacity(1))


WALKS = {
    "a Task is observed, its assignment is written": observed,
    "the write is answered, the agent gets its lease": answered,
    "a second Task is held by a quota": held,
    "an agent reports capacity": reported,
}


def main() -> None:
    for name, begin in WALKS.items():
        way = walk(begin())
        print(f"| {name} | {way.files} | {way.moves} | {way.within('core/').moves} |")


if __name__ == "__main__":
    main()
