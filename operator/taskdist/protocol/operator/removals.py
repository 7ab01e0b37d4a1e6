"""Removal of agents: each drains, then holds no lease, then its pod is deleted.

Which agent goes is the core's decision.
"""

from taskdist.api import Reason
from taskdist.core import Core, decisions
from taskdist.core.events import AgentDrained
from taskdist.protocol.messages import Drain
from taskdist.protocol.observations import Now, RemovePod
from taskdist.protocol.operator.actions import Actions
from taskdist.protocol.operator.state import State
from taskdist.protocol.rules import Rules


class Removals:
    """Deletes the pods of agents that are to go: each drains, holds no lease, then is deleted.

    Which agent goes is the core's decision.
    """

    def __init__(self, core: Core, state: State, out: Actions, rules: Rules) -> None:
        self._core = core
        self._state = state
        self._out = out
        self._rules = rules

    def begin(self, victim: decisions.Drain, now: Now) -> None:
        """The core has chosen the agent: it gets no more work."""
        uid = victim.agent_uid
        self._state.draining.add(uid)
        self._out.send(uid, Drain())
        self.check(uid, now)
        if not self._rules.victims_drain_first and (pod := self._state.pods.get(uid)) is not None:
            self._out.add(RemovePod(uid, pod.namespace, pod.name, victim.reason, victim.message, self._state.epoch))

    def undo(self, pod: str) -> None:
        """The core would keep it after all."""
        self._state.draining.discard(pod)
        self._out.send(pod, Drain(undo=True))

    def check(self, pod: str, now: Now) -> None:
        """Tell the core of a draining agent that holds nothing any more: it then decides to delete it."""
        if pod in self._state.draining and pod not in self._state.leases:
            self._state.draining.discard(pod)
            self._core.handle(AgentDrained(pod), now.wall)
        self.finish_removal(pod)

    def finish_removal(self, uid: str) -> None:
        """Delete what a former leader marked and may not have deleted, once nothing is held there."""
        pod = self._state.pods.get(uid)
        if pod is None or pod.removed_by in (0, self._state.epoch) or pod.deleting or uid in self._state.removing:
            return
        if self._state.taken_over and uid not in self._state.leases:
            self._state.removing.add(uid)
            message = f"leadership {pod.removed_by} had decided to delete it"
            self.delete(RemovePod(uid, pod.namespace, pod.name, Reason.IDLE, message, self._state.epoch))

    def delete(self, action: RemovePod) -> None:
        """Have the pod deleted.

        An agent that may hold a former leader's unrecorded lease is not idle: it goes once that is known.
        """
        if self._state.recovering and action.uid not in self._state.heard:
            self._state.deferred.append(action)
        else:
            self._out.add(action)
