"""A Task whose present state cannot be read: left as it is, and nothing of it is lost."""

from taskdist.api import Phase, Reason
from taskdist.protocol.messages import Final, Grant, Ping, Renew, Result, Verdict
from taskdist.protocol.observations import NotSent, ReadTask, WriteStatus, Written
from unit.protocol.desk import A1, QUEUE, Desk, assigned, record, running


def test_a_waiting_task_that_turns_odd_gets_no_lease_until_it_can_be_read() -> None:
    desk = Desk(QUEUE, record())
    desk.do("task_set_aside", "a")
    desk.connect(1)
    assert desk.writes == []
    explained = desk.leader.core.why("a", desk.t)
    assert explained is not None
    assert explained.reason is Reason.UNREADABLE
    desk.do("task_observed", record(12))
    assert desk.write().status["phase"] == "Assigned"


def test_no_reason_is_written_on_what_cannot_be_read() -> None:
    desk = Desk(QUEUE, record())
    desk.do("task_set_aside", "a")
    for seconds in range(1, 120, 5):
        desk.at(1000.0 + seconds)
    assert desk.writes == []


def test_a_running_task_that_turns_odd_keeps_its_lease_and_its_result_waits() -> None:
    desk = running()
    desk.do("task_set_aside", "a")
    desk.says(1, Ping(desk.t + 1))
    assert [each.leases for each in desk.sent(Renew)] == [(A1,)], "it is renewed as before"
    writes = len(desk.writes)
    desk.says(1, Result(A1, b'{"y":1}'))
    assert len(desk.writes) == writes, "nothing is written over what another release has written"
    assert desk.sent(Final) == [], "and its agent keeps the result"
    desk.do("task_observed", assigned(20))
    write = desk.write()
    assert (write.status["phase"], write.body, write.resource_version) == ("Succeeded", b'{"y":1}', 20)
    desk.answer(Written(record(21, phase=Phase.SUCCEEDED, attempt=1, epoch=3, agent_uid="u1")))
    assert [each.verdict for each in desk.sent(Final)] == [Verdict.ACCEPTED]


def test_a_lease_that_ends_meanwhile_is_written_once_the_task_can_be_read() -> None:
    desk = running()
    desk.do("task_set_aside", "a")
    desk.do("pod_gone", "u1")
    writes = len(desk.writes)
    desk.at(1100.0)
    assert len(desk.writes) == writes
    desk.do("task_observed", assigned(20))
    assert desk.write().status["phase"] == "Pending"


def test_an_assignment_that_met_an_odd_state_is_taken_back_and_nothing_is_asked_over_and_over() -> None:
    desk = Desk(QUEUE, record())
    desk.connect(1)
    desk.do("task_set_aside", "a")
    desk.answer_to(10, NotSent())
    assert desk.sent(Grant) == []
    for seconds in range(1, 30):
        desk.at(1000.0 + seconds)
        assert not [each for each in desk.out if isinstance(each, ReadTask | WriteStatus)]
    explained = desk.leader.core.why("a", desk.t)
    assert explained is not None
    assert explained.reason is Reason.UNREADABLE, "its slot is free for others"
    desk.do("task_observed", record(12))
    assert desk.write().resource_version == 12


def test_a_deleted_task_is_gone_though_it_could_not_be_read() -> None:
    desk = Desk(QUEUE, record())
    desk.do("task_set_aside", "a")
    desk.do("task_deleted", "a")
    assert desk.leader.core.why("a", desk.t) is None
    assert list(desk.leader.live()) == []


def test_an_unknown_task_that_is_set_aside_is_nobodys() -> None:
    desk = Desk(QUEUE)
    assert desk.do("task_set_aside", "b") == []


def test_a_task_that_is_set_aside_is_accounted_for_as_long_as_it_is_in_the_books() -> None:
    desk = Desk(QUEUE, record())
    before = desk.leader.stats().accounted
    desk.do("task_set_aside", "a")
    assert desk.leader.knows("a")
    assert not desk.leader.knows("b")
    assert (desk.leader.stats().accounted, desk.leader.stats().conservation_error) == (before, 0)
