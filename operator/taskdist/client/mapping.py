"""`map`: payloads gathered into arrays, and what became of each as its array tells it.

Owns how many payloads one array gets, and which go as Tasks of their own: those that are large, and all where arrays
cannot be had. An array's results stand in its status, which has room for 60 KiB of them. How large results are shows as
they come, so arrays begin small and grow. A result that found no room all the same is had by running its payload
again, as a Task of its own; where that may not be, the outcome says so.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from taskdist.api import Delivery, Phase, Reason
from taskdist.client.deadline import deadline
from taskdist.client.errors import (
    DeadLettered,
    InvalidTask,
    ResultDropped,
    TaskCancelled,
    TaskdistError,
    TaskFailed,
)
from taskdist.client.http import HttpBackend
from taskdist.client.hub import Hub, Waiter
from taskdist.client.many import Means, Wanted
from taskdist.client.pump import Pump
from taskdist.client.results import Outcome, SubmittedTask, typed
from taskdist.client.states import TaskState, ending, phase_of, status_of
from taskdist.client.submission import Payload, Submission, TaskOptions, encoded, json_object, named
from taskdist.kube import TASKQUEUES, KubeError, Obj, as_object, name_of
from taskdist.protocol.arrays.indexes import EMPTY, IndexSet

FIRST_ITEMS = 8
"""So many payloads an array gets before any result was seen."""
MOST_ITEMS = 4096
MOST_BYTES = 60 * 1024
"""Of the payloads of one array, as JSON."""
MOST_ALONE = 8 * 1024
"""A payload of more bytes is a Task of its own."""
RESULT_BYTES = 24 * 1024
"""So many bytes of results an array should have: what it has room for, less what they may be larger than before."""
AT_ONCE = 4
"""So many arrays are under way while items are quick: each measures its items anew, so few large ones do more."""
GROWTH = 8
"""The next arrays have at most so many times the items of one that has ended, if their results fit."""
PATIENCE = 1.0
"""How long, in seconds, it is waited for one of them to end; then items are slow."""
GATHER_SECONDS = 0.02
"""How long a payload waits for others to go with."""
CHUNK = {"targetSeconds": 1}
"""Chunks of an array take about so long, so that results come soon."""
MOST_LARGE = 1000
"""How many payloads that are Tasks of their own may be under way."""

Payloads = Iterable[Payload] | AsyncIterable[Payload] | Pump[Payload]
WINDOW = 10_000
"""How many payloads may be taken and not yet handed back: with what is large apart, some 160 MB at most."""
_ALONE = ("name", "idempotency_key", "ordering_key", "execution_timeout", "progress_timeout")
"""Options that arrays cannot have, or that are said of one payload."""


def may_gather(options: TaskOptions) -> bool:
    """Whether payloads with these options may go in arrays."""
    return not any(options.get(name) for name in _ALONE)


def with_array(body: Obj, array: dict[str, Any]) -> Obj:
    """The Task with these items."""
    return {**body, "spec": {**body["spec"], "array": array}}


def mapped(means: Means, wanted: Wanted, payloads: Payloads) -> AsyncGenerator[list[Outcome[Any]], None]:
    """Yield what became of each payload, as many at once as there are."""
    create = means.creating(wanted.concurrency, wanted.result_type)

    def body(payload: Payload) -> Obj:
        return means.body(Submission.of(wanted.queue, wanted.kind, payload, **wanted.options))

    async def delivery() -> str:
        try:
            found = await means.backend.get(TASKQUEUES, wanted.queue)
        except KubeError:
            return ""
        return str(found["spec"].get("delivery") or Delivery.AT_LEAST_ONCE)

    gathered = wanted.arrays and may_gather(wanted.options) and not isinstance(means.backend, HttpBackend)
    ways = Ways(
        read=lambda payload: json_object(payload, means.stored.most_bytes),
        single=lambda index, payload: means.one(index, payload, body, wanted.result_type, create, wanted.timeout),
        body=lambda array: named(with_array(body({}), array)),
        create=create,
        hub=means.hub(wanted.queue),
        cancel=means.cancel,
        delivery=delivery,
    )
    return Mapped(
        ways,
        arrays=gathered,
        result_type=wanted.result_type,
        ordered=wanted.ordered,
        window=wanted.window or (WINDOW if gathered else MOST_LARGE),
        timeout=wanted.timeout,
    ).outcomes(payloads)


@dataclass(slots=True)
class _Batch:
    """Payloads that become one array."""

    indexes: list[int] = field(default_factory=list)
    payloads: list[Any] = field(default_factory=list)
    items: list[dict[str, Any]] = field(default_factory=list)
    size: int = 1


@dataclass(slots=True)
class _Array:
    """An array under way, and which of its items have been told."""

    batch: _Batch
    task: SubmittedTask[Any] | None = None
    told: IndexSet = EMPTY
    refused: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class Ways:
    """How Tasks are made and waited for, and what a payload becomes."""

    read: Callable[[Payload], dict[str, Any]]
    """Reads a payload. Raises InvalidTask."""
    single: Callable[[int, Payload], Awaitable[Outcome[Any]]]
    """Submits a payload as a Task of its own and waits for its end."""
    body: Callable[[dict[str, Any]], Obj]
    """Makes a Task of this `spec.array`."""
    create: Callable[[Obj], Awaitable[SubmittedTask[Any]]]
    hub: Hub
    cancel: Callable[[SubmittedTask[Any]], Awaitable[object]]
    delivery: Callable[[], Awaitable[str]]
    """How the queue delivers; empty where that may not be read."""


class Mapped:
    """One call of `map`.

    Args:
        arrays: gather payloads; else each is a Task of its own.
        window: how many payloads may be taken and not yet handed back.
        timeout: how long to wait for each, in seconds.
    """

    def __init__(
        self,
        ways: Ways,
        *,
        arrays: bool,
        result_type: type[Any] | None,
        ordered: bool,
        window: int,
        timeout: float | None,
    ) -> None:
        self._ways = ways
        self._arrays = arrays
        self._type = result_type
        self._ordered = ordered
        self._timeout = timeout
        self._room = asyncio.Semaphore(max(1, window))
        self._large = asyncio.Semaphore(MOST_LARGE)
        self._items = min(FIRST_ITEMS, max(1, window))
        self._most = max(1, min(MOST_ITEMS, window // 4))
        self._flying, self._slow, self._ended = 0, False, asyncio.Event()
        self._done: asyncio.Queue[Outcome[Any] | None] = asyncio.Queue()

    async def outcomes(self, payloads: Payloads) -> AsyncGenerator[list[Outcome[Any]], None]:
        """Yield what became of each, as many at once as there are."""
        feeding = asyncio.ensure_future(self._feed(payloads))
        kept: dict[int, Outcome[Any]] = {}
        following, over = 0, False
        try:
            while not over:
                found = [await self._done.get()]
                while not self._done.empty():
                    found.append(self._done.get_nowait())
                over = None in found
                ready = [each for each in found if each is not None]
                if self._ordered:
                    kept |= {each.index: each for each in ready}
                    ready = []
                    while following in kept:
                        ready.append(kept.pop(following))
                        following += 1
                for _ in ready:
                    self._room.release()
                if ready:
                    yield ready
            try:
                await feeding
            except BaseExceptionGroup as group:
                raise group.exceptions[0] from None
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)

    # Taking payloads.

    async def _feed(self, payloads: Payloads) -> None:
        try:
            async with asyncio.TaskGroup() as group, aclosing(_pausing(payloads, lambda: flush())) as taken:
                batch = _Batch()

                def flush() -> None:
                    nonlocal batch
                    if batch.items:
                        self._flying += 1
                        group.create_task(self._array(batch))
                    batch = _Batch()

                index = 0
                async for payload in taken:
                    if self._room.locked():
                        flush()
                    await self._room.acquire()
                    try:
                        item = self._ways.read(payload)
                    except InvalidTask as error:
                        self._tell(Outcome(index, payload, None, None, error))
                        index += 1
                        continue
                    size = len(encoded(item)) + 1 if self._arrays else 0
                    if not self._arrays or size > MOST_ALONE:
                        await self._large.acquire()
                        group.create_task(self._alone(index, payload))
                        index += 1
                        continue
                    if batch.size + size > MOST_BYTES:
                        flush()
                    batch.indexes.append(index)
                    batch.payloads.append(payload)
                    batch.items.append(item)
                    batch.size += size
                    if len(batch.items) >= self._items:
                        flush()
                        await self._paced()
                    index += 1
                flush()
        finally:
            self._done.put_nowait(None)

    def _tell(self, outcome: Outcome[Any]) -> None:
        self._done.put_nowait(outcome)

    async def _alone(self, index: int, payload: Payload) -> None:
        try:
            self._tell(await self._ways.single(index, payload))
        finally:
            self._large.release()

    async def _paced(self) -> None:
        """Go on once few arrays are under way, so that the first that end tell how large the next may be.

        Where none ends for a while items are slow, and many small arrays do no harm.
        """
        await asyncio.sleep(0)
        while self._flying >= AT_ONCE and not self._slow:
            self._ended.clear()
            try:
                # No `wait_for`: before Python 3.12 it loses a cancellation that comes with the event.
                async with asyncio.timeout(PATIENCE):
                    await self._ended.wait()
            except TimeoutError:
                self._slow = True

    # Arrays.

    async def _array(self, batch: _Batch) -> None:
        try:
            await self._one(batch)
        finally:
            self._flying -= 1
            self._ended.set()

    async def _one(self, batch: _Batch) -> None:
        array = _Array(batch)
        try:
            body = self._ways.body({"items": batch.items, "chunk": CHUNK})
            async with self._ways.hub.expecting(name_of(body), lambda obj: self._heard(array, obj)) as waiter:
                array.task = await self._ways.create(body)
                self._ways.hub.created(waiter, array.task.obj)
                async with deadline(array.task.name, self._timeout):
                    end = await self._end(array, waiter)
            self._heard(array, end)
            await self._rest(array, end)
        except TaskdistError as error:
            if array.task is None and _unknown(error):
                self._arrays = False  # the cluster is of a release that knows none
                await self._again(array, list(range(len(batch.items))))
                return
            for place in self._untold(array):
                self._told(array, place, None, error)

    async def _end(self, array: _Array, waiter: Waiter) -> Obj:
        """The array once it is settled. Where no agent takes chunks it is cancelled."""
        refused = asyncio.ensure_future(array.refused.wait())
        try:
            await asyncio.wait((refused, waiter.end), return_when=asyncio.FIRST_COMPLETED)
            if not waiter.end.done() and array.task is not None:
                self._arrays = False
                await self._ways.cancel(array.task)
        finally:
            refused.cancel()
        return await waiter.end

    def _heard(self, array: _Array, obj: Obj) -> None:
        """The array has changed: tell of the items that have succeeded since."""
        status = status_of(obj)
        told = as_object(status.get("array"))
        if status.get("reason") == Reason.SKILL_MISSING and "chunks" in str(status.get("message")) and not told:
            array.refused.set()
        succeeded, results = _indexes(told.get("succeeded")), as_object(told.get("results"))
        dropped = bool(told.get("resultsDropped"))
        for place in succeeded - array.told:
            text = results.get(str(place))
            if place >= len(array.batch.items) or (text is None and dropped):
                continue
            try:
                value = {} if text is None else json.loads(text)
                result = typed(value, self._type, f"item {place} of task {name_of(obj)}")
            except (TaskdistError, ValueError) as error:
                wrong = error if isinstance(error, TaskdistError) else TaskdistError(f"item {place}: {error}")
                self._told(array, place, None, wrong)
                continue
            self._told(array, place, result, None)

    def _told(self, array: _Array, place: int, result: Any, error: TaskdistError | None) -> None:
        array.told |= IndexSet.span(place, place)
        batch = array.batch
        self._tell(Outcome(batch.indexes[place], batch.payloads[place], array.task, result, error))

    def _untold(self, array: _Array) -> IndexSet:
        return IndexSet.span(0, len(array.batch.items) - 1) - array.told

    async def _rest(self, array: _Array, end: Obj) -> None:
        """The array is settled: tell of all that have not been told."""
        told = as_object(status_of(end).get("array"))
        self._learn(len(array.batch.items), told)
        untold = self._untold(array)
        dropped = untold & _indexes(told.get("succeeded"))
        if array.refused.is_set() and phase_of(end) == Phase.CANCELLED:
            await self._again(array, list(untold))
            return
        for place in untold - dropped:
            self._told(array, place, None, _failure(end, place, told))
        if not dropped:
            return
        if await self._ways.delivery() in ("", Delivery.AT_MOST_ONCE):
            for place in dropped:
                self._told(array, place, None, _no_room(end, place))
            return
        await self._again(array, list(dropped))

    def _learn(self, items: int, told: dict[str, Any]) -> None:
        """Size the next arrays by the results of one that has ended."""
        size, dropped = int(told.get("resultBytes") or 0), int(told.get("resultsDropped") or 0)
        each = (size + dropped * MOST_ALONE) / max(1, items)
        fit = int(RESULT_BYTES / each) if each else self._most
        if fit < 2:
            self._arrays = False  # as many Tasks as results
        grown = GROWTH * items if items >= self._items else self._items
        self._items = max(1, min(fit, max(self._items, grown) if not dropped else self._items, self._most))

    async def _again(self, array: _Array, places: list[int]) -> None:
        """Run these items as Tasks of their own."""

        async def one(place: int) -> None:
            async with self._large:
                self._tell(await self._ways.single(array.batch.indexes[place], array.batch.payloads[place]))

        array.told |= IndexSet.of(places)
        async with asyncio.TaskGroup() as group:
            for place in places:
                group.create_task(one(place))


def _indexes(text: Any) -> IndexSet:
    try:
        return IndexSet.parse(text) if isinstance(text, str) else EMPTY
    except ValueError:
        return EMPTY


def _failure(end: Obj, place: int, told: dict[str, Any]) -> TaskdistError:
    """Why an item has no result."""
    state = TaskState.of(end)
    kinds = {Phase.CANCELLED: TaskCancelled, Phase.DEAD_LETTERED: DeadLettered}
    kind = kinds.get(Phase(state.phase), TaskFailed)
    if place not in _indexes(told.get("failed")):
        return kind(f"item {place}: {ending(end)}", state)
    errors = told.get("errors")
    said = [each for each in (errors if isinstance(errors, list) else ()) if as_object(each).get("index") == place]
    reason = str(said[0].get("reason") or state.reason) if said else state.reason
    message = str(said[0].get("message") or "") if said else "only the first failures are kept in the Task's status"
    text = f"item {place} of task {state.name} failed: {reason}: {message}"
    return kind(text, replace(state, reason=reason, message=message))


def _no_room(end: Obj, place: int) -> TaskdistError:
    return ResultDropped(
        f"item {place} of task {name_of(end)} succeeded, and its result found no room among the others: the results of "
        "an array have 60 KiB in all. Return less, or references; or map with arrays=False"
    )


def _unknown(error: TaskdistError) -> bool:
    """Whether the API server knows no arrays."""
    return isinstance(error, InvalidTask) and error.field == "spec.array"


async def _pausing(payloads: Payloads, pause: Callable[[], None]) -> AsyncGenerator[Payload, None]:
    """The payloads; where the next one takes its time, `pause` is called first."""
    if isinstance(payloads, Pump):
        async with aclosing(_pumped(payloads, pause)) as taken:
            async for payload in taken:
                yield payload
        return
    if not isinstance(payloads, AsyncIterable):
        for payload in payloads:
            yield payload
        return
    source = aiter(payloads)

    async def following() -> Payload:
        return await anext(source)

    while True:
        coming = asyncio.ensure_future(following())
        try:
            done, _ = await asyncio.wait((coming,), timeout=GATHER_SECONDS)
            if not done:
                pause()
            payload = await coming
        except StopAsyncIteration:
            return
        finally:
            coming.cancel()
        yield payload


async def _pumped(pump: Pump[Payload], pause: Callable[[], None]) -> AsyncGenerator[Payload, None]:
    """The same of payloads that a thread takes."""
    try:
        while True:
            coming = asyncio.ensure_future(pump.some())
            try:
                done, _ = await asyncio.wait((coming,), timeout=GATHER_SECONDS)
                if not done:
                    pause()
                found = await coming
            finally:
                coming.cancel()
            if not found:
                return
            for payload in found:
                yield payload
    finally:
        pump.stop()
