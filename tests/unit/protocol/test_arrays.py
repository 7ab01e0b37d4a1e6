"""Arrays at the operator's end: split into parts, written together, and ended once their items have ended."""

import json
from typing import Any

import pytest

from taskdist.api import Delivery, OnExhausted, Reason
from taskdist.core.model import Overflow, Queue, Quota, RetryPolicy
from taskdist.protocol import convert
from taskdist.protocol.arrays.chunk_results import ChunkResult, FailedItems, encode
from taskdist.protocol.arrays.indexes import IndexSet
from taskdist.protocol.messages import (
    AgentIdentity,
    Cancel,
    Failure,
    Final,
    Grant,
    Hello,
    LeaseName,
    Ping,
    Result,
    Stopped,
    Verdict,
)
from taskdist.protocol.observations import (
    Conflict,
    Found,
    Gone,
    NotSent,
    ObservedTask,
    ReadTask,
    Unknown,
    WriteRefused,
    WriteStatus,
    Written,
)
from unit.protocol.desk import EPOCH, POOL, QUEUE, Desk


def merged(old: Any, patch: Any) -> Any:
    """Merge as RFC 7386 says."""
    if not isinstance(patch, dict):
        return patch
    new = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            new.pop(key, None)
        else:
            new[key] = merged(new.get(key), value)
    return new


class Array(Desk):
    """A desk with one array, and what the API server has of it."""

    def __init__(self, spec: dict[str, Any], queue: Queue = QUEUE, status: Any = None, **more: Any) -> None:
        spec = {"queue": "q", "type": "work", "payload": {"x": 1}, "array": spec, **more.pop("fields", {})}
        self.obj: dict[str, Any] = {
            "metadata": {"uid": "a", "namespace": "ns", "name": "task-a", "resourceVersion": "10"},
            "spec": spec,
            "status": status or {},
        }
        super().__init__(queue, self.record, pool=more.pop("pool", POOL), **more)

    @property
    def record(self) -> ObservedTask:
        return convert.observed_task(self.obj)

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.obj["status"]
        return found

    @property
    def array(self) -> dict[str, Any]:
        found: dict[str, Any] = self.status.get("array", {})
        return found

    def join(self, session: int, pod: int = 1, slots: int = 1, *, arrays: bool = True) -> None:
        hello = Hello(2, f"i{session}", slots, self.t, started=self.t, arrays=arrays)
        self.do("connected", session, AgentIdentity(f"u{pod}", f"p-{pod}", "ns", "p"), hello)
        self.says(session, Ping(self.t))

    def change(self, **spec: Any) -> None:
        """Somebody changes the Task."""
        self.obj["spec"].update(spec)
        self._bump()
        self.do("task_observed", self.record)

    def _bump(self) -> None:
        self.obj["metadata"]["resourceVersion"] = str(int(self.obj["metadata"]["resourceVersion"]) + 1)

    @property
    def writing(self) -> bool:
        return any(isinstance(action, WriteStatus) for action in self.out)

    def land(self, write: WriteStatus) -> None:
        assert write.uid == "a"
        assert write.resource_version == int(self.obj["metadata"]["resourceVersion"])
        self.obj["status"] = merged(self.status, write.status)
        self._bump()

    def stand(self) -> list[Any]:
        """The write of this moment stands."""
        write = self.write()
        self.land(write)
        return self.do("write_done", write.token, Written(self.record, convert.payload(self.obj)))

    def granted(self) -> list[Grant]:
        return self.sent(Grant)

    def result(self, grant: Grant, session: int = 1, after: float = 0.001, **ended: Any) -> list[Any]:
        """The agent sends the result of a chunk; after a second, so that a write may follow at once."""
        self.t += 1.0
        body = encode(ChunkResult(**ended))
        return self.says(session, Result(grant.lease, body, since_start=after))


def one() -> Array:
    """An array of ten items, whose first part runs on agent u1."""
    desk = Array({"count": 10})
    desk.join(1)
    desk.stand()
    return desk


def test_a_part_is_written_before_its_agent_hears_of_it() -> None:
    desk = Array({"count": 10})
    desk.join(1)
    assert desk.granted() == []
    patch = desk.write().status
    ((key, part),) = patch["array"]["parts"].items()
    assert (part["items"], part["attempt"], part["epoch"], part["agentUid"]) == ("0", 1, EPOCH, "u1")
    assert (patch["phase"], patch["attempt"], patch["epoch"]) == ("Assigned", 1, EPOCH)
    desk.stand()
    (grant,) = desk.granted()
    assert grant.lease == LeaseName(f"a.{key}", 1, EPOCH)
    assert grant.chunk is not None
    assert (grant.chunk.spans, grant.chunk.count, grant.payload) == (((0, 0),), 10, b'{"x":1}')
    assert (grant.namespace, grant.name) == ("ns", "task-a")


def test_all_items_are_run_once_and_the_last_end_ends_the_task() -> None:
    desk, seen = one(), []
    while (granted := desk.granted()) or desk.status.get("phase") == "Assigned":
        for grant in granted:
            assert grant.chunk is not None
            seen += [i for first, last in grant.chunk.spans for i in range(first, last + 1)]
            desk.result(grant, results={seen[-1]: f'{{"i":{seen[-1]}}}'})
        while desk.writing and not desk.granted():
            desk.stand()
    assert seen == list(range(10))
    assert desk.status["phase"] == "Succeeded"
    assert desk.array["succeeded"] == "0-9"
    assert desk.array["done"] == "10/10"
    assert "parts" not in desk.array or not desk.array["parts"]
    assert all(json.loads(text) == {"i": int(index)} for index, text in desk.array["results"].items())
    assert desk.leader.state.arrays == {}
    assert desk.leader.state.tasks == {}
    assert desk.leader.stats().accounted == 1


def test_the_next_array_of_the_kind_does_not_begin_with_one_item() -> None:
    desk = one()
    while granted := desk.granted():
        for grant in granted:
            desk.result(grant)
        while desk.writing and not desk.granted():
            desk.stand()
    desk.obj = {
        "metadata": {"uid": "b", "namespace": "ns", "name": "task-b", "resourceVersion": "1000"},
        "spec": desk.obj["spec"],
        "status": {},
    }
    desk.do("task_observed", desk.record)
    ((_, part),) = desk.write().status["array"]["parts"].items()
    assert part["items"] == "0-9"


def test_a_result_is_answered_once_it_stands() -> None:
    desk = one()
    (grant,) = desk.granted()
    desk.result(grant)
    assert desk.sent(Final) == []
    desk.stand()
    assert desk.sent(Final) == [Final(grant.lease, Verdict.ACCEPTED)]
    assert desk.result(grant) == [desk.out[0]]
    assert desk.sent(Final)[0].verdict is Verdict.ALREADY_FINAL


def test_parts_that_write_at_the_same_moment_share_one_write() -> None:
    desk = Array({"count": 100}, pool=POOL.__class__("ns", "p", slots=4, minimum=2, maximum=2))
    desk.join(1, slots=4)
    assert len(desk.write().status["array"]["parts"]) == 4
    desk.stand()
    assert len(desk.granted()) == 4


@pytest.mark.parametrize(
    "bounds",
    [
        pytest.param({"quota": Quota(waiting=1)}, id="of its own"),
        pytest.param({"tenant_quota": Quota(waiting=1)}, id="of its tenant"),
        pytest.param({"overflow": Overflow(1, 0)}, id="by overflow"),
    ],
)
def test_in_a_queue_that_bounds_its_waiting_tasks_an_array_counts_as_one(bounds: dict[str, Any]) -> None:
    pool = POOL.__class__("ns", "p", slots=4, minimum=2, maximum=2)
    desk = Array({"count": 100}, Queue("ns", "q", pools=("p",), **bounds), pool=pool)
    desk.at(desk.t + 1.0)
    assert not desk.writing
    assert desk.leader.core.queue_counts() == {("ns", "q"): (1, 0)}
    desk.join(1, slots=4)
    assert len(desk.write().status["array"]["parts"]) == 4


def test_while_a_write_is_under_way_no_other_is_begun() -> None:
    desk = Array({"count": 100}, pool=POOL.__class__("ns", "p", slots=2, minimum=2, maximum=2))
    desk.join(1, slots=2)
    first = desk.write()
    desk.join(2, 2, slots=2)
    assert not desk.writing
    desk.land(first)
    desk.do("write_done", first.token, Written(desk.record, b"{}"))
    assert len(desk.granted()) == 2
    assert len(desk.write().status["array"]["parts"]) == 2


def test_an_array_is_written_five_times_a_second_at_most() -> None:
    desk = Array({"count": 10_000, "chunk": {"maxItems": 1}})
    desk.join(1)
    begun = desk.t
    while desk.t < begun + 10.0:
        if granted := desk.granted():
            desk.says(1, Result(granted[0].lease, b"{}", since_start=0.5))
        elif desk.writing:
            desk.stand()
        else:
            desk.at(desk.t + 0.01)
    assert 45 <= len(desk.writes) <= 56


def test_an_unanswered_write_keeps_its_items_until_its_fate_is_known() -> None:
    desk = Array({"count": 10})
    desk.join(1)
    late = desk.write()
    desk.answer(Unknown())
    assert desk.granted() == []
    desk.at(desk.t + 2.0)
    again = desk.write()
    assert again.resource_version == late.resource_version
    assert again.status["array"]["parts"] == late.status["array"]["parts"]
    desk.land(late)
    desk.do("write_done", again.token, Conflict(desk.record))
    (read,) = [action for action in desk.out if isinstance(action, ReadTask)]
    assert read.uid == "a"
    desk.do("read_done", read.token, Found(desk.record, b"{}"))
    (grant,) = desk.granted()
    assert grant.lease.task_uid.removeprefix("a.") in late.status["array"]["parts"]


def test_a_conflict_takes_all_of_the_write_back() -> None:
    desk = Array({"count": 10})
    desk.join(1)
    write = desk.write()
    desk.obj["spec"]["priority"] = "High"
    desk._bump()
    desk.do("write_done", write.token, Conflict(desk.record))
    assert desk.granted() == []
    items = [part["items"] for part in desk.write().status["array"]["parts"].values()]
    assert items == ["0"]


@pytest.mark.parametrize("outcome", [NotSent(), Unknown()], ids=["not sent", "no answer"])
def test_what_is_not_known_to_be_written_is_not_sent(outcome: Any) -> None:
    desk = Array({"count": 10})
    desk.join(1)
    desk.answer(outcome)
    assert desk.granted() == []


def test_a_result_that_is_refused_is_found_among_others() -> None:
    desk = Array({"count": 100}, pool=POOL.__class__("ns", "p", slots=2, minimum=2, maximum=2))
    desk.join(1, slots=2)
    desk.stand()
    first, second = desk.granted()
    desk.says(1, Result(first.lease, b"{}", since_start=1.0))
    desk.answer(NotSent())
    desk.says(1, Result(second.lease, b"{}", since_start=1.0))
    desk.at(desk.t + 3.0)
    key, finals = first.lease.task_uid.removeprefix("a."), list[Final]()
    for _ in range(100):
        finals += desk.sent(Final)
        if not desk.writing:
            desk.at(desk.t + 0.5)
            continue
        array = desk.write().status["array"]
        # The result of the first is what the API server does not take.
        if array.get("parts", {}).get(key, "") is None and "failed" not in array:
            desk.answer(WriteRefused("no"))
        else:
            desk.stand()
    assert (desk.array["failed"], desk.array["succeeded"]) == ("0", "1")
    assert [final.verdict for final in finals] == [Verdict.ACCEPTED, Verdict.ACCEPTED]
    assert {final.lease for final in finals} == {first.lease, second.lease}


def test_items_that_fail_are_tried_again_and_no_others() -> None:
    queue = Queue("ns", "q", pools=("p",), retry=RetryPolicy(limit=1, initial_seconds=5.0, jitter=0.0))
    desk = Array({"count": 1, "chunk": {"maxItems": 5}}, queue)
    desk.join(1)
    desk.stand()
    (grant,) = desk.granted()
    failed = (FailedItems(IndexSet.of([0]), Reason.HANDLER_ERROR, "boom"),)
    desk.result(grant, failed=failed)
    desk.stand()
    assert desk.sent(Final)[0].verdict is Verdict.ACCEPTED
    ((again,),) = (desk.array["retrying"],)
    assert (again["failures"], again["items"]) == (1, "0")
    desk.at(desk.t + 4.0)
    assert desk.granted() == []
    desk.at(desk.t + 1.5)
    desk.stand()
    (second,) = desk.granted()
    assert second.lease.task_uid != grant.lease.task_uid
    desk.result(second, failed=failed)
    desk.stand()
    assert desk.array["failed"] == "0"
    desk.stand()
    assert desk.status["phase"] == "Failed"
    assert "item 0: boom" in desk.status["message"]


@pytest.mark.parametrize(
    ("delivery", "failed"),
    [
        pytest.param(Delivery.AT_LEAST_ONCE, None, id="run again, and not counted"),
        pytest.param(Delivery.AT_MOST_ONCE, "0", id="never run again under at most once"),
    ],
)
def test_an_item_that_was_begun_and_given_back(delivery: Delivery, failed: str | None) -> None:
    desk = Array({"count": 1}, Queue("ns", "q", pools=("p",), delivery=delivery))
    desk.join(1)
    desk.stand()
    (grant,) = desk.granted()
    desk.result(grant, failed=(FailedItems(IndexSet.of([0]), Reason.GIVEN_BACK, "asked to stop"),))
    desk.stand()
    assert (desk.array.get("failed"), desk.array.get("retrying")) == (failed, None)
    desk.stand()
    assert (desk.status["phase"], bool(desk.granted())) == (("Failed", False) if failed else ("Assigned", True))


def test_what_an_agent_did_not_get_to_waits_as_before() -> None:
    desk = Array({"count": 40}, status={"array": {"succeeded": "0-9"}})
    desk.join(1)
    desk.leader.state.arrays["a"].sizes.measured(20, 1.0)
    desk.stand()
    (grant,) = desk.granted()
    assert grant.chunk is not None
    desk.result(grant, left=IndexSet.parse("10"))
    desk.stand()
    assert desk.array.get("succeeded") == "0-9"
    assert not desk.array.get("failed")


def test_a_chunk_whose_agent_fails_is_tried_again_as_a_whole() -> None:
    desk = one()
    (grant,) = desk.granted()
    desk.t += 1
    desk.says(1, Failure(grant.lease, Reason.HANDLER_CRASHED, "segfault"))
    desk.stand()
    assert desk.sent(Final) == [Final(grant.lease, Verdict.ACCEPTED)]
    ((key, part),) = [(k, p) for k, p in desk.array["parts"].items() if p["items"] == "0"]
    assert (part["phase"], part["failures"], part["attempt"]) == ("Pending", 1, 1)
    assert f"a.{key}" == grant.lease.task_uid


ENDS: list[Any] = [
    pytest.param(lambda desk, grant: desk.says(1, Failure(grant.lease, Reason.EXECUTION_TIMED_OUT, "slow")), id="slow"),
    pytest.param(lambda desk, grant: desk.at(desk.t + 600.0), id="no word from its agent"),
    pytest.param(lambda desk, grant: desk.join(3), id="its agent started anew"),
]


def two_halves(queue: Queue) -> tuple[Array, Grant]:
    """An array of ten items, eight of which are in a part that runs on agent u1."""
    desk = Array({"count": 10}, queue, status={"array": {"succeeded": "0-1"}})
    desk.leader.state.arrays["a"].sizes.measured(100, 0.001)
    desk.join(1)
    desk.stand()
    (grant,) = desk.granted()
    assert grant.chunk is not None
    assert grant.chunk.spans == ((2, 9),)
    desk.t += 1.0
    return desk, grant


@pytest.mark.parametrize("limit", [0, 3])
@pytest.mark.parametrize("end", ENDS)
def test_a_chunk_that_is_lost_or_too_slow_counts_for_none_of_its_items_and_is_halved(end: Any, limit: int) -> None:
    desk, grant = two_halves(Queue("ns", "q", pools=("p",), retry=RetryPolicy(limit=limit, initial_seconds=0.0)))
    end(desk, grant)
    while not desk.array.get("retrying"):
        desk.stand()
    (again,) = desk.array["retrying"]
    assert (again["failures"], again["items"], again["chunkItems"]) == (0, "2-9", 4)
    assert not desk.array.get("failed")
    assert grant.lease.task_uid.removeprefix("a.") not in desk.array.get("parts", {})
    assert desk.leader.state.arrays["a"].sizes.next(10**6, 1) <= 4
    assert desk.leader.stats().conservation_error == 0


def test_in_the_end_the_item_that_is_at_fault_is_alone_and_it_alone_fails() -> None:
    queue = Queue("ns", "q", pools=("p",), retry=RetryPolicy(limit=1, initial_seconds=0.0))
    desk, grant = two_halves(queue)
    granted, sizes = [grant], list[int]()
    while desk.status["phase"] == "Assigned":
        for each in granted:
            assert each.chunk is not None
            items = IndexSet.union(IndexSet.span(*span) for span in each.chunk.spans)
            sizes += [len(items)] if IndexSet.of([6]) <= items else []
            if IndexSet.of([6]) <= items:
                desk.says(1, Failure(each.lease, Reason.EXECUTION_TIMED_OUT, "slow"))
            else:
                desk.says(1, Result(each.lease, b"{}", since_start=0.001))
        granted = []
        while not granted and desk.status["phase"] == "Assigned":
            desk.t += 1.0
            if desk.writing:
                desk.stand()
            else:
                desk.at(desk.t)
            granted = desk.granted()
    assert sizes == [8, 4, 2, 1, 1]
    assert (desk.status["phase"], desk.array["failed"], desk.array["succeeded"]) == ("Failed", "6", "0-5,7-9")


def test_items_that_somebody_wrote_twice_alike_are_tried_one_after_the_other() -> None:
    same = [{"failures": 1, "items": "1"}, {"failures": 1, "items": "0"}]
    desk = Array({"count": 2}, status={"array": {"retrying": same, "commit": "1-1"}})
    desk.join(1)
    assert [part["items"] for part in desk.write().status["array"]["parts"].values()] == ["1"]


def test_under_at_most_once_all_items_of_a_lost_chunk_have_failed() -> None:
    desk, grant = two_halves(Queue("ns", "q", pools=("p",), delivery=Delivery.AT_MOST_ONCE))
    desk.says(1, Failure(grant.lease, Reason.EXECUTION_TIMED_OUT, "slow"))
    desk.stand()
    assert (desk.array["failed"], desk.array.get("retrying")) == ("2-9", None)


def test_enough_successes_end_the_array_and_stop_what_runs() -> None:
    desk = Array({"count": 100, "completions": 1}, pool=POOL.__class__("ns", "p", slots=2, minimum=2, maximum=2))
    desk.join(1, slots=2)
    desk.stand()
    first, second = desk.granted()
    desk.result(first)
    desk.stand()
    assert [cancel.lease for cancel in desk.sent(Cancel)] == [second.lease]
    assert desk.status["phase"] == "Assigned"
    desk.t += 1
    desk.says(1, Stopped(second.lease))
    desk.stand()
    desk.stand()
    assert desk.status["phase"] == "Succeeded"
    assert desk.leader.state.tasks == {}


def test_a_cancelled_array_ends_once_its_parts_have_stopped() -> None:
    desk = one()
    (grant,) = desk.granted()
    desk.t += 1
    desk.change(cancel=True)
    assert [cancel.lease for cancel in desk.sent(Cancel)] == [grant.lease]
    desk.t += 1
    desk.says(1, Stopped(grant.lease))
    desk.stand()
    desk.stand()
    assert desk.status["phase"] == "Cancelled"
    assert desk.leader.state.tasks == {}
    assert desk.leader.stats().conservation_error == 0


def test_a_cancelled_array_that_waits_ends_at_once() -> None:
    desk = Array({"count": 10})
    desk.change(cancel=True)
    desk.stand()
    assert desk.status["phase"] == "Cancelled"


def test_a_deleted_array_is_forgotten_once_its_parts_have_stopped() -> None:
    desk = one()
    (grant,) = desk.granted()
    desk.do("task_deleted", "a")
    assert [cancel.lease for cancel in desk.sent(Cancel)] == [grant.lease]
    assert desk.leader.state.arrays
    desk.says(1, Stopped(grant.lease))
    assert desk.leader.state.arrays == {}
    assert desk.leader.state.tasks == {}


def test_an_array_that_is_set_aside_begins_nothing() -> None:
    desk = Array({"count": 10})
    desk.do("task_set_aside", "a")
    desk.join(1)
    assert not desk.writing
    desk.do("task_observed", desk.record)
    desk._bump()
    desk.do("task_observed", desk.record)
    assert desk.write()


def test_a_gone_array_is_forgotten() -> None:
    desk = Array({"count": 10})
    desk.join(1)
    desk.answer(Gone())
    assert desk.leader.state.tasks == {}
    assert desk.leader.state.arrays == {}


def test_an_agent_of_an_older_release_is_given_no_part() -> None:
    desk = Array({"count": 10})
    desk.join(1, arrays=False)
    assert not desk.writing
    desk.join(2, 2)
    assert desk.write()


def test_a_dead_letter_s_redrive_tries_the_failed_items_alone() -> None:
    retry = RetryPolicy(limit=0, on_exhausted=OnExhausted.DEAD_LETTER)
    desk = Array({"count": 2}, Queue("ns", "q", pools=("p",), retry=retry), status={"array": {"succeeded": "0"}})
    desk.join(1)
    desk.stand()
    (grant,) = desk.granted()
    desk.result(grant, failed=(FailedItems(IndexSet.of([1]), Reason.HANDLER_ERROR, "boom"),))
    desk.stand()
    desk.stand()
    assert desk.status["phase"] == "DeadLettered"
    desk.t += 1
    desk.change(redrive=1)
    desk.stand()
    assert desk.status["phase"] in ("Pending", "Assigned")
    assert not desk.array["failed"]
    desk.stand()
    (again,) = desk.granted()
    assert again.chunk is not None
    assert again.chunk.spans == ((1, 1),)
    assert again.lease.task_uid != grant.lease.task_uid


def test_items_of_their_own_reach_the_agent() -> None:
    desk = Array({"items": [{"a": 0}, {"a": 1}]}, status={"array": {"succeeded": "0"}})
    desk.join(1)
    desk.stand()
    (grant,) = desk.granted()
    assert grant.chunk is not None
    assert (grant.payload, grant.chunk.payloads, grant.chunk.spans) == (b"{}", (b'{"a":1}',), ((1, 1),))


def test_a_new_leader_takes_over_parts_and_splits_the_rest() -> None:
    former = one()
    ((_, part),) = former.array["parts"].items()
    desk = Array(
        {"count": 10}, status={"phase": "Assigned", "epoch": 2, "array": {"parts": {"2-1": part | {"epoch": 2}}}}
    )
    lease = desk.leader.state.tasks["a.2-1"].lease
    assert lease is not None
    assert (lease.name, lease.agent_uid) == (LeaseName("a.2-1", 1, 2), "u1")
    desk.join(2, 2)
    patch = desk.write().status["array"]["parts"]
    assert [each["items"] for each in patch.values()] == ["1"]
    assert "2-1" not in patch
