"""Both ends as the release before speaks them: version 1 of the link, without what has been added since."""

from dataclasses import replace
from typing import Any

from taskdist.protocol.agent import AgentEnd
from taskdist.protocol.leader import Leader
from taskdist.protocol.messages import Drain, Refused, Welcome
from taskdist.protocol.observations import Action, Send
from taskdist.protocol.work import Disconnect, Exit

OLD_VERSION = 1


class OldAgent(AgentEnd):
    """It says one version, knows nothing of what a welcome says since, and ends when it is refused for good."""

    def _hello(self, boot: float) -> Any:
        said = super()._hello(boot)
        return replace(said, protocol_version=OLD_VERSION, oldest_version=0, highest_epoch=0, leadership="")

    def _welcome(self, message: Welcome, boot: float, out: Any) -> None:
        drained = self._drained
        super()._welcome(Welcome(message.epoch, message.slots, message.ping_seconds), boot, out)
        self._drained = drained

    def _refused(self, refused: Refused, out: Any) -> None:
        self._welcomed = False
        if not refused.retry:
            self._exited = True
            out.append(Exit("refused for good", refused=True))
        out.append(Disconnect(refused.message))


class OldLeader(Leader):
    """It takes one version only, refuses others for good, and says nothing that has been added since."""

    def _refusal(self, identity: Any, hello: Any) -> Refused | None:
        if hello.protocol_version != OLD_VERSION:
            return Refused("ProtocolVersion", "use an agent of the operator's release", retry=False)
        return super()._refusal(identity, hello)

    def _connect(self, session_id: int, identity: Any, hello: Any, now: Any) -> None:
        plain = replace(hello, oldest_version=0, highest_epoch=0, leadership="")
        super()._connect(session_id, identity, plain, now)
        self._forget_news()

    def _confirm(self, session: Any, now: Any) -> None:
        super()._confirm(session, now)
        self._forget_news()

    def _forget_news(self) -> None:
        said: list[Action] = []
        for action in self._out:
            if isinstance(action, Send) and isinstance(action.message, Welcome):
                plain = Welcome(action.message.epoch, action.message.slots, action.message.ping_seconds)
                said.append(Send(action.session, plain))
            elif not (isinstance(action, Send) and action.message == Drain(undo=True)):
                said.append(action)
        self._out[:] = said
