"""Generates the CustomResourceDefinitions from the models: `python -m taskdist.api.crd [--check] DIR…`.

Owns what a definition says beside its schema: names, columns, subresources. The columns answer the first question a
user has of each kind: what became of it, and if nothing yet, why. Writes files and nothing else; with `--check` it
writes none, and exits 1 if a file differs from what it would have written.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from taskdist.api import rules
from taskdist.api.agentpool import AgentPool
from taskdist.api.meta import GROUP, VERSION
from taskdist.api.schema import Schema, structural
from taskdist.api.task import Task
from taskdist.api.taskqueue import TaskQueue
from taskdist.api.tasksink import TaskSink
from taskdist.api.tasksource import TaskSource

_HEADER = "# Generated from the models by `python -m taskdist.api.crd`: do not edit.\n"

_READY = '.status.conditions[?(@.type=="Ready")]'
_AGE = ("Age", "date", ".metadata.creationTimestamp", "When it was created.")

# Name, type, path, what it says. Wide columns show with `-o wide`.
Column = tuple[str, str, str, str]


@dataclass(frozen=True)
class Kind:
    """One kind, with all that its definition says beside the schema."""

    model: type[BaseModel]
    kind: str
    plural: str
    short_name: str
    rules: list[rules.Rule]
    columns: Sequence[Column]
    wide: Sequence[Column] = ()
    scale: bool = False
    selectable: Sequence[str] = ()

    @property
    def file_name(self) -> str:
        return f"{GROUP}_{self.plural}.yaml"


def kinds() -> list[Kind]:
    return [
        Kind(
            model=AgentPool,
            kind=AgentPool.kind,
            plural=AgentPool.plural,
            short_name="ap",
            rules=rules.pool_rules(),
            scale=True,
            columns=[
                ("Ready", "string", f"{_READY}.status", "Whether the pool is as its spec asks."),
                ("Desired", "integer", ".status.desiredReplicas", "Agents wanted now."),
                ("Agents", "integer", ".status.readyReplicas", "Agents connected and ready."),
                ("Busy", "integer", ".status.busySlots", "Slots that Tasks occupy."),
                ("Slots", "integer", ".status.slots", "Slots of all connected agents."),
                ("Reason", "string", ".status.scalingReason", "Why that many agents are wanted."),
                _AGE,
            ],
            wide=[("Message", "string", f"{_READY}.message", "What is the matter, and what to do.")],
        ),
        Kind(
            model=TaskQueue,
            kind=TaskQueue.kind,
            plural=TaskQueue.plural,
            short_name="tq",
            rules=rules.queue_rules(),
            columns=[
                ("Ready", "string", f"{_READY}.status", "Whether the queue hands out Tasks."),
                ("Accepting", "boolean", ".status.accepting", "Whether new Tasks are taken."),
                ("Waiting", "integer", ".status.waiting", "Tasks that wait."),
                ("Leased", "integer", ".status.leased", "Tasks that an agent holds."),
                ("DeadLettered", "integer", ".status.deadLettered", "Dead letters, to look at and to redrive."),
                ("Pools", "string", ".spec.pools", "Pools whose agents run the Tasks."),
                _AGE,
            ],
            wide=[("Message", "string", f"{_READY}.message", "What is the matter, and what to do.")],
        ),
        Kind(
            model=Task,
            kind=Task.kind,
            plural=Task.plural,
            short_name="tk",
            rules=rules.task_rules(),
            selectable=[".spec.queue", ".status.phase"],
            columns=[
                ("Queue", "string", ".spec.queue", "Queue in which it waits."),
                ("Priority", "string", ".spec.priority", "Its level: higher goes first."),
                ("Phase", "string", ".status.phase", "Where it stands."),
                ("Done", "string", ".status.array.done", "How many items of an array have succeeded, of how many."),
                ("Reason", "string", ".status.reason", "Why it waits, or why it ended."),
                ("Agent", "string", ".status.agent", "Pod of the assigned agent."),
                ("Attempt", "integer", ".status.attempt", "How many leases were granted."),
                _AGE,
            ],
            wide=[
                ("Pool", "string", ".status.pool", "Pool of the assigned agent."),
                ("Tenant", "string", ".spec.tenant", "On whose account it runs, if not on the namespace's."),
                # Not of type date: kubectl shows how long ago that was, and a deadline is yet to come.
                ("Deadline", "string", ".spec.deadline", "When it should have succeeded."),
                ("Cost", "number", ".status.cost", "What its attempts have cost."),
                ("Message", "string", ".status.message", "What is the matter, and what to do."),
            ],
        ),
        Kind(
            model=TaskSource,
            kind=TaskSource.kind,
            plural=TaskSource.plural,
            short_name="ts",
            rules=rules.source_rules(),
            columns=[
                ("Ready", "string", f"{_READY}.status", "Whether it makes Tasks now."),
                ("Reason", "string", f"{_READY}.reason", "Why it does, or does not."),
                ("Queue", "string", ".spec.task.queue", "The queue of its Tasks."),
                ("Created", "integer", ".status.created", "Tasks that were created, about."),
                ("Rejected", "integer", ".status.rejected", "Messages of which no Task could be made."),
                ("Backlog", "integer", ".status.backlog.messages", "Messages that have no Task yet."),
                ("Last", "date", ".status.cron.lastScheduledTime", "The last run of a cron source."),
                # Not of type date: kubectl shows how long ago that was, and a run is yet to come.
                ("Next", "string", ".status.cron.nextScheduledTime", "Its next run."),
                _AGE,
            ],
            wide=[("Message", "string", f"{_READY}.message", "What is the matter, and what to do.")],
        ),
        Kind(
            model=TaskSink,
            kind=TaskSink.kind,
            plural=TaskSink.plural,
            short_name="tn",
            rules=rules.sink_rules(),
            columns=[
                ("Ready", "string", f"{_READY}.status", "Whether ends are told now."),
                ("Reason", "string", f"{_READY}.reason", "Why they are, or are not."),
                ("Delivered", "integer", ".status.delivered", "Ends that were told, about."),
                ("Undelivered", "integer", ".status.undelivered", "Ends that were given up, about."),
                ("Lost", "integer", ".status.lost", "Ends whose Task was deleted before they were told."),
                ("Pending", "integer", ".status.pending", "Ends that are read and not told yet."),
                ("Oldest", "date", ".status.oldest", "When the first of them ended."),
                _AGE,
            ],
            wide=[("Message", "string", f"{_READY}.message", "What is the matter, and what to do.")],
        ),
    ]


def definition(kind: Kind) -> dict[str, Any]:
    """The CustomResourceDefinition of one kind."""
    version: dict[str, Any] = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [
            *(_column(column, priority=0) for column in kind.columns),
            *(_column(column, priority=1) for column in kind.wide),
        ],
        "schema": {"openAPIV3Schema": _root(kind)},
        "subresources": {"status": {}},
    }
    if kind.selectable:
        version["selectableFields"] = [{"jsonPath": path} for path in kind.selectable]
    if kind.scale:
        version["subresources"]["scale"] = {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.kind,
                "listKind": f"{kind.kind}List",
                "plural": kind.plural,
                "singular": kind.kind.lower(),
                "shortNames": [kind.short_name],
                "categories": ["taskdist"],
            },
            "versions": [version],
        },
    }


def _root(kind: Kind) -> Schema:
    schema = structural(kind.model, rules.NESTED)
    schema["properties"] = {
        "apiVersion": {"type": "string", "description": f"{GROUP}/{VERSION}"},
        "kind": {"type": "string", "description": kind.kind},
        "metadata": {"type": "object"},
        **{name: schema["properties"][name] for name in ("spec", "status")},
    }
    schema["required"] = ["spec"]
    schema["x-kubernetes-validations"] = kind.rules
    return schema


def _column(column: Column, priority: int) -> dict[str, Any]:
    name, type_, path, description = column
    wide = {"priority": priority} if priority else {}
    return {"name": name, "type": type_, "jsonPath": path, "description": description, **wide}


class PlainDumper(yaml.SafeDumper):
    """Writes YAML for people: a part that occurs twice is written out twice, not referred to by an alias."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


def render(kind: Kind) -> str:
    """The text of the kind's file."""
    return _HEADER + yaml.dump(
        definition(kind), Dumper=PlainDumper, sort_keys=False, width=120, allow_unicode=True, default_flow_style=False
    )


def stale(directory: Path) -> list[Path]:
    """The files of a directory that are not what the models say."""
    return [path for kind in kinds() if not _is(path := directory / kind.file_name, render(kind))]


def _is(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text() == text


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m taskdist.api.crd", description="Write the resource definitions.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is not up to date")
    parser.add_argument("directories", nargs="+", type=Path, metavar="DIR")
    options = parser.parse_args(arguments)
    behind = [path for directory in options.directories for path in stale(directory)]
    if options.check:
        for path in behind:
            print(f"{path} is not what the models say: run `python -m taskdist.api.crd {path.parent}`", file=sys.stderr)
        return 1 if behind else 0
    for directory in options.directories:
        directory.mkdir(parents=True, exist_ok=True)
        for kind in kinds():
            (directory / kind.file_name).write_text(render(kind))
    return 0


if __name__ == "__main__":
    sys.exit(main())
