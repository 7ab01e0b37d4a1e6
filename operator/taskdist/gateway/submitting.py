"""Submitting a Task on somebody's behalf: once for each key, and with a word when the queue is full."""

from dataclasses import dataclass
from typing import NamedTuple

from taskdist.api.problems import FieldError
from taskdist.client.creating import CREATED, create, is_ours
from taskdist.client.errors import InvalidTask, KeyInUse, QueueFull
from taskdist.client.kube import KubeBackend
from taskdist.client.submission import from_document, named
from taskdist.gateway.callers import Visitor
from taskdist.gateway.problems import Problem, of_kube
from taskdist.gateway.queues import Queues
from taskdist.gateway.shapes import NewTask
from taskdist.kube import KubeError, Obj, name_of

MANAGER = "taskdist-gateway"


class Submitted(NamedTuple):
    """The Task, and whether it was made by this request."""

    obj: Obj
    created: bool


@dataclass(frozen=True, slots=True)
class Submitter:
    """Makes Tasks in the caller's name, as the client does."""

    queues: Queues

    async def submit(self, visitor: Visitor, namespace: str, task: NewTask, key: str | None) -> Submitted:
        """Create the Task, or find the one with its key. Raises Problem."""
        document = task.document()
        if key := _one_key(task, key):
            document["idempotencyKey"] = key
        backend = KubeBackend(visitor.client, namespace, MANAGER)
        try:
            # Under a name that is made up here a request that got no answer may be sent again.
            body = named(from_document(document, namespace))
            obj, done = await create(backend, body, _unsaid)
        except QueueFull as error:
            raise self.queues.full(namespace, task.queue, error.retry_after) from error
        except KeyInUse as error:
            raise Problem(409, str(error), reason="KeyInUse") from error
        except InvalidTask as error:
            field = error.field.removeprefix("spec.")
            raise Problem(
                422, str(error), reason="Invalid", errors=[FieldError(field=field, message=str(error))]
            ) from error
        except KubeError as error:
            raise of_kube(error) from error
        if done != CREATED and not is_ours(obj, body):
            raise Problem(
                422,
                f"the key was used for another type or payload, by Task {name_of(obj)}: choose another key",
                reason="KeyReused",
            )
        return Submitted(obj, done == CREATED)


def _one_key(task: NewTask, header: str | None) -> str | None:
    if header is not None and not 1 <= len(header) <= 253:
        raise Problem(400, "Idempotency-Key has 1 to 253 characters", reason="Invalid")
    if header and task.idempotency_key and header != task.idempotency_key:
        raise Problem(400, "Idempotency-Key and the field idempotencyKey differ: send one of them", reason="Invalid")
    return header or task.idempotency_key


def _unsaid(_: str) -> None:
    """What the client would warn of is refused here, and said with the refusal."""
