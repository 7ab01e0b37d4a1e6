"""What users may count on of the client: one suite, which the fake and the real cluster are both held to."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import pytest
from pydantic import BaseModel

from agents.of_clients import Bill, Order
from taskdist.client import (
    AsyncClient,
    Client,
    DeadLettered,
    InvalidResult,
    InvalidTask,
    KeyInUse,
    NotAllowed,
    QueueFull,
    Submission,
    SubmittedTask,
    TaskCancelled,
    TaskdistError,
    TaskdistWarning,
    TaskFailed,
    TaskGone,
    TaskNotFound,
    TaskTimeout,
    Unavailable,
)

PATIENCE = 60.0

QUEUES: dict[str, dict[str, Any]] = {
    "work": {"retry": {"limit": 1, "initialSeconds": 0.05}},
    "letters": {"retry": {"limit": 0, "onExhausted": "DeadLetter"}},
    "paused": {"paused": True},
    "shut": {"drained": True},
}
TYPES = ("bill", "echo", "fail", "refuse", "slow")


class World(Protocol):
    """A cluster with these queues, and agents of these types."""

    def client(self) -> AsyncClient: ...

    def blocking(self) -> Client: ...

    def stranger(self) -> AsyncClient:
        """A client that may do nothing."""
        ...

    def nowhere(self) -> AsyncClient:
        """A client of a cluster that is not there."""
        ...

    def delete(self, name: str) -> None: ...


Case = Callable[[World], Awaitable[None]]
CASES: list[Case] = []


def case(show: Case) -> Case:
    CASES.append(show)
    return show


def name(prefix: str = "t") -> str:
    return f"{prefix}-{secrets.token_hex(4)}"


async def states(client: AsyncClient, task: SubmittedTask[Any], phase: str) -> None:
    """Return once the Task is in this phase."""
    async for state in client.watch(task, timeout=PATIENCE):
        if state.phase == phase:
            return
    raise AssertionError(f"it ended, and was never {phase}")


@case
async def a_task_is_submitted_and_its_result_comes(world: World) -> None:
    async with world.client() as client:
        task = await client.submit("work", "echo", {"n": 1})
        assert task.created
        assert await client.result(task, timeout=PATIENCE) == {"n": 1}
        state = await client.get(task)
        assert (state.phase, state.queue, state.type, state.result) == ("Succeeded", "work", "echo", {"n": 1})


@case
async def run_is_both_in_one(world: World) -> None:
    async with world.client() as client:
        assert await client.run("work", "echo", {"n": 2}, timeout=PATIENCE) == {"n": 2}
        assert await client.run("work", "bill", Order(amount=2), result_type=Bill, timeout=PATIENCE) == Bill(total=4)


@case
async def models_and_dataclasses_go_in_and_models_come_out(world: World) -> None:
    @dataclass
    class Amount:
        amount: int

    async with world.client() as client:
        task = await client.submit("work", "bill", Order(amount=21), result_type=Bill)
        assert await client.result(task, timeout=PATIENCE) == Bill(total=42)
        other = await client.submit("work", "bill", Amount(4))
        assert await client.result(other, Bill, timeout=PATIENCE) == Bill(total=8)
        assert await client.result(other.name, timeout=PATIENCE) == {"total": 8}


@case
async def a_result_of_another_shape_is_told_with_the_result(world: World) -> None:
    class Other(BaseModel):
        sum: int

    async with world.client() as client:
        task = await client.submit("work", "bill", {"amount": 1}, result_type=Other)
        with pytest.raises(InvalidResult, match="is no Other: sum: Field required") as caught:
            await client.result(task, timeout=PATIENCE)
        assert caught.value.result == {"total": 2}


@case
async def a_failure_says_why_and_what_was_tried(world: World) -> None:
    async with world.client() as client:
        task = await client.submit("work", "fail")
        with pytest.raises(TaskFailed, match="RetriesExhausted") as caught:
            await client.result(task, timeout=PATIENCE)
        assert caught.value.reason == "RetriesExhausted"
        assert "RuntimeError: as asked" in caught.value.message
        tried = [(each["attempt"], each["reason"], each["message"]) for each in caught.value.attempts]
        assert tried == [(number, "HandlerError", "RuntimeError: as asked") for number in (1, 2)]


@case
async def what_is_permanent_is_tried_once(world: World) -> None:
    async with world.client() as client:
        with pytest.raises(TaskFailed) as caught:
            await client.run("work", "refuse", timeout=PATIENCE)
        assert (caught.value.reason, len(caught.value.attempts)) == ("HandlerError", 1)


@case
async def a_payload_that_does_not_fit_its_handler_names_the_field(world: World) -> None:
    async with world.client() as client:
        with pytest.raises(TaskFailed, match=r"payload\.amount") as caught:
            await client.run("work", "bill", {"amount": "much"}, timeout=PATIENCE)
        assert caught.value.reason == "InvalidPayload"


@case
async def a_waiting_task_is_cancelled(world: World) -> None:
    async with world.client() as client:
        task = await client.submit("paused", "echo")
        await client.cancel(task)
        with pytest.raises(TaskCancelled) as caught:
            await client.result(task, timeout=PATIENCE)
        assert caught.value.reason == "Cancelled"
        assert (await client.cancel(task)).phase == "Cancelled"


@case
async def a_running_task_is_cancelled(world: World) -> None:
    async with world.client() as client:
        task = await client.submit("work", "slow")
        await states(client, task, "Assigned")
        await client.cancel(task.name)
        with pytest.raises(TaskCancelled):
            await client.result(task, timeout=PATIENCE)


@case
async def a_dead_letter_is_told_and_redriven(world: World) -> None:
    async with world.client() as client:
        task = await client.submit("letters", "fail")
        with pytest.raises(DeadLettered, match="as asked"):
            await client.result(task, timeout=PATIENCE)
        assert await client.redrive(task)
        async for state in client.watch(task, timeout=PATIENCE):
            if state.settled and state.attempt == 2:
                break
        with pytest.raises(DeadLettered):
            await client.result(task.name, timeout=PATIENCE)


@case
async def waiting_has_an_end(world: World) -> None:
    async with world.client() as client:
        task = await client.submit("paused", "echo")
        with pytest.raises(TaskTimeout, match="it goes on"):
            await client.result(task, timeout=0.2)
        with pytest.raises(TimeoutError):
            await client.run("paused", "echo", timeout=0.5)
        await client.cancel(task)


@case
async def a_closed_queue_says_when_to_come_again(world: World) -> None:
    async with world.client() as client:
        with pytest.raises(QueueFull, match="takes no new Tasks now") as caught:
            await client.submit("shut", "echo")
        assert caught.value.queue == "shut"
        assert caught.value.retry_after > 0


@case
async def who_may_not_is_told(world: World) -> None:
    async with world.stranger() as client:
        with pytest.raises(NotAllowed, match="forbidden"):
            await client.submit("work", "echo")
        with pytest.raises(NotAllowed):
            await client.wait("any", timeout=PATIENCE)


@case
async def a_cluster_that_is_not_there_is_told(world: World) -> None:
    async with world.nowhere() as client:
        with pytest.raises(Unavailable, match="cannot be reached"):
            await client.submit("work", "echo")


@case
async def what_is_invalid_names_the_field(world: World) -> None:
    async with world.client() as client:
        with pytest.raises(InvalidTask) as caught:
            await client.submit("work", "echo", slots=0, skills=["a b"])
        assert caught.value.field.startswith("spec.")
        with pytest.raises(InvalidTask) as caught:
            await client.submit("work", "echo", priority="Hgh")
        assert caught.value.field == "spec.priority"
        with pytest.raises(InvalidTask, match="a list") as caught:
            await client.submit("work", "echo", ["a"])
        assert caught.value.field == "spec.payload"
        with pytest.raises(InvalidTask, match="bytes of JSON"):
            await client.submit("work", "echo", {"text": "x" * 70_000})


@case
async def a_key_is_one_task(world: World) -> None:
    key = name("order")
    async with world.client() as client:
        first = await client.submit("work", "echo", {"n": 1}, idempotency_key=key)
        second = await client.submit("work", "echo", {"n": 1}, idempotency_key=key)
        assert (first.created, second.created) == (True, False)
        assert (first.name, first.uid) == (second.name, second.uid)
        with pytest.warns(TaskdistWarning, match="another type or payload, which stand"):
            third = await client.submit("work", "echo", {"n": 2}, idempotency_key=key)
        assert await client.result(third, timeout=PATIENCE) == {"n": 1}
        assert await client.run("work", "echo", {"n": 1}, idempotency_key=key, timeout=PATIENCE) == {"n": 1}


@case
async def a_name_of_another_task_is_no_key(world: World) -> None:
    key = name("order")
    async with world.client() as client:
        task = await client.submit("work", "echo", idempotency_key=key)
        await client.wait(task, timeout=PATIENCE)
        world.delete(task.name)
        await client.submit("work", "echo", name=task.name)
        with pytest.raises(KeyInUse, match="choose another key"):
            await client.submit("work", "echo", idempotency_key=key)


@case
async def a_name_is_taken_once(world: World) -> None:
    taken = name()
    async with world.client() as client:
        await client.submit("work", "echo", name=taken)
        with pytest.raises(InvalidTask, match="already exists"):
            await client.submit("work", "echo", {"n": 1}, name=taken)


@case
async def many_are_submitted_in_order_each_with_its_error(world: World) -> None:
    wanted = [Submission("work", "echo", {"n": number}) for number in range(20)]
    wanted[7] = replace(wanted[7], slots=0)
    wanted[9] = Submission("shut", "echo")
    async with world.client() as client:
        made = await client.submit_many(wanted, concurrency=4)
        assert isinstance(made[7], InvalidTask)
        assert isinstance(made[9], QueueFull)
        tasks = [each for each in made if isinstance(each, SubmittedTask)]
        assert [each.obj["spec"]["payload"]["n"] for each in tasks] == [n for n in range(20) if n not in (7, 9)]
        results = await asyncio.gather(*(client.result(each, timeout=PATIENCE) for each in tasks))
        assert [each["n"] for each in results] == [n for n in range(20) if n not in (7, 9)]


@case
async def map_yields_each_as_it_ends(world: World) -> None:
    async with world.client() as client:
        seen = [each async for each in client.map("work", "bill", [Order(amount=n) for n in range(30)], window=8)]
        assert sorted(each.index for each in seen) == list(range(30))
        assert all(each.value == {"total": each.index * 2} for each in seen)


@case
async def map_keeps_the_order_if_asked_and_tells_of_each_failure(world: World) -> None:
    payloads: list[Any] = [Order(amount=1), {"amount": "much"}, ["no object"], Order(amount=4)]
    async with world.client() as client:
        outcomes = client.map("work", "bill", payloads, result_type=Bill, ordered=True, timeout=PATIENCE)
        seen = [each async for each in outcomes]
        assert [each.index for each in seen] == [0, 1, 2, 3]
        assert [seen[0].value, seen[3].value] == [Bill(total=2), Bill(total=8)]
        assert isinstance(seen[1].error, TaskFailed)
        assert isinstance(seen[2].error, InvalidTask)
        assert (seen[2].task, seen[2].payload) == (None, ["no object"])
        with pytest.raises(TaskFailed):
            _ = seen[1].value


@case
async def map_gathers_payloads_and_each_has_its_result(world: World) -> None:
    async with world.client() as client:
        seen = [each async for each in client.map("work", "echo", ({"n": n} for n in range(200)), timeout=PATIENCE)]
        assert {each.index: each.value["n"] for each in seen} == {n: n for n in range(200)}
        one = [each async for each in client.map("work", "echo", [{"n": 1}], arrays=False, timeout=PATIENCE)]
        assert one[0].task is not None
        assert "array" not in one[0].task.obj["spec"]


@case
async def failed_items_alone_are_tried_again(world: World) -> None:
    payloads: list[Any] = [Order(amount=1), {"amount": "much"}, Order(amount=4)]
    async with world.client() as client:
        seen = [each async for each in client.map("letters", "bill", payloads, ordered=True, timeout=PATIENCE)]
        assert [each.error is None for each in seen] == [True, False, True]
        failed = seen[1]
        assert failed.task is not None
        if not failed.task.obj["spec"].get("array"):
            return  # by the HTTP door each payload is a Task
        assert isinstance(failed.error, DeadLettered)
        assert failed.error.reason == "InvalidPayload"
        again = await client.redrive_failed(failed.task)
        assert (again.name, again.created) == (failed.task.name, True)
        async for state in client.watch(again.name, timeout=PATIENCE):
            if state.settled and state.obj["status"].get("redrives"):
                break
        assert state.obj["status"]["array"]["failed"] == "1"


@case
async def wait_tells_how_it_ended_and_does_not_raise(world: World) -> None:
    async with world.client() as client:
        task = await client.submit("work", "refuse")
        state = await client.wait(task, timeout=PATIENCE)
        assert (state.phase, state.reason, state.succeeded, state.settled) == ("Failed", "HandlerError", False, True)
        assert "never" in str(state)
        again = await client.wait(task.name, timeout=PATIENCE)
        assert again.phase == "Failed"


@case
async def a_task_that_is_not_there_is_told(world: World) -> None:
    async with world.client() as client:
        for ask in (client.get, client.wait, client.result, client.cancel, client.redrive, client.explain):
            with pytest.raises(TaskNotFound):
                await ask("no-such-task")


@case
async def a_task_that_is_deleted_meanwhile_is_gone(world: World) -> None:
    async with world.client() as client:
        task = await client.submit("paused", "echo")
        waiting = asyncio.ensure_future(client.result(task, timeout=PATIENCE))
        with pytest.raises(TaskTimeout):
            await client.wait(task, timeout=0.3)
        world.delete(task.name)
        with pytest.raises(TaskGone, match=r"is gone: it was deleted"):
            await waiting
        with pytest.raises(TaskNotFound):
            await client.get(task)


@case
async def a_task_that_was_deleted_before_anybody_waited_is_gone(world: World) -> None:
    async with world.client() as client:
        tasks = [await client.submit("paused", "echo") for _ in range(10)]
        for each in tasks:
            world.delete(each.name)
        found = await asyncio.gather(*(client.wait(each, timeout=PATIENCE) for each in tasks), return_exceptions=True)
        assert [type(each) for each in found] == [TaskGone] * 10


@case
async def a_watch_tells_of_each_change(world: World) -> None:
    async with world.client() as client:
        task = await client.submit("work", "echo", {"n": 1})
        seen = [state.phase async for state in client.watch(task, timeout=PATIENCE)]
        assert seen[-1] == "Succeeded"
        with pytest.raises(TaskNotFound):
            _ = [state async for state in client.watch("no-such-task")]


@case
async def it_is_explained_why_a_task_waits(world: World) -> None:
    async with world.client() as client:
        task = await client.submit("paused", "echo")
        story = await client.explain(task)
        assert (story["queue"], story["phase"], story["reason"]) == ("paused", "Pending", "QueuePaused")
        await client.cancel(task)


@case
async def what_a_change_would_do_is_told(world: World) -> None:
    async with world.client() as client:
        task = await client.submit("paused", "echo", {})
        told = await client.what_if(task, priority="High")
        # Its queue is paused, whatever its level.
        assert told["as_it_is"]["starts"] == told["changed"]["starts"] == 0.0
        wrongs: list[tuple[dict[str, Any], str]] = [
            ({}, "say what would be different"),
            ({"priority": "Highest"}, "priority"),
            ({"agents": {"nowhere": 1}}, "nowhere: no such AgentPool"),
        ]
        for wrong, words in wrongs:
            with pytest.raises(TaskdistError, match=words):
                await client.what_if(task, **wrong)
        await client.cancel(task)
        await client.wait(task, timeout=PATIENCE)
        with pytest.raises(TaskdistError, match="for Tasks that wait"):
            await client.what_if(task, priority="High")


@case
async def a_slip_of_the_finger_is_told_at_once(world: World) -> None:
    async with world.client() as client:
        with pytest.warns(TaskdistWarning, match="handles type 'ecko'; did you mean 'echo'?"):
            task = await client.submit("work", "ecko")
        await client.cancel(task)
        with pytest.warns(TaskdistWarning, match="there is no queue 'wrok'.*letters, paused, shut, work"):
            task = await client.submit("wrok", "echo")
        await client.cancel(task)
        with pytest.warns(TaskdistWarning, match="there is no task 'no-such-task'"):
            task = await client.submit("work", "echo", depends_on=["no-such-task"])
        await client.cancel(task)


@case
async def a_blocking_client_serves_many_threads(world: World) -> None:
    def use(client: Client, number: int) -> int:
        task = client.submit("work", "bill", Order(amount=number), result_type=Bill)
        return client.result(task, timeout=PATIENCE).total

    def everything() -> None:
        with world.blocking() as client:
            assert client.run("work", "echo", {"n": 1}, timeout=PATIENCE) == {"n": 1}
            outcomes = list(client.map("work", "bill", (Order(amount=n) for n in range(5)), ordered=True))
            assert [each.value["total"] for each in outcomes] == [0, 2, 4, 6, 8]
            made = client.submit_many([Submission("work", "echo")])
            assert client.wait(_taken(made[0]), timeout=PATIENCE).succeeded
            held = client.submit("paused", "echo")
            assert client.explain(held)["reason"] == "QueuePaused"
            assert client.cancel(held).name == held.name
            assert [state.phase for state in client.watch(held, timeout=PATIENCE)][-1] == "Cancelled"
            letter = client.submit("letters", "fail")
            assert client.wait(letter, timeout=PATIENCE).phase == "DeadLettered"
            assert client.redrive(letter)
            assert client.get(letter).name == letter.name
        with pytest.raises(TaskNotFound), world.blocking() as client:
            client.get("no-such-task")

    await asyncio.to_thread(everything)
    with world.blocking() as client:
        totals = await asyncio.gather(*(asyncio.to_thread(use, client, number) for number in range(8)))
    assert totals == [number * 2 for number in range(8)]


def _taken(made: object) -> SubmittedTask[Any]:
    assert isinstance(made, SubmittedTask)
    return made
