"""What `history` and `rerun` print, and the Task that `rerun` makes."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from taskdist.api import GROUP
from taskdist.archive.history import Record, Wanted, as_task, attempts, find, opened, wire
from taskdist.cli import rerun, show
from taskdist.cli.cluster import Cluster
from taskdist.cli.run import FAILED, OK, complain, note
from taskdist.common import times
from taskdist.kube import TASKS, Obj, name_of

_HEADERS = ("NAMESPACE", "NAME", "QUEUE", "TYPE", "OUTCOME", "REASON", "ATTEMPTS", "QUEUED", "RAN", "ENDED")
_WIDE = ("UID", "POOL", "AGENT", "TENANT", "PRIORITY", "MESSAGE")
MOST_DOCUMENTS = 10_000
"""How many are printed as whole objects at once: each may have 200 KiB."""


def history(dsn: str, wanted: Wanted, output: str | None) -> int:
    """Print what is wanted. Raises NoAnswer."""
    with opened(dsn) as connection:
        found = find(connection, wanted)
        whole = output in ("json", "yaml") or (len(wanted.names) == 1 and len(found) == 1 and not output)
        tried = attempts(connection, [each["uid"] for each in found]) if whole else {}
    missing = [name for name in wanted.names if not any(name in (each["uid"], each["name"]) for each in found)]
    for name in missing:
        complain(f"the archive has no Task {name}" + (" that fits" if wanted != Wanted(names=wanted.names) else ""))
    code = FAILED if missing else OK
    if not found:
        if not missing:
            note("no Task of the archive matches")
    elif output in ("json", "yaml"):
        tasks = [as_task(each, tried[each["uid"]]) for each in found]
        single = len(wanted.names) == 1 and len(tasks) == 1
        show.document(tasks[0] if single else {"apiVersion": "v1", "kind": "List", "items": tasks}, output)
    elif output == "name":
        for each in found:
            print(each["uid"])
    elif whole:
        _tell(found[0], tried[found[0]["uid"]])
    else:
        _table(found, output == "wide")
        if len(found) == wanted.limit:
            note(f"there may be more: these are the last {wanted.limit}. See --limit")
    return code


def again(dsn: str, name: str, namespace: str | None, changes: Sequence[tuple[tuple[str, ...], Any]]) -> Obj | None:
    """Return the Task to create; None where there is none, which was said. Raises NoAnswer."""
    with opened(dsn) as connection:
        found = find(connection, Wanted(namespace, names=(name,), limit=1))
    if not found:
        complain(f"the archive has no Task {name}" + (f" in namespace {namespace}" if namespace else ""))
        return None
    record = found[0]
    if record["spec"] is None:
        complain(f"what Task {name} was asked to do is not kept: {record['left_out']}")
        return None
    body, left_out = rerun.manifest(
        record["uid"], record["namespace"], record["name"], record["labels"], record["spec"], changes
    )
    if left_out:
        note(f"left out, as meant for the first run: {', '.join(left_out)}")
    return body


async def create(cluster: Cluster, body: Obj, output: str | None) -> int:
    """Create it, and say its name."""
    made = await cluster.create(TASKS, body)
    if output in ("json", "yaml"):
        show.document(show.clean(made), output)
    else:
        print(f"task.{GROUP}/{name_of(made)}" + ("" if output == "name" else " created"))
    return OK


def shown(body: Obj, output: str | None) -> None:
    """Print what would be created."""
    show.document(body, "json" if output == "json" else "yaml")


def _table(found: Sequence[Record], wide: bool) -> None:
    now = times.now()
    rows = []
    for each in found:
        row = [
            each["namespace"],
            each["name"],
            each["queue"],
            each["type"],
            each["phase"],
            each["reason"],
            str(each["attempts"]),
            _time(each["queue_ms"]),
            _time(each["run_ms"]),
            times.age(wire(each["ended_at"]), now),
        ]
        rows.append(
            [*row, *(each[key] for key in ("uid", "pool", "agent", "tenant", "priority", "message"))] if wide else row
        )
    show.table((*_HEADERS, *_WIDE) if wide else _HEADERS, rows)


def _tell(record: Record, tried: Sequence[Record]) -> None:
    labels = ", ".join(f"{key}={value}" for key, value in sorted(record["labels"].items()))
    show.fields(
        [
            ("Task", f"{record['namespace']}/{record['name']}"),
            ("UID", record["uid"]),
            ("Cluster", record["cluster"]),
            ("Outcome", record["phase"]),
            ("Reason", record["reason"]),
            ("Message", record["message"]),
            ("Queue", record["queue"]),
            ("Type", record["type"]),
            ("Tenant", record["tenant"]),
            ("Priority", record["priority"]),
            ("Pool", record["pool"]),
            ("Agent", record["agent"]),
            ("Labels", labels),
            ("Created", wire(record["created_at"])),
            ("Ended", wire(record["ended_at"])),
            ("Queued", _time(record["queue_ms"])),
            ("Ran", _time(record["run_ms"])),
            ("Left out", record["left_out"]),
        ]
    )
    if tried:
        print()
        show.table(
            ("ATTEMPT", "REASON", "AGENT", "STARTED", "ENDED", "MESSAGE"),
            [
                [
                    str(each["attempt"]),
                    each["reason"],
                    each["agent"],
                    _moment(each["started_at"]),
                    _moment(each["ended_at"]),
                    each["message"],
                ]
                for each in tried
            ],
        )
    if record["result"] is not None:
        print(f"\n{show.as_json(record['result'])}")
    elif ref := (record["status"] or {}).get("resultRef"):
        print(f"\nThe result is in the object store, if it is kept there for so long: {ref['uri']}")


def _moment(moment: datetime | None) -> str:
    return "-" if moment is None else wire(moment)


def _time(milliseconds: int | None) -> str:
    if milliseconds is None:
        return "-"
    return f"{milliseconds}ms" if milliseconds < 1000 else times.span(milliseconds / 1000)
