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
from taskdist.controller.view.pace import Pace
from taskdist.controller.view.selecting import Selection
from taskdist.controller.view.server import Answer, Counts, Question, Route, ViewServer, as_json
from taskdist.controller.view.tasks import Tasks, only, row
from taskdist.kube import TASKS, Client, LeaderElector, Store
from taskdist.link.keeper import CertificateSource
from taskdist.protocol.observations import ObservedTask

TASKS_PATH = "/v1/namespaces/{namespace}/tasks"
# How long the port may be taken at the start, in seconds.
LISTEN_SECONDS = 10.0
_log = structlog.get_logger("taskdist.view")


class View:
    """All of it, for the life of a process.

    Args:
        store: the view of all Tasks, ended ones included.
        serves: whether a namespace is this installation's.
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
    ) -> None:
        self._settings = settings
        self._dispatcher = dispatcher
        self._elector = elector
        self._pace = Pace()
        self.tasks = Tasks(store, lambda: dispatcher.leader)
        self.routes = (
            Route("GET", TASKS_PATH, [("list", TASKS)], self._short(self._list)),
            Route("GET", TASKS_PATH + "/{name}", [("get", TASKS)], self._short(self._task)),
        )
        callers = Callers(client)
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
        return row(self.tasks.seen(question.namespace, question.name), self.tasks.now())
