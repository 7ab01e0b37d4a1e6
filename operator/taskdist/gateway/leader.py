"""The leader's view, asked for callers: with their own token, over the address that the gateway was told.

Whom to trust there the operator publishes in the namespaces that it serves; the gateway may read that and nothing more
of the kind.
"""

from taskdist.client.backend import Asks
from taskdist.client.errors import NoAnswer
from taskdist.client.view import CA_CONFIGMAP, CA_KEY, DirectView
from taskdist.gateway.callers import Visitor
from taskdist.kube import CONFIGMAPS, Client, KubeError


class LeadersView:
    """Knows where the operator that leads is asked.

    Args:
        client: reads whom to trust, with the gateway's own rights.
        address: host:port; empty where nobody is to be asked.
        lease: NAMESPACE/NAME of the operator's Lease, to be named in answers.
    """

    def __init__(self, client: Client, address: str, lease: str) -> None:
        self._client = client
        self._address = address
        self._lease = lease

    async def of(self, visitor: Visitor, namespace: str) -> Asks:
        """The view in the name of this caller. Raises NoAnswer."""
        if not self._address:
            raise NoAnswer("the leader cannot be asked: TASKDIST_GATEWAY_VIEW is not set")
        try:
            stored = await self._client.get(CONFIGMAPS, CA_CONFIGMAP, namespace)
        except KubeError as error:
            raise NoAnswer(f"the leader cannot be asked: whom to trust is not known: {error}") from error
        return DirectView(self._address, self._lease, str((stored.get("data") or {}).get(CA_KEY) or ""), visitor.token)
