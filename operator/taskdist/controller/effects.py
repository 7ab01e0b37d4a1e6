"""Effects of the dispatch loop on a real cluster: status writes, reads, pods' deletion, messages to agents, Events.

Translates between the API client's outcomes and the protocol's; keeps no state of Tasks and decides nothing.
"""

import asyncio
import itertools
import json
import random
from collections.abc import Callable
from typing import Any, Protocol

import structlog

from taskdist.api import REMOVED_BY_ANNOTATION, AgentPool, Reason, Task, Unreadable
from taskdist.common.backoff import Backoff
from taskdist.controller.payloads import RecentPayloads
from taskdist.core.model import Key, Parent
from taskdist.kube import PODS, ApiError, Client, Informer, KubeError, StatusWriter, Write
from taskdist.kube import writer as written
from taskdist.observability.events import Subject
from taskdist.protocol import convert
from taskdist.protocol.dependencies import within_bounds
from taskdist.protocol.messages import Body, ObjectRef, ParentResult, ToAgent
from taskdist.protocol.observations import (
    AnnotatePod,
    Conflict,
    Found,
    Gone,
    Notice,
    NotSent,
    ObservedTask,
    PoolNotice,
    ReadFailed,
    ReadOutcome,
    ReadTask,
    RemovePod,
    ScalePool,
    Unknown,
    WriteOutcome,
    WriteRefused,
    WriteStatus,
    Written,
)

_log = structlog.get_logger("taskdist.effects")

Object = dict[str, Any]
Announce = Callable[[Subject, Reason, str, str, bool], None]
"""Records a Kubernetes Event: subject, reason, message, what was done (one word), whether it is a warning."""


class Link(Protocol):
    """The part of the link server that effects use."""

    def send(self, session: int, message: ToAgent) -> None: ...

    def close(self, session: int, reason: str) -> None: ...

    def close_pod(self, pod_uid: str, reason: str) -> None: ...


def is_ours(action: WriteStatus) -> Callable[[Object], bool]:
    """Return whether an object read again shows this very write: same phase, attempt and epoch, and what it counts.

    Writes of an array have a name, for the phase of many of them is the same.
    """
    keys = ("phase", "attempt", "epoch", "agentUid", "failures", "spilledTo", "redrives")
    want = {k: action.status[k] for k in keys if action.status.get(k) is not None}
    commit = (action.status.get("array") or {}).get("commit")

    def shows(obj: Object) -> bool:
        status = obj.get("status") or {}
        if commit is not None and (status.get("array") or {}).get("commit") != commit:
            return False
        return all(status.get(k) == v for k, v in want.items())

    return shows


def _record(obj: Object) -> ObservedTask | None:
    """The Task; None if its present state cannot be read: the view has set it aside, and has said so."""
    try:
        return convert.observed_task(obj)
    except Unreadable:
        return None


def _result(body: Body) -> dict[str, Any]:
    """A result as it is merged into a Task's status. The link has proven it to be JSON, in bounds."""
    if isinstance(body, ObjectRef):
        return {"resultRef": body.to_wire()}
    return {"result": json.loads(body)}


def _payload(record: ObservedTask, obj: Object) -> Body:
    """What its agent gets. A Task that ends for what its spec holds gets to none."""
    return convert.payload(obj) if record.fault is None else b"{}"


class KubeEffects:
    """The dispatch loop's effects on a real cluster.

    Args:
        announce: records a Kubernetes Event.
        pool_uid: of the pool of this namespace and name; empty if unknown.
        look_at: has pools and queues reconciled.
        may_act: whether leadership is sure now.
        payloads: of Tasks that the watch has just brought; fed with each change of the view.
    """

    def __init__(
        self,
        client: Client,
        tasks: Informer[ObservedTask],
        link: Link,
        announce: Announce,
        pool_uid: Callable[[Key], str],
        look_at: Callable[[set[Key], set[Key]], None],
        may_act: Callable[[], bool],
        payloads: RecentPayloads | None = None,
    ) -> None:
        self._client = client
        self._tasks = tasks
        self._link = link
        self._announce = announce
        self._pool_uid = pool_uid
        self._may_act = may_act
        self.look_at = look_at
        self._payloads = payloads if payloads is not None else RecentPayloads()
        self._writer: StatusWriter | None = None
        self._backoff = Backoff(first=0.2, most=30.0)
        self._rng = random.Random()

    def write_with(self, writer: StatusWriter | None) -> None:
        """Use this leadership's writer; None: nothing may be written."""
        self._writer = writer

    @property
    def writes(self) -> tuple[int, int]:
        """How many writes wait for a place, and how many are under way."""
        return (0, 0) if self._writer is None else (self._writer.queued, self._writer.in_flight)

    async def write_status(self, action: WriteStatus) -> WriteOutcome:
        writer = self._writer
        if writer is None:
            return NotSent()
        result = {} if action.body is None else _result(action.body)
        if action.result_of is not None:
            try:
                original = await writer.read(action.result_of.uid, action.namespace, action.result_of.name)
            except KubeError:
                return NotSent()
            if original is not None and (copied := convert.result(original)):
                result = _result(copied)
        version = str(action.resource_version)
        outcome = await writer.write(
            Write(action.uid, action.namespace, action.name, version, action.status, is_ours(action), exact=result)
        )
        match outcome:
            case written.Written(obj):
                self._tasks.apply_own(obj)
                if (record := _record(obj)) is None:
                    return Unknown()
                results = await self._results(writer, action.namespace, action.parents)
                return Written(record, _payload(record, obj), results)
            case written.Conflict(None):
                # What stands is not known. Nothing of ours does; the informer brings what is there.
                return Unknown(self._tasks.store.get(action.uid))
            case written.Conflict(current):
                assert current is not None
                self._tasks.apply_own(current)
                # Nothing of ours stands, nor can it land; what does stand is for the release that can read it.
                return NotSent() if (record := _record(current)) is None else Conflict(record)
            case written.Gone():
                self._tasks.apply_gone(action.uid)
                return Gone()
            case written.Refused(status=code, message=message, final=final):
                if final:
                    return WriteRefused(message, too_large=code == 413 or "too large" in message.lower())
                _log.warning("a status write was put off", name=action.name, namespace=action.namespace, why=message)
                return NotSent()
            case written.NotSeen(obj):
                return Unknown(_record(obj))
            case written.Unknown():
                return Unknown()

    async def read_task(self, action: ReadTask) -> ReadOutcome:
        writer = self._writer
        if writer is None:
            return ReadFailed()
        if action.at and (found := await self._just_seen(writer, action)) is not None:
            return found
        try:
            obj = await writer.read(action.uid, action.namespace, action.name)
        except KubeError:
            return ReadFailed()
        results = await self._results(writer, action.namespace, action.parents) if obj is not None else ()
        if results is None:
            return ReadFailed()
        if obj is None:
            self._tasks.apply_gone(action.uid)
            return Gone()
        self._tasks.apply_own(obj)
        if (record := _record(obj)) is None:
            return ReadFailed()
        return Found(record, _payload(record, obj), results)

    async def _just_seen(self, writer: StatusWriter, action: ReadTask) -> ReadOutcome | None:
        """What the watch has just brought, if it is of the version that is asked for; else None."""
        record = self._tasks.store.get(action.uid)
        payload = self._payloads.take(action.uid, action.at)
        if record is None or record.resource_version != action.at or payload is None:
            return None
        results = await self._results(writer, action.namespace, action.parents)
        return ReadFailed() if results is None else Found(record, payload, results)

    async def _results(
        self, writer: StatusWriter, namespace: str, parents: tuple[Parent, ...]
    ) -> tuple[ParentResult, ...] | None:
        """How these Tasks ended, with their results; None if one could not be read."""
        if not parents:
            return ()
        try:
            tasks = await asyncio.gather(*(writer.read(each.uid, namespace, each.name) for each in parents))
        except KubeError:
            return None
        return within_bounds(
            ParentResult(each.name, each.phase or "", b"" if obj is None else convert.result(obj))
            for each, obj in zip(parents, tasks, strict=True)
        )

    async def delete_pod(self, action: RemovePod) -> bool:
        """Delete until it is done or leadership ends: the core asks once. Returns whether there was no such pod."""
        _log.info("deleting an agent", pod=action.name, namespace=action.namespace, reason=action.reason.value)
        marks = {"metadata": {"uid": action.uid, "annotations": {REMOVED_BY_ANNOTATION: str(action.epoch)}}}
        marked = False
        for attempt in itertools.count():
            try:
                if not marked and self._may_act():
                    await self._client.patch(PODS, action.name, marks, action.namespace)
                    marked = True
                # Asked again: only what was marked in time is deleted. See `RemovePod`.
                if not self._may_act():
                    await asyncio.sleep(self._backoff.wait(attempt, self._rng))
                    continue
                await self._client.delete(PODS, action.name, action.namespace, uid=action.uid)
            except KubeError as error:
                if isinstance(error, ApiError) and (error.is_not_found or error.is_conflict):
                    return True  # gone, or the name is another pod's by now
                _log.warning("an agent could not be deleted yet", pod=action.name, error=str(error))
                await asyncio.sleep(self._backoff.wait(attempt, self._rng))
            else:
                return False
        raise AssertionError("it is tried for ever")

    async def annotate_pod(self, action: AnnotatePod) -> None:
        """Annotate until it is done or leadership ends. On a pod that is gone there is nothing to be noted."""
        body = {"metadata": {"uid": action.uid, "annotations": {action.key: action.value}}}
        for attempt in itertools.count():
            try:
                if self._may_act():
                    await self._client.patch(PODS, action.name, body, action.namespace)
                    return
            except KubeError as error:
                if isinstance(error, ApiError) and (error.is_not_found or error.is_conflict):
                    return
                _log.warning("a pod could not be annotated yet", pod=action.name, error=str(error))
            await asyncio.sleep(self._backoff.wait(attempt, self._rng))

    def send(self, session: int, message: ToAgent) -> None:
        self._link.send(session, message)

    def close(self, session: int, reason: str) -> None:
        self._link.close(session, reason)

    def close_pod(self, pod_uid: str, reason: str) -> None:
        self._link.close_pod(pod_uid, reason)

    def notice(self, notice: Notice) -> None:
        _log.bind(
            task=f"{notice.namespace}/{notice.name}",
            uid=notice.uid,
            attempt=notice.lease.attempt if notice.lease else None,
        ).log(30 if notice.warning else 20, notice.message, reason=notice.reason.value)
        self._announce(
            Subject(Task.kind, notice.namespace, notice.name, notice.uid),
            notice.reason,
            notice.message,
            "Dispatch",
            notice.warning,
        )

    def scaled(self, action: ScalePool) -> None:
        _log.info("pool scaled", namespace=action.namespace, pool=action.pool, replicas=action.replicas)
        subject = Subject(
            AgentPool.kind, action.namespace, action.pool, self._pool_uid((action.namespace, action.pool))
        )
        self._announce(subject, action.reason, action.message, "Scale", False)

    def pool_notice(self, notice: PoolNotice) -> None:
        _log.log(
            30 if notice.warning else 20,
            notice.message,
            namespace=notice.namespace,
            pool=notice.pool,
            reason=notice.reason.value,
        )
        subject = Subject(
            AgentPool.kind, notice.namespace, notice.pool, self._pool_uid((notice.namespace, notice.pool))
        )
        self._announce(subject, notice.reason, notice.message, "Guard", notice.warning)
