"""Who calls, what they may read, and how their writes reach the API server in their own name."""

from fastapi import Request

from taskdist.gateway.problems import of_access
from taskdist.kube import (
    TASKS,
    AccessError,
    Caller,
    Client,
    HttpTransport,
    OnBehalf,
    Reviews,
    Right,
    bearer_of,
)


class Visitor:
    """One caller of one request."""

    def __init__(self, caller: Caller, token: str, client: Client, reviews: Reviews) -> None:
        self.caller = caller
        self.token = token
        # Sends with the caller's token: what the API server does not let them do, nobody does for them.
        self.client = client
        self._reviews = reviews

    async def must(self, verb: str, namespace: str, name: str = "") -> None:
        """Return if the caller may do so to Tasks by kubectl. Raises Problem."""
        try:
            await self._reviews.demand(self.caller, Right(verb, TASKS, namespace, name))
        except AccessError as error:
            raise of_access(error) from error


class Callers:
    """Knows callers by their tokens."""

    def __init__(self, reviews: Reviews, transport: HttpTransport, timeout: float = 10.0) -> None:
        self._reviews = reviews
        self._transport = transport
        self._timeout = timeout

    async def visitor(self, request: Request) -> Visitor:
        """Return who calls. Raises Problem."""
        token = bearer(request)
        try:
            caller = await self._reviews.caller(token)
        except AccessError as error:
            raise of_access(error) from error
        return Visitor(caller, token, Client(OnBehalf(self._transport, token), timeout=self._timeout), self._reviews)


def bearer(request: Request) -> str:
    """Return the token of the request; empty where there is none. Raises Problem."""
    try:
        return bearer_of(request.headers.get("authorization", ""))
    except AccessError as error:
        raise of_access(error) from error
