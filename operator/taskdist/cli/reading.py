"""Looking at Tasks: lists, single ones, results."""

from collections.abc import Sequence
from contextlib import aclosing, suppress
from datetime import datetime

from taskdist.api import GROUP
from taskdist.api.view import TaskRow
from taskdist.cli import listing, live, show
from taskdist.cli.cluster import Cluster
from taskdist.cli.run import FAILED, OK, complain, note
from taskdist.cli.waiting import no_result, until_ended, verdict
from taskdist.client.changes import all_changes
from taskdist.client.errors import NoAnswer, instead
from taskdist.client.references import References
from taskdist.client.states import attempt_line, phase_of, settled, status_of, story
from taskdist.common import times
from taskdist.kube import TASKS, ApiError, Obj, Unreachable, name_of, namespace_of, uid_of
from taskdist.protocol.arrays import counts

_HEADERS = ("NAME", "QUEUE", "TYPE", "PRIORITY", "PHASE", "DONE", "REASON", "AGENT", "ATTEMPT", "AGE")
_WIDE = ("POOL", "TENANT", "DEADLINE", "PROGRESS", "MESSAGE")


async def get(
    cluster: Cluster,
    names: Sequence[str],
    *,
    queue: str | None,
    phase: str | None,
    everywhere: bool,
    labels: str = "",
    output: str | None,
    watch: bool,
) -> int:
    """Tasks as a table or a document; with `watch`, a line for each change until interrupted."""
    fields = ",".join(f"{key}={value}" for key, value in (("spec.queue", queue), ("status.phase", phase)) if value)
    version, code = "", OK
    if not (names or everywhere or watch or output):
        # Its table is that of the objects, at no cost for the API server: there is nothing to say where it is not told.
        with suppress(NoAnswer):
            _list(cluster, await listing.rows(cluster, queue or "", phase or "", labels), bool(fields or labels))
            return OK
    if names:
        if watch:
            # Where the changes begin; what was before is in the table.
            version = (await cluster.list(TASKS, most=1)).resource_version
        found, missing = await _named(cluster, names)
        for message in missing:
            complain(message)
            code = FAILED
        if not found:
            return code
    else:
        page = await cluster.list(TASKS, everywhere=everywhere, labels=labels, fields=fields)
        found, version = page.items, page.resource_version
    if output in ("json", "yaml"):
        cleaned = [show.clean(each) for each in found]
        single = len(names) == 1
        show.document(cleaned[0] if single else {"apiVersion": "v1", "kind": "List", "items": cleaned}, output)
        return code
    if output == "name":
        for each in found:
            print(f"task.{GROUP}/{name_of(each)}")
        return code
    if not found and not watch:
        _none("any namespace" if everywhere else f"namespace {cluster.namespace}", matching=bool(fields or labels))
        return OK
    headers = (*(("NAMESPACE",) if everywhere else ()), *_HEADERS, *(_WIDE if output == "wide" else ()))
    now = times.now()
    if names and not watch:
        await _detailed(cluster, headers, found, now, wide=output == "wide")
        return code
    # Oldest first, as they were submitted.
    found.sort(key=lambda each: (each["metadata"].get("creationTimestamp") or "", name_of(each)))
    show.table(headers, [_row(each, now, everywhere, output == "wide") for each in found])
    if watch:
        await _watch(cluster, headers, set(names), labels, fields, everywhere, output == "wide", version)
    return code


def _none(where: str, *, matching: bool) -> None:
    note(f"no Tasks in {where}" + (" match" if matching else ""))


def _list(cluster: Cluster, told: list[TaskRow], matching: bool) -> None:
    """Show what the leader tells, oldest first."""
    if not told:
        _none(f"namespace {cluster.namespace}", matching=matching)
        return
    now = times.now()
    told.sort(key=lambda each: (each.created, each.name))
    show.table(
        _HEADERS,
        [
            [
                *(each.name, each.queue, each.type, each.level, each.phase, each.done, each.reason, each.agent),
                *(str(each.attempt), times.age(each.created.isoformat(), now)),
            ]
            for each in told
        ],
    )


async def _detailed(cluster: Cluster, headers: Sequence[str], found: list[Obj], now: datetime, *, wide: bool) -> None:
    """Show single Tasks with what the leader tells of them: place, expected start, progress as it is now."""
    told, why = await listing.details(cluster, found)
    if why is not None:
        note(instead(why))
    found.sort(key=lambda each: (each["metadata"].get("creationTimestamp") or "", name_of(each)))
    rows = []
    for obj in found:
        detail = told.get(uid_of(obj))
        seen = live.with_progress(obj, detail)
        row = _row(seen, now, False, wide)
        if told:
            row += ["", ""] if detail is None else [live.place(detail), live.start(detail)]
            row += [] if wide else [_progress(seen)]
        rows.append(row)
    more = ("POSITION", "STARTS", *(() if wide else ("PROGRESS",))) if told else ()
    show.table((*headers, *more), rows)
    for obj in found:
        if (array := counts.seen(obj)) is not None:
            print(f"Items of {name_of(obj)}: {counts.sentence(counts.counts(array[1]))}")


def _done(obj: Obj) -> str:
    """Of an array how many items are done, of how many; empty of others."""
    array = counts.seen(obj)
    return "" if array is None else counts.done(*array)


def _progress(obj: Obj) -> str:
    done = status_of(obj).get("progress") or {}
    return f"{done['fraction']:.0%}" if done.get("fraction") is not None else ""


async def _named(cluster: Cluster, names: Sequence[str]) -> tuple[list[Obj], list[str]]:
    """These Tasks, as far as they are there, and what the API server says of the others."""
    found, missing = [], []
    for name in names:
        try:
            found.append(await cluster.get(TASKS, name))
        except ApiError as error:
            if not error.is_not_found or error.is_unserved:
                raise
            missing.append(error.message or str(error))
    return found, missing


async def _watch(
    cluster: Cluster,
    headers: Sequence[str],
    names: set[str],
    labels: str,
    fields: str,
    everywhere: bool,
    wide: bool,
    version: str,
) -> None:
    def cut() -> None:
        note("the watch was cut off; going on")

    try:
        changes = all_changes(cluster, version, everywhere=everywhere, labels=labels, fields=fields, on_cut=cut)
        async with aclosing(changes):
            async for event in changes:
                if names and name_of(event.object) not in names:
                    continue
                row = _row(event.object, times.now(), everywhere, wide)
                show.table(headers, [[*row[:-1], f"{row[-1]} (gone)"] if event.type == "DELETED" else row], head=False)
    except Unreachable:
        note("the API server is gone; giving up")
        raise


def _row(obj: Obj, now: datetime, everywhere: bool, wide: bool) -> list[str]:
    spec, status = obj["spec"], status_of(obj)
    row = [namespace_of(obj)] if everywhere else []
    row += [
        name_of(obj),
        str(spec["queue"]),
        str(spec["type"]),
        str(spec.get("priority") or ""),
        phase_of(obj),
        _done(obj),
        str(status.get("reason") or ""),
        str(status.get("agent") or ""),
        str(status.get("attempt") or 0),
        times.age(obj["metadata"].get("creationTimestamp"), now),
    ]
    if wide:
        row += [
            str(status.get("pool") or spec.get("pool") or ""),
            str(spec.get("tenant") or namespace_of(obj)),
            times.distance(spec.get("deadline"), now),
            _progress(obj),
            str(status.get("message") or ""),
        ]
    return row


async def result(cluster: Cluster, name: str, *, wait: bool, timeout: float | None, output: str | None) -> int:
    """The result on standard output, or why there is none on standard error."""
    obj = await until_ended(cluster, name, timeout=timeout) if wait else await cluster.get(TASKS, name)
    if not settled(obj):
        see = f"taskdist explain {name}{cluster.options}"
        complain(f"{story(obj)}\nIt has no result yet. Wait for it with --wait, or see why: {see}")
        return FAILED
    if verdict(obj) != OK:
        complain(no_result(obj, cluster.options))
        for record in status_of(obj).get("attempts") or ():
            note(f"  {attempt_line(record)}")
        return FAILED
    obj = await References().whole(obj)
    value = status_of(obj).get("result") or {}
    show.document(value, output or "json")
    return OK
