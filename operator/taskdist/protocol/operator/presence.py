"""Availability of agents: which of them take work, and what each offers.

An agent is one pod's present session. It takes work while its pod lives and is ready; it offers what it says, within
what its pool allows.
"""

from taskdist.core import Core
from taskdist.core.events import AgentNotReady, AgentReady
from taskdist.core.model import Agent
from taskdist.protocol.messages import Hello
from taskdist.protocol.observations import CloseSession, Now, ObservedPod
from taskdist.protocol.operator.actions import Actions
from taskdist.protocol.operator.books import Session
from taskdist.protocol.operator.clamp import clamp
from taskdist.protocol.operator.state import State
from taskdist.protocol.rules import Rules
from taskdist.protocol.settings import LeaderSettings


class Presence:
    """Tells the core which agents take work, and what each offers.

    An agent takes work while its pod lives and is ready, and its session counts. It offers what it says, within what
    its pool allows.
    """

    def __init__(self, core: Core, state: State, out: Actions, settings: LeaderSettings, rules: Rules) -> None:
        self._core = core
        self._state = state
        self._out = out
        self._settings = settings
        self._rules = rules

    def refresh(self, pod: str, now: Now) -> None:
        """Tell the core whether the agent takes work, and what it offers."""
        agent = self._ready_agent(pod)
        if agent == self._state.told.get(pod):
            return
        if agent is not None:
            self._state.told[pod] = agent
            self._core.handle(AgentReady(agent), now.wall)
        else:
            del self._state.told[pod]
            self._core.handle(AgentNotReady(pod), now.wall)

    def _ready_agent(self, pod: str) -> Agent | None:
        """Return the agent as the core may have it, None if it takes no work."""
        session, record = self._state.by_pod.get(pod), self._state.pods.get(pod)
        if session is None or session.leaving or self.crowded(session):
            return None
        if record is None or record.going or record.ended:
            return None
        if self._settings.require_ready_pods and not record.ready:
            return None
        agent = self.clamped(session)
        return agent if agent is not None and agent.slots > 0 else None

    def crowded(self, session: Session) -> bool:
        """Return whether leases run there that are not in the books.

        How much room they leave is not known: they are stopped before anything is sent.
        """
        return bool(session.strangers) and self._rules.strangers_take_room

    def clamped(self, session: Session) -> Agent | None:
        """Return what the agent offers within what its pool allows, None if its pool is not known."""
        pool = self._state.pools.get((session.identity.namespace, session.identity.pool))
        if pool is None:
            return None
        hello = session.hello
        wish = Hello(
            protocol_version=hello.protocol_version,
            instance_id=hello.instance_id,
            slots=session.slots,
            boot=hello.boot,
            resources=session.resources,
            skills=hello.skills,
            types=hello.types,
            labels=hello.labels,
            fenced=hello.fenced,
            objects=hello.objects,
            arrays=hello.arrays,
        )
        record = self._state.pods.get(session.identity.pod_uid)
        return clamp(wish, session.identity, pool, () if record is None else record.topology)

    def close(self, former: Session) -> None:
        """The session counts no more: another took its place, or its agent is gone."""
        if not self._rules.one_session_per_pod:
            return
        self._state.sessions.pop(former.id, None)
        self._out.add(CloseSession(former.id, "the agent's session is over"))

    def instance_ended(self, pod: ObservedPod) -> bool:
        """Return whether the present instance is known to have ended, by its name, never by comparing clocks or counts.

        Status comes late: a restart that it shows may be the one that brought the present instance.
        """
        last = self._state.last_confirmed.get(pod.uid)
        return last is not None and last.hello.instance_id in pod.ended_instances
