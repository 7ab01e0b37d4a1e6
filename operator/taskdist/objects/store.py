"""The port to an object store, and the ways in which it fails."""

from typing import Protocol

from taskdist.api import Reason


class ObjectError(Exception):
    """An object could not be put or fetched. The text says which, why, and what to do.

    `retryable`: another try may fare better. A store that gives no answer, or refuses credentials, may do so no longer;
    what is missing or another one than was meant stays so.
    """

    def __init__(self, reason: Reason, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.retryable = retryable


class Store(Protocol):
    """A bucket. Both raise ObjectError."""

    async def get(self, key: str, size: int) -> bytes:
        """The object's bytes. One of another size is refused before it is read, or as soon as it is longer."""

    async def put(self, key: str, body: bytes) -> None:
        """Write the object, whether it is there or not: it is then as young as can be."""
