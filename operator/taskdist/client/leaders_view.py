"""The leader's view, asked for callers: with their own token, over the address that a door was told.

Whom to trust there the operator publishes in the namespaces that it serves; a door may read that and nothing more of
the kind.
"""

from taskdist.client.backend import Asks
from taskdist.client.errors import NoAnswer
from taskdist.client.questions import AnswerT, Question
from taskdist.client.view import CA_CONFIGMAP, CA_KEY, DirectView
from taskdist.kube import CONFIGMAPS, Client, KubeError


class LeadersView:
    """Knows where the operator that leads is asked.

    Args:
        client: reads whom to trust, with the door's own rights.
        address: host:port; empty where nobody is to be asked.
        lease: NAMESPACE/NAME of the operator's Lease, to be named in answers.
        variable: of the environment, which says the address.
    """

    def __init__(self, client: Client, address: str, lease: str, variable: str) -> None:
        self._client = client
        self._address = address
        self._lease = lease
        self._variable = variable

    @property
    def lease(self) -> str:
        """NAMESPACE/NAME of the operator's Lease."""
        return self._lease

    async def of(self, token: str, namespace: str) -> Asks:
        """The view in the name of this caller. Raises NoAnswer."""
        if not self._address:
            raise NoAnswer(f"the leader cannot be asked: {self._variable} is not set")
        try:
            stored = await self._client.get(CONFIGMAPS, CA_CONFIGMAP, namespace)
        except KubeError as error:
            raise NoAnswer(f"the leader cannot be asked: whom to trust is not known: {error}") from error
        return DirectView(self._address, self._lease, str((stored.get("data") or {}).get(CA_KEY) or ""), token)


class ViewOfOne:
    """The view for one caller: whom to trust is found out once somebody asks, and what was found is used again."""

    def __init__(self, leaders: LeadersView, token: str, namespace: str) -> None:
        self._leaders = leaders
        self._token = token
        self._namespace = namespace
        self._found: Asks | None = None

    @property
    def lease(self) -> str:
        """NAMESPACE/NAME of the operator's Lease."""
        return self._leaders.lease

    async def ask(self, question: Question[AnswerT]) -> AnswerT:
        """Raises NoAnswer."""
        if self._found is None:
            self._found = await self._leaders.of(self._token, self._namespace)
        return await self._found.ask(question)
