"""The election, alone: a table of single steps, then whole histories in virtual time with clocks that differ."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from taskdist.kube.election import (
    Election,
    LeadershipEnding,
    LeadershipOver,
    LeadershipStarted,
    LeaseChange,
    LeaseRecord,
    ReadLease,
    Role,
    Step,
    Timing,
    Wait,
    WriteLease,
)

TIMING = Timing(lease=15, renew_deadline=10, retry=2, drift=0.02)


def elect(election: Election, now: float, version: str = "1", *, existing: LeaseRecord | None = None) -> None:
    """Bring a follower to leadership by the ordinary way."""
    assert isinstance(election.next(now), ReadLease)
    election.read(existing, now)
    action = election.next(now)
    assert isinstance(action, WriteLease)
    assert action.purpose == "acquire"
    election.written(action, LeaseRecord(election.identity, action.epoch, 15, version), now, now)


def leader(now: float = 100.0) -> Election:
    election = Election("me", TIMING)
    elect(election, now)
    election.changes()
    return election


class TestFollower:
    @pytest.mark.parametrize(
        ("record", "epoch"),
        [
            pytest.param(None, 1, id="no lease yet"),
            pytest.param(LeaseRecord("", 7, 1, "5"), 8, id="released"),
            pytest.param(LeaseRecord("me", 7, 15, "5"), 8, id="our own, from a leadership that is over"),
        ],
    )
    def test_takes_a_free_lease_at_once_under_a_new_epoch(self, record: LeaseRecord | None, epoch: int) -> None:
        election = Election("me", TIMING)
        elect(election, 100, existing=record)
        assert election.changes() == [LeadershipStarted(epoch)]
        assert election.leading(100) == epoch

    def test_respects_anothers_lease_until_it_has_not_changed_for_all_its_time(self) -> None:
        election = Election("me", TIMING)
        election.next(100)
        election.read(LeaseRecord("other", 3, 15, "5"), 100)
        now = 100.0
        while isinstance(action := election.next(now), (Wait, ReadLease)):
            if isinstance(action, ReadLease):
                election.read(LeaseRecord("other", 3, 15, "5"), now)
            else:
                now = action.until
        assert now == pytest.approx(100 + 15 * 1.02)
        assert action == WriteLease(LeaseChange.ACQUIRE, "me", 4, "5", TIMING.request)

    def test_does_not_wait_for_a_holder_that_is_known_to_be_dead(self) -> None:
        election = Election("me", TIMING, is_dead=lambda holder: holder == "my former self")
        election.read(LeaseRecord("my former self", 3, 10.0, "5"), 100.0)
        action = election.next(100.0)
        assert isinstance(action, WriteLease)
        assert (action.purpose, action.epoch, action.replaces) == ("acquire", 4, "5")
        election.refused(action, 100.0)
        election.read(LeaseRecord("another", 4, 10.0, "6"), 101.0)
        assert isinstance(election.next(101.0), Wait)

    def test_looks_at_once_when_it_is_told_that_the_lease_changed_hands(self) -> None:
        election = Election("me", TIMING)
        election.read(LeaseRecord("other", 3, 10.0, "5"), 100.0)
        assert isinstance(election.next(100.0), Wait)
        election.look(100.1)
        assert isinstance(election.next(100.1), ReadLease)
        election.read(LeaseRecord("", 3, 1.0, "6"), 100.1)
        assert isinstance(election.next(100.1), WriteLease)

    def test_a_renewal_seen_starts_its_count_again(self) -> None:
        election = Election("me", TIMING)
        election.next(100)
        election.read(LeaseRecord("other", 3, 15, "5"), 100)
        election.next(100)
        assert isinstance(election.next(115.2), ReadLease)
        election.read(LeaseRecord("other", 3, 15, "6"), 115.2)
        assert isinstance(election.next(115.4), Wait)

    def test_respects_a_longer_lease_than_its_own(self) -> None:
        election = Election("me", TIMING)
        election.next(0)
        election.read(LeaseRecord("other", 3, 60, "5"), 0)
        assert isinstance(election.next(50), Wait)

    def test_a_lease_deleted_under_its_holder_is_respected_too(self) -> None:
        election = Election("me", TIMING)
        election.next(100)
        election.read(LeaseRecord("other", 3, 15, "5"), 100)
        election.next(100)
        election.next(102)
        election.read(None, 102)
        assert isinstance(election.next(110), Wait)
        election.next(118)
        election.read(None, 118)
        action = election.next(118)
        assert isinstance(action, WriteLease)
        assert (action.replaces, action.epoch) == (None, 4)

    def test_counts_from_the_floor(self) -> None:
        election = Election("me", TIMING, floor=lambda: 41)
        elect(election, 0)
        assert election.leading(0) == 42

    def test_looks_again_after_losing_the_race(self) -> None:
        election = Election("me", TIMING)
        election.next(0)
        election.read(None, 0)
        action = election.next(0)
        assert isinstance(action, WriteLease)
        election.refused(action, 0)
        assert election.next(0) == Wait(2)
        assert isinstance(election.next(2), ReadLease)
        assert election.changes() == []

    def test_an_answer_that_took_too_long_makes_no_leader(self) -> None:
        election = Election("me", TIMING)
        election.next(0)
        election.read(None, 0)
        action = election.next(0)
        assert isinstance(action, WriteLease)
        election.written(action, LeaseRecord("me", 1, 15, "1"), 0, 11)
        assert election.changes() == []
        assert election.leading(11) is None

    def test_an_acquisition_without_an_answer_is_not_taken_for_won(self) -> None:
        election = Election("me", TIMING)
        election.next(0)
        election.read(None, 0)
        action = election.next(0)
        assert isinstance(action, WriteLease)
        election.failed(action, 0, 3)
        assert isinstance(election.next(3), ReadLease)
        election.read(LeaseRecord("me", 1, 15, "1"), 3)
        again = election.next(3)
        assert isinstance(again, WriteLease)
        assert again.epoch == 2


class TestLeader:
    def test_renews_at_each_retry_and_names_what_it_replaces(self) -> None:
        election = leader(100)
        assert election.next(100) == Wait(102)
        action = election.next(102)
        assert action == WriteLease(LeaseChange.RENEW, "me", 1, "1", TIMING.request)
        election.written(action, LeaseRecord("me", 1, 15, "2"), 102, 102.1)
        assert election.next(102.1) == Wait(104)

    def test_no_request_outlives_the_renew_deadline(self) -> None:
        election = leader(100)
        action = election.next(109)
        assert isinstance(action, WriteLease)
        assert action.timeout == pytest.approx(1)

    def test_counts_from_the_sending(self) -> None:
        election = leader(100)
        action = election.next(102)
        assert isinstance(action, WriteLease)
        election.written(action, LeaseRecord("me", 1, 15, "2"), 102, 105)
        assert election.leading(111.9) == 1
        assert election.leads_until == 112
        assert election.leading(112) is None

    def test_stops_in_time_to_say_so(self) -> None:
        election = leader(100)
        action = election.next(102)
        assert isinstance(action, WriteLease)
        election.failed(action, 102, 105.3)
        assert isinstance(election.next(105.3), ReadLease)
        assert isinstance(election.next(110), Wait)
        (notice,) = election.changes()
        assert isinstance(notice, LeadershipEnding)
        assert notice == LeadershipEnding(1, notice.deadline, "the lease could not be renewed in time")
        assert notice.deadline == pytest.approx(100 + 15 * 0.98)
        assert election.leading(110) is None
        election.next(114.7)
        assert election.changes() == [LeadershipOver(1)]

    def test_done_stopping_ends_it_early_and_others_go_first(self) -> None:
        election = leader(100)
        election.next(109)
        election.next(110)
        election.done(111)
        assert [type(notice) for notice in election.changes()] == [LeadershipEnding, LeadershipOver]
        assert election.next(111) == Wait(115)
        assert isinstance(election.next(115), ReadLease)

    def test_a_renewal_answered_while_stopping_does_not_bring_it_back(self) -> None:
        election = leader(100)
        action = election.next(109)
        assert isinstance(action, WriteLease)
        election.next(110)
        election.written(action, LeaseRecord("me", 1, 15, "2"), 109, 110.5)
        assert election.leading(110.5) is None
        assert election.role is Role.STOPPING

    def test_after_a_freeze_its_time_is_over_before_any_timer_says_so(self) -> None:
        election = leader(100)
        assert election.leading(500) is None
        assert election.leads_until == 110

    def test_held_up_itself_it_goes_on_where_nobody_took_the_lease_meanwhile(self) -> None:
        election = leader(100)
        election.next(100)
        assert isinstance(election.next(500), ReadLease)
        election.read(LeaseRecord("me", 1, 15, "1"), 500.1)
        action = election.next(500.1)
        assert isinstance(action, WriteLease)
        assert (action.purpose, action.replaces, action.epoch) == ("renew", "1", 1)
        assert election.leading(500.1) is None, "nothing is done before it is known"
        election.written(action, LeaseRecord("me", 1, 15, "2"), 500.1, 500.2)
        assert election.leading(500.2) == 1
        assert election.leads_until == pytest.approx(510.1)
        assert election.changes() == []

    def test_an_answer_that_came_in_time_and_was_not_looked_at_counts_as_a_hold_up(self) -> None:
        election = leader(100)
        action = election.next(102)
        assert isinstance(action, WriteLease)
        # When the process went on, its own time-out was as late as the answer, and seen first.
        election.failed(action, 102, 130)
        assert isinstance(election.next(130), ReadLease)
        assert election.changes() == []

    @pytest.mark.parametrize(
        "answer",
        [
            pytest.param(None, id="the lease is gone"),
            pytest.param(LeaseRecord("other", 2, 15, "9"), id="another has taken it"),
            pytest.param("no answer", id="no answer"),
        ],
    )
    def test_held_up_itself_it_has_one_late_try(self, answer: LeaseRecord | str | None) -> None:
        election = leader(100)
        election.next(100)
        action = election.next(500)
        assert isinstance(action, ReadLease)
        if isinstance(answer, str):
            election.failed(action, 500, 500.1)
        else:
            election.read(answer, 500.1)
        election.next(500.1)
        assert [type(notice) for notice in election.changes()] == [LeadershipEnding, LeadershipOver]

    def test_a_server_that_does_not_answer_is_no_hold_up(self) -> None:
        election = leader(100)
        now = 100.0
        action = election.next(now)
        while election.role is Role.LEADER:
            if isinstance(action, Wait):
                now = action.until
            else:
                election.failed(action, now, now + action.timeout)
                now += action.timeout
            action = election.next(now)
        assert now == pytest.approx(110)

    @pytest.mark.parametrize(
        "record",
        [
            pytest.param(None, id="deleted"),
            pytest.param(LeaseRecord("other", 2, 15, "9"), id="another holds it"),
            pytest.param(LeaseRecord("me", 2, 15, "9"), id="another epoch"),
            pytest.param(LeaseRecord("", 1, 15, "9"), id="released by hand"),
        ],
    )
    def test_a_lost_lease_ends_it_at_once(self, record: LeaseRecord | None) -> None:
        election = leader(100)
        action = election.next(102)
        assert isinstance(action, WriteLease)
        election.refused(action, 102)
        assert isinstance(election.next(102), ReadLease)
        election.read(record, 102)
        stopping, stopped = election.changes()
        assert isinstance(stopping, LeadershipEnding)
        assert stopping.deadline == 102
        assert stopped == LeadershipOver(1)

    def test_a_touched_lease_that_is_still_ours_is_renewed(self) -> None:
        election = leader(100)
        action = election.next(102)
        assert isinstance(action, WriteLease)
        election.refused(action, 102)
        election.next(102)
        election.read(LeaseRecord("me", 1, 15, "9"), 102)
        again = election.next(102)
        assert isinstance(again, WriteLease)
        assert again.replaces == "9"
        assert election.changes() == []


class TestStepDown:
    def test_leads_again_above_the_floor(self) -> None:
        seen = 0
        election = Election("me", TIMING, lambda: seen)
        elect(election, 100)
        seen = 41
        election.step_down(101, "agents have seen epoch 41")
        assert election.leading(101) is None
        election.done(101.5)
        assert election.changes() == [
            LeadershipStarted(1),
            LeadershipEnding(1, 100 + 15 * 0.98, "agents have seen epoch 41"),
            LeadershipOver(1),
        ]
        now = 101.5
        while isinstance(action := election.next(now), (Wait, ReadLease)):
            if isinstance(action, ReadLease):
                election.read(LeaseRecord("me", 1, 15, "1"), now)
            else:
                now = action.until
        assert (action.purpose, action.epoch) == ("acquire", 42)
        assert now < 101.5 + 3 * TIMING.retry

    def test_a_follower_goes_on_as_it_was(self) -> None:
        election = Election("me", TIMING)
        election.next(100)
        election.read(LeaseRecord("other", 3, 15, "5"), 100)
        election.step_down(101, "whatever")
        assert election.changes() == []
        assert election.role is Role.FOLLOWER


class TestResign:
    def test_stops_then_releases(self) -> None:
        election = leader(100)
        election.resign(101)
        assert election.leading(101) is None
        assert isinstance(election.next(101), Wait)
        election.done(101.5)
        assert [type(notice) for notice in election.changes()] == [LeadershipEnding, LeadershipOver]
        action = election.next(101.5)
        assert isinstance(action, WriteLease)
        assert (action.purpose, action.holder, action.epoch) == ("release", "", 1)
        election.written(action, LeaseRecord("", 1, 1, "3"), 101.5, 101.6)
        assert election.next(101.6) == Wait(float("inf"))

    def test_a_follower_just_ends(self) -> None:
        election = Election("me", TIMING)
        election.resign(0)
        assert election.next(0) == Wait(float("inf"))
        assert election.changes() == []

    def test_a_lease_won_after_resigning_is_given_back(self) -> None:
        election = Election("me", TIMING)
        election.next(0)
        election.read(None, 0)
        action = election.next(0)
        assert isinstance(action, WriteLease)
        election.resign(0)
        election.written(action, LeaseRecord("me", 1, 15, "1"), 0, 1)
        release = election.next(1)
        assert isinstance(release, WriteLease)
        assert release.purpose == "release"
        assert election.changes() == []


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"lease": 10, "renew_deadline": 10, "retry": 2}, id="no time to stop"),
        pytest.param({"lease": 15, "renew_deadline": 2, "retry": 2}, id="no time to retry"),
        pytest.param({"lease": 15, "renew_deadline": 10, "retry": 0}, id="no pause"),
        pytest.param({"lease": math.inf, "renew_deadline": 10, "retry": 2}, id="a lease without end"),
        pytest.param({"lease": math.nan, "renew_deadline": 10, "retry": 2}, id="a lease that is no number"),
        pytest.param({"lease": 15, "renew_deadline": 10, "retry": 2, "drift": -0.1}, id="clocks without error"),
    ],
)
def test_timing_that_cannot_work_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="need 0 < retry"):
        Timing(**wrong)


# -- whole histories ---------------------------------------------------------------------------------------------------


class BrokenPromise(AssertionError):
    """Two leaders, or an epoch that did not grow."""


@dataclass
class Candidate:
    election: Election
    rate: float
    offset: float
    frozen_until: float = 0.0
    generation: int = 0
    resigned: bool = False

    def local(self, true: float) -> float:
        return self.offset + true * self.rate


@dataclass
class World:
    """One Lease, candidates with clocks of their own, a network that delays and loses, and a checker.

    Delays are in true time. Requests and answers are lost independently: a lost answer is a write that was done.
    """

    seed: int
    make: Callable[[str], Election]
    candidates: int = 3
    drift: float = 0.02
    calm_after: float = 400.0
    until: float = 600.0
    unconditional: bool = False
    rng: random.Random = field(init=False)
    started: list[tuple[float, str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.queue: list[tuple[float, int, Callable[[], None]]] = []
        self.order = itertools.count()
        self.now = 0.0
        self.lease: LeaseRecord | None = None
        self.version = 0
        self.loss = self.rng.choice([0.0, 0.1, 0.4])
        self.slow = self.rng.choice([0.1, 3.0, 8.0])
        self.people = [self.candidate(f"c{number}") for number in range(self.candidates)]

    def candidate(self, name: str) -> Candidate:
        person = Candidate(
            self.make(name), self.rng.uniform(1 - self.drift, 1 + self.drift), self.rng.uniform(-1000, 1000)
        )
        self.at(self.now + self.rng.uniform(0, 5), lambda: self.turn(person, 0))
        return person

    def at(self, when: float, do: Callable[[], None]) -> None:
        heapq.heappush(self.queue, (when, next(self.order), do))

    @property
    def calm(self) -> bool:
        return self.now > self.calm_after

    def run(self) -> None:
        while self.queue and self.queue[0][0] < self.until:
            self.now, _, do = heapq.heappop(self.queue)
            do()

    def delay(self) -> float:
        return self.rng.uniform(0.001, 0.05 if self.calm or self.rng.random() < 0.5 else self.slow)

    def lost(self) -> bool:
        return not self.calm and self.rng.random() < self.loss

    def turn(self, person: Candidate, generation: int) -> None:
        """The candidate's loop: one action at a time, as its driver does it."""
        if generation != person.generation:
            return
        self.maybe_freeze(person)
        if self.now < person.frozen_until:
            self.at(person.frozen_until, lambda: self.turn(person, generation))
            return
        if not self.calm and self.rng.random() < 0.002 and person.election.leading(person.local(self.now)):
            person.election.resign(person.local(self.now))
            person.resigned = True
        action = person.election.next(person.local(self.now))
        self.check(person)
        if person.election.role is Role.STOPPING and self.rng.random() < 0.5:
            person.election.done(person.local(self.now))
            self.check(person)
        if isinstance(action, Wait):
            if action.until == float("inf"):
                # It has resigned; another process takes its place.
                self.people.remove(person)
                self.people.append(self.candidate(f"{person.election.identity}'"))
                return
            true = max((action.until - person.offset) / person.rate, self.now)
            self.at(true + 0.001, lambda: self.turn(person, generation))
        else:
            self.send(person, action)

    def maybe_freeze(self, person: Candidate) -> None:
        if not self.calm and self.rng.random() < 0.01:
            person.frozen_until = self.now + self.rng.uniform(1, 40)

    def send(self, person: Candidate, action: Step) -> None:
        assert isinstance(action, (ReadLease, WriteLease))
        sent = person.local(self.now)
        person.generation += 1
        generation = person.generation
        reply: list[LeaseRecord | str | None] = []

        def arrive() -> None:
            reply.append(self.serve(action))
            if not self.lost():
                self.at(self.now + self.delay(), lambda: answer("answered"))

        def answer(how: str) -> None:
            # Whichever comes first, the answer or the time-out; a frozen process finds out when it wakes.
            if generation != person.generation:
                return
            if self.now < person.frozen_until:
                self.at(person.frozen_until, lambda: answer(how))
                return
            now = person.local(self.now)
            if how == "timeout":
                person.election.failed(action, sent, now)
            elif isinstance(action, ReadLease):
                record = reply[0]
                assert not isinstance(record, str)
                person.election.read(record, now)
            elif isinstance(reply[0], LeaseRecord):
                person.election.written(action, reply[0], sent, now)
            else:
                person.election.refused(action, now)
            self.check(person)
            person.generation += 1
            self.turn(person, person.generation)

        # A process may also freeze while its request is on its way, and find the answer when it wakes.
        self.maybe_freeze(person)
        if not self.lost():
            self.at(self.now + self.delay(), arrive)
        self.at(self.now + action.timeout / person.rate, lambda: answer("timeout"))

    def serve(self, action: ReadLease | WriteLease) -> LeaseRecord | str | None:
        if isinstance(action, ReadLease):
            return self.lease
        if not self.unconditional and action.replaces != (self.lease.version if self.lease else None):
            return "conflict"
        self.version += 1
        self.lease = LeaseRecord(action.holder, action.epoch, 15, str(self.version))
        return self.lease

    def check(self, person: Candidate) -> None:
        for notice in person.election.changes():
            if not isinstance(notice, LeadershipStarted):
                continue
            for other in self.people:
                # Also one that is stopping: until its own end it may still be sending holds.
                if other is not person and other.election.role in (Role.LEADER, Role.STOPPING):
                    end = other.election._end
                    if other.local(self.now) < end:
                        raise BrokenPromise(f"{self.now:.2f}: {person.election.identity} and another lead")
            if self.started and notice.epoch <= self.started[-1][2]:
                raise BrokenPromise(f"{self.now:.2f}: epoch {notice.epoch} after {self.started[-1][2]}")
            self.started.append((self.now, person.election.identity, notice.epoch))

    def leaders(self) -> int:
        return sum(p.election.leading(p.local(self.now)) is not None for p in self.people)


def plain(name: str) -> Election:
    return Election(name, TIMING)


def test_never_two_leaders_and_epochs_only_grow() -> None:
    changes = 0
    for seed in range(400):
        world = World(seed, plain, candidates=2 + seed % 2)
        world.run()
        changes += len(world.started)
        assert world.leaders() == 1, f"seed {seed}: nobody leads long after all faults have ended"
    # The histories are about something.
    assert changes > 2000


class FromTheAnswer(Election):
    def written(self, action: WriteLease, record: LeaseRecord, sent: float, now: float) -> None:
        super().written(action, record, now, now)


class SameEpoch(Election):
    def next(self, now: float) -> Step:
        action = super().next(now)
        if isinstance(action, WriteLease) and action.purpose == "acquire":
            record = self.record
            if record is not None and record.holder in ("", self.identity):
                epoch = max(record.epoch, 1)
                return WriteLease(LeaseChange.ACQUIRE, action.holder, epoch, action.replaces, action.timeout)
        return action


class UnansweredExtends(Election):
    def failed(self, action: ReadLease | WriteLease, sent: float, now: float) -> None:
        super().failed(action, sent, now)
        if isinstance(action, WriteLease) and action.purpose == "renew" and self.role is Role.LEADER:
            self._renew(sent)


class NeverEnds(Election):
    def _renew(self, sent: float) -> None:
        super()._renew(sent)
        self._end = self._renewed = sent + 10_000


@pytest.mark.parametrize(
    ("make", "world"),
    [
        pytest.param(lambda name: FromTheAnswer(name, TIMING), {}, id="1: the leader counts from the answer"),
        pytest.param(plain, {"drift": 0.2}, id="2: clocks differ by more than is allowed for"),
        pytest.param(plain, {"unconditional": True}, id="3: writes name no version"),
        pytest.param(lambda name: SameEpoch(name, TIMING), {}, id="4: the epoch is not raised"),
        pytest.param(lambda name: UnansweredExtends(name, TIMING), {}, id="5: an unanswered renewal extends"),
        pytest.param(lambda name: NeverEnds(name, TIMING), {}, id="6: the leader does not end by its own clock"),
    ],
)
def test_each_line_of_the_argument_is_needed(make: Callable[[str], Election], world: dict[str, float]) -> None:
    """With a line switched off, the checker finds the history that needs it."""
    with pytest.raises(BrokenPromise):
        _search(make, world)


def _search(make: Callable[[str], Election], world: dict[str, float]) -> None:
    for seed in range(1000):
        World(seed, make, **world).run()  # type: ignore[arg-type]
