"""The parents of a Task as its handler sees them: names, how they ended, results.

One JSON object serves every kind of handler: `{NAME: {"phase": …, "result": …}}`. Results are JSON already: they are
put in as they are, and read only by who asks for them.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from taskdist.protocol import messages


@dataclass(frozen=True, slots=True)
class ParentResult:
    """A Task that this one depends on. `phase` is Succeeded, Failed or Cancelled; empty if it was deleted.

    `result` is what its handler returned; None if it left none. One that is too large to be sent is
    `{"$ref": "task/NAME"}`, or `{"$ref": "s3://BUCKET/KEY"}` if it is in an object store that the agent does not fetch
    it from; `reference` then says what stands there.
    """

    name: str
    phase: str
    result: dict[str, Any] | None

    @property
    def reference(self) -> str:
        """Where the result stands that was too large to be sent; empty if it was sent."""
        told = self.result.get("$ref") if self.result is not None and len(self.result) == 1 else None
        return told if isinstance(told, str) and (told == f"task/{self.name}" or told.startswith("s3://")) else ""


def encode(parents: Iterable[messages.ParentResult]) -> bytes:
    """Return all as one JSON object, UTF-8; nothing at all if there are none."""
    parts = [
        b'%s:{"phase":%s,"result":%s}'
        % (json.dumps(each.name).encode(), json.dumps(each.phase).encode(), messages.as_value(each.result) or b"null")
        for each in parents
    ]
    return b"{" + b",".join(parts) + b"}" if parts else b""


def decode(text: str | bytes) -> Mapping[str, ParentResult]:
    """Return by name what `encode` wrote."""
    told: dict[str, Any] = json.loads(text) if text else {}
    return {name: ParentResult(name, each["phase"], each["result"]) for name, each in told.items()}
