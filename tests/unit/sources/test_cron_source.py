"""Cron sources at work, in virtual time: one Task a run, whatever dies, closes, changes or is set back meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from odd_objects import SOURCES, Obj, named, twisted
from taskdist.kube import TASKSOURCES, ApiError, Unreachable
from unit.sources.world import World, denied


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.process.close()
    assert made.failures == []


async def test_each_run_makes_one_task_and_status_tells_of_it(world: World) -> None:
    await world.apply()
    await world.clock.to("2026-01-01T03:10")
    assert world.runs() == ["01T01:00", "01T02:00", "01T03:00"]
    status = world.status()
    assert status["cron"]["lastScheduledTime"] == "2026-01-01T03:00:00Z"
    assert status["cron"]["nextScheduledTime"] == "2026-01-01T04:00:00Z"
    assert status["cron"]["lastTask"] == world.api.tasks()[-1]["metadata"]["name"]
    assert status["created"] == 3
    assert (world.condition()["status"], world.condition()["reason"]) == ("True", "Running")
    assert world.condition("Stalled")["status"] == world.condition("Reconciling")["status"] == "False"
    assert len(world.api.writes) == 4, "one write at the start, and one for each run"


async def test_over_a_change_of_the_clock_each_night_has_one_run() -> None:
    world = World("2026-10-24T20:00:00")
    await world.apply(cron={"schedule": "30 2 * * *", "timeZone": "Europe/Berlin"})
    await world.clock.to("2026-10-26T02:00")
    assert world.runs() == ["25T00:30", "26T01:30"]
    await world.process.close()


@pytest.mark.parametrize("after", [False, True], ids=["before the record", "after the record"])
async def test_a_process_that_is_killed_at_any_run_makes_no_second_task(world: World, after: bool) -> None:
    """Killed between the Task and its record, or as the answer to the record is lost."""
    await world.apply()

    def kill(body: Obj) -> Exception | None:
        return Unreachable("killed") if "cron" in body["status"] else None

    world.api.fail("patch", kill, after=after)
    for hour in range(1, 10):
        await world.clock.to(f"2026-01-01T0{hour}:00:01")
        await world.restart()
    world.api.errors.clear()
    await world.clock.to("2026-01-01T10:30")
    assert world.there() == 10
    assert sorted(set(world.runs())) == [f"01T{hour:02}:00" for hour in range(1, 11)]
    assert len(world.runs()) == 10


@pytest.mark.parametrize(
    ("missed", "expected"),
    [
        pytest.param({"missed": "Skip"}, [], id="none of them"),
        pytest.param({"missed": "One"}, ["02T03:00"], id="the latest"),
        pytest.param(
            {"missed": "All", "mostMissed": 3}, ["02T01:00", "02T02:00", "02T03:00"], id="all within the bound"
        ),
    ],
)
async def test_after_a_day_without_a_process_runs_are_made_up_for(
    world: World, missed: dict[str, Any], expected: list[str]
) -> None:
    await world.apply(cron={"schedule": "0 * * * *", **missed})
    await world.clock.to("2026-01-01T01:10")
    await world.process.close()
    await world.clock.to("2026-01-02T03:10")
    await world.restart()
    assert world.runs() == ["01T01:00", *expected]
    assert world.status()["cron"]["skipped"] == 26 - len(expected)
    await world.clock.to("2026-01-02T04:10")
    assert world.runs() == ["01T01:00", *expected, "02T04:00"]
    assert world.status()["cron"]["skipped"] == 26 - len(expected), "each is counted once"


async def test_a_source_made_while_no_process_ran_is_begun_from_its_creation(world: World) -> None:
    await world.process.close()
    await world.apply(cron={"schedule": "0 * * * *", "missed": "All"})
    await world.clock.to("2026-01-01T03:10")
    await world.restart()
    assert world.runs() == ["01T01:00", "01T02:00", "01T03:00"]


async def test_a_clock_that_goes_back_makes_nothing_twice_and_is_told(world: World) -> None:
    await world.apply()
    await world.clock.to("2026-01-01T03:10")
    world.clock.time = world.clock.time.replace(hour=1)
    await world.clock.to("2026-01-01T02:30")
    assert len(world.runs()) == 3
    assert world.condition()["reason"] == "ClockBehind"
    assert "2026-01-01T03:00:00Z" in world.condition()["message"]
    await world.clock.to("2026-01-01T04:10")
    assert world.runs()[3:] == ["01T04:00"]
    assert world.condition()["reason"] == "Running"


async def test_a_clock_that_was_far_ahead_is_mended_by_suspending(world: World) -> None:
    await world.apply()
    world.clock.time = world.clock.time.replace(year=2027)
    await world.clock.to("2027-01-01T01:10")
    world.clock.time = world.clock.time.replace(year=2026)
    await world.apply(suspend=True)
    await world.apply()
    await world.clock.to("2026-01-01T02:10")
    # Of its time there is a Task already, made by the clock that was ahead, and none of the other.
    assert world.runs()[-1] == "01T02:00"
    assert world.condition()["reason"] == "Running"


async def test_runs_while_suspended_are_neither_made_nor_missed(world: World) -> None:
    await world.apply(cron={"schedule": "0 * * * *", "missed": "All"}, suspend=True)
    assert (world.condition()["status"], world.condition()["reason"]) == ("False", "Suspended")
    await world.clock.to("2026-01-01T05:10")
    await world.apply(cron={"schedule": "0 * * * *", "missed": "All"})
    await world.clock.to("2026-01-01T06:10")
    assert world.runs() == ["01T06:00"]
    assert world.status()["cron"].get("skipped", 0) == 0


async def test_an_outage_as_it_resumes_loses_no_run(world: World) -> None:
    await world.apply(suspend=True)
    await world.clock.to("2026-01-01T00:59:58")
    world.api.fail("patch", lambda _: Unreachable("down"))
    await world.apply()
    await world.clock.to("2026-01-01T01:00:20")
    world.api.errors.clear()
    await world.clock.to("2026-01-01T01:10")
    assert world.runs() == ["01T01:00"]


async def test_with_another_schedule_runs_count_anew(world: World) -> None:
    await world.apply(cron={"schedule": "0 0 1 1 *"})
    await world.clock.to("2026-01-01T05:00:30")
    await world.apply(cron={"schedule": "* * * * *", "missed": "All"})
    await world.clock.to("2026-01-01T05:02:30")
    assert world.runs() == ["01T05:01", "01T05:02"]
    assert world.status()["observedGeneration"] == 2


async def test_what_was_counted_outlasts_a_change_before_it_is_written(world: World) -> None:
    await world.apply()
    world.api.fail("patch", lambda _: Unreachable("down"))
    await world.clock.to("2026-01-01T01:00:20")
    await world.apply(task={"priority": "High"})
    world.api.errors.clear()
    await world.clock.to("2026-01-01T01:10")
    assert world.status()["created"] == len(world.runs()) == 1


async def test_a_full_queue_gets_nothing_and_the_run_is_made_once_it_opens(world: World) -> None:
    world.queue(accepting=False)
    await world.apply()
    await world.clock.to("2026-01-01T01:00:30")
    assert world.runs() == []
    assert (world.condition()["status"], world.condition()["reason"]) == ("False", "QueueClosed")
    assert "TaskQueue q takes no new Tasks now. spec.quota.waiting is 5." in world.condition()["message"]
    world.queue(accepting=True)
    await world.clock.to("2026-01-01T01:10")
    assert world.runs() == ["01T01:00"]
    assert world.condition()["reason"] == "Running"


async def test_runs_that_a_full_queue_held_for_too_long_are_missed(world: World) -> None:
    world.queue(accepting=False)
    await world.apply(cron={"schedule": "0 * * * *", "missed": "Skip"})
    await world.clock.to("2026-01-01T03:30")
    world.queue(accepting=True)
    await world.clock.to("2026-01-01T04:10")
    assert world.runs() == ["01T04:00"]
    assert world.status()["cron"]["skipped"] == 3


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        pytest.param(denied(), "QueueClosed", id="the queue's policy"),
        pytest.param(denied("denied the request: no Tasks on Sundays"), "Refused", id="another policy"),
        pytest.param(ApiError(403, "Forbidden", "exceeded quota: tasks"), "Refused", id="a ResourceQuota"),
        pytest.param(ApiError(422, "Invalid", "denied the request: not today"), "Refused", id="a policy with a 422"),
    ],
)
async def test_what_may_be_taken_later_is_tried_again(world: World, error: ApiError, reason: str) -> None:
    world.api.fail("create", lambda _: error)
    await world.apply()
    await world.clock.to("2026-01-01T01:00:20")
    assert world.condition()["reason"] == reason
    assert world.status()["rejected"] == 0
    world.api.errors.clear()
    await world.clock.to("2026-01-01T01:10")
    assert world.runs() == ["01T01:00"]


async def test_a_run_that_no_task_can_be_made_of_is_told_and_the_next_goes_on(world: World) -> None:
    def refuse(body: Obj) -> Exception | None:
        bad = body["spec"]["payload"]["scheduledTime"].startswith("2026-01-01T01")
        return ApiError(422, "Invalid", "spec.notBefore must be before spec.deadline") if bad else None

    world.api.fail("create", refuse)
    await world.apply()
    await world.clock.to("2026-01-01T02:10")
    assert world.runs() == ["01T02:00"]
    status = world.status()
    assert (status["rejected"], status["lastRejected"]["reason"]) == (1, "Refused")
    assert "spec.notBefore" in status["lastRejected"]["message"]
    await world.apply(task={"tenant": "{$.none}"})
    await world.clock.to("2026-01-01T03:10")
    assert world.status()["lastRejected"]["reason"] == "NothingThere"
    assert "tenant: {$.none} gives nothing" in world.status()["lastRejected"]["message"]


async def test_a_failing_source_is_begun_again_and_the_others_go_on(world: World) -> None:
    def fail(body: Obj) -> Exception | None:
        return RuntimeError("a defect") if body["metadata"]["labels"]["taskdist.dev/source"] == "bad" else None

    world.api.fail("create", fail)
    await world.apply("bad")
    await world.apply("good")
    await world.clock.to("2026-01-01T01:05")
    assert world.runs("good") == ["01T01:00"]
    assert world.condition(name="bad")["reason"] == "Failing"
    assert "a defect" in world.condition(name="bad")["message"]
    world.api.errors.clear()
    await world.clock.to("2026-01-01T02:10")
    assert world.runs("bad") == ["01T01:00", "01T02:00"], "the latest missed one is made up for"
    assert world.condition(name="bad")["reason"] == "Running"


async def test_an_outage_of_the_api_server_costs_no_run(world: World) -> None:
    await world.apply(cron={"schedule": "*/10 * * * *", "missed": "All"})
    for verb in ("get", "create", "patch"):
        world.api.fail(verb, lambda _: Unreachable("down"))
    await world.clock.to("2026-01-01T01:35")
    world.api.errors.clear()
    await world.clock.to("2026-01-01T02:05")
    assert world.runs() == [f"01T{minute // 60:02}:{minute % 60:02}" for minute in range(40, 121, 10)]


@pytest.mark.parametrize(
    ("spec", "reason", "words"),
    [
        pytest.param({"task": {"payload": {"a": "{$..b}"}}}, "InvalidTemplate", "spec.task.payload.a", id="template"),
        pytest.param({"cron": {"schedule": "0 0 30 2 *"}}, "InvalidSchedule", "spec.cron.schedule: ", id="schedule"),
        pytest.param(
            {"cron": {"schedule": "0 0 1 1 *", "timeZone": "Nowhere"}},
            "InvalidSchedule",
            "spec.cron.timeZone",
            id="zone",
        ),
        pytest.param(
            {"cron": None}, "Unreadable", "no source that this release knows", id="a source of another release"
        ),
        pytest.param({"cron": {"schedule": 3}}, "Unreadable", "spec.cron.schedule", id="what no model reads"),
    ],
)
async def test_a_source_that_cannot_be_used_stalls_until_it_is_changed(
    world: World, spec: dict[str, Any], reason: str, words: str
) -> None:
    await world.apply()
    await world.clock.to("2026-01-01T01:10")
    await world.apply(**spec)
    await world.clock.to("2026-01-01T02:10")
    assert world.condition("Stalled")["status"] == "True"
    assert world.condition()["reason"] == reason
    assert words in world.condition()["message"]
    assert world.status()["observedGeneration"] == 2
    assert world.status()["created"] == 1, "what was counted stays"
    await world.apply()
    await world.clock.to("2026-01-01T03:10")
    assert world.condition()["reason"] == "Running"
    assert world.runs()[-1] == "01T03:00"


async def test_an_odd_source_is_told_of_once_the_api_server_answers(world: World) -> None:
    world.api.fail("patch", lambda _: Unreachable("down"))
    await world.apply(cron={"schedule": 3})
    await world.clock.to("2026-01-01T00:40")
    assert world.status() == {}
    world.api.errors.clear()
    await world.clock.to("2026-01-01T00:50")
    assert world.condition()["reason"] == "Unreadable"


@pytest.mark.parametrize("told", [True, False], ids=["told", "not told, as after a long pause of the watch"])
async def test_a_deleted_source_makes_no_more_tasks(world: World, told: bool) -> None:
    await world.apply()
    await world.clock.to("2026-01-01T01:10")
    await world.delete(told=told)
    await world.clock.to("2026-01-01T05:10")
    assert len(world.runs()) == 1
    await world.apply()
    await world.clock.to("2026-01-01T06:10")
    assert len(world.runs()) == 2
    names = {each["metadata"]["name"] for each in world.api.tasks()}
    assert len(names) == 2


async def test_a_change_that_was_not_heard_yet_makes_no_task_of_the_former_spec(world: World) -> None:
    await world.apply()
    changed = world.api.objects[str(TASKSOURCES), "ns", "s"]
    changed["metadata"]["generation"] = 2
    changed["spec"]["suspend"] = True
    await world.clock.to("2026-01-01T01:10")
    assert world.runs() == []


async def test_status_that_another_wrote_meanwhile_is_written_over(world: World) -> None:
    await world.apply()
    await world.clock.to("2026-01-01T01:10")
    there = world.api.objects[str(TASKSOURCES), "ns", "s"]
    world.api.put(TASKSOURCES, there | {"status": {"created": 99}})
    await world.clock.to("2026-01-01T02:10")
    assert world.status()["created"] == 2
    assert world.condition()["reason"] == "Running"


async def test_who_does_not_lead_writes_nothing(world: World) -> None:
    await world.apply()
    written = len(world.api.writes)
    world.leading = False
    await world.clock.to("2026-01-01T01:10")
    assert len(world.api.writes) == written


async def test_metrics_tell_what_happened(world: World) -> None:
    world.queue(accepting=False)
    await world.apply()
    await world.clock.to("2026-01-01T01:00:20")

    def value(name: str, **labels: str) -> float | None:
        return world.metrics.registry.get_sample_value(name, {"namespace": "ns", "source": "s"} | labels)

    assert value("taskdist_source_ready", reason="QueueClosed") == 0
    assert (value("taskdist_source_refused_total") or 0) > 1
    assert (value("taskdist_source_lag_seconds") or 0) > 10
    world.queue(accepting=True)
    await world.clock.to("2026-01-01T01:10")
    assert value("taskdist_source_created_total") == 1
    assert value("taskdist_source_lag_seconds") == 0
    assert value("taskdist_source_ready", reason="Running") == 1
    assert value("taskdist_source_ready", reason="QueueClosed") is None
    await world.delete()
    assert value("taskdist_source_ready", reason="Running") is None


@settings(max_examples=25, suppress_health_check=list(HealthCheck), deadline=None)
@given(st.lists(SOURCES | twisted(SOURCES), min_size=1, max_size=4))
async def test_whatever_is_there_a_normal_source_runs(odd: list[Obj]) -> None:
    world = World()
    for number, obj in enumerate(odd):
        world.process.seen(world.api.put(TASKSOURCES, named(obj, f"odd{number}")))
    await world.apply()
    await world.clock.to("2026-01-01T01:10")
    assert world.runs() == ["01T01:00"]
    await world.process.close()
    assert world.failures == []
