"""A cluster in memory that runs Tasks by handlers of the test: at once, or when the test lets them go.

Handlers are called as agents call them, and what follows a failure is the operator's own rule for retries.
"""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from typing import Any, Self

from pydantic import ValidationError

from taskdist.agent.invoke import invoke
from taskdist.agent.outcomes import Cancelled, Failed, Outcome, Returned
from taskdist.agent.sdk import Agent, Context, HandlerT
from taskdist.api import GROUP, VERSION, Phase, Reason, TaskSpec
from taskdist.api.task import MAX_RESULT_BYTES
from taskdist.client.states import ended, phase_of, status_of
from taskdist.client.submission import encoded
from taskdist.client.testing import arrays
from taskdist.client.testing.store import Store, now
from taskdist.core.decisions import Retry
from taskdist.core.engine.retry import after_failure
from taskdist.core.events import AttemptFailed
from taskdist.core.model import Queue
from taskdist.kube import (
    AGENTPOOLS,
    TASKQUEUES,
    TASKS,
    ApiError,
    Obj,
    Page,
    Resource,
    Unreachable,
    WatchEvent,
    name_of,
    uid_of,
)
from taskdist.objects.store import ObjectError
from taskdist.objects.transfer import Objects
from taskdist.protocol import convert
from taskdist.protocol.messages import LeaseName, ObjectRef

POOL = "fake"


class FakeBackend:
    """For `Client(backend=…)` and `AsyncClient(backend=…)`.

    Args:
        namespace: that the Tasks are said to be in.
        slots: how many handlers run at once, each on a thread.
        objects: the object store of the agent, for payloads and results of more than 64 KiB
            (`taskdist.objects.memory.memory_objects()`); give it to the client as well.
    """

    def __init__(self, namespace: str = "default", *, slots: int = 4, objects: Objects | None = None) -> None:
        self._objects = objects
        self._store = Store(namespace)
        self._agent = Agent()
        self._threads = ThreadPoolExecutor(slots, thread_name_prefix="taskdist-fake")
        self._contexts: dict[str, Context] = {}
        self._held = False
        self._any_queue = True
        self._trouble: ApiError | Unreachable | None = None
        self._idle = threading.Condition(self._store.lock)
        self._running = 0
        self._slots = slots
        self._chunks: dict[str, int] = {}  # how many of an array run, by uid
        self._number = 0
        self.requests: dict[str, int] = {}
        """How often the client has asked, by verb and resource (`create tasks.taskdist.dev`)."""
        template = {"spec": {"containers": [{"name": "agent", "env": []}]}}
        self._store.add(AGENTPOOLS, _object("AgentPool", POOL, {"slots": slots, "template": template}))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let handlers that run end, and start no more."""
        self._held = True
        for context in list(self._contexts.values()):
            context.cancel("the test is over")
        self._threads.shutdown(wait=True, cancel_futures=True)

    # What the test says.

    def handler(self, type: str) -> Callable[[HandlerT], HandlerT]:
        """Register a handler, as `Agent.task` does: `fake.handler("greet")(greet)`, or as a decorator."""
        register = self._agent.task(type)

        def registered(function: HandlerT) -> HandlerT:
            made = register(function)
            self._declare()
            self._start_waiting()
            return made

        return registered

    def serve(self, agent: Agent) -> None:
        """Take the handlers of an agent of yours."""
        self._agent.handlers.update(agent.handlers)
        self._declare()
        self._start_waiting()

    def queue(self, name: str, **spec: Any) -> None:
        """Make a TaskQueue, with fields of its spec as in YAML. Until the first one is made, there is any queue.

        `drained=True`: it takes no Tasks.
        """
        with self._store.lock:
            self._any_queue = False
            self._store.add(TASKQUEUES, _object("TaskQueue", name, {"pools": [POOL], **spec}))
            if spec.get("drained"):
                self._store.merge(TASKQUEUES, name, {"status": {"accepting": False}})
        self._start_waiting()

    def hold(self) -> None:
        """Start no Tasks until `release`."""
        self._held = True

    def release(self) -> None:
        """Start what waits, and from now on each at once."""
        self._held = False
        self._start_waiting()

    def tasks(self) -> list[Obj]:
        """All Tasks as resources, oldest first."""
        return self._store.page(TASKS).items

    def delete(self, name: str) -> None:
        """Delete a Task: as somebody might, or as happens when its time to live is over."""
        self._store.delete(TASKS, name)

    def wait_idle(self, timeout: float = 10.0) -> None:
        """Return once no handler runs."""
        with self._idle:
            if not self._idle.wait_for(lambda: not self._running, timeout):
                raise AssertionError(f"{self._running} handlers still run after {timeout:g} s")

    def fail_requests(self, error: ApiError | Unreachable | None) -> None:
        """From now on answer all requests so; None: as usual again."""
        self._trouble = error

    def forbid(self) -> None:
        """From now on the client has no rights."""
        self.fail_requests(ApiError(403, "Forbidden", 'tasks.taskdist.dev is forbidden: User "test" may not do that'))

    def forget_history(self) -> None:
        """Break watches such that they cannot go on where they were (410)."""
        self._store.forget_history()

    def cut_watches(self) -> None:
        """Break watches such that they can go on where they were."""
        self._store.cut_watches()

    # What the client asks.

    @property
    def namespace(self) -> str:
        return self._store.namespace

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Obj:
        self._asked("get", resource)
        if namespace not in (None, self.namespace):
            raise ApiError(404, "NotFound", f'{resource} "{name}" not found', {"name": name})
        return self._store.get(resource, name)

    async def list(
        self,
        resource: Resource,
        *,
        everywhere: bool = False,
        labels: str = "",
        fields: str = "",
        most: int | None = None,
    ) -> Page:
        self._asked("list", resource)
        return self._store.page(resource, labels, fields, most)

    async def pages(self, resource: Resource, *, labels: str = "", fields: str = "") -> AsyncIterator[Page]:
        self._asked("list", resource)
        yield self._store.page(resource, labels, fields)

    async def create(self, resource: Resource, body: Obj) -> Obj:
        self._asked("create", resource)
        with self._store.lock:
            if resource == TASKS:
                body = self._admitted(body)
            made = self._store.add(resource, body)
        self._start_waiting(name_of(made) if resource == TASKS else "")
        return made

    async def patch(self, resource: Resource, name: str, body: Obj) -> Obj:
        self._asked("patch", resource)
        with self._store.lock:
            made = self._store.merge(resource, name, body)
            if resource == TASKS:
                self._changed(made)
                made = self._store.get(resource, name)
        self._start_waiting(name_of(made) if resource == TASKS else "")
        return made

    def watch(
        self, resource: Resource, version: str, *, everywhere: bool = False, labels: str = "", fields: str = ""
    ) -> AbstractAsyncContextManager[AsyncIterator[WatchEvent]]:
        self._asked("watch", resource)
        return self._store.watch(resource, version, labels, fields)

    def _asked(self, verb: str, resource: Resource) -> None:
        key = f"{verb} {resource}"
        with self._store.lock:
            self.requests[key] = self.requests.get(key, 0) + 1
        if self._trouble is not None:
            raise self._trouble

    # What the API server refuses.

    def _admitted(self, body: Obj) -> Obj:
        spec = body["spec"]
        name = str(body["metadata"].get("name") or "")
        known = {field.alias or key for key, field in TaskSpec.model_fields.items()}
        if strange := sorted(set(spec) - known):
            message = f'Task in version "{VERSION}" cannot be handled as a Task: strict decoding error: unknown field '
            raise ApiError(400, "BadRequest", f'{message}"spec.{strange[0]}"')
        try:
            TaskSpec.model_validate(spec)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(["spec", *(str(part) for part in first["loc"])])
            message = f'Task.{GROUP} "{name}" is invalid: {field}: Invalid value: {first["msg"]}'
            raise ApiError(422, "Invalid", message, {"causes": [{"field": field, "message": first["msg"]}]}) from None
        if self._any_queue and self._queue(spec["queue"]) is None:
            self._store.add(TASKQUEUES, _object("TaskQueue", spec["queue"], {"pools": [POOL]}))
        queue = self._queue(spec["queue"])
        if queue is not None and status_of(queue).get("accepting") is False:
            words = f"TaskQueue {spec['queue']} takes no new Tasks now; 0 wait in it. Submit again later."
            message = f"ValidatingAdmissionPolicy 'fake-backpressure' with binding 'fake' denied request: {words}"
            raise ApiError(403, "Forbidden", f'{TASKS} "{name}" is forbidden: {message}')
        return {**body, "spec": {"priority": "Normal", **spec}, "status": {"phase": Phase.PENDING.value}}

    # What the operator does.

    def _declare(self) -> None:
        variable = {"name": "TASKDIST_TYPES", "value": ",".join(sorted(self._agent.handlers))}
        template = {"spec": {"containers": [{"name": "agent", "env": [variable]}]}}
        self._store.merge(AGENTPOOLS, POOL, {"spec": {"template": template}})

    def _queue(self, name: str) -> Obj | None:
        return self._store.find(TASKQUEUES, name)

    def _start_waiting(self, name: str = "") -> None:
        """Give every Task that may run to a thread; only this one, if it is named."""
        with self._store.lock:
            if self._held:
                return
            if name:
                waiting = [each for each in (self._store.find(TASKS, name),) if each is not None]
            else:
                waiting = self._store.page(TASKS, fields=f"status.phase={Phase.PENDING}").items
                waiting += self._store.page(TASKS, fields=f"status.phase={Phase.ASSIGNED}").items
            for task in waiting:
                if phase_of(task) != Phase.PENDING and not (phase_of(task) == Phase.ASSIGNED and _array(task)):
                    continue
                spec = task["spec"]
                queue = self._queue(spec["queue"])
                held = spec.get("suspend") or queue is None or queue["spec"].get("paused")
                if held or spec["type"] not in self._agent.handlers:
                    continue
                if _array(task):
                    self._assign_chunks(task)
                else:
                    self._assign(task)

    def _assign_chunks(self, task: Obj) -> None:
        """Have threads run chunks of the array, as many as there are slots."""
        for _ in range(self._slots - self._chunks.get(uid_of(task), 0)):
            self._number += 1
            key = f"1-{self._number}"
            found = arrays.take(task, key, f"{POOL}-0", self._slots)
            if found is None:
                return
            chunk, status = found
            attempt = int(status_of(task).get("attempt") or 0) + 1
            task = self._write(
                task, {**status, "attempt": attempt, "startedAt": status_of(task).get("startedAt") or now()}
            )
            self._chunks[uid_of(task)] = self._chunks.get(uid_of(task), 0) + 1
            self._running += 1
            self._threads.submit(self._run_chunk, task, chunk)

    def _run_chunk(self, task: Obj, chunk: arrays.Chunk) -> None:
        uid, outcomes, room, dropped = uid_of(task), dict[int, Outcome](), MAX_RESULT_BYTES // 2, 0
        try:
            with asyncio.Runner() as runner:
                for index in chunk.items:
                    context = Context(
                        task=name_of(task),
                        namespace=self.namespace,
                        uid=f"{uid}.{chunk.key}",
                        attempt=1,
                        type=task["spec"]["type"],
                        report=lambda _fraction, _message: None,
                        agent=f"{POOL}-0",
                        index=index,
                        count=chunk.count,
                    )
                    with self._store.lock:
                        found = self._store.peek(TASKS, name_of(task))
                        if found is None or uid_of(found) != uid or found["spec"].get("cancel"):
                            break
                        self._contexts[context.uid] = context
                    outcome = invoke(self._agent, encoded(chunk.payloads(index)), context, runner)
                    if isinstance(outcome, Returned) and outcome.body != b"{}":
                        room -= len(outcome.body) + 12
                        if room < 0:
                            room += len(outcome.body) + 12
                            dropped, outcome = dropped + 1, Returned(b"{}")
                    outcomes[index] = outcome
            with self._store.lock:
                self._contexts.pop(f"{uid}.{chunk.key}", None)
                self._chunks[uid] -= 1
                found = self._store.find(TASKS, name_of(task))
                if found is not None and uid_of(found) == uid:
                    told = arrays.over(found, chunk, outcomes, dropped, self._rules(found))
                    self._write(found, told | ({"finishedAt": now()} if told.get("phase") else {}))
        finally:
            with self._idle:
                self._running -= 1
                self._idle.notify_all()
        self._start_waiting(name_of(task))

    def _rules(self, task: Obj) -> Queue:
        queue = self._queue(task["spec"]["queue"])
        return convert.queue(queue or _object("TaskQueue", task["spec"]["queue"], {"pools": [POOL]}))

    def _assign(self, task: Obj) -> None:
        attempt = int(status_of(task).get("attempt") or 0) + 1
        status = {"phase": "Assigned", "reason": "Assigned", "attempt": attempt, "agent": f"{POOL}-0", "pool": POOL}
        task = self._write(task, {**status, "message": None, "assignedAt": now(), "startedAt": now()})
        uid = uid_of(task)

        def report(fraction: float, message: str) -> None:
            with self._store.lock:
                if uid in self._contexts:
                    self._write(task, {"progress": {"fraction": fraction, "message": message, "reportedAt": now()}})

        context = Context(name_of(task), self.namespace, uid, attempt, task["spec"]["type"], report, f"{POOL}-0")
        self._contexts[uid] = context
        self._running += 1
        self._threads.submit(self._run, task, context)

    def _run(self, task: Obj, context: Context) -> None:
        try:
            with asyncio.Runner() as runner:
                outcome, result = self._attempt(task, context, runner)
            with self._store.lock:
                del self._contexts[context.uid]
                with contextlib.suppress(ApiError):  # it was deleted meanwhile
                    self._over(self._store.get(TASKS, context.task), context, outcome, result)
        finally:
            with self._idle:
                self._running -= 1
                self._idle.notify_all()
        self._start_waiting(context.task)

    def _attempt(self, task: Obj, context: Context, runner: asyncio.Runner) -> tuple[Outcome, Obj]:
        """How the handler ended, and its result as it stands in a status."""
        try:
            payload = convert.payload(task)
            if isinstance(payload, ObjectRef):
                payload = runner.run(self._stored.fetch(payload, self.namespace))
            outcome = invoke(self._agent, payload, context, runner)
            if not isinstance(outcome, Returned):
                return outcome, {}
            if len(outcome.body) <= MAX_RESULT_BYTES:
                return outcome, {"result": json.loads(outcome.body)}
            lease = LeaseName(context.uid, context.attempt, 1)
            ref = runner.run(self._stored.put_result(self.namespace, lease, outcome.body))
            return outcome, {"resultRef": ref.to_wire()}
        except ObjectError as error:
            return Failed(error.reason, str(error), error.retryable), {}

    @property
    def _stored(self) -> Objects:
        if self._objects is None:
            raise ObjectError(Reason.OBJECT_STORE_MISSING, "the test gives FakeBackend no objects")
        return self._objects

    def _over(self, task: Obj, context: Context, outcome: Outcome, result: Obj) -> None:
        if uid_of(task) != context.uid:
            return
        end: dict[str, Any] = {"finishedAt": now(), "progress": None}
        if isinstance(outcome, Returned):
            self._write(task, {**end, "phase": "Succeeded", "reason": Reason.COMPLETED.value, **result})
        elif isinstance(outcome, Cancelled):
            self._cancelled(task)
        else:
            seen = convert.observed_task(task)
            rules = self._rules(task)
            failed = AttemptFailed(
                context.uid, outcome.reason, outcome.message, outcome.retryable, put_off=outcome.retry_after
            )
            then = after_failure(seen.task, rules, failed, time.time())
            record = {"attempt": context.attempt, "reason": outcome.reason.value, "message": outcome.message}
            record |= {"agent": f"{POOL}-0", "endedAt": now()}
            status = {
                "failures": then.failures,
                "reason": then.reason.value,
                "message": then.message,
                "attempts": [*(status_of(task).get("attempts") or ()), record],
            }
            if isinstance(then, Retry):
                self._write(task, {**status, "phase": "Pending", "agent": None, "progress": None})
            else:
                self._write(task, {**status, **end, "phase": then.phase.value})

    def _changed(self, task: Obj) -> None:
        """The client has changed the spec."""
        if task["spec"].get("cancel") and not ended(task):
            uid = uid_of(task)
            contexts = [each for of, each in self._contexts.items() if of.partition(".")[0] == uid]
            for context in contexts:
                context.cancel("the Task was cancelled")
            if not contexts and not self._chunks.get(uid):
                self._cancelled(task)
        redrive = int(task["spec"].get("redrive") or 0)
        if phase_of(task) == Phase.DEAD_LETTERED and redrive > int(status_of(task).get("redrives") or 0):
            status = {"phase": "Pending", "reason": Reason.REDRIVEN.value, "message": None, "failures": 0}
            status |= arrays.redriven(task) if _array(task) else {}
            self._write(task, {**status, "redrives": redrive, "finishedAt": None, "agent": None})

    def _cancelled(self, task: Obj) -> None:
        status = {"phase": "Cancelled", "reason": Reason.CANCELLED.value, "message": "spec.cancel is true"}
        self._write(task, {**status, "finishedAt": now(), "progress": None})

    def _write(self, task: Obj, status: dict[str, Any]) -> Obj:
        return self._store.merge(TASKS, name_of(task), {"status": status})


def _array(task: Obj) -> bool:
    return bool(task["spec"].get("array"))


def _object(kind: str, name: str, spec: dict[str, Any]) -> Obj:
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": kind, "metadata": {"name": name}, "spec": spec}
