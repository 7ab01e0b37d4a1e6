"""Every part of the operator, built and wired together: the composition root.

All wiring is here and nothing else is. `main` runs it, from start to clean end.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

import structlog

from taskdist.api import POOL_LABEL, AgentPool, Reason, Task, TaskQueue
from taskdist.common.boottime import boottime
from taskdist.controller import backlogs, holding
from taskdist.controller.asides import Asides
from taskdist.controller.bridge import Bridge
from taskdist.controller.clocks import read_clocks
from taskdist.controller.collector import settle_collector
from taskdist.controller.dispatch import Dispatcher
from taskdist.controller.effects import KubeEffects
from taskdist.controller.epochs import Epochs
from taskdist.controller.hearing import Hearing
from taskdist.controller.keepers import Keepers
from taskdist.controller.leadership import Leadership, Parts
from taskdist.controller.listening import LinkListener
from taskdist.controller.observer import MetricsObserver
from taskdist.controller.ownership import Bundle, Ownership, seen_bundle
from taskdist.controller.payloads import RecentPayloads
from taskdist.controller.pods import CA_CONFIGMAP, LinkInfo
from taskdist.controller.reach import Reach
from taskdist.controller.reaper import Reaper
from taskdist.controller.relay import Relay
from taskdist.controller.retention import Retention
from taskdist.controller.seen import SeenPool, SeenQueue, SpecVersion, seen_pool, seen_queue
from taskdist.controller.settings import Settings
from taskdist.controller.snapshot import snapshot, with_ends
from taskdist.controller.tally import Tally
from taskdist.controller.trust import (
    BundleMaps,
    SecretStore,
    SeenPod,
    authenticator,
    seen_pod,
)
from taskdist.controller.view.wire import View
from taskdist.core.model import Key
from taskdist.kube import (
    AGENTPOOLS,
    CONFIGMAPS,
    EVENTS,
    PODS,
    TASKQUEUES,
    TASKS,
    Client,
    Identity,
    Informer,
    LeaderElector,
    archived,
)
from taskdist.link.keeper import CertificateKeeper
from taskdist.link.server import LinkServer
from taskdist.observability.events import Recorder, Subject
from taskdist.observability.metrics import Metrics, Snapshot, measure_loop_lag
from taskdist.protocol.observations import ObservedTask

_log = structlog.get_logger("taskdist.operator")

# How long the link may take for its last words at the end, in seconds.
LINK_STOP_SECONDS = 0.5


class Operator:
    """The parts of one process, and what they tell each other.

    Built on the dispatch loop, with a client that is open: a part has all that it needs from the start.
    """

    def __init__(
        self,
        settings: Settings,
        client: Client,
        metrics: Metrics,
        reach: Reach,
        fail: Callable[[], None],
    ) -> None:
        """
        Args:
            reach: what the process knows of the API server's answers.
            fail: ends the process, and says that it was not asked to.
        """
        self._settings = settings
        self._client = client
        self._metrics = metrics
        self._reach = reach
        self._fail = fail
        self._loop = asyncio.get_running_loop()
        self._leadership: Leadership | None = None
        self._ready = False
        namespaces = list(settings.watch_namespaces) or None
        self._recorder = Recorder(self._create_event, instance=settings.pod_name)
        self._asides = Asides(self._announce, lambda: self._dispatcher.leader is not None, self._serves)
        hear = self._asides.hear
        self._tasks: Informer[ObservedTask] = Informer(
            client,
            TASKS,
            transform=lambda obj: self._hearing.read(obj),
            on_event=hear(
                Task.kind, lambda event: self._hearing.task(event), lambda uid: self._dispatcher.task_set_aside(uid)
            ),
            namespaces=namespaces,
        )
        self._pods: Informer[SeenPod] = Informer(
            client,
            PODS,
            transform=seen_pod,
            on_event=hear("Pod", lambda event: self._hearing.pod(event)),
            namespaces=namespaces,
            label_selector=POOL_LABEL,
        )
        self._queues: Informer[SeenQueue] = Informer(
            client,
            TASKQUEUES,
            transform=partial(seen_queue, least_lease=settings.least_lease),
            on_event=hear(TaskQueue.kind, lambda event: self._hearing.queue(event)),
            namespaces=namespaces,
        )
        self._pools: Informer[SeenPool] = Informer(
            client,
            AGENTPOOLS,
            transform=seen_pool,
            on_event=hear(AgentPool.kind, lambda event: self._hearing.pool(event)),
            namespaces=namespaces,
        )
        self._asides.watch(Task=self._tasks, Pod=self._pods, TaskQueue=self._queues, AgentPool=self._pools)
        self._observer = MetricsObserver(self._metrics, read_clocks)
        self._marks: Informer[Bundle] = Informer(
            client,
            CONFIGMAPS,
            transform=seen_bundle,
            on_event=lambda _event: None,
            namespaces=namespaces,
            # The rights are on this name alone, and the API server finds them by this selector.
            field_selector=f"metadata.name={CA_CONFIGMAP}",
        )
        self._informers = (self._queues, self._pools, self._pods, self._tasks, self._marks)
        # Nobody waits for their first lists: as long as nothing is known, nothing counts as archived, or waits outside.
        retained, serves = Retention(), self._serves
        self._sinks = holding.informer(client, namespaces, retained.sink_told)
        word = archived.informer(client, settings.namespace, settings.lease_name, retained.archive_told)
        self._outside = (word, backlogs.informer(client, namespaces, lambda told: self._dispatcher.backlogs.hear(told)))
        self._ownership = Ownership(
            client,
            self._marks,
            settings.audience,
            lambda: self._certificates.bundle(),
            self._may_act,
            lambda why: self._elector.step_down(why),
            self._tell_taken,
            boottime,
        )
        self._tally, self._retention = Tally(self._serves), retained
        self._reaper = Reaper(client, retained, self._may_act, self._expired, serves=serves, known=self._sinks.synced)
        self._bundles = BundleMaps(client, self._pool_namespaces, settings.audience)
        self._authenticator = authenticator(client, settings.audience, self._pods.store, self._pool_uid)
        relay = Relay()
        self._payloads = RecentPayloads()
        self._effects = KubeEffects(
            client,
            self._tasks,
            relay,
            self._announce,
            self._pool_uid,
            self._look_at,
            self._may_act,
            self._payloads,
        )
        self._epochs = Epochs(
            boottime,
            self._loop.call_later,
            lambda: self._elector.leading(),
            lambda why: self._elector.step_down(why),
            self._effects.pool_notice,
        )
        self._dispatcher = Dispatcher(
            self._effects,
            self._observer,
            lambda: self._elector.leads_until,
            self._overtaken,
            tally=self._tally,
            raise_epoch=self._epochs.on_agent,
            serves=self._serves,
            withheld=self._retention.withheld,
            heard=lambda uid: self._view.heard(uid),
        )
        self._certificates = CertificateKeeper(
            SecretStore(client, settings.namespace, settings.ca_secret), self._bundles, settings.served_names
        )
        self._link = LinkServer(
            self._dispatcher,
            self._authenticator,
            self._certificates,
            settings.link_port,
            host=settings.host,
            on_refused=self._metrics.link_refused,
        )
        self._link.turn_away(self._who_leads)
        relay.link = self._link
        self._elector = LeaderElector(
            client,
            namespace=settings.namespace,
            name=settings.lease_name,
            on_started=self._lead,
            on_stopping=self._stop_leading,
            on_stopped=lambda: _log.info("not leading any more"),
            identity=Identity(settings.pod_name, settings.pod_uid),
            timing=settings.timing,
            floor=lambda: self._epochs.seen,
        )
        self._listener = LinkListener(self._link, self._certificates, lambda: self._elector.leading() is not None)
        self._parts = Parts(
            settings,
            client,
            self._queues,
            self._pools,
            self._tasks,
            self._pods,
            self._dispatcher,
            self._effects,
            self._link,
            self._listener.listening,
            self._certificates,
            self._reaper,
            self._open_keepers,
            self._asides,
            self._ownership,
        )
        self._view = View(
            settings,
            client,
            self._tasks.store,
            self._dispatcher,
            self._elector,
            self._serves,
            self._certificates,
            self._metrics,
            lambda key: seen.stalled if (seen := self._pools.store.find(*key)) is not None else "",
        )
        self._hearing = Hearing(
            self._dispatcher,
            self._view,
            self._epochs,
            self._tally,
            self._retention,
            self._payloads,
            self._queues.store,
            self._observer,
            self._metrics,
            self._look_at,
            self._fail,
        )
        self._metrics.observe(self._snapshot)

    # -- from start to end -----------------------------------------------------------------------------------------

    async def run(self, stopping: asyncio.Event) -> None:
        """Run all parts, and campaign once all is listed, until `stopping` is set. Raises what a part failed with."""
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(i.run()) for i in (*self._informers, *self._outside, self._sinks)]
            running.append(group.create_task(measure_loop_lag(self._metrics)))
            running.append(group.create_task(self._recorder.run()))
            running.append(group.create_task(self._listener.run()))
            running.append(group.create_task(self._view.serve(self._listener.listening)))
            stopper = group.create_task(stopping.wait())
            synced = group.create_task(self._synced())
            await asyncio.wait({synced, stopper}, return_when=asyncio.FIRST_COMPLETED)
            if not stopping.is_set():
                self._ready = True
                settle_collector()
                election = group.create_task(self._elector.run())
                await stopper
                self._ready = False
                self._elector.resign()
                await election
            for task in (*running, synced):
                task.cancel()

    async def close(self) -> None:
        """End what is left after `run`, also where that has failed."""
        if self._leadership is not None:
            self._leadership.end()
            await self._leadership.closed()
        await self._link.stop(LINK_STOP_SECONDS)
        await self._recorder.flush()

    def unready(self) -> str | None:
        """Say what keeps it from its work; None where nothing does."""
        if not self._ready:
            return "waiting for the first lists of the API server"
        return None if self._elector.leading() is None else self._ownership.problem(self._pool_namespaces())

    @property
    def silent_for(self) -> float:
        """For how many seconds the reconciling loop has not turned over; 0 where none runs."""
        return 0.0 if self._leadership is None else self._leadership.silent_for

    def _part_failed(self, part: str, error: BaseException) -> None:
        _log.error("a part of the operator failed; the process ends", part=part, exc_info=error)
        self._fail()

    # -- what it is asked -------------------------------------------------------------------------------------------

    def _snapshot(self) -> Snapshot:
        now = snapshot(self._dispatcher, self._tally, self._elector.leading(), self._asides.count())
        now = with_ends(now, self._effects.writes, self._informers)
        withheld = self._retention.all_withheld()
        unarchived = {(space, name): count for (space, name), count in withheld.items() if self._serves(space)}
        return replace(now, api_silent_seconds=self._reach.silent_for, unarchived=unarchived)

    async def _synced(self) -> None:
        await asyncio.gather(*(i.synced() for i in self._informers))

    # -- leadership ------------------------------------------------------------------------------------------------

    def _lead(self, epoch: int) -> None:
        leadership = Leadership(epoch, self._parts, self._who_leads, self._part_failed)
        self._leadership = leadership.begin(self._leadership)

    async def _stop_leading(self, _deadline: float) -> None:
        if self._leadership is not None:
            self._leadership.end()
            await self._leadership.quiet()

    def _who_leads(self) -> str:
        """Return the answer to an agent that dialled a replica which does not lead."""
        holder = self._elector.holder
        other = holder if holder != self._elector.identity else ""
        return f"this replica does not lead, {other or 'nobody'} does: dial again"

    def _overtaken(self) -> None:
        # The election ends a leadership that was merely late. One that it still believes in, while Tasks show a newer
        # one's work, can be mended only from the start.
        if self._elector.leading() is not None:
            _log.error("Tasks show a newer leader than the Lease: was the Lease deleted? The process ends")
            self._fail()

    async def _open_keepers(self) -> tuple[Keepers, Callable[[], Awaitable[None]]]:
        """Called on the reconciling loop, with a client of its own: connections belong to one loop."""
        settings = self._settings
        client = await Client.connect(settings.kubeconfig, on_request=self._metrics.api_request).open()
        link = LinkInfo(settings.link_address, settings.link_host, settings.audience)
        keepers = Keepers(
            client,
            Bridge(self._dispatcher, self._pool_version, self._queue_version, self._loop),
            link,
            settings.namespace,
            self._publish_trust,
            self._announce_from_thread,
            self._may_act,
            settings.least_lease,
            self._serves,
        )

        async def close() -> None:
            await keepers.close()
            await client.close()

        return keepers, close

    # -- small ports -----------------------------------------------------------------------------------------------

    def _may_act(self) -> bool:
        """Whether this process is sure to lead now. Asked from either thread, right before a request is sent."""
        return boottime() < self._elector.leads_until

    def _serves(self, namespace: str) -> bool:
        return self._ownership.serves(namespace)

    def _pool_namespaces(self) -> set[str]:
        return {seen.pool.namespace for seen in self._pools.store}

    def _tell_taken(self, namespace: str, message: str) -> None:
        for key in [seen.pool.key for seen in self._pools.store if seen.pool.namespace == namespace]:
            subject = Subject(AgentPool.kind, *key, self._pool_uid(key))
            self._announce(subject, Reason.NAMESPACE_TAKEN, message, "Refuse", True)

    def _look_at(self, pools: set[Key], queues: set[Key]) -> None:
        if self._leadership is not None:
            self._leadership.look_at(pools, queues)

    async def _create_event(self, namespace: str, body: dict[str, Any]) -> None:
        await self._client.create(EVENTS, body, namespace)

    def _announce(self, subject: Subject, reason: Reason, message: str, action: str, warning: bool) -> None:
        self._recorder.record(subject, reason, message, action=action, warning=warning)

    def _announce_from_thread(self, subject: Subject, reason: Reason, message: str, action: str, warning: bool) -> None:
        self._loop.call_soon_threadsafe(self._announce, subject, reason, message, action, warning)

    async def _publish_trust(self, namespace: str) -> None:
        work = self._bundles.publish_in(namespace, self._certificates.bundle())
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def _pool_version(self, key: Key) -> SpecVersion | None:
        seen = self._pools.store.find(*key)
        return seen.version if seen else None

    def _queue_version(self, key: Key) -> SpecVersion | None:
        seen = self._queues.store.find(*key)
        return seen.version if seen else None

    def _pool_uid(self, key: Key) -> str:
        return self._pools.store.uid_at(*key)

    def _expired(self, record: ObservedTask) -> None:
        # The series of a queue that is gone must not come back.
        if self._queues.store.find(*record.task.queue_key) is not None:
            self._metrics.deleted(*record.task.queue_key)
