"""The link as the effects see it: they are built before it, as it needs the dispatch loop and that needs them."""

from taskdist.link.server import LinkServer
from taskdist.protocol.messages import ToAgent


class Relay:
    """The link, for the effects: the dispatch loop needs effects, and the link the dispatch loop."""

    link: LinkServer

    def send(self, session: int, message: ToAgent) -> None:
        self.link.send(session, message)

    def close(self, session: int, reason: str) -> None:
        self.link.close(session, reason)

    def close_pod(self, pod_uid: str, reason: str) -> None:
        self.link.close_pod(pod_uid, reason)
