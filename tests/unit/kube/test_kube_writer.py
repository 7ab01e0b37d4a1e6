"""Each way a status write can go ends in the outcome that is true, and nothing is sent where it could do harm."""

from __future__ import annotations

import asyncio
import random

import pytest

from taskdist.common.backoff import Backoff
from taskdist.kube import (
    TASKS,
    Answer,
    Client,
    Conflict,
    Gone,
    KubeError,
    NotSeen,
    Obj,
    Outcome,
    Refused,
    StatusWriter,
    Unanswered,
    Unknown,
    Unreachable,
    Write,
    Written,
)
from unit.kube.fakes import CONFLICT, NOT_FOUND, Script, Step, make, ok, status

BEFORE = make("a", 5, status={"phase": "Pending"})
OURS = make("a", 6, status={"phase": "Leased", "attempt": 1, "leaderEpoch": 3})
OTHERS = make("a", 6, status={"phase": "Leased", "attempt": 1, "leaderEpoch": 4})
SUCCESSOR = make("a", 9, uid="another")
LOST = Unanswered("lost")
REFUSED = Unreachable("refused")
FAULT = status(500, "InternalError", "etcdserver: request timed out")
BUSY = status(429, "TooManyRequests", "busy")
INVALID = status(422, "Invalid", "status.phase: illegal transition", name="a")
TOO_LARGE = status(413, "RequestEntityTooLarge", "limit is 3145728")
ETCD_TOO_LARGE = status(500, "", "etcdserver: request is too large")
FORBIDDEN = status(403, "Forbidden", "no")
UNSERVED = Answer(404, b"404 page not found")


def writer(script: Script, stop: asyncio.Event | None = None, tries: int = 4, concurrency: int = 8) -> StatusWriter:
    client = Client(script, rng=random.Random(1))
    return StatusWriter(
        client, TASKS, backoff=Backoff(first=0.001, most=0.002), stop=stop, tries=tries, concurrency=concurrency
    )


def lease() -> Write:
    return Write("uid-a", "ns", "a", "5", {"phase": "Leased", "attempt": 1, "leaderEpoch": 3})


CASES: list[tuple[str, list[Step], Outcome]] = [
    ("answered", [ok(OURS)], Written(OURS)),
    ("conflict: it moved on", [CONFLICT, ok(OTHERS)], Conflict(OTHERS)),
    ("conflict: another object has the name", [CONFLICT, ok(SUCCESSOR)], Gone()),
    ("conflict: gone since", [CONFLICT, NOT_FOUND], Gone()),
    ("gone", [NOT_FOUND], Gone()),
    ("answered for another object", [ok(SUCCESSOR)], Gone()),
    ("invalid is final", [INVALID], Refused(422, "Invalid", "status.phase: illegal transition", True)),
    ("too large is final", [TOO_LARGE], Refused(413, "RequestEntityTooLarge", "limit is 3145728", True)),
    (
        "too large for etcd is final",
        [ETCD_TOO_LARGE],
        Refused(500, "", "etcdserver: request is too large", True),
    ),
    ("forbidden may pass", [FORBIDDEN], Refused(403, "Forbidden", "no", False)),
    ("not answered, and done", [LOST, ok(OURS)], Written(OURS)),
    ("not answered, not done, another was", [LOST, ok(OTHERS)], Conflict(OTHERS)),
    ("not answered, not to be seen: may land late", [LOST, ok(BEFORE)], NotSeen(BEFORE)),
    ("not answered, and gone", [LOST, NOT_FOUND], Gone()),
    ("not answered, and asking takes some tries", [LOST, LOST, LOST, FAULT, REFUSED, ok(OURS)], Written(OURS)),
    ("not answered, and another object has the name", [LOST, ok(SUCCESSOR)], Gone()),
    ("never sent, then done", [REFUSED, ok(OURS)], Written(OURS)),
    ("a fault, then done", [FAULT, ok(OURS)], Written(OURS)),
    ("a fault that had been done", [FAULT, CONFLICT, ok(OURS)], Written(OURS)),
    ("a fault, then another's", [FAULT, CONFLICT, ok(OTHERS)], Conflict(OTHERS)),
    ("a fault that had been done, then gone", [FAULT, NOT_FOUND, NOT_FOUND], Gone()),
    ("a fault that had been done makes the repeat invalid", [FAULT, INVALID, ok(OURS)], Written(OURS)),
    ("a path that is not served is not a Task that is gone", [UNSERVED, ok(OURS)], Written(OURS)),
    ("faults only, and not done", [FAULT, FAULT, FAULT, FAULT, ok(BEFORE)], NotSeen(BEFORE)),
    ("faults only, and done", [FAULT, FAULT, FAULT, FAULT, ok(OURS)], Written(OURS)),
    ("never reached", [REFUSED] * 4, Refused(0, "Unreachable", "refused", False)),
]


@pytest.mark.parametrize(("steps", "outcome"), [pytest.param(s, o, id=name) for name, s, o in CASES])
async def test_outcomes(steps: list[Step], outcome: Outcome) -> None:
    script = Script(*steps)
    assert await writer(script).write(lease()) == outcome
    assert not script.steps, "asked less than scripted"


async def test_says_which_object_in_which_state() -> None:
    script = Script(ok(OURS))
    await writer(script).write(lease())
    (request,) = script.asked
    assert (request.method, request.content_type) == ("PATCH", "application/merge-patch+json")
    assert request.path == "/apis/taskdist.dev/v1alpha1/namespaces/ns/tasks/a/status"
    assert script.bodies() == [
        {
            "metadata": {"uid": "uid-a", "resourceVersion": "5"},
            "status": {"phase": "Leased", "attempt": 1, "leaderEpoch": 3},
        }
    ]


async def test_a_result_is_put_there_as_it_is() -> None:
    """A merge patch would take the nulls for a wish to remove. Only what is there can be removed by this one."""
    script = Script(ok(OURS))
    status = {"phase": "Succeeded", "retryAfter": None, "route": {"rule": "r", "score": None}}
    await writer(script).write(Write("uid-a", "ns", "a", "5", status, exact={"result": {"x": None}}))
    (request,) = script.asked
    assert (request.method, request.content_type) == ("PATCH", "application/json-patch+json")
    assert script.bodies() == [
        [
            {"op": "replace", "path": "/metadata/resourceVersion", "value": "5"},
            {"op": "add", "path": "/status/phase", "value": "Succeeded"},
            {"op": "add", "path": "/status/retryAfter", "value": None},
            {"op": "remove", "path": "/status/retryAfter"},
            {"op": "add", "path": "/status/route", "value": {"rule": "r"}},
            {"op": "add", "path": "/status/result", "value": {"x": None}},
        ]
    ]


@pytest.mark.parametrize(("found", "ours"), [({"x": None}, True), ({}, False)])
async def test_a_result_that_another_left_is_not_taken_for_ours(found: Obj, ours: bool) -> None:
    after = make("a", 6, status={"phase": "Succeeded", "result": found})
    write = Write("uid-a", "ns", "a", "5", {"phase": "Succeeded"}, exact={"result": {"x": None}})
    outcome = await writer(Script(LOST, ok(after))).write(write)
    assert outcome == (Written(after) if ours else Conflict(after))


async def test_a_write_bound_to_nothing_is_refused() -> None:
    script = Script()
    with pytest.raises(ValueError, match="must name the version"):
        await writer(script).write(Write("uid-a", "ns", "a", "", {"phase": "Leased"}))
    assert script.asked == []


async def test_what_may_have_been_sent_is_not_sent_again() -> None:
    script = Script(LOST, ok(BEFORE))
    await writer(script).write(lease())
    assert [request.method for request in script.asked] == ["PATCH", "GET"]


async def test_reads_are_never_from_the_watch_cache() -> None:
    script = Script(LOST, ok(OURS))
    await writer(script).write(lease())
    assert script.queries()[1] == {}


async def test_the_caller_says_what_is_ours() -> None:
    write = Write("uid-a", "ns", "a", "5", {"phase": "Leased"}, is_ours=lambda obj: obj["status"]["leaderEpoch"] == 3)
    assert await writer(Script(LOST, ok(OTHERS))).write(write) == Conflict(OTHERS)
    assert await writer(Script(LOST, ok(OURS))).write(write) == Written(OURS)


@pytest.mark.parametrize(
    ("shown", "written"),
    [
        pytest.param({"phase": "Leased", "conditions": []}, True, id="more than was written"),
        pytest.param({"phase": "Leased", "reason": "old"}, False, id="what was to be removed is there"),
        pytest.param({"phase": "Leased", "agent": {"name": "p-1", "uid": "u"}}, True, id="nested"),
        pytest.param({"phase": "Leased", "agent": {"name": "p-2"}}, False, id="nested, differs"),
        pytest.param({}, False, id="nothing"),
    ],
)
async def test_ours_by_default_is_all_that_was_written(shown: Obj, written: bool) -> None:
    patch = {"phase": "Leased", "reason": None}
    if "agent" in shown:
        patch["agent"] = {"name": "p-1"}  # type: ignore[assignment]
    script = Script(LOST, ok(make("a", 6, status=shown)))
    outcome = await writer(script).write(Write("uid-a", "ns", "a", "5", patch))
    assert isinstance(outcome, Written) is written


async def test_a_retry_after_is_bounded_by_the_clients_patience() -> None:
    script = Script(*[status(429, "TooManyRequests", "busy", retry_after="3600")] * 4)
    outcome = await asyncio.wait_for(writer(script).write(lease()), 5)
    assert isinstance(outcome, Refused)
    assert (outcome.reason, outcome.final) == ("NotTaken", False)


async def test_stopped_before_sending_sends_nothing() -> None:
    stop = asyncio.Event()
    stop.set()
    script = Script()
    assert await writer(script, stop).write(lease()) == Refused(0, "Stopped", "the writer was stopped", False)
    assert script.asked == []


async def test_stop_ends_asking_and_says_that_it_is_unknown() -> None:
    stop = asyncio.Event()

    class Cut(Script):
        async def exchange(self, request):  # type: ignore[no-untyped-def]
            self.asked.append(request)
            if len(self.asked) == 6:
                stop.set()
            raise LOST

    outcome = await asyncio.wait_for(writer(Cut(), stop).write(lease()), 5)
    assert isinstance(outcome, Unknown)


async def test_stop_between_tries_sends_no_more() -> None:
    stop = asyncio.Event()

    class Cut(Script):
        async def exchange(self, request):  # type: ignore[no-untyped-def]
            stop.set()
            return await super().exchange(request)

    script = Cut(REFUSED, ok(OURS))
    assert isinstance(await writer(script, stop).write(lease()), Refused)
    assert len(script.asked) == 1


async def test_concurrency_is_bounded_and_in_order() -> None:
    gate, full = asyncio.Event(), asyncio.Event()

    class Held(Script):
        inside = most = 0

        async def exchange(self, request):  # type: ignore[no-untyped-def]
            self.inside += 1
            self.most = max(self.most, self.inside)
            if self.inside == 3:
                full.set()
            await gate.wait()
            self.inside -= 1
            return await super().exchange(request)

    script = Held(*[ok(OURS)] * 10)
    bounded = writer(script, concurrency=3)
    tasks = [asyncio.create_task(bounded.write(lease())) for _ in range(10)]
    await asyncio.wait_for(full.wait(), 5)
    assert (bounded.in_flight, bounded.queued) == (3, 7)
    gate.set()
    await asyncio.gather(*tasks)
    assert script.most == 3
    assert bounded.in_flight == bounded.queued == 0


class TestRead:
    @pytest.mark.parametrize(
        ("steps", "found"),
        [
            pytest.param([ok(BEFORE)], BEFORE, id="there"),
            pytest.param([NOT_FOUND], None, id="gone"),
            pytest.param([ok(SUCCESSOR)], None, id="another uid"),
            pytest.param([FAULT, UNSERVED, REFUSED, ok(BEFORE)], BEFORE, id="after faults"),
        ],
    )
    async def test_found(self, steps: list[Step], found: Obj | None) -> None:
        assert await writer(Script(*steps)).read("uid-a", "ns", "a") == found

    async def test_a_refusal_is_raised(self) -> None:
        with pytest.raises(KubeError):
            await writer(Script(FORBIDDEN)).read("uid-a", "ns", "a")
