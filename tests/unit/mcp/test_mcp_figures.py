"""Numbers that are told were measured: context, progress, the sentence of a delivery, and the reports."""

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from mcp.shared.exceptions import MCPError

from taskdist.client.testing import FakeBackend
from taskdist.common import times
from taskdist.kube import PODS, TASKS, ApiError, Page, Resource
from taskdist.mcp import measuring, wording
from taskdist.mcp.measuring import Figures
from taskdist.mcp.progress import sentence
from unit.mcp.door import NOW, add_pod, add_pool, add_task, door, moment, ran


@pytest.fixture
def fake() -> Iterator[FakeBackend]:
    with FakeBackend("demo") as fake:
        fake.queue("q", pools=["p"])
        fake.hold()
        yield fake


async def progress(fake: FakeBackend, **arguments: Any) -> dict[str, Any]:
    async with door(fake, now=NOW) as asked:
        return await asked.ask("get_progress", **arguments)


async def test_progress_has_the_form_that_agents_tell_each_other(fake: FakeBackend) -> None:
    await add_pool(fake, slots=2)
    await add_pod(fake, "p-0")
    await add_pod(fake, "p-1")
    # Of 200 slot-seconds each: 60 and 40 are busy. A mean of 0.25, a deviation of 0.05.
    later = times.utc(NOW + 60)
    await add_task(fake, "a", created=NOW - 100, status=ran("p-0", NOW - 60, NOW), deadline=later)
    await add_task(fake, "b", created=NOW - 100, status=ran("p-1", NOW - 80, NOW - 40), deadline=later)
    await add_task(fake, "waits")
    answer = await progress(fake)
    # Waits of 40 s and 20 s, each up to a second less.
    assert answer["agent"] == "task-distributor"
    assert answer["status"] == "distributing"
    assert answer["progress"] == {
        "tasks_distributed": "2",
        "avg_queue_time": "30.0s",
        "load_variance": "20%",
        "deadline_success": "100%",
    }
    assert answer["numbers"]["utilization"] == 0.25
    assert answer["numbers"]["load_variance_pool"] == "p"
    assert answer["numbers"]["avg_queue_seconds_at_least"] == 29.0
    assert answer["not_measured"] == {}


async def test_where_nothing_was_done_nothing_is_told(fake: FakeBackend) -> None:
    answer = await progress(fake)
    assert answer["status"] == "idle"
    assert answer["progress"] == {"tasks_distributed": "0"}
    assert set(answer["not_measured"]) == {
        "avg_queue_time",
        "load_variance",
        "deadline_success",
        "utilization",
        "completion",
    }


DAY = 86_400.0
# Each Task, and what it adds to: deadlines (met, of), queue times, distributed, ended by phase.
ADDING: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "in time": (
        {"status": ran("p-0", NOW - 60, NOW - 50), "deadline": times.utc(NOW - 50)},
        {"met": 1, "of": 1, "queue_times": 1, "distributed": 1, "ended": {"Succeeded": 1}},
    ),
    "a moment late": (
        {"status": ran("p-0", NOW - 60, NOW - 49.9), "deadline": times.utc(NOW - 50)},
        {"met": 0, "of": 1, "queue_times": 1, "distributed": 1, "ended": {"Succeeded": 1}},
    ),
    "failed before its deadline": (
        {"status": ran("p-0", NOW - 60, NOW - 50, phase="Failed"), "deadline": times.utc(NOW + 50)},
        {"met": 0, "of": 1, "queue_times": 1, "distributed": 1, "ended": {"Failed": 1}},
    ),
    "waits, and is late": (
        {"deadline": times.utc(NOW - 1)},
        {"met": 0, "of": 1, "queue_times": 0, "distributed": 0, "ended": {}},
    ),
    "waits, and has time": (
        {"deadline": times.utc(NOW + 1)},
        {"met": 0, "of": 0, "queue_times": 0, "distributed": 0, "ended": {}},
    ),
    "cancelled by its user": (
        {"status": {"phase": "Cancelled", "finishedAt": moment(NOW - 50)}, "deadline": times.utc(NOW - 60)},
        {"met": 0, "of": 0, "queue_times": 0, "distributed": 0, "ended": {"Cancelled": 1}},
    ),
    "of before the period": (
        {"created": NOW - DAY, "status": ran("p-0", NOW - DAY, NOW - DAY + 9), "deadline": times.utc(NOW - DAY)},
        {"met": 0, "of": 0, "queue_times": 0, "distributed": 0, "ended": {}},
    ),
    "in its second attempt": (
        {"status": ran("p-0", NOW - 60, NOW - 50) | {"attempt": 2}},
        {"met": 0, "of": 0, "queue_times": 0, "distributed": 1, "ended": {"Succeeded": 1}},
    ),
    "waited for another Task": (
        {"status": ran("p-0", NOW - 60, NOW - 50), "dependsOn": [{"name": "x"}]},
        {"met": 0, "of": 0, "queue_times": 0, "distributed": 1, "ended": {"Succeeded": 1}},
    ),
    "with times that no calendar has": (
        {"status": {"phase": "Succeeded", "attempt": 1, "assignedAt": "2026-02-31T99:00:00Z", "finishedAt": "soon"}},
        {"met": 0, "of": 0, "queue_times": 0, "distributed": 0, "ended": {}},
    ),
}


@pytest.mark.parametrize(("task", "adds"), ADDING.values(), ids=ADDING.keys())
async def test_what_a_task_adds_to(fake: FakeBackend, task: dict[str, Any], adds: dict[str, Any]) -> None:
    await add_task(fake, "a", **task)
    numbers = (await progress(fake))["numbers"]
    assert (numbers["deadlines_met"], numbers["deadlines"]) == (adds["met"], adds["of"])
    assert numbers["queue_times"] == adds["queue_times"]
    assert numbers["tasks_distributed"] == adds["distributed"]
    assert numbers["ended"] == adds["ended"]


async def test_a_wait_until_a_set_time_is_no_queue_time(fake: FakeBackend) -> None:
    await add_task(fake, "a", created=NOW - 100, notBefore=times.utc(NOW - 50), status=ran("p-0", NOW - 49.75, NOW))
    answer = await progress(fake)
    # Exact: the time is the Task's own, and not in whole seconds of the API server.
    assert answer["progress"]["avg_queue_time"] == "250ms"


async def test_what_whole_seconds_leave_open_is_told_as_bounds(fake: FakeBackend) -> None:
    await add_task(fake, "a", created=NOW - 100, status=ran("p-0", NOW - 99.6, NOW))
    assert (await progress(fake))["progress"]["avg_queue_time"] == "at most 400ms"
    await add_task(fake, "b", created=NOW - 100, status=ran("p-0", NOW - 97, NOW))
    assert (await progress(fake))["progress"]["avg_queue_time"] == "1.0s to 1.7s"


async def test_the_period_is_no_longer_than_ended_tasks_are_kept(fake: FakeBackend) -> None:
    fake.queue("short", pools=["p"], ttlSecondsAfterFinished=30)
    await add_task(fake, "a", status=ran("p-0", NOW - 60, NOW - 31))
    await add_task(fake, "b", status=ran("p-0", NOW - 20, NOW - 10))
    whole, mine = await progress(fake, period_seconds=3600), await progress(fake, period_seconds=3600, queue="q")
    assert whole["numbers"]["tasks_distributed"] == 1
    assert whole["numbers"]["period_begin"] == times.utc(NOW - 30)
    assert "The period is the last 30s" in whole["notes"][0]
    assert mine["numbers"]["tasks_distributed"] == 2


async def test_an_agent_counts_from_when_it_was_ready(fake: FakeBackend) -> None:
    await add_pool(fake, slots=1)
    await add_pod(fake, "p-0", ready=NOW - 10)
    await add_pod(fake, "p-1", ready=NOW - 10)
    await add_task(fake, "a", status=ran("p-0", NOW - 10, None))
    await add_task(fake, "b", status=ran("p-1", NOW - 10, None))
    numbers = (await progress(fake, period_seconds=3600))["numbers"]
    assert (numbers["utilization"], numbers["load_variance"]) == (1.0, 0.0)


async def test_failed_attempts_are_load_too(fake: FakeBackend) -> None:
    await add_pool(fake, slots=1)
    await add_pod(fake, "p-0")
    record = {"attempt": 1, "reason": "HandlerError", "agent": "p-0"}
    record |= {"startedAt": moment(NOW - 80), "endedAt": moment(NOW - 30)}
    await add_task(fake, "a", status={"phase": "Pending", "attempt": 1, "attempts": [record]})
    assert (await progress(fake))["numbers"]["utilization"] == 0.5


async def test_a_part_of_the_tasks_is_no_measure_of_the_whole(
    fake: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "MOST_TASKS", 1)
    fake.queue("other")
    await add_task(fake, "a")
    await add_task(fake, "b", "other")
    async with door(fake, now=NOW) as asked:
        assert "There are more than 1 Tasks: ask for one queue" in await asked.refused("get_progress")
        assert (await asked.ask("get_progress", queue="q"))["numbers"]["waiting"] == 1


class NoPods(FakeBackend):
    """A cluster whose caller may not list pods."""

    async def list(self, resource: Any, **how: Any) -> Page:
        if resource == PODS:
            raise ApiError(403, "Forbidden", "pods is forbidden")
        return await super().list(resource, **how)


async def test_what_may_not_be_read_is_missing_and_the_rest_is_told() -> None:
    with NoPods("demo") as fake:
        fake.queue("q")
        fake.hold()
        await add_task(fake, "a", status=ran("p-0", NOW - 60, NOW))
        answer = await progress(fake)
    assert answer["progress"]["tasks_distributed"] == "1"
    assert "Pods is forbidden" in answer["not_measured"]["load_variance"]
    assert "load_variance" not in answer["progress"]


MISSION = {
    "requesting_agent": "workflow-orchestrator",
    "request_type": "get_distribution_context",
    "payload": {
        "query": "Distribution context needed: task volumes, agent capacities, priority schemes, performance targets, "
        "constraint requirements."
    },
}


async def test_the_context_is_asked_for_as_agents_ask_and_has_all_five_parts(fake: FakeBackend) -> None:
    await add_pool(fake, scaling={"maxReplicas": 5, "targetQueueSeconds": 30}, status={"readyReplicas": 2, "slots": 2})
    fake.queue("other", quota={"leased": 7}, aging={"stepSeconds": 60}, retry={"limit": 1})
    await add_task(fake, "a", "other", created=NOW - 36, priority="High")
    async with door(fake, now=NOW) as asked:
        whole = await asked.ask("get_distribution_context", **MISSION)
        narrow = MISSION | {"payload": {"query": "the same of one queue", "queue": "other"}}
        one = await asked.ask("get_distribution_context", **narrow)
    assert (whole["agent"], whole["requesting_agent"]) == ("task-distributor", "workflow-orchestrator")
    assert whole["request_type"] == "get_distribution_context"
    context = whole["context"]
    assert set(context) == {
        "task_volumes",
        "agent_capacities",
        "priority_schemes",
        "performance_targets",
        "constraint_requirements",
    }
    assert [each["queue"] for each in context["task_volumes"]["queues"]] == ["other", "q"]
    assert context["task_volumes"]["waiting_by_level"] == {"High": 1}
    assert context["task_volumes"]["created_per_second"] == 1 / 3600
    assert {each["name"]: each["agents_ready"] for each in context["agent_capacities"]} == {"fake": 0, "p": 2}
    assert context["performance_targets"]["pools"] == [{"pool": "p", "target_queue_seconds": 30.0}]
    assert one["context"]["priority_schemes"][0]["aging"] == {"stepSeconds": 60.0}
    (bounds,) = one["context"]["constraint_requirements"]
    assert (bounds["quota"]["leased"], bounds["retry"]["limit"]) == (7, 1)
    assert [each["name"] for each in one["context"]["agent_capacities"]] == ["fake"]


async def test_another_request_type_is_refused(fake: FakeBackend) -> None:
    async with door(fake) as asked:
        said = await asked.refused("get_distribution_context", **MISSION | {"request_type": "get_weather"})
    assert "Input should be 'get_distribution_context'" in said


def figures(**measured: Any) -> Figures:
    return Figures(NOW - 60, NOW, **measured)


SENTENCES = {
    "all is measured": (
        figures(
            distributed=45_000,
            queue_seconds=(0.23, 0.23),
            load_variance=0.07,
            utilization=0.84,
            deadlines=100,
            deadlines_met=97,
        ),
        "Task distribution system completed. Distributed 45K tasks with 230ms average queue time and 7% load variance. "
        "Achieved 97% deadline success rate with 84% resource utilization. "
        "Not measured: reduction of task wait time.",
    ),
    "nothing is": (
        figures(unknown={"avg_queue_time": "-", "load_variance": "-", "deadline_success": "-", "utilization": "-"}),
        "Task distribution system completed. Distributed 0 tasks. Not measured: average queue time, load variance, "
        "deadline success rate, resource utilization, reduction of task wait time.",
    ),
    "no Task has a deadline": (
        figures(distributed=1, load_variance=0.004, utilization=0.5, unknown={"deadline_success": "-"}),
        "Task distribution system completed. Distributed 1 task with 0.40% load variance. Achieved 50% resource "
        "utilization. Not measured: deadline success rate, reduction of task wait time.",
    ),
    "it is not over": (
        figures(waiting=1, running=2, distributed=3, deadlines=2, deadlines_met=2),
        "Task distribution system is distributing, with 1 task waiting and 2 running. Distributed 3 tasks. Achieved "
        "100% deadline success rate. Not measured: reduction of task wait time.",
    ),
}


@pytest.mark.parametrize(("measured", "said"), SENTENCES.values(), ids=SENTENCES.keys())
def test_the_sentence_has_the_numbers_that_were_measured_and_no_other(measured: Figures, said: str) -> None:
    assert sentence(measured) == said


async def test_a_notification_says_why_a_number_is_missing(fake: FakeBackend) -> None:
    async with door(fake, now=NOW) as asked:
        answer = await asked.ask("get_delivery_notification")
    assert answer["message"].startswith("Task distribution system completed. Distributed 0 tasks.")
    assert "the same work was not run another way" in answer["not_measured"]["wait_reduction"]
    assert "no agent is ready" in answer["not_measured"]["utilization"]


@pytest.mark.parametrize(
    ("number", "written"),
    [(0, "0"), (999, "999"), (1000, "1K"), (4_460, "4.5K"), (45_123, "45K"), (999_600, "1M"), (1_200_000, "1.2M")],
)
def test_counts_are_written_short(number: int, written: str) -> None:
    assert wording.count(number) == written


@pytest.mark.parametrize(
    ("part", "written"),
    [(0.0, "0%"), (0.0004, "0.04%"), (0.07, "7%"), (0.9969, "99.69%"), (1.0, "100%"), (1.2, "120%")],
)
def test_what_is_less_than_all_is_not_rounded_to_all(part: float, written: str) -> None:
    assert wording.percent(part) == written


async def test_reports_hold_what_was_measured(fake: FakeBackend) -> None:
    performance = {"type": "work", "count": 2, "meanSeconds": 20, "successRate": 1}
    await add_pool(fake, slots=2, status={"readyReplicas": 2, "desiredReplicas": 2, "performance": [performance]})
    await add_pod(fake, "p-0")
    await add_pod(fake, "p-1")
    await add_task(fake, "a", status=ran("p-0", NOW - 60, NOW))
    await add_task(fake, "b", status=ran("p-1", NOW - 60, NOW - 20))
    async with door(fake, now=NOW) as asked:
        hour = await asked.report("taskdist://report")
        minute = await asked.report("taskdist://periods/30")
        queue = await asked.report("taskdist://queues/q")
        pool = await asked.report("taskdist://pools/p")
        listed = [str(each.uri) for each in (await asked.client.list_resources()).resources]
        templates = {each.uri_template for each in (await asked.client.list_resource_templates()).resource_templates}
    assert hour.startswith("# Distribution\n\nNamespace demo, written at 2026-03-01T12:00:00Z.\n")
    assert "Distributed 2 tasks with 40.0s average queue time and 20% load variance." in hour
    assert "| p | 2 of 2 |" in hour
    assert "| Tasks handed out | 0 |" in minute
    assert queue.startswith("# Queue q\n")
    assert "| order | Priority |" in queue
    assert "| p-0 | 1 |" in queue
    assert pool.startswith("# Pool p\n")
    assert "| work | 2 | 20 s | 100% |" in pool
    assert "- deadline_success: no Task with a deadline" in queue
    assert listed == ["taskdist://report"]
    assert templates == {"taskdist://periods/{seconds}", "taskdist://queues/{queue}", "taskdist://pools/{pool}"}


class Counting(FakeBackend):
    """A cluster that counts how often its Tasks are read."""

    reads = 0

    async def pages(self, resource: Resource, **how: Any) -> AsyncIterator[Page]:
        self.reads += resource == TASKS
        async for page in super().pages(resource, **how):
            yield page


@pytest.mark.parametrize("uri", ["taskdist://report", "taskdist://queues/q", "taskdist://pools/fake"])
async def test_a_report_reads_tasks_once(uri: str) -> None:
    """There may be tens of thousands, and all numbers of a report are of one moment."""
    with Counting("demo") as fake:
        fake.queue("q")
        async with door(fake, now=NOW) as asked:
            await asked.report(uri)
        assert fake.reads == 1


async def test_what_users_wrote_breaks_no_table(fake: FakeBackend) -> None:
    held = {"type": "Bottleneck", "status": "True", "reason": "NoAgent", "message": "a | b\n# c"}
    await add_pool(fake, status={"conditions": [held]})
    async with door(fake, now=NOW) as asked:
        report = await asked.report("taskdist://pools/p")
    assert "| bottleneck | NoAgent: a \\| b # c |" in report.splitlines()


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        pytest.param("taskdist://queues/qq", "Did you mean 'q'?", id="no such queue"),
        pytest.param("taskdist://pools/nope", "There are: fake.", id="no such pool"),
        pytest.param("taskdist://periods/0", "There is no period '0': write a whole number", id="no period"),
        pytest.param("taskdist://periods/hour", "as in taskdist://periods/3600", id="no number"),
        pytest.param(f"taskdist://queues/{'q' * 300}", "There is no TaskQueue", id="a name that none can have"),
        pytest.param("taskdist://weather", "taskdist://weather", id="no such report"),
    ],
)
async def test_a_report_that_there_is_not_says_so(fake: FakeBackend, uri: str, words: str) -> None:
    async with door(fake, now=NOW) as asked:
        with pytest.raises(MCPError, match=re.escape(words)):
            await asked.report(uri)
