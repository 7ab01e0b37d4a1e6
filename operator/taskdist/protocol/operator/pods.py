"""The pods of agents as Kubernetes shows them, and what follows for their leases.

Only what Kubernetes confirms counts as an agent's death: a session that ends is none.
"""

from taskdist.api import Reason
from taskdist.core import Core
from taskdist.core.events import PodGone, PodSeen
from taskdist.protocol.observations import Now, ObservedPod
from taskdist.protocol.operator.books import UNWRITTEN, LeaseStage
from taskdist.protocol.operator.presence import Presence
from taskdist.protocol.operator.removals import Removals
from taskdist.protocol.operator.state import State
from taskdist.protocol.operator.tasks import Tasks
from taskdist.protocol.rules import Rules


class Pods:
    """Takes in the pods of agents as the API server shows them.

    Owns what counts as an agent's death: only what Kubernetes confirms, never a session that ends or a pod out of
    sight.
    """

    def __init__(
        self, core: Core, state: State, removals: Removals, presence: Presence, tasks: Tasks, rules: Rules
    ) -> None:
        self._core = core
        self._state = state
        self._removals = removals
        self._presence = presence
        self._endings = tasks.endings
        self._takeover = tasks.takeover
        self._rules = rules

    def observed(self, pod: ObservedPod, now: Now) -> None:
        """The pod is there, new or changed."""
        self._state.pods[pod.uid] = pod
        self._state.lost.pop(pod.uid, None)
        self._state.lost_unheard.discard(pod.uid)
        if pod.going or pod.ended:
            self._core.handle(PodGone(pod.uid), now.wall)
        else:
            seen = PodSeen(pod.uid, pod.namespace, pod.name, pod.pool, pod.created, pod.template, pod.trouble)
            self._core.handle(seen, now.wall)
        if pod.ended and pod.dead:
            self._agent_dead(pod.uid, "its agent's pod has ended", now)
            self._takeover.release_recovered(now)
        elif self._presence.instance_ended(pod):
            self._agent_dead(pod.uid, "its agent's container has ended", now)
        else:
            self._presence.refresh(pod.uid, now)
        self._removals.finish_removal(pod.uid)

    def gone(self, uid: str, now: Now) -> None:
        """The pod is no more, and its agent is known to have ended."""
        self._state.pods.pop(uid, None)
        self._state.lost.pop(uid, None)
        self._state.lost_unheard.discard(uid)
        self._state.draining.discard(uid)
        self._state.removing.discard(uid)
        if not self._state.taken_over:
            self._state.dead_before.add(uid)
        self._agent_dead(uid, "its agent's pod is gone", now)
        self._state.heard.discard(uid)
        self._state.last_confirmed.pop(uid, None)
        self._core.handle(PodGone(uid), now.wall)
        self._takeover.release_recovered(now)

    def lost(self, uid: str, now: Now) -> None:
        """The pod is out of sight: its label was taken, it was deleted by force, or its end was not seen."""
        if not self._rules.absence_is_no_death:
            self.gone(uid, now)
            return
        pod = self._state.pods.pop(uid, None)
        self._state.removing.discard(uid)
        unheard = pod is not None and uid not in self._state.heard
        if unheard and (self._state.recovering or not self._state.taken_over):
            self._state.lost_unheard.add(uid)
        if uid not in self._state.leases:
            self._state.draining.discard(uid)  # one that holds anything may come back, and drains on
        elif pod is not None:
            self._state.lost[uid] = pod
        self._state.forget_lost(uid)
        self._presence.refresh(uid, now)
        self._core.handle(PodGone(uid), now.wall)
        self._takeover.release_recovered(now)

    def absent(self, uid: str) -> None:
        """A pod that was to be deleted does not exist: what waits for its end waits no longer than for its lease's."""
        self._state.lost.pop(uid, None)

    def _agent_dead(self, pod: str, message: str, now: Now) -> None:
        """Confirmed death: the pod is gone or over, or the agent's container has ended."""
        session = self._state.by_pod.pop(pod, None)
        if session is not None:
            self._presence.close(session)
        self._presence.refresh(pod, now)
        if not self._rules.death_ends_leases:
            return
        for entry in list(self._state.leases.get(pod, {}).values()):
            lease = entry.lease
            if lease is None or lease.stage is LeaseStage.OVER or lease.stage in UNWRITTEN:
                continue
            if lease.stage is LeaseStage.UNSENT:
                self._endings.attempt_over(entry, Reason.GIVEN_BACK, message, now, counted=False)
            elif lease.cancelling is not None:
                self._endings.over_as_asked(entry, lease.cancelling, message, now)
            else:
                self._endings.attempt_over(entry, Reason.AGENT_LOST, message, now, died=pod)
