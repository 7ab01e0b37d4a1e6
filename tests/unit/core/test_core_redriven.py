"""A redriven Task is run: what made it a dead letter while it waited does not end it again."""

from dataclasses import replace

import pytest

from builders import make_pool, make_queue, make_task
from taskdist.api import OnHopeless, Phase, Reason
from taskdist.core import Core
from taskdist.core.decisions import Fail
from taskdist.core.events import PoolApplied, QueueApplied, TaskWaiting


@pytest.mark.parametrize("redriven", [False, True], ids=["new", "redriven"])
@pytest.mark.parametrize("on_hopeless", [OnHopeless.FAIL, OnHopeless.DEAD_LETTER])
def test_a_hopeless_deadline_ends_only_what_was_not_redriven(on_hopeless: OnHopeless, redriven: bool) -> None:
    core = Core()
    core.handle(QueueApplied(replace(make_queue().build(), on_hopeless=on_hopeless)), 0.0)
    core.handle(PoolApplied(make_pool().build()), 0.0)
    task = replace(make_task("t").build(), deadline=50.0, attempted=redriven, redriven=redriven)
    core.handle(TaskWaiting(task), 100.0)
    ends = [(each.reason, each.phase) for each in core.decide(100.0) if isinstance(each, Fail)]
    phase = Phase.DEAD_LETTERED if on_hopeless is OnHopeless.DEAD_LETTER else Phase.FAILED
    assert ends == ([] if redriven else [(Reason.DEADLINE_HOPELESS, phase)])
