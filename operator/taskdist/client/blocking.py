"""`Client`: the same as `AsyncClient` for programs without an event loop; one may be used by many threads.

All work happens on one thread of the client's own, which ends with `close`, or once the client is no more referred to.
"""

import asyncio
import os
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import CancelledError
from typing import Any, Self, TypeVar, Unpack, overload

from taskdist.client.asynchronous import CONCURRENCY, AnyTask, AsyncClient
from taskdist.client.backend import Asks, Backend
from taskdist.client.errors import TaskdistError
from taskdist.client.http import Token
from taskdist.client.many import Wanted
from taskdist.client.pump import AHEAD, Pump
from taskdist.client.questions import ChangeOptions
from taskdist.client.results import Outcome, SubmittedTask
from taskdist.client.states import TaskState
from taskdist.client.submission import Payload, Submission, TaskOptions
from taskdist.kube import OnRequest
from taskdist.objects.transfer import Objects

ResultT = TypeVar("ResultT")
ValueT = TypeVar("ValueT")
CLOSE_SECONDS = 10.0


class Client:
    """`with Client() as client:` in a pod, or by the kubeconfig in force. Arguments are those of `AsyncClient`."""

    def __init__(
        self,
        *,
        namespace: str | None = None,
        kubeconfig: str | os.PathLike[str] | None = None,
        context: str | None = None,
        gateway: str | None = None,
        token: Token | None = None,
        backend: Backend | None = None,
        on_warning: Callable[[str], None] | None = None,
        view: Asks | None = None,
        on_request: OnRequest | None = None,
        objects: Objects | None = None,
    ) -> None:
        self._client = AsyncClient(
            namespace=namespace,
            kubeconfig=kubeconfig,
            context=context,
            gateway=gateway,
            token=token,
            backend=backend,
            on_warning=on_warning,
            view=view,
            on_request=on_request,
            objects=objects,
        )
        self._thread: _Thread | None = None
        self._opening = threading.Lock()

    def open(self) -> Self:
        """Start the thread and load the credentials; the first call does it, too. Raises Unavailable."""
        with self._opening:
            if self._thread is None:
                thread = _Thread(self._client)
                try:
                    thread.run(self._client.open())
                except BaseException:
                    thread.stop()
                    raise
                self._thread = thread
                # Who forgets to close leaves no thread behind, either.
                weakref.finalize(self, thread.stop)
        return self

    def close(self) -> None:
        """End the watches, the connections and the thread. Who still waits gets an error; the Tasks go on."""
        with self._opening:
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.stop()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def namespace(self) -> str:
        self.open()
        return self._client.namespace

    def _do(self, work: Coroutine[Any, Any, ValueT]) -> ValueT:
        thread = self._thread
        if thread is None:
            try:
                thread = self.open()._thread
            except BaseException:
                work.close()
                raise
        if thread is None:
            work.close()
            raise TaskdistError("the client was closed")
        return thread.run(work)

    @overload
    def submit(
        self, queue: str, type: str, payload: Payload = None, **options: Unpack[TaskOptions]
    ) -> SubmittedTask[dict[str, Any]]: ...

    @overload
    def submit(
        self,
        queue: str,
        type: str,
        payload: Payload = None,
        *,
        result_type: type[ResultT],
        **options: Unpack[TaskOptions],
    ) -> SubmittedTask[ResultT]: ...

    def submit(
        self,
        queue: str,
        type: str,
        payload: Payload = None,
        *,
        result_type: type[Any] | None = None,
        **options: Unpack[TaskOptions],
    ) -> SubmittedTask[Any]:
        """See `AsyncClient.submit`."""
        return self._do(
            self._client.submit_one(Submission.of(queue, type, payload, **options), result_type=result_type)
        )

    def submit_many(
        self, submissions: Iterable[Submission], *, concurrency: int = CONCURRENCY, wait_if_full: bool = False
    ) -> list[SubmittedTask[dict[str, Any]] | TaskdistError]:
        """See `AsyncClient.submit_many`."""
        return self._do(self._client.submit_many(list(submissions), concurrency=concurrency, wait_if_full=wait_if_full))

    def wait(self, task: AnyTask, *, timeout: float | None = None) -> TaskState:
        """See `AsyncClient.wait`."""
        return self._do(self._client.wait(task, timeout=timeout))

    @overload
    def result(self, task: SubmittedTask[ResultT], *, timeout: float | None = None) -> ResultT: ...

    @overload
    def result(self, task: AnyTask, result_type: type[ResultT], *, timeout: float | None = None) -> ResultT: ...

    @overload
    def result(self, task: str | TaskState, *, timeout: float | None = None) -> dict[str, Any]: ...

    def result(self, task: AnyTask, result_type: type[Any] | None = None, *, timeout: float | None = None) -> Any:
        """See `AsyncClient.result`."""
        return self._do(self._client.result(task, result_type, timeout=timeout))  # type: ignore[arg-type]

    @overload
    def run(
        self,
        queue: str,
        type: str,
        payload: Payload = None,
        *,
        timeout: float | None = None,
        **options: Unpack[TaskOptions],
    ) -> dict[str, Any]: ...

    @overload
    def run(
        self,
        queue: str,
        type: str,
        payload: Payload = None,
        *,
        result_type: type[ResultT],
        timeout: float | None = None,
        **options: Unpack[TaskOptions],
    ) -> ResultT: ...

    def run(
        self,
        queue: str,
        type: str,
        payload: Payload = None,
        *,
        result_type: type[Any] | None = None,
        timeout: float | None = None,
        **options: Unpack[TaskOptions],
    ) -> Any:
        """See `AsyncClient.run`."""
        return self._do(self._client.run(queue, type, payload, result_type=result_type, timeout=timeout, **options))  # type: ignore[arg-type]

    @overload
    def map(
        self,
        queue: str,
        type: str,
        payloads: Iterable[Payload],
        *,
        ordered: bool = False,
        arrays: bool = True,
        window: int | None = None,
        concurrency: int = CONCURRENCY,
        timeout: float | None = None,
        **options: Unpack[TaskOptions],
    ) -> Iterator[Outcome[dict[str, Any]]]: ...

    @overload
    def map(
        self,
        queue: str,
        type: str,
        payloads: Iterable[Payload],
        *,
        result_type: type[ResultT],
        ordered: bool = False,
        arrays: bool = True,
        window: int | None = None,
        concurrency: int = CONCURRENCY,
        timeout: float | None = None,
        **options: Unpack[TaskOptions],
    ) -> Iterator[Outcome[ResultT]]: ...

    def map(
        self,
        queue: str,
        type: str,
        payloads: Iterable[Payload],
        *,
        result_type: type[Any] | None = None,
        ordered: bool = False,
        arrays: bool = True,
        window: int | None = None,
        concurrency: int = CONCURRENCY,
        timeout: float | None = None,
        **options: Unpack[TaskOptions],
    ) -> Iterator[Outcome[Any]]:
        """See `AsyncClient.map`. Payloads are taken on another thread, some ahead, so that they may block."""
        self.open()
        wanted = Wanted(queue, type, options, result_type, ordered, arrays, window, concurrency, timeout)
        outcomes = self._do(_made(lambda: self._client._mapped(wanted, Pump(payloads, min(window or AHEAD, AHEAD)))))
        for several in self._each(outcomes):
            yield from several

    def get(self, task: AnyTask) -> TaskState:
        """See `AsyncClient.get`."""
        return self._do(self._client.get(task))

    def watch(self, task: AnyTask, *, timeout: float | None = None) -> Iterator[TaskState]:
        """See `AsyncClient.watch`."""
        yield from self._each(self._client.watch(task, timeout=timeout))

    def cancel(self, task: AnyTask) -> TaskState:
        """See `AsyncClient.cancel`."""
        return self._do(self._client.cancel(task))

    def redrive(self, task: AnyTask) -> bool:
        """See `AsyncClient.redrive`."""
        return self._do(self._client.redrive(task))

    def redrive_failed(self, task: AnyTask) -> SubmittedTask[Any]:
        """See `AsyncClient.redrive_failed`."""
        return self._do(self._client.redrive_failed(task))

    def explain(self, task: AnyTask) -> dict[str, Any]:
        """See `AsyncClient.explain`."""
        return self._do(self._client.explain(task))

    def what_if(self, task: AnyTask, **changes: Unpack[ChangeOptions]) -> dict[str, Any]:
        """See `AsyncClient.what_if`."""
        return self._do(self._client.what_if(task, **changes))

    def _each(self, values: AsyncIterator[ValueT]) -> Iterator[ValueT]:
        async def following() -> tuple[ValueT] | None:
            try:
                return (await anext(values),)
            except StopAsyncIteration:
                return None

        try:
            while (value := self._do(following())) is not None:
                yield value[0]
        finally:
            if self._thread is not None:
                self._do(values.aclose())  # type: ignore[attr-defined]


class _Thread:
    """An event loop on a thread. It refers to the asynchronous client, never to the one that users hold."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._pid = os.getpid()
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._main, name="taskdist-client", daemon=True)
        self._thread.start()
        self._started.wait()

    def run(self, work: Coroutine[Any, Any, ValueT]) -> ValueT:
        if os.getpid() != self._pid:
            work.close()
            raise TaskdistError("the client was made in another process, which its thread did not leave: make one here")
        if self._loop is None or not self._thread.is_alive():
            work.close()
            raise TaskdistError("the client was closed")
        try:
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:
            work.close()
            raise TaskdistError("the client was closed") from None
        try:
            return future.result()
        except CancelledError:
            raise TaskdistError("the client was closed") from None
        except BaseException:
            # Ctrl-C, say: nobody waits for it any more.
            future.cancel()
            raise

    def stop(self) -> None:
        if os.getpid() != self._pid or self._loop is None or self._stopping is None:
            return
        try:
            self._loop.call_soon_threadsafe(self._stopping.set)
        except RuntimeError:
            return  # stopped before
        if threading.current_thread() is not self._thread:
            self._thread.join(CLOSE_SECONDS)

    def _main(self) -> None:
        async def main() -> None:
            self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
            self._started.set()
            await self._stopping.wait()
            await self._client.close()

        asyncio.run(main())


async def _made(make: Callable[[], ValueT]) -> ValueT:
    """Make it on the client's own thread."""
    return make()
