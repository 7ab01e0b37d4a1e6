"""How many may wait or stream at once, so that a crowd cannot take the gateway's memory."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager

from fastapi.responses import StreamingResponse

from taskdist.gateway.problems import Problem


class Places:
    """So many places; who finds none is told to come again."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.taken = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Hold a place. Raises Problem where none is free."""
        self._check()
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1

    def stream(self, stream: AsyncGenerator[bytes, None], media_type: str) -> StreamingResponse:
        """Answer with a stream, which holds a place while it is read. Raises Problem where none is free."""
        self._check()

        async def placed() -> AsyncIterator[bytes]:
            with self.one():
                async with aclosing(stream):
                    async for each in stream:
                        yield each

        return StreamingResponse(placed(), media_type=media_type, headers={"Cache-Control": "no-store"})

    def _check(self) -> None:
        if self.taken >= self._most:
            raise Problem(429, f"{self._most} wait here already: try again", reason="TooManyWaiting", retry_after=5)
