"""Creating a source's Task: what each answer of the API server means for the message that it is made of.

A name that is taken is the same Task: the message has come before. Only an answer that says so makes a message poison;
what may be another one tomorrow (a full queue, a quota, a policy, an outage) is tried again.
"""

from dataclasses import dataclass
from enum import Enum, auto

from taskdist.client.errors import full_queue
from taskdist.elected.keeper import Key
from taskdist.intake.mapping import Mapped, task_of
from taskdist.intake.message import Poison, PoisonReason
from taskdist.kube import TASKQUEUES, TASKS, ApiError, Client
from taskdist.sources.metrics import SourceMetrics
from taskdist.sources.queues import Queues, closed_words


class Outcome(Enum):
    """The two ways in which a message has its Task: created now, or there before."""

    CREATED = auto()
    DUPLICATE = auto()


class Closed(Exception):
    """The Task is not taken now: its queue is full or drained, or a quota or policy refuses it. `full`: the queue."""

    def __init__(self, message: str, *, full: bool) -> None:
        super().__init__(message)
        self.full = full


@dataclass(frozen=True, slots=True)
class Creator:
    """Creates the Tasks of one source. `queues`: what is known of them; None: they are asked for each Task."""

    client: Client
    metrics: SourceMetrics
    key: Key
    uid: str
    queues: Queues | None = None

    async def create(self, mapped: Mapped) -> tuple[Outcome, str]:
        """Create the Task; return how, and its name.

        Raises:
            Closed: it is not taken now.
            Poison: it never will be.
            KubeError: whether it was taken is not known, or the API server is not there: try again.
        """
        namespace, source = self.key
        await self._ask_queue(namespace, mapped.spec["queue"])
        body = task_of(mapped, namespace, source, self.uid)
        name = str(body["metadata"]["name"])
        try:
            await self.client.create(TASKS, body, namespace)
        except ApiError as error:
            if error.is_already_exists:
                self.metrics.duplicate(self.key)
                return Outcome.DUPLICATE, name
            if error.is_denied or error.is_forbidden:
                self.metrics.refused(self.key)
                raise Closed(error.message, full=bool(full_queue(error))) from None
            if error.is_invalid or error.is_too_large:
                raise Poison(PoisonReason.REFUSED, f"the API server refuses the Task: {error.message}"[:1000]) from None
            raise
        self.metrics.created(self.key)
        return Outcome.CREATED, name

    async def _ask_queue(self, namespace: str, name: str) -> None:
        """Refuse a Task of a full queue. Where the API server does not, the operator would end it."""
        if (words := await self._closed(namespace, name)) is not None:
            self.metrics.refused(self.key)
            raise Closed(words, full=True)

    async def _closed(self, namespace: str, name: str) -> str | None:
        if self.queues is not None:
            return self.queues.closed(namespace).get(name)
        try:
            queue = await self.client.get(TASKQUEUES, name, namespace)
        except ApiError as error:
            if error.is_not_found:
                return None  # the Task waits for its queue
            raise
        return closed_words(name, queue)
