"""Which webhooks there are, and what their deliveries are signed with."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from taskdist.api import Unreadable
from taskdist.intake.mapping import MappingError
from taskdist.intake.webhooks import Hook, compile_webhook
from taskdist.kube import (
    Aside,
    Change,
    Client,
    Deleted,
    KubeError,
    Obj,
    name_of,
    namespace_of,
    uid_of,
)
from taskdist.kube.secret_values import SecretUnusable, read_secret
from taskdist.protocol import reading

Key = tuple[str, str]
KEPT_SECONDS = 10.0
"""How long what a Secret holds is kept, in seconds: a new one is good within that time."""
FAILED_SECONDS = 2.0
"""How long it is not asked for again where it could not be read."""
_GRANT = "grant `taskdist gateway` get on it, as docs/webhooks.md says"


class SeenSource(NamedTuple):
    """A TaskSource, as far as the gateway keeps it."""

    namespace: str
    name: str
    uid: str
    webhook: bool
    """Whether it is one; all else is none of the gateway's business."""
    hook: Hook | None = None
    """The source compiled; None where nothing can ever come of it."""
    fault: str = ""
    """Why not."""
    suspended: bool = False

    @property
    def key(self) -> Key:
        return self.namespace, self.name


def seen_source(obj: Obj) -> SeenSource:
    """The informer's transform."""
    spec = obj.get("spec")
    there = SeenSource(
        namespace_of(obj), name_of(obj), uid_of(obj), isinstance(spec, dict) and spec.get("webhook") is not None
    )
    if not there.webhook:
        return there
    try:
        source = reading.task_source(obj)
        return there._replace(hook=compile_webhook(source.spec), suspended=source.spec.suspend)
    except (Unreadable, MappingError) as error:
        return there._replace(fault=str(error))


class Hooks:
    """All webhooks, as their sources are now."""

    def __init__(self) -> None:
        self._sources: dict[Key, SeenSource] = {}

    def hear(self, event: Change[SeenSource] | Aside) -> None:
        """Take in a change: the informer's `on_event`."""
        if isinstance(event, Aside):
            return
        if isinstance(event, Deleted) or not event.new.webhook:
            self._sources.pop((event.old if isinstance(event, Deleted) else event.new).key, None)
        else:
            self._sources[event.new.key] = event.new

    def find(self, namespace: str, name: str) -> SeenSource | None:
        return self._sources.get((namespace, name))


class SecretUnread(Exception):
    """The secret of a webhook is not known now; the text is for who runs the gateway, not for who calls."""


@dataclass(slots=True)
class _Kept:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    until: float = 0.0
    values: Mapping[str, bytes] | str = ""


class Secrets:
    """Reads Secrets, and keeps them a short time: strangers who call often cost the API server little.

    Asked for those that sources name, and for no others, so that it holds a bounded number.
    """

    def __init__(self, client: Client, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._kept: dict[Key, _Kept] = {}

    async def values(self, namespace: str, name: str, keys: Sequence[str]) -> list[bytes]:
        """Return the values of those of the keys that are there: one at least. Raises SecretUnread."""
        kept = self._kept.setdefault((namespace, name), _Kept())
        async with kept.lock:
            if self._clock() >= kept.until:
                kept.values = await self._read(namespace, name)
                kept.until = self._clock() + (FAILED_SECONDS if isinstance(kept.values, str) else KEPT_SECONDS)
        if isinstance(kept.values, str):
            raise SecretUnread(kept.values)
        if found := [kept.values[key] for key in keys if key in kept.values]:
            return found
        raise SecretUnread(f"Secret {name} has none of the keys {', '.join(keys)}: add one")

    async def _read(self, namespace: str, name: str) -> Mapping[str, bytes] | str:
        """Return its values, or why there are none."""
        try:
            return await read_secret(self._client, namespace, name, (), _GRANT)
        except SecretUnusable as error:
            return str(error)
        except KubeError as error:
            return f"Secret {name} cannot be read: {error}"
