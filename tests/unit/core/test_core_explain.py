"""Why a Task waits: the reason, what is named as missing, what is told to do."""

from collections.abc import Sequence

import pytest

from builders import NAMESPACE, PoolBuilder, QueueBuilder, make_agent, make_pool, make_queue, make_task
from taskdist.api import Reason
from taskdist.core import Core
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
from taskdist.core.model import Trouble

PLAIN = make_task("t")


def explained(
    *events: Event,
    queue: QueueBuilder | None = None,
    pools: Sequence[PoolBuilder] = (make_pool().slots(2).elastic(0, 9),),
    now: float = 0.0,
) -> tuple[Core, Reason, str, str]:
    core = Core()
    core.handle(QueueApplied((queue or make_queue()).build()), now)
    for event in (*(PoolApplied(pool.build()) for pool in pools), *events):
        core.handle(event, now)
    core.decide(now)
    found = core.explain("t", now)
    assert found is not None
    return core, found.reason, found.message, found.unblock


AGENT = AgentReady(make_agent("a").slots(2).build())


@pytest.mark.parametrize(
    ("events", "reason", "message", "unblock"),
    [
        pytest.param(
            [AGENT, TaskWaiting(PLAIN.skills("gpu", "io").build()), AgentReady(make_agent("b").skills("io").build())],
            Reason.SKILL_MISSING,
            "No agent of pool p has skill gpu; they offer: io. Of 2 agents: 2 without the skills.",
            "Run agents that have the skill, in a pool whose spec.skills says so, or create the Task again without it.",
            id="a-skill-that-nobody-has",
        ),
        pytest.param(
            [
                AgentReady(make_agent("a").skills("gpu").build()),
                AgentReady(make_agent("b").skills("io").build()),
                TaskWaiting(PLAIN.skills("gpu", "io").build()),
            ],
            Reason.SKILL_MISSING,
            "No agent of pool p has skills gpu, io all at once; together they offer: gpu, io.",
            "",
            id="skills-that-nobody-has-together",
        ),
        pytest.param(
            [AgentReady(make_agent("a").types(["x", "y"]).build()), TaskWaiting(PLAIN.build())],
            Reason.NO_HANDLER,
            "No agent of pool p has a handler for type work; they handle: x, y.",
            "Register a handler",
            id="a-type-that-nobody-handles",
        ),
        pytest.param(
            [
                AgentReady(make_agent("a").labels(zone="b").build()),
                TaskWaiting(PLAIN.selector("zone", "In", "a").build()),
            ],
            Reason.LABELS_MISMATCH,
            "No agent of pool p carries labels that meet: zone In (a).",
            "agentSelector",
            id="labels",
        ),
        pytest.param(
            [AgentReady(make_agent("a").zone("z3").build()), TaskWaiting(PLAIN.placed(zones=("z1", "z2")).build())],
            Reason.ZONE_MISMATCH,
            "No agent of pool p is in zones z1, z2; they are in: z3. Of 1 agents: 1 in other zones.",
            "create the Task again with one of theirs",
            id="zones",
        ),
        pytest.param(
            [AGENT, TaskWaiting(PLAIN.placed(regions=("r1",)).build())],
            Reason.REGION_MISMATCH,
            "No agent of pool p is in region r1; they are in: none.",
            "create the Task again with one of theirs",
            id="regions",
        ),
        pytest.param(
            [
                PoolApplied(make_pool().slots(2).fixed(9).worth(cost_per_hour=3.0, quality=0.5).build()),
                AGENT,
                TaskWaiting(PLAIN.placed(max_cost=2.5).build()),
            ],
            Reason.TOO_EXPENSIVE,
            "No agent of pool p costs 2.5 an hour or less; the cheapest costs 3. Of 1 agents: 1 too expensive.",
            "again with a higher maxCostPerHour",
            id="cost",
        ),
        pytest.param(
            [
                PoolApplied(make_pool().slots(2).fixed(9).worth(cost_per_hour=3.0, quality=0.5).build()),
                AGENT,
                TaskWaiting(PLAIN.placed(min_quality=0.6).build()),
            ],
            Reason.QUALITY_TOO_LOW,
            "No agent of pool p has a quality of 0.6 or more; the best has 0.5.",
            "again with a lower minQuality",
            id="quality",
        ),
        pytest.param(
            [AGENT, TaskWaiting(PLAIN.prefers("disk", "ssd", wait=9.0).build())],
            Reason.AFFINITY_WAIT,
            "None of the agents of pool p that the Task prefers has room; 2 slots are free on others. In 9 s, at "
            "1970-01-01T00:00:09Z, any other will do.",
            "waitForPreferredSeconds",
            id="what-it-prefers",
        ),
        pytest.param(
            [
                AGENT,
                TaskLeased(make_task("x").slots(2).build(), "a"),
                TaskWaiting(PLAIN.prefers("disk", "ssd", wait=9.0).build()),
            ],
            Reason.AFFINITY_WAIT,
            "No agent of pool p carries labels that the Task prefers: disk In (ssd).",
            "waitForPreferredSeconds",
            id="what-it-prefers-and-nobody-has",
        ),
        pytest.param(
            [AGENT, TaskWaiting(PLAIN.slots(3).build())],
            Reason.TOO_LARGE,
            "No agent of pool p has 3 slots in all; the largest has 2.",
            "raise slots or resources of a pool whose pods have the room",
            id="too-many-slots",
        ),
        pytest.param(
            [AGENT, TaskWaiting(PLAIN.resources(mem=7).build())],
            Reason.TOO_LARGE,
            "has 7 mem (the most is 0)",
            "",
            id="too-much-of-a-resource",
        ),
        pytest.param(
            [AGENT, TaskWaiting(PLAIN.stored().build())],
            Reason.OBJECT_STORE_MISSING,
            "No agent of pool p has an object store",
            "Set TASKDIST_OBJECTS_URL in the pool's pod template",
            id="a-payload-in-a-store-that-no-agent-has",
        ),
        pytest.param(
            [AgentReady(make_agent("a").fenced(False).build()), TaskWaiting(PLAIN.build())],
            Reason.UNFENCED,
            "No agent of pool p can be stopped by force",
            "Confirmed or Fast",
            id="unfenced",
        ),
        pytest.param(
            [
                AgentReady(make_agent("a").types(["x"]).build()),
                AgentReady(make_agent("b").types(["x"]).build()),
                AgentReady(make_agent("c").build()),
                TaskWaiting(PLAIN.slots(3).build()),
            ],
            Reason.TOO_LARGE,
            "the largest has 1. Of 3 agents: 2 without a handler, 1 too small.",
            "",
            id="the-nearest-agent-names-the-reason",
        ),
        pytest.param(
            [TaskWaiting(PLAIN.skills("gpu").build())],
            Reason.SKILL_MISSING,
            "No agent of pool p has skill gpu; they offer: none.",
            "",
            id="a-pool-without-agents-is-judged-by-what-it-declares",
        ),
        pytest.param(
            [PodSeen("a", NAMESPACE, "a", "p", 0.0), TaskWaiting(PLAIN.build())],
            Reason.NO_AGENT,
            "No agent of pool p is ready.",
            "Wait for the pool to start agents",
            id="none-is-ready",
        ),
        pytest.param(
            [
                PodSeen(
                    "a", NAMESPACE, "a", "p", 0.0, trouble=Trouble("CrashLoopBackOff", "it ends, exit code 3", "c")
                ),
                TaskWaiting(PLAIN.build()),
            ],
            Reason.NO_AGENT,
            "No agent of pool p is ready. a fails: CrashLoopBackOff, it ends, exit code 3.",
            "the pool is not grown",
            id="its-pods-do-not-come-up",
        ),
        pytest.param(
            [AGENT, TaskLeased(make_task("x").slots(2).build(), "a"), TaskWaiting(PLAIN.build())],
            Reason.QUEUED,
            "The 1 capable agent of pool p has 2 of 2 slots busy.",
            "raise the pool's size",
            id="all-are-busy",
        ),
        pytest.param(
            [AGENT, TaskLeased(make_task("x").build(), "a"), TaskWaiting(PLAIN.slots(2).build())],
            Reason.NO_FREE_SLOTS,
            "No capable agent of pool p has 2 slots free at once; 1 of 2 slots are free on 1 of them.",
            "Wait for running Tasks to end",
            id="too-little-room-at-once",
        ),
        pytest.param(
            [TaskWaiting(PLAIN.queue("none").build())],
            Reason.QUEUE_NOT_FOUND,
            "TaskQueue none does not exist in namespace ns; there are: q.",
            "Create TaskQueue none",
            id="no-such-queue",
        ),
        pytest.param(
            [TaskWaiting(PLAIN.pool("none").build())],
            Reason.POOL_NOT_FOUND,
            "The Task names pool none: no such AgentPool in namespace ns; there are: p.",
            "Create the pool",
            id="no-such-pool",
        ),
        pytest.param(
            [TaskWaiting(PLAIN.suspended().not_before(9).build())],
            Reason.SUSPENDED,
            "suspended",
            "spec.suspend",
            id="suspended",
        ),
        pytest.param(
            [TaskWaiting(PLAIN.not_before(9).failures(2).build())],
            Reason.BACKING_OFF,
            "Tried again in 9 s, after 2 failed attempts.",
            "Wait",
            id="backing-off",
        ),
        pytest.param(
            [TaskHeld(PLAIN.build(), Reason.RECOVERING)], Reason.RECOVERING, "may still run", "holdSeconds", id="held"
        ),
    ],
)
def test_words(events: list[Event], reason: Reason, message: str, unblock: str) -> None:
    core, *found = explained(*events)
    assert found[0] is reason
    assert message in str(found[1])
    assert unblock in str(found[2])
    assert core.waiting_by_reason(0.0)[next(iter(core.waiting_by_reason(0.0)))] == 1


def test_a_paused_queue() -> None:
    _, reason, message, _ = explained(TaskWaiting(PLAIN.build()), queue=make_queue().paused())
    assert (reason, message) == (Reason.QUEUE_PAUSED, "TaskQueue q is paused.")


def test_all_missing_pools_are_named() -> None:
    _, reason, message, _ = explained(TaskWaiting(PLAIN.build()), queue=make_queue().pools("x", "y"), pools=())
    assert (reason, message) == (
        Reason.POOL_NOT_FOUND,
        "TaskQueue q names pools x, y: no such AgentPool in namespace ns, and no other.",
    )


def test_a_capable_agent_that_is_not_ready_is_missed_more_than_incapable_ones_that_are() -> None:
    _, reason, message, _ = explained(
        AgentReady(make_agent("a").build()),
        TaskWaiting(PLAIN.skills("gpu").build()),
        queue=make_queue().pools("p", "gpus"),
        pools=(make_pool().fixed(1), make_pool("gpus").skills("gpu").elastic(0, 3)),
    )
    assert (reason, message) == (
        Reason.NO_AGENT,
        "No agent of pools p, gpus that may run it is ready; 1 others are.",
    )


def test_the_position_counts_who_competes() -> None:
    core, *_ = explained(
        QueueApplied(make_queue("other").pools("elsewhere").build()),
        TaskWaiting(PLAIN.created(5).build()),
        TaskWaiting(make_task("older").created(1).type("x").build()),
        TaskWaiting(make_task("urgent").created(9).priority(3).build()),
        TaskWaiting(make_task("later").created(9).build()),
        TaskWaiting(make_task("suspended").suspended().build()),
        TaskWaiting(make_task("elsewhere").queue("other").build()),
        pools=(make_pool(), make_pool("elsewhere")),
    )
    found = core.explain("t", 0.0)
    assert found is not None
    assert found.position == 3
    why = core.why("t", 0.0)
    assert why is not None
    assert (why.reason, why.message, why.position) == (found.reason, found.message, None)


def test_messages_stay_short_however_many_there_are() -> None:
    skills = [f"skill-number-{n}" for n in range(500)]
    _, _, message, _ = explained(
        AgentReady(make_agent("a").skills(*skills).build()), TaskWaiting(PLAIN.skills("x").build())
    )
    assert len(message) < 400
    assert "and 490 more" in message


def test_what_does_not_wait_is_not_explained() -> None:
    assert Core().explain("t", 0.0) is None
