"""Both ends as the release before speaks them: version 1 of the link, without what has been added since.

Each wraps the present end and translates what it hears and says: what it did not know of it does not hear, and what it
did not say is left out.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from taskdist.protocol.agent import AgentEnd
from taskdist.protocol.agent.work import AgentAction, Exit, SendUp
from taskdist.protocol.messages import (
    VERSION_REFUSED,
    AgentIdentity,
    Drain,
    FromAgent,
    Hello,
    Refused,
    ToAgent,
    Welcome,
)
from taskdist.protocol.observations import Action, Now, Send
from taskdist.protocol.operator import Leader

OLD_VERSION = 1


class EndsWhenRefused(AgentEnd):
    """It ends when it is refused for good, whatever the reason and whatever is in its hands."""

    def received(self, message: ToAgent, boot: float) -> list[AgentAction]:
        if not isinstance(message, Refused):
            return super().received(message, boot)
        refused = super().received(Refused("Refused", message.message), boot)
        return refused if message.retry else [Exit("refused for good", refused=True), *refused]


class OldAgent(EndsWhenRefused):
    """It says one version, and knows nothing of what a welcome says since."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._told_to_drain = False

    def connected(self, boot: float) -> list[AgentAction]:
        plain: dict[str, Any] = {"oldest_version": 0, "highest_epoch": 0, "leadership": ""}
        return saying(super().connected(boot), protocol_version=OLD_VERSION, **plain)

    def received(self, message: ToAgent, boot: float) -> list[AgentAction]:
        if isinstance(message, Drain):
            self._told_to_drain = not message.undo
        elif isinstance(message, Welcome):  # it does not say whether to drain: the last word on it stands
            message = Welcome(message.epoch, message.slots, message.ping_seconds, self._told_to_drain)
        return super().received(message, boot)


def saying(actions: Iterable[AgentAction], **instead: Any) -> list[AgentAction]:
    """Return the actions with a hello that says this instead."""
    return [
        SendUp(replace(action.message, **instead))
        if isinstance(action, SendUp) and isinstance(action.message, Hello)
        else action
        for action in actions
    ]


class OldLeader(Leader):
    """It takes one version only, refuses others for good, and says nothing that has been added since."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._unheard: set[int] = set()  # sessions that are told nothing of drains before their agent was heard

    def connected(self, session: int, identity: AgentIdentity, hello: Hello, now: Now) -> list[Action]:
        version = OLD_VERSION if hello.protocol_version == OLD_VERSION else 0  # 0: one that nobody speaks
        plain = replace(hello, protocol_version=version, oldest_version=0, highest_epoch=0, leadership="")
        self._unheard.add(session)
        return self._old(super().connected(session, identity, plain, now))

    def received(self, session: int, message: FromAgent, now: Now) -> list[Action]:
        return self._old(super().received(session, message, now))

    def _old(self, actions: Iterable[Action]) -> list[Action]:
        said: list[Action] = []
        for action in actions:
            match action:
                case Send(session, Welcome(epoch, slots, ping_seconds)):
                    said.append(Send(session, Welcome(epoch, slots, ping_seconds)))
                case Send(session, Refused(reason, text)) if reason == VERSION_REFUSED:
                    said.append(Send(session, Refused(reason, text, retry=False)))
                case Send(session, Drain(undo=True)) if session in self._unheard:
                    self._unheard.discard(session)
                case _:
                    said.append(action)
        return said
