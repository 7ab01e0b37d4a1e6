"""The reconcilers of pools and queues: they keep pods and status as they should be. kopf's handlers call them.

Level-triggered: each run reads what is, does what is missing, and says so in status. How many agents there should be
and which of them goes is the core's decision; a keeper only creates what is missing and removes what has ended.
"""

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import structlog

from taskdist.api import AgentPool, Reason, TaskQueue, Unreadable
from taskdist.common.backoff import Backoff
from taskdist.controller.bridge import Bridge, NoFacts, NotLeading
from taskdist.controller.effects import Announce
from taskdist.controller.pods import InvalidTemplate, LinkInfo, build_pod, check_template
from taskdist.controller.replicas import Creation, Publish, Replicas, subject
from taskdist.controller.seen import SpecVersion
from taskdist.controller.status import (
    PoolFacts,
    SpecVerdict,
    pods_failing,
    pool_status,
    queue_status,
    unreadable_status,
)
from taskdist.controller.workqueue import WorkQueue
from taskdist.core.model import Key
from taskdist.kube import AGENTPOOLS, PODS, TASKQUEUES, ApiError, Client, KubeError, status_patch
from taskdist.kube.store import is_newer
from taskdist.protocol import reading
from taskdist.protocol.convert import template_hash

# How long an answer that is no word on a template (a quota, a policy, a webhook that is down) is not asked for again.
UNDECIDED_SECONDS = 30.0
# The longest pause before a status is mended that something else goes on to write over, and how long it must have been
# left alone to be mended at once again; in seconds.
MENDING, CALM_SECONDS = Backoff(first=1.0, most=60.0), 180.0
# How long the API server's refusal of a template holds: it may come of what others mend, such as a LimitRange.
REFUSED_SECONDS = 60.0

_log = structlog.get_logger("taskdist.keepers")


class _Judged(NamedTuple):
    """The verdict on a spec, and until when it holds (monotonic time)."""

    version: SpecVersion
    verdict: SpecVerdict
    until: float


class _Undecided(NamedTuple):
    """A spec on which the API server gave no word, and until when it is not asked again (monotonic time)."""

    version: SpecVersion
    until: float


class Keepers:
    """Keeps the pods and status of pools, and the status of queues, on the reconciling loop.

    Args:
        publish_trust: makes sure that a namespace has the certificate authorities' bundle.
        announce: records a Kubernetes Event.
        least_lease: what a shorter `leaseSeconds` of a queue counts as.
        may_act: whether leadership is sure now; asked before each write of status.
        serves: whether a namespace is this installation's, for as long as it leads; what is in others is not taken in.
    """

    def __init__(
        self,
        client: Client,
        bridge: Bridge,
        link: LinkInfo,
        own_namespace: str,
        publish_trust: Publish,
        announce: Announce,
        may_act: Callable[[], bool],
        least_lease: int = 0,
        serves: Callable[[str], bool] = lambda _namespace: True,
    ) -> None:
        self._client = client
        self._least_lease = least_lease
        self._bridge = bridge
        self._link = link
        self._own_namespace = own_namespace
        self._replicas = Replicas(client, link, publish_trust, announce)
        self._announce = announce
        self._may_act = may_act
        self._serves = serves
        self._pools: dict[Key, AgentPool] = {}
        self._queues: dict[Key, TaskQueue] = {}
        # What this release cannot read, as the API server has it: by kind and key.
        self._odd: dict[tuple[str, Key], tuple[dict[str, Any], Unreadable]] = {}
        self._written: dict[tuple[str, Key], dict[str, Any]] = {}
        # How often in a row something else wrote over a status, and when last (monotonic time).
        self._overwritten: dict[tuple[str, Key], tuple[int, float]] = {}
        self._verdicts: dict[Key, _Judged] = {}
        # Specs on which the API server gave no word.
        self._undecided: dict[Key, _Undecided] = {}
        # By pool: for which cause pods were last told not to come up.
        self._failing: dict[Key, str] = {}
        self._pool_work = WorkQueue[Key](self._keep_pool, self._failed)
        self._queue_work = WorkQueue[Key](self._keep_queue, self._failed)

    def end(self) -> None:
        """Begin nothing more. From any thread."""
        self._pool_work.end()
        self._queue_work.end()

    def cancel(self) -> None:
        """End, and cancel what is under way."""
        self._pool_work.cancel()
        self._queue_work.cancel()

    async def close(self) -> None:
        await self._pool_work.close()
        await self._queue_work.close()

    # -- what happened ---------------------------------------------------------------------------------------------

    def pool_seen(self, body: dict[str, Any]) -> None:
        """The pool exists, with this content."""
        key = (str(body["metadata"]["namespace"]), str(body["metadata"]["name"]))
        namespace, _ = key
        if not self._serves(namespace):
            return
        new, before = not self._exists(key), self._pools.get(key)
        try:
            pool = reading.agent_pool(body)
            template_hash(pool)
        except Unreadable as error:
            self._odd["pool", key] = body, error
            self._pool_work.ask(key)
        else:
            if not _is_newer(pool, before):
                return
            self._pools[key] = pool
            was_odd = self._odd.pop(("pool", key), None) is not None
            self._look_if_news("pool", key, None if was_odd else before, pool)
        if new:
            self._ask_queues_of(key)

    def pool_deleted(self, key: Key) -> None:
        """The pool is gone; its pods go with it, by their owner reference."""
        self._pools.pop(key, None)
        self._odd.pop(("pool", key), None)
        self._written.pop(("pool", key), None)
        self._overwritten.pop(("pool", key), None)
        self._verdicts.pop(key, None)
        self._undecided.pop(key, None)
        self._failing.pop(key, None)
        self._replicas.forget(key)
        self._ask_queues_of(key)

    def queue_seen(self, body: dict[str, Any]) -> None:
        """The queue exists, with this content."""
        key = (str(body["metadata"]["namespace"]), str(body["metadata"]["name"]))
        namespace, _ = key
        if not self._serves(namespace):
            return
        before = self._queues.get(key)
        try:
            queue = reading.task_queue(body)
        except Unreadable as error:
            self._odd["queue", key] = body, error
            self._queue_work.ask(key)
        else:
            if not _is_newer(queue, before):
                return
            self._queues[key] = queue
            was_odd = self._odd.pop(("queue", key), None) is not None
            self._look_if_news("queue", key, None if was_odd else before, queue)

    def queue_deleted(self, key: Key) -> None:
        self._queues.pop(key, None)
        self._odd.pop(("queue", key), None)
        self._written.pop(("queue", key), None)
        self._overwritten.pop(("queue", key), None)

    def look_at_pool(self, key: Key) -> None:
        """Something about the pool changed: its size, its pods, its agents."""
        if key in self._pools:
            self._pool_work.ask(key)

    def look_at_queue(self, key: Key) -> None:
        """The numbers of the queue changed."""
        if key in self._queues:
            self._queue_work.ask(key)

    # -- what is done ----------------------------------------------------------------------------------------------

    async def _keep_odd(self, kind: str, key: Key) -> bool:
        """Say on an object that this release cannot read that it is so, and leave it alone; False if it can."""
        if (found := self._odd.get((kind, key))) is None:
            return False
        body, error = found
        message = f"Set aside, and left as it is: {error}"
        told, metadata, status = (
            unreadable_status(body, error.reason, message, time.time()),
            body["metadata"],
            body.get("status"),
        )
        said = isinstance(status, dict) and all(status.get(field) == value for field, value in told.items())
        if said or "deletionTimestamp" in metadata:
            return True
        if not self._may_act():
            raise NotLeading("leadership is not sure now")
        resource = AGENTPOOLS if kind == "pool" else TASKQUEUES
        namespace, name = key
        patch = status_patch(told, uid=metadata["uid"], resource_version=metadata["resourceVersion"])
        try:
            await self._client.patch(resource, name, patch, namespace, subresource="status")
        except ApiError as problem:
            # A newer state is on its way, and is looked at then.
            if not (problem.is_conflict or problem.is_not_found):
                raise
        return True

    def _exists(self, pool: Key) -> bool:
        return pool in self._pools or ("pool", pool) in self._odd

    async def _keep_pool(self, key: Key) -> None:
        if await self._keep_odd("pool", key):
            return
        pool = self._pools.get(key)
        if pool is None or pool.metadata.deletion_timestamp is not None:
            return
        try:
            view = await self._bridge.tell_pool(key, _version(pool))
        except NoFacts:
            return
        verdict, undecided = await self._judge(pool)
        outcome, facts = Creation(), view.facts
        if verdict.accepted:
            await self._replicas.remove_ended(pool, view.pods)
            outcome = await self._replicas.make_missing(pool, view.pods, facts.desired + facts.surge)
        pods = sum(not p.deleting and not p.ended for p in view.pods) + outcome.created
        if not verdict.accepted:
            # A pool that cannot be used wants no more agents than it has, whatever waits.
            facts = replace(
                facts, desired=min(facts.desired, pods), surge=0, reason=verdict.reason, message=verdict.message
            )
        self._tell_failing(pool, facts)
        message = str(outcome.refused) if outcome.refused else ""
        await self._write("pool", pool, pool_status(pool, facts, pods, verdict, message, time.time()))
        if facts.ready >= facts.desired:
            self._replicas.settled(key)
        if outcome.again is not None:
            asyncio.get_running_loop().call_later(outcome.again, self.look_at_pool, key)
        if error := outcome.refused or undecided:
            raise error

    async def _judge(self, pool: AgentPool) -> tuple[SpecVerdict, KubeError | None]:
        """Say whether the spec can be used, and what kept the API server from saying its part.

        It is asked once for each spec, and now and then of one that it refuses. What is no word on the spec (a quota, a
        policy, no answer) stalls nothing: the pods themselves may be refused for it, and that is then in status.
        """
        key, version = (pool.metadata.namespace, pool.metadata.name), _version(pool)
        former = SpecVerdict()
        if (known := self._verdicts.get(key)) and known.version == version:
            former = known.verdict
            if time.monotonic() < known.until:
                return former, None
        asked = self._undecided.get(key)
        if asked and asked.version == version and time.monotonic() < asked.until:
            return SpecVerdict(), None
        try:
            verdict, holds = await self._ask(pool)
        except KubeError as error:
            if isinstance(error, ApiError) and (error.is_forbidden or error.is_denied):
                self._undecided[key] = _Undecided(version, time.monotonic() + UNDECIDED_SECONDS)
                return SpecVerdict(), None
            return former, error
        self._verdicts[key] = _Judged(version, verdict, time.monotonic() + holds)
        if holds < math.inf:
            asyncio.get_running_loop().call_later(holds, self.look_at_pool, key)
        if not verdict.accepted and verdict != former:
            self._announce(subject(pool), verdict.reason, verdict.message, "Validate", True)
        return verdict, None

    async def _ask(self, pool: AgentPool) -> tuple[SpecVerdict, float]:
        """Return the verdict on the pool's spec, and for how many seconds it holds."""
        if pool.metadata.namespace == self._own_namespace:
            said = (
                f"pools in the operator's own namespace {self._own_namespace} are refused, as agents could then read "
                "its certificate authority; create the pool in another namespace"
            )
            return SpecVerdict(Reason.FORBIDDEN_NAMESPACE, said), math.inf
        try:
            check_template(pool)
        except InvalidTemplate as error:
            return SpecVerdict(Reason.INVALID_TEMPLATE, str(error)), math.inf
        pod = build_pod(pool, f"{pool.metadata.name}-dry-run", self._link)
        try:
            # Misspelt fields too: they would be dropped without a word.
            await self._client.create(PODS, pod, pool.metadata.namespace, dry_run=True, strict=True)
        except ApiError as error:
            if not error.is_invalid or error.is_denied:
                raise
            said = f"the API server refuses a pod of spec.template: {error.message}"
            return SpecVerdict(Reason.INVALID_TEMPLATE, said), REFUSED_SECONDS
        return SpecVerdict(), math.inf

    def _tell_failing(self, pool: AgentPool, facts: PoolFacts) -> None:
        """Once for each cause, as long as it lasts."""
        key = (pool.metadata.namespace, pool.metadata.name)
        cause = facts.failing.trouble.cause if facts.failing is not None else ""
        if cause and self._failing.get(key) != cause:
            self._announce(subject(pool), Reason.PODS_FAILING, pods_failing(pool, facts), "Start", True)
        self._failing[key] = cause

    async def _keep_queue(self, key: Key) -> None:
        if await self._keep_odd("queue", key):
            return
        queue = self._queues.get(key)
        if queue is None or queue.metadata.deletion_timestamp is not None:
            return
        try:
            facts = await self._bridge.tell_queue(key, _version(queue))
        except NoFacts:
            return
        missing = [p for p in queue.spec.all_pools if not self._exists((queue.metadata.namespace, p))]
        verdict = SpecVerdict()
        if set(missing) >= set(queue.spec.pools):
            verdict = SpecVerdict(
                Reason.POOL_NOT_FOUND,
                f"no pool of spec.pools exists in this namespace ({', '.join(missing)}): create an AgentPool of that "
                "name or change spec.pools",
            )
        elif queue.spec.paused:
            verdict = SpecVerdict(Reason.ACCEPTED, "spec.paused is true: nothing is handed out until it is false")
        elif missing:
            verdict = SpecVerdict(Reason.ACCEPTED, f"served without the pools that do not exist: {', '.join(missing)}")
        status = queue_status(queue, facts, verdict, time.time(), self._least_lease)
        await self._write("queue", queue, status)

    async def _write(self, kind: str, obj: AgentPool | TaskQueue, new: dict[str, Any]) -> None:
        """Write status where it is not what was observed: so what another wrote over it is mended.

        It is written on the version that was observed. A late one, of a leadership that is over, conflicts with what
        the next one wrote; where that has nothing to write yet, it sees the late one and mends it.
        """
        metadata = obj.metadata
        if _says(obj, new):
            return
        if not self._may_act():
            raise NotLeading("leadership is not sure now")
        namespace, name = key = (metadata.namespace, metadata.name)
        resource = AGENTPOOLS if kind == "pool" else TASKQUEUES
        patch = status_patch(new, uid=metadata.uid, resource_version=metadata.resource_version)
        # Before it is sent: the watch may bring it before the answer comes.
        self._written[kind, key] = new
        try:
            try:
                there = await self._client.patch(resource, name, patch, namespace, subresource="status")
            except ApiError as error:
                if not error.is_conflict:
                    raise
                # Something newer is there, and counts. The watch may take a while to bring it, or may have brought it
                # while this was under way, when it was no news.
                there = await self._client.get(resource, name, namespace)
                self._mend(kind, key)
        except KubeError as error:
            self._written.pop((kind, key), None)
            if not (isinstance(error, ApiError) and error.is_not_found):
                raise
        else:
            if kind == "pool" and key in self._pools:
                self.pool_seen(there)
            elif kind == "queue" and key in self._queues:
                self.queue_seen(there)

    def _look_if_news(
        self, kind: str, key: Key, before: AgentPool | TaskQueue | None, now: AgentPool | TaskQueue
    ) -> None:
        """Look at it unless this is the echo of what was written here: that would be one write after another."""
        written = self._written.get((kind, key))
        if before is None or written is None or _version(before) != _version(now):
            self._work(kind).ask(key)
        elif not _says(now, written):
            self._mend(kind, key)

    def _mend(self, kind: str, key: Key) -> None:
        """Look again at what somebody else wrote over: at once, and with growing pauses if it goes on.

        Two that each put the status right, as two installations over one namespace do, would fill the API server.
        """
        count, last = self._overwritten.get((kind, key), (0, 0.0))
        now = time.monotonic()
        count = count + 1 if count and now < last + CALM_SECONDS else 1
        self._overwritten[kind, key] = (count, now)
        if count == 3:
            namespace, name = key
            _log.warning(
                "something else writes this status as well: does a second installation serve the namespace?",
                kind=kind,
                namespace=namespace,
                name=name,
            )
        pause = MENDING.full(count - 2) if count > 1 else 0.0
        look = self.look_at_pool if kind == "pool" else self.look_at_queue
        if pause:
            asyncio.get_running_loop().call_later(pause, look, key)
        else:
            look(key)

    def _work(self, kind: str) -> WorkQueue[Key]:
        return self._pool_work if kind == "pool" else self._queue_work

    def _ask_queues_of(self, pool: Key) -> None:
        namespace, name = pool
        for key, queue in self._queues.items():
            if queue.metadata.namespace == namespace and name in queue.spec.all_pools:
                self._queue_work.ask(key)

    @staticmethod
    def _failed(key: Key, error: Exception) -> None:
        # What the API server says is clear enough; anything else is a defect, and wants its place told.
        known = isinstance(error, KubeError | NoFacts)
        namespace, name = key
        _log.warning(
            "reconciling failed and is tried again",
            namespace=namespace,
            name=name,
            error=str(error),
            exc_info=None if known else error,
        )


def _is_newer(obj: AgentPool | TaskQueue, known: AgentPool | TaskQueue | None) -> bool:
    """Whether this is a later state than the one that is known. The answer to an own write is known before its echo."""
    if known is None or known.metadata.uid != obj.metadata.uid:
        return True
    return is_newer(obj.metadata.resource_version, known.metadata.resource_version)


def _says(obj: AgentPool | TaskQueue, status: dict[str, Any]) -> bool:
    """Whether the object's status says all this. Both are read by the model: absent and empty are the same to it."""
    before = obj.status.to_wire()
    after = {field: value for field, value in {**before, **status}.items() if value is not None}
    return type(obj.status).model_validate(after).to_wire() == before


def _version(obj: AgentPool | TaskQueue) -> SpecVersion:
    return SpecVersion(obj.metadata.uid, obj.metadata.generation)
