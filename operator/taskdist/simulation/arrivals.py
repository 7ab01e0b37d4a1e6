"""When Tasks arrive: processes as endless streams of times, in seconds from the start of the scenario.

Open-loop: no arrival depends on what became of former ones. Refuses to know what arrives; traces, which know it, are
read elsewhere.
"""

from collections.abc import Callable, Iterator
from itertools import count
from math import log1p, pi, sin
from typing import Annotated, Any

from pydantic import Field, model_validator

from taskdist.simulation.base import Fraction, NotNegative, Part, Positive

Draw = Callable[[], float]
"""Gives the next uniform number."""


def _gap(draw: Draw, rate: float) -> float:
    return -log1p(-draw()) / rate


class Poisson(Part):
    """Independent arrivals at a constant mean rate."""

    per_second: Positive

    def times(self, draw: Draw) -> Iterator[float]:
        at = 0.0
        while True:
            at += _gap(draw, self.per_second)
            yield at


class Regular(Part):
    """One arrival after the other at equal gaps, the first at 0."""

    per_second: Positive

    def times(self, _draw: Draw) -> Iterator[float]:
        return (number / self.per_second for number in count())


class Burst(Part):
    """`count` arrivals at once, at `at`; again every `every` seconds if that is set."""

    at: NotNegative = 0.0
    count: Annotated[int, Field(ge=1)]
    every: Positive | None = None

    def times(self, _draw: Draw) -> Iterator[float]:
        at = self.at
        while True:
            for _ in range(self.count):
                yield at
            if self.every is None:
                return
            at += self.every


class Bursts(Part):
    """Poisson at a base rate, and at another for `for` seconds of every `every`; the first such time begins at `at`."""

    per_second: Positive
    burst_per_second: Positive
    for_: Positive = Field(alias="for")
    every: Positive
    at: NotNegative = 0.0

    @model_validator(mode="after")
    def _shorter(self) -> "Bursts":
        if self.for_ > self.every:
            raise ValueError("for is longer than every: bursts would overlap")
        return self

    def times(self, draw: Draw) -> Iterator[float]:
        # Time is stretched by the rate: unit gaps in the cumulated rate.
        left = _gap(draw, 1.0)
        for begins, ends, rate in self._phases():
            at = begins
            while left <= rate * (ends - at):
                at += left / rate
                yield at
                left = _gap(draw, 1.0)
            left -= rate * (ends - at)

    def _phases(self) -> Iterator[tuple[float, float, float]]:
        """Yield begin, end and rate of each phase."""
        yield 0.0, self.at, self.per_second
        for number in count():
            begins = self.at + number * self.every
            yield begins, begins + self.for_, self.burst_per_second
            yield begins + self.for_, begins + self.every, self.per_second


class State(Part):
    """A state of a modulated process: how fast Tasks come in it, and how long it lasts in the mean, in seconds."""

    per_second: NotNegative
    mean_seconds: Positive


class Mmpp(Part):
    """Markov-modulated Poisson process: Poisson at the rate of a state that lasts exponentially long.

    From a state it goes to each of the others alike.
    """

    states: Annotated[list[State], Field(min_length=2)]

    @model_validator(mode="after")
    def _some(self) -> "Mmpp":
        if not any(state.per_second for state in self.states):
            raise ValueError("perSecond is 0 in all states: nothing would ever arrive")
        return self

    def times(self, draw: Draw) -> Iterator[float]:
        state, at = 0, 0.0
        while True:
            here = self.states[state]
            ends = at + _gap(draw, 1 / here.mean_seconds)
            while here.per_second:
                at += _gap(draw, here.per_second)
                if at >= ends:
                    break
                yield at
            at = ends
            step = 1 + int(draw() * (len(self.states) - 1))
            state = (state + step) % len(self.states)


class Diurnal(Part):
    """Poisson at a rate that follows the day: perSecond × (1 + amplitude · sin(2π · (t − quarter)/period)).

    The rate is highest at `peakAt` and again every `period` seconds.
    """

    per_second: Positive
    amplitude: Fraction = 0.8
    period: Positive = 86_400.0
    peak_at: NotNegative = 43_200.0

    def times(self, draw: Draw) -> Iterator[float]:
        # Thinning (Lewis and Shedler 1979): arrivals at the highest rate, each kept with the rate's part of it.
        most, at = self.per_second * (1 + self.amplitude), 0.0
        while True:
            at += _gap(draw, most)
            if draw() * most < self.rate(at):
                yield at

    def rate(self, at: float) -> float:
        """Tasks per second at this moment."""
        phase = 2 * pi * (at - self.peak_at) / self.period + pi / 2
        return self.per_second * (1 + self.amplitude * sin(phase))


class Trace(Part):
    """A CSV file with a header; its column `time` says when (seconds), further ones what arrives.

    `columns` names which column of the file is which field; others are ignored. `stretch` multiplies all times.
    """

    file: str
    columns: dict[str, str] = Field(default_factory=dict)
    stretch: Positive = 1.0


class Swf(Part):
    """A file in the Standard Workload Format: submit times and run times of a real system.

    With `processorsAsSlots`, a job takes as many slots as it asked for processors. `stretch` multiplies all times.
    """

    file: str
    processors_as_slots: bool = False
    stretch: Positive = 1.0


class Arrivals(Part):
    """A choice of one process by its name: `poisson: {perSecond: 3}`."""

    poisson: Poisson | None = None
    constant: Regular | None = None
    burst: Burst | None = None
    bursts: Bursts | None = None
    mmpp: Mmpp | None = None
    diurnal: Diurnal | None = None
    trace: Trace | None = None
    swf: Swf | None = None

    @model_validator(mode="before")
    @classmethod
    def _short(cls, given: Any) -> Any:
        if isinstance(given, dict):
            return {
                name: {"file": value} if name in ("trace", "swf") and isinstance(value, str) else value
                for name, value in given.items()
            }
        return given

    @model_validator(mode="after")
    def _exactly_one(self) -> "Arrivals":
        if len(self.model_fields_set) != 1 or self._chosen is None:
            raise ValueError(f"give exactly one process of: {', '.join(type(self).model_fields)}")
        return self

    @property
    def _chosen(self) -> Any:
        return getattr(self, next(iter(self.model_fields_set)))

    @property
    def file(self) -> Trace | Swf | None:
        """The file that says what arrives, if one does."""
        return self.trace or self.swf

    @property
    def ends(self) -> bool:
        """Whether the arrivals end by themselves."""
        return self.file is not None or (self.burst is not None and self.burst.every is None)

    def times(self, draw: Draw) -> Iterator[float]:
        """Yield the times of arrivals in order, endless unless `ends`. Not for files."""
        assert self.file is None, "the arrivals of a file are in the file"
        found: Iterator[float] = self._chosen.times(draw)
        return found
