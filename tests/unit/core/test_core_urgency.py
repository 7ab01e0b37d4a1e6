"""Between tenants that are as good as even a deadline decides; beyond that, and without one, shares alone do."""

from dataclasses import replace

import pytest

from builders import make_agent, make_pool, make_queue, make_task
from taskdist.core import Core
from taskdist.core.decisions import Assign
from taskdist.core.events import AgentReady, PoolApplied, QueueApplied, TaskGone, TaskWaiting
from taskdist.core.model import Task

NOW = 1000.0
SERVICE = 10.0


def waiting(uid: str, tenant: str, due: float | None, created: float = NOW) -> Task:
    return replace(make_task(uid).created(created).build(), tenant=tenant, deadline=due)


class Bench:
    """Agents of one slot; `give` frees one and says who gets it."""

    def __init__(self, *tasks: Task, slots: int = 4, weights: tuple[tuple[str, int], ...] = ()) -> None:
        self.core = Core()
        self.core.handle(PoolApplied(make_pool().slots(slots).build()), NOW)
        queue = make_queue().build()
        self.core.handle(
            QueueApplied(replace(queue, tenant_weights=weights, expected_service=SERVICE, aging_step=0.0)), NOW
        )
        for task in tasks:
            self.core.handle(TaskWaiting(task), NOW)
        self.core.handle(AgentReady(make_agent("agent").slots(slots).build()), NOW)
        self.running = self.started(NOW)

    def started(self, now: float) -> list[str]:
        return [each.task_uid for each in self.core.decide(now) if isinstance(each, Assign)]

    def give(self, now: float) -> list[str]:
        self.core.handle(TaskGone(self.running.pop(0)), now)
        found = self.started(now)
        self.running += found
        return found


def row(tenant: str, count: int, due: float | None) -> list[Task]:
    """So many Tasks of a tenant, due at a time and a second later each."""
    return [waiting(f"{tenant}{n}", tenant, None if due is None else due + n) for n in range(count)]


def test_an_earlier_deadline_goes_first_among_those_that_are_even() -> None:
    bench = Bench(*row("a", 6, 2000.0), *row("b", 6, 1100.0))
    # The first finds nothing under way, so its tenant is first by name. Then b is in the greater hurry.
    assert bench.running == ["a0", "b0", "b1", "b2"]


@pytest.mark.parametrize(("due_a", "due_b"), [(None, None), (1100.0, None)])
def test_without_a_deadline_of_its_own_no_tenant_passes_another(due_a: float | None, due_b: float | None) -> None:
    """b is behind by created and uid, and has no deadline: turns are by virtual time."""
    bench = Bench(*row("b", 6, due_b), *row("a", 6, due_a))
    assert bench.running == ["a0", "b0", "a1", "b1"] if due_a is None else ["a0", "a1", "a2", "a3"]


def test_a_tenant_gets_ahead_by_what_is_under_way_and_no_further() -> None:
    """With four slots, b gets at most four services more than a."""
    bench = Bench(*row("a", 40, 9000.0), *row("b", 40, 1100.0))
    given = list(bench.running)
    for step in range(30):
        given += bench.give(NOW + (step + 1) * SERVICE / 4)
        ahead = sum(uid.startswith("b") for uid in given) - sum(uid.startswith("a") for uid in given)
        assert ahead <= 5
    assert given.count("a0") == 1
    assert sum(uid.startswith("a") for uid in given) >= 14


def test_weights_count_there_too() -> None:
    bench = Bench(*row("a", 60, 9000.0), *row("b", 60, 1100.0), weights=(("a", 3),))
    given = list(bench.running)
    for step in range(56):
        given += bench.give(NOW + (step + 1) * SERVICE / 4)
    # Of 60, 45 and 15 by weight; b may be ahead by four services.
    assert 15 <= sum(uid.startswith("b") for uid in given) <= 20
