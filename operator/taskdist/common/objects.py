"""JSON objects that others wrote: what is none counts as empty."""

from typing import Any


def as_object(value: object) -> dict[str, Any]:
    """Return the JSON object that this is; an empty one for anything else, as what others write may be anything."""
    return value if isinstance(value, dict) else {}
