"""Who asks, and what they may see: the API server's word on both.

Each right is asked for by the verb that the same look would need of the API server. So nobody sees more here than by
kubectl.
"""

import time
from collections.abc import Callable, Mapping, Sequence

from taskdist.controller.view.problems import Problem
from taskdist.kube import AccessError, Busy, Caller, Client, NotAllowed, NotAuthenticated, Reviews, Right

ASKED_AT_ONCE = 8
MOST_WAITING = 64
ASK_SECONDS = 5.0


class Callers:
    """Knows callers by their tokens, and what they may see."""

    def __init__(self, client: Client, clock: Callable[[], float] = time.monotonic) -> None:
        self._reviews = Reviews(
            client, timeout=ASK_SECONDS, at_once=ASKED_AT_ONCE, most_waiting=MOST_WAITING, clock=clock
        )

    async def who(self, headers: Mapping[str, str]) -> Caller:
        """Return who asks. Raises Problem."""
        try:
            return await self._reviews.caller(_token(headers))
        except AccessError as error:
            raise _problem(error) from error

    async def check(self, caller: Caller, rights: Sequence[Right]) -> None:
        """Raises Problem where the caller lacks one of these rights."""
        for right in rights:
            try:
                await self._reviews.demand(caller, right)
            except AccessError as error:
                raise _problem(error) from error


def _problem(error: AccessError) -> Problem:
    if isinstance(error, NotAuthenticated):
        return Problem(401, str(error))
    if isinstance(error, NotAllowed):
        return Problem(403, str(error))
    return Problem(429 if isinstance(error, Busy) else 503, str(error), retry_after=1)


def _token(headers: Mapping[str, str]) -> str:
    """The caller's token. The API server's proxy keeps Authorization to itself, and passes any other header on."""
    token = headers.get("X-Taskdist-Token", "").strip()
    if not token:
        scheme, _, token = headers.get("Authorization", "").partition(" ")
        token = token.strip() if scheme.lower() == "bearer" else ""
    if not token:
        raise Problem(
            401, "no token: send `Authorization: Bearer TOKEN`, or X-Taskdist-Token through the API server's proxy"
        )
    return token
