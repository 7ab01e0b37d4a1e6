"""An executor around another: fetches payloads from the object store before work starts, puts large results there.

The work knows nothing of it: it gets a payload and returns a result, whatever their size. The lease goes on meanwhile,
so the fence holds for a transfer as for work: whoever cancels or kills the lease ends it. Nothing is kept of an object.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from typing import Any

from taskdist.agent.outcomes import Failed
from taskdist.agent.results import too_large
from taskdist.agent.vital import vital_task
from taskdist.agent.work import Executor, Offered, WorkEvents
from taskdist.api import Reason
from taskdist.api.task import MAX_RESULT_BYTES
from taskdist.objects.store import ObjectError
from taskdist.objects.transfer import Objects
from taskdist.protocol.messages import Grant, LeaseName, ObjectRef, ParentResult
from taskdist.protocol.values import parse_object


@dataclass(eq=False, slots=True)
class _Transfer:
    """A lease whose payload or result is on its way."""

    deadline: float
    task: "asyncio.Task[None] | None" = None


class ByReference:
    """An executor whose work gets payloads and returns results by value.

    Args:
        inner: runs the work.
        objects: the store.
        parents: whether the results of parents are fetched as well. A command gets them in its environment, which takes
            no more than the link does.
        checks: whether a payload must be a JSON object before the work gets it. Handlers in Python read it by their
            model; a command or a server trusts that it is what one by value always is.
    """

    def __init__(self, inner: Executor, objects: Objects, *, parents: bool = True, checks: bool = False) -> None:
        self._inner = inner
        self._objects = objects
        self._parents = parents
        self._checks = checks
        self._events: WorkEvents | None = None
        self._transfers: dict[LeaseName, _Transfer] = {}
        self._namespaces: dict[LeaseName, str] = {}

    async def open(self, events: WorkEvents) -> Offered:
        self._events = events
        return await self._inner.open(self)

    def start(self, grant: Grant, deadline: float) -> None:
        self._namespaces[grant.lease] = grant.namespace
        if isinstance(grant.payload, ObjectRef) or self._asks_for_parents(grant):
            self._begin(grant.lease, deadline, self._fetch(grant))
        else:
            self._inner.start(grant, deadline)

    def fence(self, lease: LeaseName, deadline: float) -> None:
        transfer = self._transfers.get(lease)
        if transfer is not None:
            transfer.deadline = deadline
        else:
            self._inner.fence(lease, deadline)

    def cancel(self, lease: LeaseName, reason: str) -> None:
        if not self._drop(lease):
            self._inner.cancel(lease, reason)

    def kill(self, lease: LeaseName) -> None:
        if not self._drop(lease):
            self._inner.kill(lease)

    async def close(self) -> None:
        under_way = [each.task for each in self._transfers.values() if each.task is not None]
        for task in under_way:
            task.cancel()
        if under_way:
            await asyncio.wait(under_way)
        await self._inner.close()

    # --- what the work tells ---

    def started(self, lease: LeaseName) -> None:
        self._told.started(lease)

    def progress(self, lease: LeaseName, fraction: float, message: str) -> None:
        self._told.progress(lease, fraction, message)

    def finished(self, lease: LeaseName, body: bytes | ObjectRef, used: Any = None) -> None:
        namespace = self._namespaces.get(lease)
        if isinstance(body, ObjectRef) or len(body) <= MAX_RESULT_BYTES or namespace is None:
            self._over(lease)
            self._told.finished(lease, body, used)
        elif len(body) > self._objects.max_bytes:
            self.failed(lease, Failed(*too_large(f"the result has {len(body)} bytes"), retryable=False), used)
        else:
            self._begin(lease, 0.0, self._put(lease, namespace, body, used))

    def failed(self, lease: LeaseName, failed: Failed, used: Any = None) -> None:
        self._over(lease)
        self._told.failed(lease, failed, used)

    def stopped(self, lease: LeaseName) -> None:
        self._over(lease)
        self._told.stopped(lease)

    def broke(self, error: BaseException) -> None:
        self._told.broke(error)

    # --- transfers ---

    @property
    def _told(self) -> WorkEvents:
        assert self._events is not None
        return self._events

    def _begin(self, lease: LeaseName, deadline: float, work: Coroutine[Any, Any, None]) -> None:
        transfer = self._transfers[lease] = _Transfer(deadline)
        transfer.task = vital_task(self._told.broke, work)

    def _drop(self, lease: LeaseName) -> bool:
        """End the transfer of this lease, if there is one: nothing of its work runs then."""
        transfer = self._transfers.pop(lease, None)
        if transfer is None:
            return False
        if transfer.task is not None:
            transfer.task.cancel()
        self.stopped(lease)
        return True

    def _over(self, lease: LeaseName) -> None:
        self._namespaces.pop(lease, None)

    async def _fetch(self, grant: Grant) -> None:
        try:
            payload = grant.payload
            if isinstance(payload, ObjectRef):
                fetch = self._fetch_json if self._checks else self._objects.fetch
                payload = await fetch(payload, grant.namespace)
            whole = replace(grant, payload=payload, parents=await self._fetch_parents(grant))
        except ObjectError as error:
            del self._transfers[grant.lease]
            self.failed(grant.lease, _failure(error))
            return
        # Only now the work has the lease's end; what moved it meanwhile is in there.
        transfer = self._transfers.pop(grant.lease)
        self._inner.start(whole, transfer.deadline)

    async def _put(self, lease: LeaseName, namespace: str, body: bytes, used: Any) -> None:
        try:
            ref = await self._objects.put_result(namespace, lease, body)
        except ObjectError as error:
            del self._transfers[lease]
            self.failed(lease, _failure(error), used)
            return
        del self._transfers[lease]
        self.finished(lease, ref, used)

    def _asks_for_parents(self, grant: Grant) -> bool:
        return self._parents and any(isinstance(each.result, ObjectRef) for each in grant.parents)

    async def _fetch_parents(self, grant: Grant) -> tuple[ParentResult, ...]:
        """The parents with their results, as long as those fetched are together no more than one object may be. The
        rest stays a reference."""
        if not self._asks_for_parents(grant):
            return grant.parents
        left, whole = self._objects.max_bytes, []
        for each in grant.parents:
            ref = each.result
            if isinstance(ref, ObjectRef) and ref.size <= left:
                left -= ref.size
                whole.append(replace(each, result=await self._fetch_json(ref, grant.namespace)))
            else:
                whole.append(each)
        return tuple(whole)

    async def _fetch_json(self, ref: ObjectRef, namespace: str) -> bytes:
        body = await self._objects.fetch(ref, namespace)
        try:
            # It becomes a part of a larger text: one that is no JSON, or more than one value, would change the rest.
            await asyncio.to_thread(parse_object, body)
        except ValueError as error:
            said = f"{ref.uri} is no JSON object that can be used: {str(error)[:200]}"
            raise ObjectError(Reason.OBJECT_REFUSED, said) from None
        return body


def _failure(error: ObjectError) -> Failed:
    return Failed(error.reason, str(error), error.retryable)
