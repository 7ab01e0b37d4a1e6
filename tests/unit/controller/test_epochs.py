"""Epochs stay above all that Tasks and agents have seen, and no agent can drive them up without end."""

from dataclasses import replace

import pytest

from taskdist.api import Phase, Reason
from taskdist.controller.epochs import GATHER_SECONDS, MOST_BELIEVED, PAUSE_SECONDS, Epochs, went_back
from taskdist.protocol.observations import PoolNotice, RaiseEpoch
from unit.protocol.desk import record


class World:
    """A clock, and what became of what the agents told."""

    def __init__(self) -> None:
        self.t = 100.0
        self.begun: list[float] = []
        self.notices: list[PoolNotice] = []
        self.due: list[tuple[float, object]] = []
        self.leading: int | None = 1
        self.epochs = Epochs(
            lambda: self.t,
            self._later,
            lambda: self.leading,
            lambda why: self.begun.append(self.t),
            self.notices.append,
        )

    def _later(self, seconds: float, what: object) -> None:
        self.due.append((self.t + seconds, what))

    def tells(self, pod: str, epoch: int) -> None:
        self.epochs.on_agent(RaiseEpoch(epoch, pod, "ns", "p", f"the agent has seen epoch {epoch}"))

    def run(self) -> None:
        """Let what is due happen, at its time."""
        while self.due:
            at, what = self.due.pop(0)
            self.t = max(self.t, at)
            assert callable(what)
            what()


def test_what_tasks_show_is_the_floor_and_begins_nothing() -> None:
    world = World()
    for epoch in (3, 7, 5):
        world.epochs.on_task(epoch)
    world.run()
    assert (world.epochs.seen, world.begun, world.notices) == (7, [], [])


def test_a_leadership_is_begun_anew_once_for_all_agents_that_come_in_a_moment() -> None:
    world = World()
    world.tells("a", 17)
    world.t += GATHER_SECONDS / 2
    world.tells("b", 19)
    world.run()
    assert (world.epochs.seen, world.begun) == (19, [100.0 + GATHER_SECONDS])
    (notice,) = world.notices
    assert (notice.pool, notice.reason, notice.warning) == ("p", Reason.EPOCH_RAISED, True)
    assert "has seen epoch 17" in notice.message


def test_who_was_deposed_begins_nothing() -> None:
    world = World()
    world.leading = None
    world.tells("a", 17)
    world.run()
    assert (world.epochs.seen, world.begun, world.notices) == (0, [], [])


@pytest.mark.parametrize("leading", [None, 18], ids=["nobody by then", "above it by then"])
def test_what_has_come_to_pass_meanwhile_is_not_begun_anew(leading: int | None) -> None:
    world = World()
    world.tells("a", 17)
    world.leading = leading
    world.run()
    assert (world.epochs.seen, world.begun) == (17, [])


def test_a_pod_is_believed_once() -> None:
    world = World()
    world.tells("liar", 17)
    world.run()
    world.t += 1000.0
    world.tells("liar", 18)
    world.run()
    assert (world.epochs.seen, len(world.begun)) == (17, 1)


def test_pods_that_come_again_and_again_change_the_leader_twice_a_minute_at_most() -> None:
    world = World()
    for n in range(600):
        world.tells(f"pod-{n}", 20 + n)
        if world.due and world.due[0][0] <= world.t:
            world.run()
        world.t += 0.1
    gaps = [later - earlier for earlier, later in zip(world.begun, world.begun[1:], strict=False)]
    assert len(gaps) >= 1
    assert all(gap > PAUSE_SECONDS - 0.2 for gap in gaps)


def test_memory_is_bounded() -> None:
    world = World()
    for n in range(MOST_BELIEVED + 10):
        world.tells(f"pod-{n}", 20)
    assert len(world.epochs._believed) == MOST_BELIEVED


@pytest.mark.parametrize(
    ("before", "after", "back"),
    [
        pytest.param((Phase.SUCCEEDED, 3), (Phase.PENDING, 0), True, id="ended and waits again"),
        pytest.param((Phase.FAILED, 3), (Phase.ASSIGNED, 3), True, id="ended and runs again"),
        pytest.param((Phase.ASSIGNED, 3), (Phase.ASSIGNED, 2), True, id="a lower epoch"),
        pytest.param((Phase.ASSIGNED, 3), (Phase.PENDING, 3), False, id="tried again"),
        pytest.param((Phase.DEAD_LETTERED, 3), (Phase.PENDING, 3), False, id="redriven"),
        pytest.param((Phase.SUCCEEDED, 3), (Phase.SUCCEEDED, 3), False, id="labelled after its end"),
        pytest.param((Phase.PENDING, 0), (Phase.ASSIGNED, 1), False, id="assigned"),
    ],
)
def test_a_task_that_goes_back_in_time_is_seen(before: tuple[Phase, int], after: tuple[Phase, int], back: bool) -> None:
    old = replace(record(), phase=before[0], epoch=before[1])
    new = replace(record(11), phase=after[0], epoch=after[1])
    assert went_back(old, new) is back
