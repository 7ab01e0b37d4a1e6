"""The Tasks of a scenario, all of them, before the first one starts: when each comes, what it asks for, how long it
takes.

They depend on the scenario's streams and the seed alone, so all variants are given the very same ones. Refuses to know
who runs them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from taskdist.core.model import Parent, Task
from taskdist.simulation.chance import Chance
from taskdist.simulation.chance import Sequence as Uniforms
from taskdist.simulation.scenario import Stream
from taskdist.simulation.template import Maker
from taskdist.simulation.traces import Row

EPOCH = 1_000_000.0
"""The virtual wall clock's time, in seconds since the Unix epoch, when a scenario starts. Small, so that sums of times
keep their digits."""


class Job:
    """A Task of a scenario. Times in seconds of the virtual wall clock; `service` in seconds at speed 1.

    `execution` is how long an attempt may run by the Task's own word, `cancelled` when its user cancels it.
    """

    __slots__ = ("cancelled", "created", "deadline", "execution", "index", "service", "stream", "task", "tenant")

    def __init__(self, index: int, task: Task, stream: str, service: float) -> None:
        self.index = index
        self.task = task
        self.stream = stream
        self.tenant = task.tenant
        self.created = task.created
        self.service = service
        self.deadline = task.deadline
        self.execution: float | None = None
        self.cancelled: float | None = None


def jobs(streams: Sequence[Stream], rows: Mapping[int, Sequence[Row]], seed: int) -> list[Job]:
    """Return all Tasks in the order in which they come."""
    coming: list[tuple[float, int, int, Row | None]] = []
    makers: list[_StreamOfJobs] = []
    for place, stream in enumerate(streams):
        makers.append(_StreamOfJobs(stream, stream.name or str(place), seed))
        if stream.arrivals.file is None:
            times: Iterator[tuple[float, Row | None]] = (
                (at, None) for at in stream.arrivals.times(Uniforms(seed, "arrivals", makers[-1].name))
            )
        else:
            times = ((row.time, row) for row in rows[place])
        for number, (at, row) in enumerate(times):
            if (stream.count is not None and number >= stream.count) or (
                stream.duration is not None and at >= stream.duration
            ):
                break
            coming.append((at, place, number, row))
    # The first three are unique, so rows are never compared.
    coming.sort(key=lambda each: each[:3])
    found = [makers[place].job(index, EPOCH + at, number, row) for index, (at, place, number, row) in enumerate(coming)]
    _depend(streams, [(place, number) for _, place, number, _ in coming], found)
    return found


def _depend(streams: Sequence[Stream], places: Sequence[tuple[int, int]], found: Sequence[Job]) -> None:
    """Name each Task's parents, which may come after it. Parents that never come are left out."""
    names = {stream.name: place for place, stream in enumerate(streams) if stream.name}
    if all(stream.after is None for stream in streams):
        return
    by_place = {where: job.task.name for where, job in zip(places, found, strict=True)}
    for (place, number), job in zip(places, found, strict=True):
        after = streams[place].after
        if after is not None:
            other = names[after.stream]
            parents = (by_place.get((other, each)) for each in range(number * after.each, (number + 1) * after.each))
            job.task = replace(job.task, parents=tuple(Parent(name) for name in parents if name is not None))


class _StreamOfJobs:
    """The Tasks of one stream by their number in it."""

    def __init__(self, stream: Stream, name: str, seed: int) -> None:
        self.name = name
        self._maker = Maker(stream.task, seed, name)
        self._service = stream.service.sampler() if stream.service is not None else None
        self._service_chance = Chance(seed, "service", name)
        given = stream.deadline
        self._slack = given.slack.sampler() if given is not None and given.slack is not None else None
        self._within = given.within.sampler() if given is not None and given.within is not None else None
        self._deadline_chance = Chance(seed, "deadline", name)
        self._delay = stream.not_before.sampler() if stream.not_before is not None else None
        self._delay_chance = Chance(seed, "not-before", name)
        self._cancel = stream.cancel
        self._cancel_chance = Chance(seed, "cancel", name)
        self._cancel_after = Chance(seed, "cancel-after", name)

    def job(self, index: int, at: float, number: int, row: Row | None) -> Job:
        prototype = self._maker.prototype(number, row.task if row is not None else {})
        if row is not None and row.service is not None:
            service = row.service
        else:
            assert self._service is not None, "a stream without service has it in its file"
            service = self._service(self._service_chance(number))
        # Ends in the index, so that uids order as Tasks come.
        uid = f"task-{index:08d}"
        task = replace(
            prototype.task,
            uid=uid,
            name=uid,
            created=at,
            deadline=self._deadline(at, service, number, row),
            not_before=0.0 if self._delay is None else at + self._delay(self._delay_chance(number)),
        )
        job = Job(index, task, self.name, service)
        job.execution = prototype.execution
        if self._cancel is not None and self._cancel_chance(number) < self._cancel.probability:
            job.cancelled = at + self._cancel.after.chosen.quantile(self._cancel_after(number))
        return job

    def _deadline(self, at: float, service: float, number: int, row: Row | None) -> float | None:
        if row is not None and row.deadline is not None:
            return at + row.deadline
        if self._slack is not None:
            return at + service + self._slack(self._deadline_chance(number))
        if self._within is not None:
            return at + self._within(self._deadline_chance(number))
        return None
