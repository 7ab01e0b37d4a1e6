"""The number of pods of each pool: creates those that are missing, and deletes those that have ended.

Level-triggered: each call looks at what is there. How many are wanted is the core's decision. A name that somebody
else's pod has is left to it and told of; a pod that the API server refuses stops the rest, as it would refuse them too.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum, auto

import structlog

from taskdist.api import GROUP, POOL_LABEL, AgentPool, Reason
from taskdist.common.backoff import Backoff
from taskdist.controller.bridge import PodFact
from taskdist.controller.effects import Announce
from taskdist.controller.pods import LinkInfo, Object, build_pod, free_names
from taskdist.core.model import Key
from taskdist.kube import PODS, ApiError, Client
from taskdist.observability.events import Subject

# How many pods are asked for at a time, at most.
CREATE_CONCURRENCY = 10
# How many names of others are stepped over in one go: each costs two requests.
MOST_FOREIGN = 20
FOREIGN_SECONDS = 1.0
# The time without an end of a pod after which earlier ends count no more, in seconds; longer than the longest pause.
QUIET_SECONDS = 600.0

Publish = Callable[[str], Awaitable[None]]
_log = structlog.get_logger("taskdist.replicas")


class _Made(Enum):
    """Fates of a pod that was asked for."""

    YES = auto()
    THERE = auto()  # by another leader, or by us and the view is late
    FOREIGN = auto()  # the name is somebody else's
    NEVER = auto()  # its namespace is being deleted


@dataclass(frozen=True, slots=True)
class Creation:
    """The number of pods that were made, and the API server's word on the first that it refused.

    `again`: seconds after which to look again, as some are missing that may be made then; None: not needed.
    """

    created: int = 0
    refused: ApiError | None = None
    again: float | None = None


class _Ends:
    """Pods of one pool that ended for good although agents never end: how many since it had all that it wants.

    Or since none did for a while: an agent that is not ready for another cause must not keep it for ever.
    """

    def __init__(self) -> None:
        self.uids: set[str] = set()
        self.count = 0
        self.last = 0.0
        self.pause_until = 0.0


class Replicas:
    """Creates the missing pods of pools and deletes ended ones, on the reconciling loop.

    Args:
        publish_trust: makes sure that a namespace has the certificate authorities' bundle.
        announce: records a Kubernetes Event.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        client: Client,
        link: LinkInfo,
        publish_trust: Publish,
        announce: Announce,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._link = link
        self._publish_trust = publish_trust
        self._announce = announce
        # By pool: names that pods have which are not counted as the pool's.
        self._foreign: dict[Key, set[str]] = {}
        self._ends: dict[Key, _Ends] = {}
        self._clock = clock
        self._backoff, self._rng = Backoff(first=1.0, most=300.0), random.Random()

    def forget(self, pool: Key) -> None:
        """The pool is gone."""
        self._foreign.pop(pool, None)
        self._ends.pop(pool, None)

    def settled(self, pool: Key) -> None:
        """All agents that the pool wants are ready: what ended before says nothing any more."""
        self._ends.pop(pool, None)

    async def remove_ended(self, pool: AgentPool, pods: tuple[PodFact, ...]) -> None:
        """Take away pods that have ended for good, evicted or refused by their node, say: others take their places.

        The first is replaced at once. Each further one makes the pause longer, until all agents are ready, or none
        has ended for a while: a node that refuses such pods would get one after the other.
        """
        self._note_ends(_key(pool), {pod.uid for pod in pods if pod.ended})
        for pod in pods:
            if pod.ended and not pod.deleting:
                try:
                    await self._client.delete(PODS, pod.name, pool.metadata.namespace, uid=pod.uid, grace_seconds=0)
                except ApiError as error:
                    if not (error.is_not_found or error.is_conflict):
                        raise

    def _note_ends(self, key: Key, uids: set[str]) -> None:
        if not uids and key not in self._ends:
            return
        ends = self._ends.setdefault(key, _Ends())
        now = self._clock()
        if now - ends.last >= QUIET_SECONDS:
            ends.count = 0
        new, ends.uids = uids - ends.uids, uids
        if new and ends.count:
            namespace, name = key
            pause = self._backoff.wait(ends.count - 1, self._rng)
            ends.pause_until = now + pause
            _log.warning(
                "pods of the pool end again and again", namespace=namespace, pool=name, next_in=round(pause, 1)
            )
        if new:
            ends.count, ends.last = ends.count + 1, now

    async def make_missing(self, pool: AgentPool, pods: tuple[PodFact, ...], wanted: int) -> Creation:
        """Make pods until `wanted` of them serve. One first, then twice as many each time: a refusal comes once."""
        missing = wanted - sum(not (p.deleting or p.ended or p.draining) for p in pods)
        if missing <= 0:
            return Creation()
        ends = self._ends.get(_key(pool))
        if ends is not None and self._clock() < ends.pause_until:
            return Creation(again=ends.pause_until - self._clock())
        await self._publish_trust(pool.metadata.namespace)
        foreign = self._foreign.setdefault(_key(pool), set())
        taken = {p.name for p in pods} | foreign
        created, stepped_over, batch = 0, 0, 1
        while missing > 0 and stepped_over < MOST_FOREIGN:
            names = free_names(pool, taken, min(batch, missing))
            taken.update(names)
            made = await asyncio.gather(*(self._make(pool, name) for name in names))
            refused = [each for each in made if isinstance(each, ApiError)]
            created += sum(each in (_Made.YES, _Made.THERE) for each in made)
            missing -= sum(each is not _Made.FOREIGN for each in made)
            others = {name for name, each in zip(names, made, strict=True) if each is _Made.FOREIGN}
            foreign |= others
            stepped_over += len(others)
            if refused:
                self._announce(subject(pool), Reason.CREATE_REFUSED, refused[0].message, "Create", True)
                return Creation(created, refused[0])
            batch = min(2 * batch, CREATE_CONCURRENCY)
        if created:
            _log.info("created agents", pool=pool.metadata.name, namespace=pool.metadata.namespace, count=created)
        return Creation(created, again=FOREIGN_SECONDS if missing > 0 else None)

    async def _make(self, pool: AgentPool, name: str) -> "_Made | ApiError":
        try:
            await self._client.create(PODS, build_pod(pool, name, self._link), pool.metadata.namespace)
        except ApiError as error:
            if error.is_of_ending_namespace:
                return _Made.NEVER
            return await self._who_has(pool, name) if error.is_already_exists else error
        return _Made.YES

    async def _who_has(self, pool: AgentPool, name: str) -> "_Made | ApiError":
        """Find out whose pod bears the name that was to be used."""
        try:
            pod = await self._client.get(PODS, name, pool.metadata.namespace)
        except ApiError as error:
            return _Made.THERE if error.is_not_found else error  # gone meanwhile: the next look makes it
        if is_pods_pool(pool, pod):
            return _Made.THERE
        if _owned(pool, pod):
            said = (
                f"pod {name} is not counted any more, as its label {POOL_LABEL} is gone or another: a new one takes "
                f"its place. Set the label to {pool.metadata.name} again, or delete the pod"
            )
        else:
            said = (
                f"the name {name} is that of a pod that this pool did not make: it is left alone, and another name "
                "taken. Delete that pod if nobody needs it"
            )
        self._announce(subject(pool), Reason.NAME_TAKEN, said, "Create", True)
        return _Made.FOREIGN


def subject(pool: AgentPool) -> Subject:
    """The pool, as Events are about it."""
    return Subject(AgentPool.kind, pool.metadata.namespace, pool.metadata.name, pool.metadata.uid)


def is_pods_pool(pool: AgentPool, pod: Object) -> bool:
    """Whether this pod is one of the pool's: made by it, and still labelled so."""
    labels = pod["metadata"].get("labels") or {}
    return _owned(pool, pod) and labels.get(POOL_LABEL) == pool.metadata.name


def _owned(pool: AgentPool, pod: Object) -> bool:
    return any(
        owner.get("controller")
        and owner.get("uid") == pool.metadata.uid
        and owner["apiVersion"].startswith(f"{GROUP}/")
        for owner in pod["metadata"].get("ownerReferences") or ()
    )


def _key(pool: AgentPool) -> Key:
    return pool.metadata.namespace, pool.metadata.name
