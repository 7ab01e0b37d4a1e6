"""Up to which version ended Tasks are archived: the one word that the archive gives the operator.

One ConfigMap of the installation, with a mark for each namespace that the archive watches, or one for all. A mark of V
says: each end of a Task whose resourceVersion is V or less stands in the database. So the word is as short for a
million Tasks as for one, and is written once for many of them. Owns its form, and when it is not to be believed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from taskdist.kube.client import Client
from taskdist.kube.informer import Informer
from taskdist.kube.resources import CONFIGMAPS, Obj, version_of
from taskdist.kube.store import Added, Event, Updated

ALL = "*"
"""In place of a namespace: the mark holds for all of them."""
_KEY = "marks"


def object_name(installation: str) -> str:
    """Return the ConfigMap's name; `installation` is the name of the operator's Lease."""
    return f"{installation}-archive"


@dataclass(frozen=True, slots=True)
class Archived:
    """Marks by namespace."""

    marks: Mapping[str, int] = field(default_factory=dict)

    def up_to(self, namespace: str) -> int:
        """Return the mark that holds for a namespace; 0: nothing is archived there."""
        return self.marks.get(namespace, self.marks.get(ALL, 0))

    def covers(self, namespace: str, version: int) -> bool:
        """Whether what ended in this namespace at this version stands in the database."""
        return version <= self.up_to(namespace)


NOTHING = Archived()


def read(obj: Obj) -> Archived:
    """Read the ConfigMap. What cannot be read says nothing, so that nothing is deleted for it.

    A mark that is later than the ConfigMap itself is of another history: etcd was restored from a backup since. It says
    nothing of the Tasks that are there now.
    """
    try:
        written = int(version_of(obj))
        raw = json.loads((obj.get("data") or {}).get(_KEY) or "{}")
    except (ValueError, TypeError, AttributeError, RecursionError):
        return NOTHING
    if not isinstance(raw, dict):
        return NOTHING
    marks = {scope: mark for scope, mark in raw.items() if type(mark) is int and 0 < mark < written}
    return Archived(marks)


def body(name: str, marks: Mapping[str, int], version: str = "") -> Obj:
    """Return the ConfigMap that says so, for create; with the `version` it was last seen in, for a merge patch."""
    metadata = {"name": name, **({"resourceVersion": version} if version else {})}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {_KEY: json.dumps(dict(marks))}}


def informer(client: Client, namespace: str, installation: str, tell: Callable[[Archived], None]) -> Informer[Archived]:
    """Return a view of the installation's ConfigMap; `tell` hears each new word, and NOTHING once there is none."""

    def changed(event: Event[Archived]) -> None:
        tell(event.new if isinstance(event, Added | Updated) else NOTHING)

    return Informer(
        client,
        CONFIGMAPS,
        transform=read,
        on_event=changed,
        namespaces=[namespace],
        # The rights are on this name alone, and the API server finds them by this selector.
        field_selector=f"metadata.name={object_name(installation)}",
    )
