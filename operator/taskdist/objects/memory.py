"""A store in memory, for tests: of whoever uses the client's test double, and of our own."""

from taskdist.api import Reason
from taskdist.objects.places import Place
from taskdist.objects.settings import DEFAULT_MAX_BYTES, ObjectSettings
from taskdist.objects.store import ObjectError
from taskdist.objects.transfer import Objects


class MemoryStore:
    """`objects` are its bytes, by key. `trouble`: what everything that is asked of it raises."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.trouble: Exception | None = None

    async def get(self, key: str, size: int) -> bytes:
        """The object's bytes; see `Store`."""
        if self.trouble is not None:
            raise self.trouble
        if key not in self.objects:
            raise ObjectError(Reason.OBJECT_NOT_FOUND, f"{key} is not there")
        body = self.objects[key]
        if len(body) != size:
            raise ObjectError(Reason.OBJECT_MISMATCH, f"{key} has {len(body)} bytes, and {size} were referred to")
        return body

    async def put(self, key: str, body: bytes) -> None:
        """Write the object; see `Store`."""
        if self.trouble is not None:
            raise self.trouble
        self.objects[key] = body


def memory_objects(store: MemoryStore | None = None, max_bytes: int = DEFAULT_MAX_BYTES) -> Objects:
    """Objects of the bucket `test`, below `tasks`, in memory."""
    return Objects(ObjectSettings(Place("test", "tasks"), max_bytes=max_bytes), store or MemoryStore())
