"""The view put together: its paths, what each needs, and the part that answers."""

import asyncio
import time
from collections.abc import Callable

import structlog
from aiohttp import web

from taskdist.api.meta import Model
from taskdist.api.view import Leader
from taskdist.controller.dispatch import Dispatcher
from taskdist.controller.settings import Settings
from taskdist.controller.view.callers import Callers
from taskdist.controller.view.capacity import Capacity, after
from taskdist.controller.view.explaining import Explaining
from taskdist.controller.view.following import Followers, Following
from taskdist.controller.view.pace import Pace
from taskdist.controller.view.problems import only
from taskdist.controller.view.selecting import Selection
from taskdist.controller.view.server import Answer, Counts, Question, Route, ViewServer, as_json
from taskdist.controller.view.tasks import Tasks
from taskdist.controller.view.trying import Trying
from taskdist.core.model import Key
from taskdist.kube import AGENTPOOLS, TASKQUEUES, TASKS, Added, Change, Client, Deleted, LeaderElector, Right, Store
from taskdist.link.keeper import CertificateSource
from taskdist.protocol.observations import ObservedTask

TASKS_PATH = "/v1/namespaces/{namespace}/tasks"
QUEUES_PATH = "/v1/namespaces/{namespace}/queues"
POOLS_PATH = "/v1/namespaces/{namespace}/pools"
PROGRESS_PATH = "/v1/namespaces/{namespace}/progress"
WATCH = (("watch", TASKS),)
# How long the port may be taken at the start, in seconds.
LISTEN_SECONDS = 10.0
_log = structlog.get_logger("taskdist.view")


class View:
    """All of it, for the life of a process.

    Args:
        store: the view of all Tasks, ended ones included.
        serves: whether a namespace is this installation's.
        stalled: what keeps a pool from having agents, as its status says; empty if nothing.
    """

    def __init__(
        self,
        settings: Settings,
        client: Client,
        store: Store[ObservedTask],
        dispatcher: Dispatcher,
        elector: LeaderElector,
        serves: Callable[[str], bool],
        certificates: CertificateSource,
        counts: Counts,
        stalled: Callable[[Key], str],
    ) -> None:
        self._settings = settings
        self._dispatcher = dispatcher
        self._elector = elector
        self._pace = Pace()
        self.tasks = Tasks(store, lambda: dispatcher.leader)
        self._explaining = Explaining(self.tasks, stalled, lambda: self._leader().holder)
        self._followers = Followers()
        self._capacity = Capacity(self.tasks.leader, dispatcher, stalled, self.tasks.now)
        self.routes = (
            Route("GET", TASKS_PATH, [("list", TASKS)], self._short(self._list)),
            Route("GET", TASKS_PATH + "/{name}", [("get", TASKS)], self._short(self._task)),
            Route("GET", TASKS_PATH + "/{name}/explain", [("get", TASKS)], self._short(self._explain)),
            Route("POST", TASKS_PATH + "/{name}/what-if", [("get", TASKS)], Trying(self.tasks, self._pace).answer),
            Route("GET", QUEUES_PATH, [("list", TASKQUEUES)], self._short(self._queues)),
            Route("GET", QUEUES_PATH + "/{name}", [("get", TASKQUEUES)], self._short(self._queue)),
            Route("GET", POOLS_PATH, [("list", AGENTPOOLS)], self._short(self._pools)),
            Route("GET", POOLS_PATH + "/{name}", [("get", AGENTPOOLS)], self._short(self._pool)),
            Route("GET", PROGRESS_PATH, WATCH, Following(self.tasks, self._followers, self._pace, self._still).answer),
        )
        self._callers = callers = Callers(client)
        self._server = ViewServer(self.routes, self._leader, serves, callers, self._pace, certificates, counts)

    async def serve(self, certified: asyncio.Event) -> None:
        """Answer who looks until cancelled, once there is a certificate: who does not lead says who does."""
        settings = self._settings
        await certified.wait()
        deadline = time.monotonic() + LISTEN_SECONDS
        while True:
            try:
                await self._server.serve(
                    settings.host, settings.view_port, lambda port: _log.info("the view answers", view_port=port)
                )
            except OSError:
                # Another program on this machine may be about to let go of the port.
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.1)

    # -- what happens ----------------------------------------------------------------------------------------------

    def task_event(self, event: Change[ObservedTask]) -> None:
        """The view of Tasks has changed."""
        if isinstance(event, Deleted):
            self.tasks.went(event.old)
            self._followers.touched(event.old.task.uid)
            return
        if isinstance(event, Added):
            self.tasks.came(event.new)
        self._followers.touched(event.new.task.uid)

    def heard(self, uid: str) -> None:
        """The Task's agent has said something of it."""
        self._followers.touched(uid)

    # -- answers ---------------------------------------------------------------------------------------------------

    async def _still(self, question: Question) -> None:
        """Raises Problem where who follows may do so no longer."""
        caller = await self._callers.who(question.request.headers)
        await self._callers.check(caller, [Right(verb, of, question.namespace) for verb, of in WATCH])

    def _leader(self) -> Leader:
        """Return who leads. A leadership counts once it has taken over."""
        return Leader(
            leading=self._elector.leading() is not None and self._dispatcher.leader is not None,
            holder=self._elector.holder.partition("_")[0],  # the pod's name; the rest tells processes of it apart
            epoch=self._elector.epoch,
            address=self._settings.view_address,
        )

    def _short(self, work: Callable[[Question], Model]) -> Answer:
        """An answer that is work of one step."""

        async def answer(question: Question) -> web.StreamResponse:
            return await self._pace.step(question.caller.username, lambda: as_json(work(question)))

        return answer

    def _list(self, question: Question) -> Model:
        return self.tasks.page(question.namespace, Selection.read(question.query))

    def _task(self, question: Question) -> Model:
        only(question.query)
        return self.tasks.detail(question.namespace, question.name)

    def _explain(self, question: Question) -> Model:
        only(question.query)
        return self._explaining.explain(question.namespace, question.name)

    def _queues(self, question: Question) -> Model:
        return self._capacity.queues(question.namespace, after(question.query))

    def _queue(self, question: Question) -> Model:
        only(question.query)
        return self._capacity.queue(question.namespace, question.name)

    def _pools(self, question: Question) -> Model:
        return self._capacity.pools(question.namespace, after(question.query))

    def _pool(self, question: Question) -> Model:
        only(question.query)
        return self._capacity.pool(question.namespace, question.name)
