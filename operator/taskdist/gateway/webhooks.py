"""Webhooks: signed deliveries of others' systems become Tasks, by the mapping of a TaskSource.

Who calls has no token of the cluster: the signature says that the delivery may be taken, and the gateway creates the
Task in its own name. Whoever cannot sign learns whether a webhook is there, and nothing else.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import structlog
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from taskdist.api.meta import Model
from taskdist.api.problems import MEDIA_TYPE, FieldError, ProblemDetails
from taskdist.client.creating import NOTHING_TELLS
from taskdist.client.errors import full_queue
from taskdist.gateway import bodies
from taskdist.gateway.hooks import Hooks, Key, Secrets, SecretUnread, SeenSource
from taskdist.gateway.measures import Measures
from taskdist.gateway.problems import RETRY_SECONDS, Problem, of_kube
from taskdist.gateway.queues import Queues
from taskdist.gateway.waiting import Places
from taskdist.intake.cloudevents import BATCHED, MAX_EVENTS, STRUCTURED, TooManyEvents, UnknownFormat
from taskdist.intake.mapping import task_of
from taskdist.intake.message import Message, Poison, PoisonReason
from taskdist.intake.signatures import SecretError, Stale, Unsigned
from taskdist.intake.webhooks import Headers, Hook, NotJson
from taskdist.kube import TASKS, ApiError, Client, KubeError

_log = structlog.get_logger("taskdist.gateway")

PATH = "/v1/namespaces/{namespace}/webhooks/{name}"
MANAGER = "taskdist-gateway"
AT_ONCE = 64
"""Deliveries that are taken at once: each is in memory as a whole."""
EVENTS_AT_ONCE = 8
"""Events of one batch whose Tasks are created at once."""
BODY_SECONDS = 10.0
"""How long a sender may take for a body, in seconds: they have no token, and hold a place."""
SUSPENDED_SECONDS = 60
CHALLENGE = "HMAC"


class Outcome(StrEnum):
    """The outcome of a delivery, or of one event of a batch: for metrics."""

    CREATED = "Created"
    DUPLICATE = "Duplicate"
    UNSIGNED = "Unsigned"
    STALE = "Stale"
    MALFORMED = "Malformed"
    REJECTED = "Rejected"
    QUEUE_FULL = "QueueFull"
    REFUSED = "Refused"
    FAILED = "Failed"
    UNREADY = "Unready"


class Delivered(Model):
    """One event of a delivery: its Task, or why it has none."""

    index: int = Field(default=0, description="Its place in the batch, from 0.")
    task: str | None = Field(default=None, description="Name of its Task.")
    created: bool = Field(default=False, description="The Task was made now; false: the same event came before.")
    problem: ProblemDetails | None = Field(default=None, description="Why it has none.")


class Deliveries(Model):
    """The answer to a delivery, event by event."""

    items: list[Delivered] = Field(description="Each event of a batch; else one.")


class Refused(Exception):
    """One event has no Task: what to answer, and what to count."""

    def __init__(self, problem: Problem, outcome: Outcome) -> None:
        super().__init__(problem.details.detail)
        self.problem = problem
        self.outcome = outcome


def _responses() -> dict[int | str, dict[str, Any]]:
    statuses = (401, 404, 408, 413, 415, 422, 429, 503)
    return {status: {"model": ProblemDetails, "content": {MEDIA_TYPE: {}}} for status in statuses}


@dataclass(frozen=True, slots=True)
class _Delivery:
    """A request, read and not judged."""

    media_type: str
    headers: Headers
    body: bytes
    received: datetime


class Webhooks:
    """Answers deliveries.

    Args:
        client: creates Tasks in the gateway's own name.
    """

    def __init__(
        self,
        hooks: Hooks,
        secrets: Secrets,
        queues: Queues,
        client: Client,
        measures: Measures,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._hooks = hooks
        self._secrets = secrets
        self._queues = queues
        self._client = client
        self._measures = measures
        self._now = now
        self._places = Places(AT_ONCE)
        # What was last said of those that cannot be served, so that a stranger who calls often does not fill the log.
        self._said: dict[Key, str] = {}
        self.router = APIRouter(tags=["webhooks"])
        self.router.add_api_route(
            PATH,
            self.deliver,
            methods=["POST"],
            status_code=202,
            response_model=Deliveries,
            responses=_responses(),
            openapi_extra={
                "requestBody": {
                    "required": True,
                    "description": "What the source says that deliveries are, signed as it says.",
                    "content": {kind: {"schema": {}} for kind in (bodies.JSON, STRUCTURED, BATCHED)},
                }
            },
            summary="Deliver to a webhook",
        )

    async def deliver(self, request: Request, namespace: str, name: str) -> Response:
        """Deliver an event, or a batch, to the TaskSource of this name. No token is needed: the delivery is signed as
        the source says. 202: its Task is there, made now or when the same delivery came before."""
        source = self._hooks.find(namespace, name)
        if source is None:
            raise Problem(404, "there is no such webhook", reason="NotFound")
        try:
            with self._places.one():
                return await self._take(request, source)
        except Refused as refused:
            self._count(source, refused.outcome)
            raise refused.problem from None

    async def _take(self, request: Request, source: SeenSource) -> Response:
        if source.hook is None:
            raise self._unready(source, source.fault)
        delivery = await self._read(request, source.hook)
        signed = await self._verified(source, source.hook, delivery)
        if source.suspended:
            problem = Problem(
                503, "the webhook is suspended: try again", reason="Suspended", retry_after=SUSPENDED_SECONDS
            )
            raise Refused(problem, Outcome.UNREADY)
        messages = self._messages(source.hook, delivery, signed)
        if source.hook.is_batch(delivery.media_type):
            return await self._batch(source, source.hook, messages)
        (only,) = messages
        return _answer([await self._one(source, source.hook, only)])

    # -- whether to take it ----------------------------------------------------------------------------------------

    async def _read(self, request: Request, hook: Hook) -> _Delivery:
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await bodies.read(request, hook.max_bytes)
        except TimeoutError:
            problem = Problem(408, f"the body took more than {BODY_SECONDS:.0f} s", reason="TooSlow")
            raise Refused(problem, Outcome.MALFORMED) from None
        except Problem as problem:
            raise Refused(problem, Outcome.MALFORMED) from None
        return _Delivery(bodies.media_type(request), Headers(request.headers.items()), body, self._now())

    async def _verified(self, source: SeenSource, hook: Hook, delivery: _Delivery) -> datetime | None:
        """Return when the delivery was signed, if it says so. Raises Refused."""
        try:
            keys = hook.verifier.keys(await self._secrets.values(source.namespace, hook.secret_name, hook.secret_keys))
        except (SecretUnread, SecretError) as error:
            raise self._unready(source, str(error)) from None
        self._said.pop(source.key, None)
        message = Message(body=delivery.body, headers=delivery.headers, time=delivery.received)
        try:
            return hook.verifier.verify(keys, message, delivery.received)
        except Unsigned:
            problem = Problem(401, "the signature is missing or wrong", reason="Unsigned", challenge=CHALLENGE)
            raise Refused(problem, Outcome.UNSIGNED) from None
        except Stale:
            problem = Problem(
                401, "the time of the signature is missing, too old or yet to come", reason="Stale", challenge=CHALLENGE
            )
            raise Refused(problem, Outcome.STALE) from None

    def _messages(self, hook: Hook, delivery: _Delivery, signed: datetime | None) -> list[Message | Poison]:
        if delivery.headers.get("content-encoding", "identity").strip().lower() != "identity":
            problem = Problem(415, "send the body as it is, not compressed", reason="UnknownMediaType")
            raise Refused(problem, Outcome.MALFORMED)
        try:
            return hook.messages(delivery.media_type, delivery.headers, delivery.body, signed, delivery.received)
        except NotJson:
            problem = Problem(415, f"send {bodies.JSON}", reason="UnknownMediaType")
        except UnknownFormat:
            problem = Problem(415, f"send {STRUCTURED}, {BATCHED} or the binary form", reason="UnknownMediaType")
        except TooManyEvents:
            problem = Problem(413, f"the batch has more than {MAX_EVENTS} events: send it in parts", reason="TooLarge")
        except Poison as poison:
            return [poison]
        raise Refused(problem, Outcome.MALFORMED)

    # -- what comes of it ------------------------------------------------------------------------------------------

    async def _batch(self, source: SeenSource, hook: Hook, messages: Sequence[Message | Poison]) -> Response:
        """Answer each event. Where one is to be tried again, the answer as a whole says so, and else where one is
        refused: who sends all of them again makes none twice."""
        gate = asyncio.Semaphore(EVENTS_AT_ONCE)

        async def one(index: int, message: Message | Poison) -> Delivered | Refused:
            async with gate:
                try:
                    return (await self._one(source, hook, message)).model_copy(update={"index": index})
                except Refused as refused:
                    self._count(source, refused.outcome)
                    return refused

        done = await asyncio.gather(*(one(*each) for each in enumerate(messages)))
        refused = [each for each in done if isinstance(each, Refused)]
        items = [
            Delivered(index=index, problem=each.problem.details) if isinstance(each, Refused) else each
            for index, each in enumerate(done)
        ]
        if not refused:
            return _answer(items)
        worst = max(refused, key=lambda each: each.problem.retry_after or 0.0).problem
        first = next(index for index, each in enumerate(done) if isinstance(each, Refused) and each.problem is worst)
        whole = Problem(
            worst.status,
            f"{len(refused)} of {len(done)} events have no Task; number {first}: {worst.details.detail}",
            reason=worst.details.reason,
            errors=[
                FieldError(field=f"[{index}].{error.field}", message=error.message)
                for index, each in enumerate(done)
                if isinstance(each, Refused)
                for error in each.problem.details.errors
            ],
            retry_after=worst.retry_after,
        )
        return whole.response(items=[_wire(each) for each in items])

    async def _one(self, source: SeenSource, hook: Hook, message: Message | Poison) -> Delivered:
        """Make the Task of an event. Raises Refused."""
        try:
            if isinstance(message, Poison):
                raise message
            mapped = hook.mapping.of(message)
            queue = str(mapped.spec["queue"])
            if self._queues.is_closed(source.namespace, queue):
                raise self._full(source, queue)
            body = task_of(mapped, source.namespace, source.name, source.uid)
            created = await self._create(source, queue, body)
        except Poison as poison:
            _log.warning(
                "no Task can be made of a delivery",
                namespace=source.namespace,
                source=source.name,
                reason=str(poison.reason),
                why=str(poison),
            )
            raise Refused(_of_poison(poison), Outcome.REJECTED) from None
        self._count(source, Outcome.CREATED if created else Outcome.DUPLICATE)
        return Delivered(task=body["metadata"]["name"], created=created)

    async def _create(self, source: SeenSource, queue: str, body: dict[str, Any]) -> bool:
        """Create the Task; return whether it was made now. Raises Refused, and Poison where it never will be."""
        try:
            await self._client.create(TASKS, body, source.namespace, field_manager=MANAGER)
        except ApiError as error:
            if error.is_already_exists:
                return False
            if full_queue(error):
                raise self._full(source, queue, error.retry_after) from None
            if error.is_denied or error.is_forbidden:
                # What rights and policies there are is nobody's business outside of the cluster.
                self._tell(source, error)
                problem = Problem(503, "the Task is not taken now: try again", reason="Refused", retry_after=30)
                raise Refused(problem, Outcome.REFUSED) from None
            if error.is_invalid or error.is_too_large:
                raise Poison(PoisonReason.REFUSED, f"task: {error.message}"[:1000]) from None
            raise self._failed(source, error) from None
        except KubeError as error:
            raise self._failed(source, error) from None
        return True

    def _full(self, source: SeenSource, queue: str, seconds: float | None = None) -> Refused:
        return Refused(self._queues.full(source.namespace, queue, seconds or NOTHING_TELLS), Outcome.QUEUE_FULL)

    def _failed(self, source: SeenSource, error: KubeError) -> Refused:
        """Whether the Task was made or not: sent again, the delivery finds it, or makes it."""
        self._tell(source, error)
        after = of_kube(error).retry_after or RETRY_SECONDS
        return Refused(
            Problem(503, "the cluster does not answer: try again", reason="Unreachable", retry_after=after),
            Outcome.FAILED,
        )

    def _unready(self, source: SeenSource, why: str) -> Refused:
        if self._said.get(source.key) != why:
            self._said[source.key] = why
            _log.warning("a webhook cannot be served", namespace=source.namespace, source=source.name, why=why)
        problem = Problem(503, "the webhook cannot be served now: try again", reason="NotReady", retry_after=30)
        return Refused(problem, Outcome.UNREADY)

    @staticmethod
    def _tell(source: SeenSource, error: KubeError) -> None:
        _log.warning("a delivery has no Task yet", namespace=source.namespace, source=source.name, why=str(error))

    def _count(self, source: SeenSource, outcome: Outcome) -> None:
        self._measures.delivery(source.namespace, source.name, outcome)


def _of_poison(poison: Poison) -> Problem:
    field, colon, said = str(poison).partition(": ")
    errors = [FieldError(field=field, message=said)] if colon else []
    return Problem(422, str(poison), reason=str(poison.reason), errors=errors)


def _answer(items: Sequence[Delivered]) -> JSONResponse:
    return JSONResponse({"items": [_wire(each) for each in items]}, 202)


def _wire(item: Delivered) -> dict[str, Any]:
    return item.model_dump(mode="json", by_alias=True, exclude_none=True)
