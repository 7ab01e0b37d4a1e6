"""Tasks that take no time: what is learnt of them is no ground to stumble over."""

from builders import make_agent, make_pool, make_queue, make_task
from taskdist.api import Phase
from taskdist.core import Core
from taskdist.core.decisions import Assign
from taskdist.core.events import AgentReady, PoolApplied, QueueApplied, TaskGone, TaskWaiting


def test_the_outlook_behind_tasks_that_took_no_time_is_now() -> None:
    core = Core()
    core.handle(QueueApplied(make_queue().build()), 0.0)
    core.handle(PoolApplied(make_pool().fixed(1).build()), 0.0)
    core.handle(AgentReady(make_agent("a").build()), 0.0)
    for number in range(30):
        core.handle(TaskWaiting(make_task(f"t{number}").build()), 0.0)
    for _ in range(25):
        (given,) = (each for each in core.decide(7.0) if isinstance(each, Assign))
        core.handle(TaskGone(given.task_uid, Phase.SUCCEEDED), 7.0)
    core.decide(7.0)
    found = core.explain("t9", 7.0)
    assert found is not None
    assert found.start == 7.0
