"""Making a Task, and waiting for its result."""

from taskdist.api import GROUP
from taskdist.cli import show
from taskdist.cli.cluster import Cluster
from taskdist.cli.run import OK, complain, note
from taskdist.cli.waiting import no_result, until_ended, verdict
from taskdist.client.creating import CREATED, Slips, create
from taskdist.client.references import References
from taskdist.client.states import status_of
from taskdist.client.submission import Submission, manifest
from taskdist.kube import Obj, name_of, uid_of


async def submit(
    cluster: Cluster, submission: Submission, *, wait: bool, timeout: float | None, output: str | None
) -> int:
    """Create the Task, or find the one with its idempotency key; with `wait`, stay until it has ended and print its
    result."""
    stored = References()
    body = await stored.put(manifest(submission, cluster.namespace, stored.most_bytes))
    obj, done = await create(cluster, body, _warn)
    if done == CREATED:
        await Slips(cluster, _warn).look(body)
    name = name_of(obj)
    if not wait:
        _created(obj, output, done)
        return OK
    note(f"task.{GROUP}/{name} {done}")
    obj = await until_ended(cluster, name, timeout=timeout, uid=uid_of(obj))
    if output == "name":
        _created(obj, output)
    elif output:
        show.document(show.clean(obj), output)
    elif verdict(obj) == OK:
        print(show.as_json(status_of(await stored.whole(obj)).get("result") or {}))
    if verdict(obj) != OK:
        complain(no_result(obj, cluster.options))
    return verdict(obj)


def _created(obj: Obj, output: str | None, done: str = CREATED) -> None:
    if output == "name":
        print(f"task.{GROUP}/{name_of(obj)}")
    elif output:
        show.document(show.clean(obj), output)
    else:
        print(f"task.{GROUP}/{name_of(obj)} {done}")


def _warn(message: str) -> None:
    note(f"warning: {message}")
