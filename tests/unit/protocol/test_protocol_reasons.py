"""Why Tasks wait is written once it has held, in turn, and no faster than allowed."""

from builders import make_task
from taskdist.api import Reason
from taskdist.core import Core
from taskdist.protocol.observations import Action, NotSent, Now, ObservedTask, WriteOutcome, WriteStatus, Written
from taskdist.protocol.operator import Leader
from taskdist.protocol.settings import LeaderSettings

SETTINGS = LeaderSettings()
HOLD, RATE = SETTINGS.reason_seconds, SETTINGS.reasons_per_second


def record(number: int, **fields: object) -> ObservedTask:
    return ObservedTask(make_task(f"t{number:04d}").build(), resource_version=number + 1, **fields)  # type: ignore[arg-type]


class Run:
    """A leader without queues or agents, in virtual time: each write of a reason is answered at once."""

    def __init__(self, tasks: int) -> None:
        self.now = 0.0
        self.written: list[tuple[float, str]] = []
        self.leader = Leader(Core(), 1, SETTINGS)
        self.records = {f"t{i:04d}": record(i) for i in range(tasks)}
        self.answer = True
        self.take(self.leader.recover(self.records.values(), self.time))

    @property
    def time(self) -> Now:
        return Now(self.now, 1e9 + self.now)

    def take(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, WriteStatus):
                self.written.append((self.now, action.name))
                outcome: WriteOutcome = NotSent()
                if self.answer:
                    seen = self.records[action.uid]
                    stored = ObservedTask(seen.task, 1000 + len(self.written), reason=Reason(action.status["reason"]))
                    self.records[action.uid] = stored
                    outcome = Written(stored)
                self.take(self.leader.write_done(action.token, outcome, self.time))

    def until(self, end: float) -> None:
        while (wake := self.leader.next_wake()) is not None and wake <= end:
            self.now = max(self.now, wake)
            self.take(self.leader.tick(self.time))
        self.now = end


def test_every_waiting_task_gets_its_reason_and_none_waits_longer_than_its_turn() -> None:
    run = Run(500)
    run.until(2 * HOLD + 500 / RATE)
    assert sorted(name for _, name in run.written) == sorted(run.records)


def test_reasons_are_written_in_the_order_in_which_they_came_due() -> None:
    run = Run(100)
    run.until(300.0)
    assert [name for _, name in run.written] == sorted(run.records)


def test_no_second_sees_more_writes_than_the_bucket_and_its_rate_allow() -> None:
    run = Run(200)
    run.until(300.0)
    times = [at for at, _ in run.written]
    assert times[0] >= HOLD
    for begin in times:
        assert sum(begin <= at < begin + 1.0 for at in times) <= 2 * RATE + 1


def test_a_reason_is_written_once() -> None:
    run = Run(3)
    run.until(10 * HOLD)
    assert len(run.written) == 3


def test_a_write_that_was_not_sent_is_tried_again() -> None:
    run = Run(3)
    run.answer = False
    run.until(HOLD + 5.0)
    run.answer = True
    run.written.clear()
    run.until(4 * HOLD)
    assert sorted(name for _, name in run.written) == sorted(run.records)
