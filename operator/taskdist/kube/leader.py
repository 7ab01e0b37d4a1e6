"""The leader elector: requests, clock and callbacks around the pure election, over a coordination.k8s.io Lease.

Owns talking to the Lease and telling the controller in time. What the answers mean, and when a leadership begins and
ends, is the election's to say.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import math
import random
from collections.abc import Awaitable, Callable
from typing import Any

from taskdist.common.backoff import Backoff
from taskdist.common.boottime import boottime
from taskdist.kube.client import Client
from taskdist.kube.election import (
    Election,
    LeadershipEnding,
    LeadershipOver,
    LeadershipStarted,
    LeaseChange,
    LeaseRecord,
    ReadLease,
    Timing,
    Wait,
    WriteLease,
)
from taskdist.kube.errors import ApiError, KubeError
from taskdist.kube.identity import Identity
from taskdist.kube.resources import LEASES, Obj, version_of

log = logging.getLogger(__name__)

STOPPING_SECONDS = 10.0
"""How long `on_stopping` may last beyond its deadline before `run` fails."""

WATCH_AGAIN = Backoff(first=0.5, most=30.0)


class LeaderElector:
    """Campaigns for leadership until `resign`: leads, stops and campaigns again as often as it takes.

    - `on_started(epoch)`: this process leads. Must return at once; start tasks from it.
    - `on_stopping(deadline)`: the leadership is ending, `leading()` is None already. Send holds and end tasks here,
      before `deadline` (seconds on `clock`). It runs to its end, also where the deadline passes or had passed when the
      end was noticed: what a leadership opened must be closed before this process can lead again.
    - `on_stopped()`: nothing may be done in the name of this leadership any more.

    An exception in a callback ends `run` with it, and so does a stopping that lasts `STOPPING_SECONDS` beyond its
    deadline: a controller in an unknown state must not go on.
    """

    def __init__(
        self,
        client: Client,
        *,
        namespace: str,
        name: str,
        on_started: Callable[[int], None],
        on_stopping: Callable[[float], Awaitable[None]],
        on_stopped: Callable[[], None] = lambda: None,
        identity: Identity | None = None,
        timing: Timing | None = None,
        floor: Callable[[], int] = lambda: 0,
        clock: Callable[[], float] = boottime,
    ) -> None:
        """`floor`: the highest epoch known from elsewhere, so that a deleted Lease does not count from 1 again."""
        self._client = client
        self._namespace = namespace
        self._name = name
        self._on_started = on_started
        self._on_stopping = on_stopping
        self._on_stopped = on_stopped
        self._clock = clock
        identity = identity or Identity()
        self._election = Election(identity.name, timing or Timing(), floor, identity.is_dead)
        self._stopping: asyncio.Task[None] | None = None
        self._poke = asyncio.Event()
        self._body: Obj | None = None
        self._rng = random.Random()
        self._failing = False

    @property
    def identity(self) -> str:
        return self._election.identity

    @property
    def holder(self) -> str:
        """Who held the Lease when it was last seen; empty if nobody."""
        record = self._election.record
        return record.holder if record else ""

    @property
    def epoch(self) -> int:
        """The number of the leadership that was seen last; 0 if none was."""
        record = self._election.record
        return record.epoch if record else 0

    def leading(self) -> int | None:
        """The epoch this process leads under at this moment, or None. Ask before each decision and each write."""
        return self._election.leading(self._clock())

    @property
    def leads_until(self) -> float:
        """The time, on `clock`, up to which this process is sure to lead; 0 when it does not."""
        return self._election.leads_until

    def resign(self) -> None:
        """Stop leading (through `on_stopping`), release the Lease, and let `run` return. Safe to call twice."""
        self._election.resign(self._clock())
        self._poke.set()

    def step_down(self, reason: str) -> None:
        """Stop leading (through `on_stopping`) and campaign again, for an epoch above `floor`."""
        self._election.step_down(self._clock(), reason)
        self._poke.set()

    async def run(self) -> None:
        """Campaign and lead until `resign`. Cancelling it is an unclean end: the Lease then runs out by itself."""
        watching = asyncio.create_task(self._watch(), name="lease-watch")
        try:
            while True:
                action = self._election.next(self._clock())
                await self._tell()
                if isinstance(action, Wait):
                    if action.until == math.inf:
                        return
                    await self._pause(action.until)
                else:
                    await self._do(action)
                    await self._tell()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            if self._stopping is not None:
                self._stopping.cancel()
                await asyncio.gather(self._stopping, return_exceptions=True)

    async def _watch(self) -> None:
        """Hear of a Lease that changes hands as soon as it does. It only hastens what the next look would find."""
        attempt = 0
        while True:
            try:
                async with self._client.watch(
                    LEASES, self._namespace, resource_version="", field_selector=f"metadata.name={self._name}"
                ) as events:
                    async for event in events:
                        attempt = 0
                        holder = "" if event.type == "DELETED" else _record(event.object).holder
                        if event.type != "BOOKMARK" and holder != self.holder:
                            self._election.look(self._clock())
                            self._poke.set()
            except KubeError as error:
                log.debug("the lease is not watched: %s", error)
            await asyncio.sleep(WATCH_AGAIN.wait(attempt, self._rng))
            attempt += 1

    async def _pause(self, until: float) -> None:
        # An event loop's timers may not run while the machine sleeps, so this may end late: the election then sees the
        # time as it is, and so does `leading`.
        waiting: set[asyncio.Task[Any]] = {asyncio.ensure_future(self._poke.wait())}
        if self._stopping is not None:
            waiting.add(self._stopping)
        try:
            await asyncio.wait(waiting, timeout=max(0.0, until - self._clock()), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting - {self._stopping}:
                task.cancel()
        self._poke.clear()
        if self._stopping is not None and self._stopping.done():
            finished, self._stopping = self._stopping, None
            finished.result()
            self._election.done(self._clock())

    async def _tell(self) -> None:
        for change in self._election.changes():
            match change:
                case LeadershipStarted(epoch):
                    log.info("leading as %s, epoch %d", self.identity, epoch)
                    self._on_started(epoch)
                case LeadershipEnding(epoch, deadline, reason):
                    log.warning("leadership %d ends in %.1f s: %s", epoch, deadline - self._clock(), reason)
                    self._stopping = asyncio.create_task(self._stop(deadline), name="leadership-stopping")
                case LeadershipOver(epoch):
                    await self._closed()
                    log.info("leadership %d is over", epoch)
                    self._on_stopped()

    async def _stop(self, deadline: float) -> None:
        await self._on_stopping(deadline)

    async def _closed(self) -> None:
        """The deadline has come: what is still stopping has to come to its end."""
        if self._stopping is None:
            return
        stopping, self._stopping = self._stopping, None
        # Not awaited as such: its cancellation must not be mistaken for our own.
        await asyncio.wait({stopping}, timeout=STOPPING_SECONDS)
        if not stopping.done():
            stopping.cancel()
            raise TimeoutError(f"the leadership's work has not ended {STOPPING_SECONDS:g} s after its time was over")
        stopping.result()

    async def _do(self, action: ReadLease | WriteLease) -> None:
        sent = self._clock()
        try:
            # Bounded by the client alone: a second time-out around it would now and then end a request before its own
            # does, and a request that is cancelled tells nobody that the API server is silent.
            if isinstance(action, ReadLease):
                self._election.read(await self._read(action.timeout), self._clock())
            else:
                written = await self._write(action)
                if written is None:
                    self._election.refused(action, self._clock())
                else:
                    self._election.written(action, written, sent, self._clock())
        except KubeError as error:
            # Once in a row: it is tried each second.
            level = logging.DEBUG if self._failing else logging.WARNING
            log.log(level, "%s: %s; it is tried again", _what(action), error)
            self._failing = True
            self._election.failed(action, sent, self._clock())
        else:
            self._failing = False

    async def _read(self, timeout: float) -> LeaseRecord | None:
        try:
            self._body = await self._client.get(LEASES, self._name, self._namespace, timeout=timeout)
        except ApiError as error:
            if error.is_not_found:
                self._body = None
                return None
            raise
        return _record(self._body)

    async def _write(self, action: WriteLease) -> LeaseRecord | None:
        """None: refused, the record is not what it was."""
        body = self._spelled(action)
        try:
            if action.replaces is None:
                self._body = await self._client.create(LEASES, body, self._namespace, timeout=action.timeout)
            else:
                self._body = await self._client.put(LEASES, self._name, body, self._namespace, timeout=action.timeout)
        except ApiError as error:
            if error.is_conflict or error.is_already_exists or error.is_not_found:
                return None
            raise
        return _record(self._body)

    def _spelled(self, action: WriteLease) -> Obj:
        """The Lease as it shall be; labels and annotations that others put there stay."""
        known = self._body if action.replaces is not None and self._body is not None else {}
        metadata = {key: value for key, value in known.get("metadata", {}).items() if key not in ("managedFields",)}
        metadata |= {"name": self._name, "namespace": self._namespace}
        if action.replaces is not None:
            metadata["resourceVersion"] = action.replaces
        # For people and for tools that look; nothing here compares it with another clock.
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        old = known.get("spec") or {}
        spec = {
            **old,
            "holderIdentity": action.holder,
            "leaseTransitions": action.epoch,
            "renewTime": now,
            "acquireTime": now if action.purpose is LeaseChange.ACQUIRE else old.get("acquireTime", now),
            "leaseDurationSeconds": 1 if action.purpose is LeaseChange.RELEASE else self._election.timing.duration,
        }
        return {"apiVersion": LEASES.api_version, "kind": "Lease", "metadata": metadata, "spec": spec}


def _record(lease: Obj) -> LeaseRecord:
    spec = lease.get("spec") or {}
    return LeaseRecord(
        holder=spec.get("holderIdentity") or "",
        epoch=int(spec.get("leaseTransitions") or 0),
        duration=float(spec.get("leaseDurationSeconds") or 0),
        version=version_of(lease),
    )


def _what(action: ReadLease | WriteLease) -> str:
    return f"the lease could not be {'read' if isinstance(action, ReadLease) else 'written'}"
