"""Bodies of requests: read within bounds, and taken for what they say they are."""

from collections.abc import AsyncIterator
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from taskdist.gateway.problems import Problem, of_validation
from taskdist.gateway.shapes import NewTask, TaskChange
from taskdist.protocol.values import parse_object

M = TypeVar("M", bound=BaseModel)
CHANGED = tuple(name for name in TaskChange.model_fields if name != "uid")

MOST_BYTES = 256 * 1024
"""Of one Task: its payload has 64 KiB at the most."""
MOST_BULK_BYTES = 16 * 1024 * 1024
MOST_BULK = 1000
JSON = "application/json"
NDJSON = frozenset({"application/x-ndjson", "application/jsonl", "application/ndjson"})


def media_type(request: Request) -> str:
    return request.headers.get("content-type", JSON).partition(";")[0].strip().lower() or JSON


async def read(request: Request, most: int) -> bytes:
    """Return the whole body. Raises Problem where it is larger than `most` bytes, before it is read to its end."""
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > most:
                raise Problem(413, f"the body has more than {most} bytes", reason="TooLarge")
    except ClientDisconnect:
        # Nobody hears it; a defect it is not.
        raise Problem(400, "the connection ended before the body did", reason="Incomplete") from None
    return bytes(body)


def an_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object. Raises Problem."""
    try:
        return parse_object(body)
    except ValueError as error:  # of UTF-8 and of JSON, too
        raise Problem(
            400, f"the body is no JSON object that can be kept as it is: {error}", reason="BadJson"
        ) from error


def a_task(value: dict[str, Any]) -> NewTask:
    """Return the Task that is asked for. Raises Problem, which names the fields."""
    return _read(NewTask, value)


def a_change(value: dict[str, Any]) -> TaskChange:
    """Return the change that is asked for. Raises Problem, as above."""
    change = _read(TaskChange, value)
    if not change.model_fields_set - {"uid"}:
        raise Problem(422, f"nothing is changed: say one of {', '.join(CHANGED)}", reason="Invalid")
    return change


def _read(model: type[M], value: dict[str, Any]) -> M:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise of_validation(error) from error


async def lines(request: Request) -> AsyncIterator[bytes]:
    """Yield the lines of a bulk as they come, but for empty ones. Raises Problem where it is too large."""
    rest, count, size = b"", 0, 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MOST_BULK_BYTES:
            raise Problem(413, f"the body has more than {MOST_BULK_BYTES} bytes: send it in parts", reason="TooLarge")
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if line.strip():
                count += 1
                yield _counted(line, count)
    if rest.strip():
        yield _counted(rest, count + 1)


def _counted(line: bytes, count: int) -> bytes:
    if count > MOST_BULK:
        raise Problem(413, f"the bulk has more than {MOST_BULK} Tasks: send it in parts", reason="TooLarge")
    return line
