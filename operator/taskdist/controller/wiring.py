"""Every part of the operator, built and wired together: the composition root.

All wiring is here and nothing else is. `main` runs it, from start to clean end.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

import structlog

from taskdist.api import POOL_LABEL, AgentPool, Dispatch, Reason, Task, TaskQueue
from taskdist.common.boottime import boottime
from taskdist.controller import backlogs, holding
from taskdist.controller.asides import Asides
from taskdist.controller.bridge import Bridge
from taskdist.controller.clocks import read_clocks
from taskdist.controller.collector import settle_collector
from taskdist.controller.dispatch import Dispatcher
from taskdist.controller.effects import KubeEffects
from taskdist.controller.epochs import Epochs, went_back
from taskdist.controller.keepers import Keepers
from taskdist.controller.leadership import Leadership, Parts
from taskdist.controller.observer import MetricsObserver
from taskdist.controller.ownership import Bundle, Ownership, seen_bundle
from taskdist.controller.payloads import RecentPayloads
from taskdist.controller.pods import CA_CONFIGMAP, LinkInfo
from taskdist.controller.reach import Reach
from taskdist.controller.reaper import Reaper
from taskdist.controller.relay import Relay
from taskdist.controller.retention import Retention
from taskdist.controller.seen import SeenPool, SeenQueue, SpecVersion, is_new_spec, seen_pool, seen_queue
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
    Added,
    Change,
    Client,
    Deleted,
    Identity,
    Informer,
    KubeError,
    LeaderElector,
    Updated,
    archived,
)
from taskdist.link.ca import DamagedAuthority
from taskdist.link.keeper import CertificateKeeper
from taskdist.link.server import LinkServer
from taskdist.observability.events import Recorder, Subject
from taskdist.observability.metrics import Metrics, Snapshot, measure_loop_lag
from taskdist.protocol import convert
from taskdist.protocol.observations import ObservedTask

_log = structlog.get_logger("taskdist.operator")

# How long the link's port may be taken at the start, in seconds.
LISTEN_SECONDS = 10.0
# How long the link may take for its last words at the end, in seconds.
LINK_STOP_SECONDS = 0.5
# How often a replica that does not lead looks whether there is a certificate, and a new one, in seconds.
CERTIFICATE_SECONDS = (0.5, 60.0)


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
        on_task = hear(Task.kind, self._task_event, lambda uid: self._dispatcher.task_set_aside(uid))
        self._tasks: Informer[ObservedTask] = Informer(
            client, TASKS, transform=self._task, on_event=on_task, namespaces=namespaces
        )
        self._pods: Informer[SeenPod] = Informer(
            client,
            PODS,
            transform=seen_pod,
            on_event=hear("Pod", self._pod_event),
            namespaces=namespaces,
            label_selector=POOL_LABEL,
        )
        self._queues: Informer[SeenQueue] = Informer(
            client,
            TASKQUEUES,
            transform=partial(seen_queue, least_lease=settings.least_lease),
            on_event=hear(TaskQueue.kind, self._queue_event),
            namespaces=namespaces,
        )
        self._pools: Informer[SeenPool] = Informer(
            client,
            AGENTPOOLS,
            transform=seen_pool,
            on_event=hear(AgentPool.kind, self._pool_event),
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
        self._listening = asyncio.Event()
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
            self._listening,
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
        self._metrics.observe(self._snapshot)

    # -- from start to end -----------------------------------------------------------------------------------------

    async def run(self, stopping: asyncio.Event) -> None:
        """Run all parts, and campaign once all is listed, until `stopping` is set. Raises what a part failed with."""
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(i.run()) for i in (*self._informers, *self._outside, self._sinks)]
            running.append(group.create_task(measure_loop_lag(self._metrics)))
            running.append(group.create_task(self._recorder.run()))
            running.append(group.create_task(self._serve_link()))
            running.append(group.create_task(self._view.serve(self._listening)))
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

    # -- the link --------------------------------------------------------------------------------------------------

    async def _serve_link(self) -> None:
        """Answer agents for as long as the process lives: who does not lead says so, and is dialled no second time."""
        first, later = CERTIFICATE_SECONDS
        while True:
            if self._elector.leading() is None:  # a leader renews what is stored
                try:
                    await self._certificates.load()
                except (KubeError, DamagedAuthority) as error:
                    _log.info("the link's certificate could not be read", why=str(error))
            if self._certificates.present and not self._listening.is_set():
                await self._listen()
                self._listening.set()
            await asyncio.sleep(later if self._listening.is_set() else first)

    async def _listen(self) -> None:
        """Start the link. Another program on this machine may be about to let go of the port."""
        deadline = time.monotonic() + LISTEN_SECONDS
        while True:
            try:
                port = await self._link.start()
            except RuntimeError:  # what grpc raises for a port that is taken
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.1)
            else:
                _log.info("listening for agents", link_port=port)
                return

    # -- what the informers tell -----------------------------------------------------------------------------------

    def _task(self, obj: dict[str, Any]) -> ObservedTask:
        record = convert.observed_task(obj)
        self._epochs.on_task(record.epoch)
        queue = self._queues.store.find(*record.task.queue_key)
        if queue is not None and queue.queue.dispatch is Dispatch.LAZY and record.fault is None:
            self._payloads.seen(record, convert.payload(obj))
        return record

    def _task_event(self, event: Change[ObservedTask]) -> None:
        if isinstance(event, Deleted):
            self._tally.gone(event.old.task.uid)
            self._payloads.gone(event.old.task.uid)
            self._retention.gone(event.old, time.time())
            self._dispatcher.task_deleted(event.old.task.uid)
            self._view.task_event(event)
            return
        if isinstance(event, Updated) and went_back(event.old, event.new):
            self._fail()
            return
        self._tally.seen(event.new)
        self._retention.seen(event.new)
        if isinstance(event, Added):
            self._observer.seen(event.new)
        self._dispatcher.task_observed(event.new)
        self._view.task_event(event)

    def _pod_event(self, event: Change[SeenPod]) -> None:
        if isinstance(event, Deleted):
            self._dispatcher.pod_gone(event.old.record)
        else:
            self._dispatcher.pod_observed(event.new.record)

    def _queue_event(self, event: Change[SeenQueue]) -> None:
        if isinstance(event, Deleted):
            key = event.old.queue.key
            self._dispatcher.queue_deleted(key)
            self._retention.queue_deleted(key)
            self._metrics.forget_queue(*key)
            return
        self._retention.queue_applied(event.new.queue.key, event.new.keep)
        # Most changes are of status, which is our own word.
        if not isinstance(event, Updated) or event.new.queue != event.old.queue:
            self._dispatcher.queue_applied(event.new.queue)
        if is_new_spec(event):
            self._look_at(set(), {event.new.queue.key})

    def _pool_event(self, event: Change[SeenPool]) -> None:
        if isinstance(event, Deleted):
            self._dispatcher.pool_deleted(event.old.pool.key)
            return
        # As of queues: most changes are of status.
        if not isinstance(event, Updated) or event.new.pool != event.old.pool:
            self._dispatcher.pool_applied(event.new.pool)
        if is_new_spec(event):
            self._look_at({event.new.pool.key}, set())

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
