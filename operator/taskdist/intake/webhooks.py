"""A webhook source compiled: from a request, whose it is to send, to the messages that it holds. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from taskdist.api import DeliveryFormat, TaskSourceSpec
from taskdist.intake import cloudevents
from taskdist.intake.mapping import Mapping as TaskMapping
from taskdist.intake.mapping import compile_mapping
from taskdist.intake.message import Message, Poison
from taskdist.intake.signatures import STANDARD_ID, Verifier, compile_signature

_JSON: Final = "application/json"
_CREDENTIALS: Final = frozenset({"authorization", "cookie", "proxy-authorization"})


class NotJson(Exception):
    """The delivery says of itself that it is something else than JSON."""


class Headers(Mapping[str, str]):
    """The headers of a request, found by their names in any letters; of those of one name, one text with commas.

    What lets its sender in elsewhere is left out, so that no template can carry it into a Task.
    """

    def __init__(self, items: Iterable[tuple[str, str]]) -> None:
        self._items: dict[str, str] = {}
        for name, value in items:
            name = name.lower()
            if name not in _CREDENTIALS:
                former = self._items.get(name)
                self._items[name] = value if former is None else f"{former}, {value}"

    def __getitem__(self, name: str) -> str:
        return self._items[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


@dataclass(frozen=True, slots=True)
class Hook:
    """A webhook's rules, compiled: who may send, and what deliveries become."""

    mapping: TaskMapping
    verifier: Verifier
    format: DeliveryFormat
    secret_name: str
    secret_keys: tuple[str, ...]
    max_bytes: int

    def is_batch(self, media_type: str) -> bool:
        """Say whether a delivery of this type holds any number of events."""
        return self.format is DeliveryFormat.CLOUD_EVENTS and media_type == cloudevents.BATCHED

    def messages(
        self, media_type: str, headers: Headers, body: bytes, signed: datetime | None, received: datetime
    ) -> list[Message | Poison]:
        """Read what a delivery holds, once it is verified.

        Raises:
            Poison: nothing can be made of it.
            NotJson, cloudevents.UnknownFormat, cloudevents.TooManyEvents: it is none that is read here.
        """
        if self.format is DeliveryFormat.CLOUD_EVENTS:
            return cloudevents.events(media_type, headers, body, received)
        if media_type and media_type != _JSON and not media_type.endswith("+json"):
            raise NotJson
        identity = headers.get(STANDARD_ID) if self.verifier.standard else None
        return [Message(body=body, headers=headers, id=identity, time=signed or received)]


def compile_webhook(spec: TaskSourceSpec) -> Hook:
    """Compile a source of the kind webhook. Raises `MappingError`."""
    assert spec.webhook is not None, "the caller knows what source it is"
    return Hook(
        mapping=compile_mapping(spec.task),
        verifier=compile_signature(spec.webhook),
        format=spec.webhook.format,
        secret_name=spec.webhook.secret_name,
        secret_keys=tuple(spec.webhook.secret_keys),
        max_bytes=spec.webhook.max_bytes,
    )
