"""Payloads and results that are too large for a resource: a client puts and fetches them in the object store itself.

Where no store is configured (TASKDIST_OBJECTS_URL) nothing larger is taken, and the refusal says what to do.
"""

import asyncio
import os
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from taskdist.api import Unreadable
from taskdist.api.task import MAX_PAYLOAD_BYTES
from taskdist.client.errors import ObjectFailed, TaskdistError
from taskdist.client.states import status_of
from taskdist.client.submission import encoded
from taskdist.common.environment import SettingsError
from taskdist.kube import Obj, name_of, namespace_of
from taskdist.objects.settings import URL, ObjectSettings
from taskdist.objects.store import ObjectError
from taskdist.objects.transfer import Objects, connect
from taskdist.protocol import bodies
from taskdist.protocol.messages import ObjectRef
from taskdist.protocol.values import parse_object


class References:
    """Turns large payloads into references, and references to results into results.

    Args:
        objects: the store; else that of `env`, if it names one, opened once it is asked for.
        env: variables of the process.
    """

    def __init__(self, objects: Objects | None = None, env: Mapping[str, str] = os.environ) -> None:
        self._given = objects
        self._env = env

    @cached_property
    def _objects(self) -> Objects | None:
        if self._given is not None:
            return self._given
        try:
            settings = ObjectSettings.from_env(self._env)
            return None if settings is None else connect(settings)
        except SettingsError as error:
            raise TaskdistError(str(error)) from error

    @property
    def most_bytes(self) -> int:
        """How large a payload may be. Raises TaskdistError for a store that cannot be used."""
        return MAX_PAYLOAD_BYTES if self._objects is None else max(MAX_PAYLOAD_BYTES, self._objects.max_bytes)

    async def put(self, body: Obj) -> Obj:
        """Return the Task with its payload by reference, once that is there, if it is too large to go by value.

        It is put anew each time: the same payload is the same object, which so is as young as the Task. Raises
        ObjectFailed.
        """
        payload = body["spec"].get("payload")
        if self._objects is None or not payload or len(data := encoded(payload)) <= MAX_PAYLOAD_BYTES:
            return body
        try:
            ref = await self._objects.put_payload(namespace_of(body), data)
        except ObjectError as error:
            raise ObjectFailed(f"the payload of {len(data)} bytes was not put: {error}", error.reason) from error
        spec = {key: value for key, value in body["spec"].items() if key != "payload"}
        return {**body, "spec": spec | {"payloadRef": ref.to_wire()}}

    async def whole(self, obj: Obj) -> Obj:
        """Return the Task with its result by value. Raises ObjectFailed."""
        if not status_of(obj).get("resultRef"):
            return obj
        try:
            ref = bodies.result(obj)
        except Unreadable as error:
            raise ObjectFailed(f"task {name_of(obj)}: {error}") from error
        if not isinstance(ref, ObjectRef):
            raise ObjectFailed(f"task {name_of(obj)}: status.resultRef is no reference that this release can read")
        result = await self._fetch(obj, ref)
        status = {key: value for key, value in obj["status"].items() if key != "resultRef"}
        return {**obj, "status": status | {"result": result}}

    async def _fetch(self, obj: Obj, ref: ObjectRef) -> dict[str, Any]:
        where = f"the result of task {name_of(obj)} is {ref.uri} ({ref.size} bytes)"
        if self._objects is None:
            raise ObjectFailed(f"{where}, and {URL} is not set here: set it as the agents have it, or fetch it there")
        try:
            data = await self._objects.fetch(ref, namespace_of(obj))
        except ObjectError as error:
            raise ObjectFailed(f"{where}, and was not fetched: {error}", error.reason) from error
        try:
            return await asyncio.to_thread(parse_object, data)
        except ValueError as error:
            raise ObjectFailed(f"{where}, and no JSON object: {str(error)[:200]}") from error
