"""Queries of the archive's tables: ended Tasks by filters, and one with all its attempts. Reads only."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import Connection, errors
from psycopg.rows import dict_row

from taskdist.api import GROUP, VERSION
from taskdist.archive.rows import ATTEMPT_COLUMNS, TASK_COLUMNS
from taskdist.archive.schema import SCHEMA

Record = dict[str, Any]
"""A row by its columns."""
STATEMENT_SECONDS = 30


class NoAnswer(Exception):
    """The database cannot be asked; the message says why."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which Tasks; what is None or empty says nothing. Times bound the end: from `since` on, before `until`."""

    namespace: str | None = None
    queue: str | None = None
    tenant: str | None = None
    type: str | None = None
    phases: Sequence[str] = ()
    since: datetime | None = None
    until: datetime | None = None
    selector: dict[str, Any] = field(default_factory=dict)  # as a LabelSelector
    names: Sequence[str] = ()  # names or uids
    limit: int = 100


@contextmanager
def opened(dsn: str) -> Iterator[Connection[Record]]:
    """A connection that reads the archive's tables. Raises NoAnswer, from within as well."""
    try:
        with psycopg.connect(dsn, autocommit=True, connect_timeout=5, row_factory=dict_row) as connection:
            for setting in (
                "default_transaction_read_only TO on",
                f"statement_timeout TO '{STATEMENT_SECONDS}s'",
                f"search_path TO {SCHEMA}",
                "timezone TO 'UTC'",
            ):
                connection.execute(f"SET {setting}".encode())
            yield connection
    except errors.UndefinedTable as error:
        raise NoAnswer("this database has no archive: none was ever started on it") from error
    except errors.QueryCanceled as error:
        raise NoAnswer(f"it took more than {STATEMENT_SECONDS} s: ask for less, by --since for example") from error
    except psycopg.Error as error:
        raise NoAnswer(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__) from error


def find(connection: Connection[Record], wanted: Wanted) -> list[Record]:
    """Return the Tasks that are wanted, those that ended last first."""
    conditions, values = _conditions(wanted)
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    text = f"SELECT {', '.join(TASK_COLUMNS)} FROM tasks{where} ORDER BY ended_at DESC, uid LIMIT %s"
    return list(connection.execute(text.encode(), [*values, wanted.limit]).fetchall())


def attempts(connection: Connection[Record], uids: Sequence[str]) -> dict[str, list[Record]]:
    """Return the attempts of these Tasks, by uid, the first one first."""
    text = f"SELECT {', '.join(ATTEMPT_COLUMNS)} FROM attempts WHERE uid = ANY(%s) ORDER BY uid, attempt"
    found: dict[str, list[Record]] = {uid: [] for uid in uids}
    for record in connection.execute(text.encode(), [list(uids)]).fetchall():
        found[record["uid"]].append(record)
    return found


def as_task(record: Record, tried: Sequence[Record]) -> Record:
    """Return the Task as the API had it, as far as it was kept. All attempts are listed, the last one included."""
    metadata = {
        "name": record["name"],
        "namespace": record["namespace"],
        "uid": record["uid"],
        "creationTimestamp": wire(record["created_at"]),
        **({"labels": record["labels"]} if record["labels"] else {}),
    }
    status = dict(record["status"] or {"phase": record["phase"], "reason": record["reason"]})
    if record["result"] is not None:
        status["result"] = record["result"]
    status["attempts"] = [
        {
            "attempt": each["attempt"],
            "reason": each["reason"],
            "message": each["message"],
            "agent": each["agent"],
            **{
                key: wire(each[column])
                for key, column in (("startedAt", "started_at"), ("endedAt", "ended_at"))
                if each[column] is not None
            },
        }
        for each in tried
    ]
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "Task",
        "metadata": metadata,
        "spec": record["spec"] or {},
        "status": status,
    }


def wire(moment: datetime) -> str:
    """A moment as the API writes it."""
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _conditions(wanted: Wanted) -> tuple[list[str], list[Any]]:
    conditions: list[str] = []
    values: list[Any] = []

    def ask(condition: str, *given: Any) -> None:
        conditions.append(condition)
        values.extend(given)

    for column in ("namespace", "queue", "tenant", "type"):
        if (value := getattr(wanted, column)) is not None:
            ask(f"{column} = %s", value)
    if wanted.phases:
        ask("phase = ANY(%s)", list(wanted.phases))
    if wanted.since is not None:
        ask("ended_at >= %s", wanted.since)
    if wanted.until is not None:
        ask("ended_at < %s", wanted.until)
    if wanted.names:
        ask("(uid = ANY(%s) OR name = ANY(%s))", list(wanted.names), list(wanted.names))
    for key, value in wanted.selector.get("matchLabels", {}).items():
        ask("labels @> jsonb_build_object(%s::text, %s::text)", key, value)
    for each in wanted.selector.get("matchExpressions", []):
        key, chosen = each["key"], each.get("values", [])
        match each["operator"]:
            case "In":
                ask("labels ->> %s = ANY(%s)", key, chosen)
            case "NotIn":
                ask("coalesce(labels ->> %s <> ALL(%s), true)", key, chosen)
            case "Exists":
                ask("jsonb_exists(labels, %s)", key)
            case _:
                ask("NOT jsonb_exists(labels, %s)", key)
    return conditions, values
