"""Decisions over the messages of a broker that wants each one acknowledged. Pure: the time is an argument.

The promises, and what keeps each:

- Nothing is lost: a message is acknowledged only once its Task is there, or it lies with the dead letters.
- Nothing is made twice: the Task's name is the message's identity, so a redelivery finds it there (`taken`).
- Order by key: of messages with one ordering key, one is at work at a time, in the order in which they came. Where the
  broker itself orders messages by groups, so it is by group, also with those of which no Task can be made.
- Backpressure: while a queue takes no Tasks, the broker is asked for no more messages.
- Memory is bounded: where too much is in hand, what comes on top is given back, with all that came after it.
- One message stops nobody: what is refused alone, while others are taken, goes to the dead letters in the end.

A broker takes messages back that are not acknowledged for long (RabbitMQ: 30 minutes), and some count how often they
hand one out. So messages are kept in hand through a short trouble, and are given back once in a long one.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from math import inf
from typing import Final

from taskdist.common.backoff import Backoff
from taskdist.intake.mapping import Mapped
from taskdist.intake.message import Poison, PoisonReason

# The most Tasks of one source that are being created at a time.
PARALLEL: Final = 16
# The longest that a message is kept in hand while no Task can be made of it, in seconds.
HOLD_SECONDS: Final = 600.0
# Before what was not taken is tried again.
RETRY: Final = Backoff(first=1.0, most=30.0)


class Why(Enum):
    """The trouble for which a message waits in hand."""

    FULL = auto()
    """Its queue takes no Tasks now."""
    REFUSED = auto()
    """A quota, a right or a policy refuses its Task."""
    FAILING = auto()
    """The API server does not answer, or not with an answer."""
    DEAD_LETTERS = auto()
    """The dead letters did not take it."""


@dataclass(frozen=True, slots=True)
class Create:
    """Create the Task; then say `taken`, `poisoned` or `turned_away`."""

    tag: int
    mapped: Mapped


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Publish the message to the dead letters; then say `dead_lettered` or `turned_away`."""

    tag: int
    poison: Poison


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Tell the broker that the message is dealt with."""

    tag: int


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Have the broker put these messages back where they were, the first one first; or forget them, if withdrawn."""

    tags: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Consume:
    """Ask the broker for messages."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Ask the broker for no more messages; those on their way may still come."""


Action = Create | DeadLetter | Acknowledge | GiveBack | Consume | Pause
Lane = tuple[str, str]
"""A queue and an ordering key; or, with no queue, a group of the broker's."""


@dataclass(slots=True)
class _Held:
    """A message in hand."""

    tag: int
    made: Mapped | Poison
    lane: Lane | None
    at_work: bool = False
    withdrawn: bool = False
    refused_since: float | None = None
    tries: int = 0
    retry_at: float = -inf
    words: str = ""

    @property
    def queue(self) -> str:
        return str(self.made.spec["queue"]) if isinstance(self.made, Mapped) else ""


@dataclass(slots=True)
class _Gate:
    """A gate that lets nothing through until a time; then one message is tried, whose fate decides."""

    why: Why
    words: str
    until: float
    tries: int = 0
    probing: bool = False


# Gates that are no queue's; no queue has such a name.
_API: Final = "/api"
_DEAD: Final = "/dead"


@dataclass(slots=True)
class Consumption:
    """The messages of one session with a broker. Tags are the session's; a new session has a new `Consumption`.

    Tell it what happened, carry out what `actions` says, in order, and ask again by `wake` or when something happens.
    """

    queue: str | None = None
    """The queue of all Tasks; None if messages choose it."""
    parallel: int = PARALLEL
    consuming: bool = False
    _held: dict[int, _Held] = field(default_factory=dict)
    _lanes: dict[Lane, deque[int]] = field(default_factory=dict)
    _acks: list[int] = field(default_factory=list)
    _given_up: list[int] = field(default_factory=list)
    _gates: dict[str, _Gate] = field(default_factory=dict)
    _full: dict[str, str] = field(default_factory=dict)
    _crowded: bool = False
    _last_taken: float = -inf
    _paused_since: float | None = None

    @property
    def in_hand(self) -> tuple[int, ...]:
        """The tags of messages that are not dealt with, in the order in which they came."""
        return tuple(self._held)

    # -- what happened -------------------------------------------------------------------------------------------------

    def delivered(self, tag: int, made: Mapped | Poison, group: str | None = None) -> None:
        """Take note of a message, and of what the template makes of it. `group`: within it the broker keeps order."""
        if self._crowded:
            # One with the same key may be among those that are given back.
            self.crowded(tag)
            return
        lane = None
        if group is not None:
            lane = ("", group)
        elif isinstance(made, Mapped) and (key := made.spec.get("orderingKey")):
            lane = (str(made.spec["queue"]), str(key))
        if lane is not None:
            self._lanes.setdefault(lane, deque()).append(tag)
        self._held[tag] = _Held(tag, made, lane)

    def crowded(self, tag: int) -> None:
        """Take note of a message that is too much beside those in hand: it comes again once they are dealt with."""
        self._crowded = True
        self._given_up.append(tag)

    def taken(self, tag: int, now: float) -> None:
        """Take note that a message's Task is there: created now or before."""
        held = self._answered(tag)
        self._last_taken = now
        self._gates.pop(_API, None)
        self._gates.pop(held.queue, None)
        self._done(held)

    def poisoned(self, tag: int, poison: Poison) -> None:
        """Take note that the API server has refused a message's Task for good."""
        held = self._answered(tag)
        self._gates.pop(_API, None)
        held.made = poison
        if held.withdrawn:
            self._give_up(held)

    def turned_away(self, tag: int, why: Why, words: str, now: float) -> None:
        """Take note that a message was not taken, and may be later."""
        held = self._answered(tag)
        if held.withdrawn:
            self._give_up(held)
            return
        if why is Why.REFUSED:
            self._gates.pop(_API, None)
            if held.refused_since is None:
                held.refused_since = now
            held.retry_at = now + RETRY.full(held.tries)
            held.tries += 1
            held.words = words
            return
        if why is Why.FULL:
            self._gates.pop(_API, None)
        key = {Why.FULL: held.queue, Why.FAILING: _API, Why.DEAD_LETTERS: _DEAD}[why]
        self._shut(key, why, words, now)

    def dead_lettered(self, tag: int) -> None:
        """Take note that a message lies with the dead letters, and that the broker has confirmed it."""
        held = self._answered(tag)
        self._gates.pop(_DEAD, None)
        self._done(held)

    def withdrawn(self, tags: Iterable[int]) -> None:
        """Give up messages that the broker hands to somebody else: now, or once what is at work is answered."""
        for tag in tags:
            if (held := self._held.get(tag)) is None:
                continue
            if held.at_work:
                held.withdrawn = True
            else:
                self._give_up(held)

    def told(self, full: Mapping[str, str]) -> None:
        """Take note of the queues that take no Tasks now, each with words for people; all others do."""
        for name in self._full.keys() - full.keys():
            gate = self._gates.get(name)
            if gate is not None and gate.why is Why.FULL:
                del self._gates[name]
        self._full = dict(full)

    # -- what to do ----------------------------------------------------------------------------------------------------

    def actions(self, now: float) -> list[Action]:
        """Return what is to be done now, in this order."""
        actions: list[Action] = [Acknowledge(tag) for tag in self._acks]
        self._acks.clear()
        self._judge_refused(now)
        self._open_unneeded(now)
        wanted = self._wants()
        if self.consuming and not wanted:
            actions.append(Pause())
            self.consuming = False
        if self._given_up:
            actions.append(GiveBack(tuple(self._given_up)))
            self._given_up.clear()
        if self._crowded and not self._held:
            self._crowded = False
            wanted = self._wants()
        actions += self._give_back(now, wanted)
        actions += self._creations(now)
        actions += self._dead_letters(now)
        if wanted and not self.consuming:
            actions.append(Consume())
            self.consuming = True
        return actions

    def wake(self, now: float) -> float | None:
        """Return when there may be something to do although nothing happens; None: never."""
        times = [gate.until for gate in self._gates.values()]
        for held in self._held.values():
            times.append(held.retry_at)
            if held.refused_since is not None:
                times.append(held.refused_since + HOLD_SECONDS)
        if self._paused_since is not None:
            times.append(self._paused_since + HOLD_SECONDS)
        return min((each for each in times if each > now), default=None)

    def trouble(self) -> tuple[Why, str] | None:
        """Return why no Tasks are made, for people; None if they are."""
        for key in (_API, _DEAD):
            if (gate := self._gates.get(key)) is not None:
                return gate.why, gate.words
        for name, words in self._full.items():
            if self._concerns(name):
                return Why.FULL, words
        if (gate := next(iter(self._gates.values()), None)) is not None:
            return gate.why, gate.words
        for held in self._held.values():
            if held.refused_since is not None and self._last_taken <= held.refused_since:
                return Why.REFUSED, held.words
        return None

    def _wants(self) -> bool:
        """Say whether more messages are of use."""
        return not self._crowded and not self._gates and not any(self._concerns(name) for name in self._full)

    def _concerns(self, queue: str) -> bool:
        return queue == self.queue or any(held.queue == queue for held in self._held.values())

    def _judge_refused(self, now: float) -> None:
        """Judge what is refused for long: alone it goes to the dead letters, else all wait."""
        for held in self._held.values():
            since = held.refused_since
            if since is None or held.at_work or now - since < HOLD_SECONDS or isinstance(held.made, Poison):
                continue
            if self._last_taken > since:
                held.made = Poison(
                    PoisonReason.REFUSED, f"refused for {HOLD_SECONDS:g} s, while others were not: {held.words}"
                )
            elif held.queue not in self._gates:
                self._gates[held.queue] = _Gate(Why.REFUSED, held.words, now + RETRY.most)
                # All that waits has waited for long enough.
                self._paused_since = -inf

    def _open_unneeded(self, now: float) -> None:
        """Open gates whose time is over, and at which nothing waits that could be tried."""
        for key, gate in list(self._gates.items()):
            if now >= gate.until and not any(self._waits_at(key, held) for held in self._held.values()):
                del self._gates[key]

    @staticmethod
    def _waits_at(key: str, held: _Held) -> bool:
        if isinstance(held.made, Poison):
            return key == _DEAD
        return key in (_API, held.queue)

    def _give_back(self, now: float, wanted: bool) -> Iterator[Action]:
        waiting = [held for held in self._held.values() if not held.at_work]
        if wanted or not waiting:
            self._paused_since = None
            return
        if self._paused_since is None:
            self._paused_since = now
        elif now - self._paused_since >= HOLD_SECONDS:
            self._paused_since = None
            for held in waiting:
                self._drop(held)
            yield GiveBack(tuple(held.tag for held in waiting))

    def _creations(self, now: float) -> Iterator[Action]:
        creating = sum(held.at_work and isinstance(held.made, Mapped) for held in self._held.values())
        for held in self._held.values():
            if creating >= self.parallel:
                return
            made = held.made
            if held.at_work or isinstance(made, Poison) or now < held.retry_at or held.queue in self._full:
                continue
            if not self._first(held):
                continue
            if not self._pass((_API, held.queue), now):
                continue
            held.at_work = True
            creating += 1
            yield Create(held.tag, made)

    def _dead_letters(self, now: float) -> Iterator[Action]:
        """Publish dead letters one at a time: they are few, and each may be large."""
        poison = [held for held in self._held.values() if isinstance(held.made, Poison) and self._first(held)]
        if not poison or any(held.at_work for held in poison):
            return
        first = poison[0]
        assert isinstance(first.made, Poison)
        if self._pass((_DEAD,), now):
            first.at_work = True
            yield DeadLetter(first.tag, first.made)

    # -- gates and lanes -----------------------------------------------------------------------------------------------

    def _pass(self, keys: tuple[str, ...], now: float) -> bool:
        gates = [gate for key in keys if (gate := self._gates.get(key)) is not None]
        if any(now < gate.until or gate.probing for gate in gates):
            return False
        for gate in gates:
            gate.probing = True
        return True

    def _first(self, held: _Held) -> bool:
        """Say whether none that came before it has to be dealt with before."""
        return held.lane is None or self._lanes[held.lane][0] == held.tag

    def _shut(self, key: str, why: Why, words: str, now: float) -> None:
        gate = self._gates.get(key)
        if gate is not None and now < gate.until:
            return  # the same trouble, told by another message
        tries = 0 if gate is None else gate.tries + 1
        self._gates[key] = _Gate(why, words, now + RETRY.full(tries), tries)

    def _answered(self, tag: int) -> _Held:
        held = self._held[tag]
        held.at_work = False
        keys = (_DEAD,) if isinstance(held.made, Poison) else (_API, held.queue)
        for key in keys:
            if (gate := self._gates.get(key)) is not None:
                gate.probing = False
        return held

    def _done(self, held: _Held) -> None:
        self._drop(held)
        self._acks.append(held.tag)

    def _give_up(self, held: _Held) -> None:
        self._drop(held)
        self._given_up.append(held.tag)

    def _drop(self, held: _Held) -> None:
        del self._held[held.tag]
        if held.lane is not None:
            lane = self._lanes[held.lane]
            lane.remove(held.tag)
            if not lane:
                del self._lanes[held.lane]
