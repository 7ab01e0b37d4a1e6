"""`AsyncClient`: submits Tasks, waits for results, and changes what may be changed; for one event loop."""

import asyncio
import contextlib
import logging
import os
import warnings
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from contextlib import AsyncExitStack, aclosing
from typing import Any, Self, TypeVar, Unpack, overload

from taskdist.api.view import Changes
from taskdist.client import asking, changing, http, kube, many, mapping, questions
from taskdist.client.backend import Asks, Backend
from taskdist.client.changes import changes
from taskdist.client.creating import CREATED, Slips, create
from taskdist.client.deadline import deadline
from taskdist.client.errors import QueueFull, TaskdistError, TaskdistWarning, TaskGone, told
from taskdist.client.hub import Hub
from taskdist.client.many import Means, Wanted
from taskdist.client.questions import ChangeOptions
from taskdist.client.references import References
from taskdist.client.results import Outcome, SubmittedTask, result_of
from taskdist.client.states import TaskState, ended, settled
from taskdist.client.submission import Payload, Submission, TaskOptions, from_document, manifest, named
from taskdist.client.windowed import windowed
from taskdist.common.backoff import Backoff
from taskdist.kube import TASKS, Obj, OnRequest, uid_of
from taskdist.objects.transfer import Objects

_log = logging.getLogger("taskdist.client")
ResultT = TypeVar("ResultT")
AnyTask = str | SubmittedTask[Any] | TaskState
"""A Task: its name, or what submitting or waiting has handed back."""

CONCURRENCY = 32
"""Requests under way at once: the API server takes no more in the same time from one client."""
WINDOW = 1000
"""How many Tasks of `map` may be submitted and not yet handed back, where each payload is one."""
LOOK_SECONDS = 1.0
"""How long a submission may take longer for the sake of a warning."""
FULL_AGAIN = Backoff(first=0.5, most=10.0)


class AsyncClient:
    """`async with AsyncClient() as client:` in a pod, or by the kubeconfig in force.

    Args:
        namespace: of the Tasks; else the context's, or the pod's own.
        kubeconfig, context: as for kubectl.
        gateway: address of the HTTP door, where the API server is out of reach; else TASKDIST_GATEWAY, if it is set.
        token: for the gateway, a token of the cluster or what gives one; else TASKDIST_TOKEN, or the pod's own.
        backend: stands for the cluster, as in tests (`taskdist.client.testing`); then all above are unused.
        on_warning: told of likely slips, such as a type that no agent handles; else `warnings.warn`.
        view: stands for that of the operator which leads; else it is found by the API server.
        on_request: told of each request: verb, resource, outcome, seconds.
        objects: the object store for payloads and results of more than 64 KiB; else that of TASKDIST_OBJECTS_URL, if it
            is set.
    """

    def __init__(
        self,
        *,
        namespace: str | None = None,
        kubeconfig: str | os.PathLike[str] | None = None,
        context: str | None = None,
        gateway: str | None = None,
        token: http.Token | None = None,
        backend: Backend | None = None,
        on_warning: Callable[[str], None] | None = None,
        view: Asks | None = None,
        on_request: OnRequest | None = None,
        objects: Objects | None = None,
    ) -> None:
        self._stored = References(objects)
        self._where = (namespace, os.fspath(kubeconfig) if kubeconfig is not None else None, context)
        self._on_request = on_request
        self._gateway = gateway or os.environ.get("TASKDIST_GATEWAY") or None
        self._token = token
        self._given = backend
        self._open: Backend | None = None
        self._view: Asks | None = view
        self._asked: Asks | None = view  # once open
        self._fell_back = False  # the leader could not be asked last time, which was said
        self._warn = on_warning or _warn
        self._slips: Slips | None = None
        self._hubs: dict[str, Hub] = {}
        self._stack = AsyncExitStack()

    # Opening and closing.

    async def open(self) -> Self:
        """Load the credentials. Raises Unavailable."""
        if self._open is None:
            with told():
                opened = self._given
                if opened is None and self._gateway is not None:
                    opened = await self._stack.enter_async_context(
                        http.connect(self._gateway, self._where[0], self._token)
                    )
                elif opened is None:
                    reached = await self._stack.enter_async_context(
                        kube.connect(*self._where, on_request=self._on_request)
                    )
                    opened, self._asked = reached[0], self._asked or reached[1]
            self._open, self._slips = opened, Slips(opened, self._warn)
        return self

    async def close(self) -> None:
        """End the watches and the connections. Who still waits gets an error; the Tasks go on."""
        hubs, self._hubs = self._hubs, {}
        await asyncio.gather(*(hub.close() for hub in hubs.values()))
        await self._stack.aclose()
        self._open, self._asked = None, self._view

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def namespace(self) -> str:
        return self._backend.namespace

    @property
    def backend(self) -> Backend:
        """What stands behind it, for what has no method here: queues, pools, lists of Tasks."""
        return self._backend

    @property
    def view(self) -> Asks | None:
        """Questions to the operator that leads; None where nobody can be asked."""
        return self._asked

    @property
    def _backend(self) -> Backend:
        if self._open is None:
            raise TaskdistError("the client is not open: use it as `async with AsyncClient() as client:`")
        return self._open

    # Submitting.

    @overload
    async def submit(
        self, queue: str, type: str, payload: Payload = None, **options: Unpack[TaskOptions]
    ) -> SubmittedTask[dict[str, Any]]: ...

    @overload
    async def submit(
        self,
        queue: str,
        type: str,
        payload: Payload = None,
        *,
        result_type: type[ResultT],
        **options: Unpack[TaskOptions],
    ) -> SubmittedTask[ResultT]: ...

    async def submit(
        self,
        queue: str,
        type: str,
        payload: Payload = None,
        *,
        result_type: type[Any] | None = None,
        **options: Unpack[TaskOptions],
    ) -> SubmittedTask[Any]:
        """Submit one Task and return once the API server has taken it.

        With an `idempotency_key` the same Task is meant by all who submit it with this key; without one it has a name
        of its own. Either way it is safe to try again: it is made once.

        A payload of more than 64 KiB goes by the object store, if there is one.

        Raises InvalidTask, QueueFull, NotAllowed, KeyInUse, ObjectFailed, Unavailable.
        """
        return await self.submit_one(Submission.of(queue, type, payload, **options), result_type=result_type)

    async def submit_one(
        self, submission: Submission, *, result_type: type[ResultT] | None = None
    ) -> SubmittedTask[ResultT]:
        """The same for a Submission."""
        return await self._create(named(manifest(submission, self.namespace, self._stored.most_bytes)), result_type)

    async def submit_document(self, document: Any) -> SubmittedTask[dict[str, Any]]:
        """The same for a Task as it is written down: a manifest, or the fields of its spec with `name` and `labels`."""
        return await self._create(named(from_document(document, self.namespace, self._stored.most_bytes)), None)

    async def submit_many(
        self, submissions: Iterable[Submission], *, concurrency: int = CONCURRENCY, wait_if_full: bool = False
    ) -> list[SubmittedTask[dict[str, Any]] | TaskdistError]:
        """Submit all, several at once. What became of each, in their order: the Task, or why it was not taken.

        `wait_if_full` tries again where a queue takes no Tasks for now.
        """

        return await many.submitted(
            self._means, submissions, self._means.creating(concurrency, None, wait_if_full=wait_if_full), concurrency
        )

    async def _create(
        self, body: Obj, result_type: type[ResultT] | None, *, wait_if_full: bool = False
    ) -> SubmittedTask[ResultT]:
        tries = 0
        body = await self._stored.put(body)
        while True:
            try:
                with told():
                    obj, how = await create(self._backend, body, self._warn)
                break
            except QueueFull as full:
                if not wait_if_full:
                    raise
                if self._slips is not None and self._slips.is_new("full", full.queue):
                    self._warn(f"{full} It is waited for.")
            await asyncio.sleep(FULL_AGAIN.full(tries))
            tries += 1
        if how == CREATED and self._slips is not None:
            # A look is a favour: it takes no long time.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):  # `wait_for` may lose a cancellation before Python 3.12
                    await self._slips.look(body)
        return SubmittedTask.of(obj, how == CREATED, result_type)

    # Results.

    async def wait(self, task: AnyTask, *, timeout: float | None = None) -> TaskState:
        """The Task once nothing more comes of it: it has ended, or is a dead letter.

        Raises TaskTimeout (it goes on), TaskNotFound, TaskGone.
        """
        return TaskState.of(await self._end(task, timeout))

    @overload
    async def result(self, task: SubmittedTask[ResultT], *, timeout: float | None = None) -> ResultT: ...

    @overload
    async def result(self, task: AnyTask, result_type: type[ResultT], *, timeout: float | None = None) -> ResultT: ...

    @overload
    async def result(self, task: str | TaskState, *, timeout: float | None = None) -> dict[str, Any]: ...

    async def result(self, task: AnyTask, result_type: type[Any] | None = None, *, timeout: float | None = None) -> Any:
        """The Task's result, once it has succeeded: a dict, or of the type that was asked for here or on submitting.

        Raises TaskFailed, TaskCancelled, DeadLettered, InvalidResult, ObjectFailed, and what `wait` raises.
        """
        wanted = result_type or (task.result_type if isinstance(task, SubmittedTask) else None)
        return result_of(await self._stored.whole(await self._end(task, timeout)), wanted)

    @overload
    async def run(
        self,
        queue: str,
        type: str,
        payload: Payload = None,
        *,
        timeout: float | None = None,
        **options: Unpack[TaskOptions],
    ) -> dict[str, Any]: ...

    @overload
    async def run(
        self,
        queue: str,
        type: str,
        payload: Payload = None,
        *,
        result_type: type[ResultT],
        timeout: float | None = None,
        **options: Unpack[TaskOptions],
    ) -> ResultT: ...

    async def run(
        self,
        queue: str,
        type: str,
        payload: Payload = None,
        *,
        result_type: type[Any] | None = None,
        timeout: float | None = None,
        **options: Unpack[TaskOptions],
    ) -> Any:
        """Submit one Task and return its result: `submit` and `result` in one, with a request less."""
        body = named(manifest(Submission.of(queue, type, payload, **options), self.namespace, self._stored.most_bytes))
        hub, name = self._hub(queue), body["metadata"]["name"]
        async with deadline(name, timeout), hub.expecting(name) as waiter:
            task: SubmittedTask[Any] = await self._create(body, result_type)
            hub.created(waiter, task.obj)
            return result_of(await self._stored.whole(await waiter.end), result_type)

    @overload
    def map(
        self,
        queue: str,
        type: str,
        payloads: Iterable[Payload] | AsyncIterable[Payload],
        *,
        ordered: bool = False,
        arrays: bool = True,
        window: int | None = None,
        concurrency: int = CONCURRENCY,
        timeout: float | None = None,
        **options: Unpack[TaskOptions],
    ) -> AsyncGenerator[Outcome[dict[str, Any]], None]: ...

    @overload
    def map(
        self,
        queue: str,
        type: str,
        payloads: Iterable[Payload] | AsyncIterable[Payload],
        *,
        result_type: type[ResultT],
        ordered: bool = False,
        arrays: bool = True,
        window: int | None = None,
        concurrency: int = CONCURRENCY,
        timeout: float | None = None,
        **options: Unpack[TaskOptions],
    ) -> AsyncGenerator[Outcome[ResultT], None]: ...

    async def map(
        self,
        queue: str,
        type: str,
        payloads: Iterable[Payload] | AsyncIterable[Payload],
        *,
        result_type: type[Any] | None = None,
        ordered: bool = False,
        arrays: bool = True,
        window: int | None = None,
        concurrency: int = CONCURRENCY,
        timeout: float | None = None,
        **options: Unpack[TaskOptions],
    ) -> AsyncGenerator[Outcome[Any], None]:
        """Run a handler on each payload, and yield what became of each as it ends; in order of payloads if `ordered`.

        Payloads are gathered into arrays, as many as fit: `Outcome.task` is the array then. Those that are large are
        Tasks of their own, and so are all with `arrays=False`, over the gateway, or with an option that arrays cannot
        have or that means one payload: see docs/client.md.

        No more than `window` (10,000; 1,000 without arrays) are taken and not yet handed back, so that payloads may be
        very many. A queue that is full is waited for. `timeout`: how long, in seconds, to wait for each.
        """
        wanted = Wanted(queue, type, options, result_type, ordered, arrays, window, concurrency, timeout)
        mapped = self._mapped(wanted, payloads)
        async with aclosing(mapped):
            async for outcomes in mapped:
                for outcome in outcomes:
                    yield outcome

    def _mapped(self, wanted: Wanted, payloads: mapping.Payloads) -> AsyncGenerator[list[Outcome[Any]], None]:
        """The same, as many outcomes at once as there are."""
        return mapping.mapped(self._means, wanted, payloads)

    async def map_documents(
        self,
        documents: Iterable[Any] | AsyncIterable[Any],
        *,
        ordered: bool = False,
        window: int = WINDOW,
        concurrency: int = CONCURRENCY,
        timeout: float | None = None,
    ) -> AsyncGenerator[Outcome[dict[str, Any]], None]:
        """The same for Tasks as they are written down, of whatever queues: see `submit_document`."""

        def body(document: Any) -> Obj:
            return from_document(document, self.namespace, self._stored.most_bytes)

        create = self._means.creating(concurrency, None)

        async def one(index: int, document: Any) -> Outcome[dict[str, Any]]:
            return await self._means.one(index, document, body, None, create, timeout)

        async with aclosing(windowed(documents, one, window=window, ordered=ordered)) as outcomes:
            async for outcome in outcomes:
                yield outcome

    @property
    def _means(self) -> Means:
        """What is needed for many Tasks."""
        return Means(self._backend, self._stored, self._hub, self._create, self.cancel)

    # Looking and changing.

    async def get(self, task: AnyTask) -> TaskState:
        """How the Task stands now. Raises TaskNotFound."""
        return TaskState.of(await self._read(task))

    async def watch(self, task: AnyTask, *, timeout: float | None = None) -> AsyncGenerator[TaskState, None]:
        """The Task as it is, and each time that it has changed (progress as well), until nothing more comes of it."""
        name = task if isinstance(task, str) else task.name
        end = None if timeout is None else asyncio.get_running_loop().time() + timeout
        async with aclosing(changes(self._backend, name, "" if isinstance(task, str) else task.uid)) as states:
            while True:
                # Step by step: what the caller does between two states is not ours to interrupt.
                async with deadline(name, at=end):
                    with told():
                        obj = await anext(states)
                yield TaskState.of(obj)
                if settled(obj):
                    return

    async def cancel(self, task: AnyTask) -> TaskState:
        """Ask for the Task's end as Cancelled, wherever it stands; `wait` says when it is. One that has ended stays."""
        obj = await self._read(task)
        if not ended(obj):
            with told():
                obj = await changing.switch(self._backend, obj, "cancel", True)
        return TaskState.of(obj)

    async def redrive(self, task: AnyTask) -> bool:
        """Let a dead letter wait again, its failures forgotten; False if somebody has asked for that already."""
        obj = await self._read(task)
        with told():
            return await changing.redrive(self._backend, obj)

    async def redrive_failed(self, task: AnyTask) -> SubmittedTask[Any]:
        """Let the failed items of an array be tried again, and no others; the Task that does: see `taskdist redrive`.

        `created` is False if that was asked for already. Raises TaskdistError, if there is nothing to try again.
        """
        obj = await self._read(task)
        with told():
            made, created = await changing.redrive_failed(self._backend, obj)
        return SubmittedTask.of(made, created, None)

    async def explain(self, task: AnyTask) -> dict[str, Any]:
        """Why the Task waits, its place in the order and when it should start: as `taskdist explain -o json`.

        The operator that leads says it. Where it cannot be asked, that is logged, and the cluster's objects tell.
        """
        return await self._explained(task, None)

    async def what_if(self, task: AnyTask, **changes: Unpack[ChangeOptions]) -> dict[str, Any]:
        """When the Task, which waits, would start as things are and with these changes: nothing is changed.

        Answered like `explain`; not over the gateway. Raises TaskdistError: they make no sense, or it does not wait.
        """
        return dict((await self._explained(task, questions.changes(**changes)))["what_if"])

    async def _explained(self, task: AnyTask, changes: Changes | None) -> dict[str, Any]:
        with told():
            found = await asking.explained(
                self._backend, task if isinstance(task, str) else task.name, changes, self.view
            )
        if found.not_asked and not self._fell_back:
            _log.warning("%s", found.not_asked)
        self._fell_back = bool(found.not_asked)
        return found.story

    async def _end(self, task: AnyTask, timeout: float | None) -> Obj:
        name = task if isinstance(task, str) else task.name
        async with deadline(name, timeout):
            obj = await self._read(task) if isinstance(task, str) else task.obj
            return await self._hub(obj["spec"]["queue"]).end(obj)

    async def _read(self, task: AnyTask) -> Obj:
        """The Task as it is now, and no other that has its name."""
        name = task if isinstance(task, str) else task.name
        with told():
            obj = await self._backend.get(TASKS, name)
        if not isinstance(task, str) and uid_of(obj) != task.uid:
            raise TaskGone(f"task {name} was deleted, and another was made under its name")
        return obj

    def _hub(self, queue: str) -> Hub:
        if queue not in self._hubs:
            self._hubs[queue] = Hub(self._backend, queue)
        return self._hubs[queue]


def _warn(message: str) -> None:
    warnings.warn(message, TaskdistWarning, stacklevel=2)
