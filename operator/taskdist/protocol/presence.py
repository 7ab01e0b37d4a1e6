"""The operator's end, sixth part: whether an agent is there, takes work, and what it offers.

An agent is one pod's present session. It takes work while its pod lives and is ready; it offers what it says, within
what its pool allows. Only what Kubernetes confirms counts as its death: a session that ends is none.
"""

from taskdist.api import Reason
from taskdist.core.events import AgentNotReady, AgentReady
from taskdist.core.model import Agent
from taskdist.protocol.answers import Answers
from taskdist.protocol.books import UNWRITTEN, Session, Stage
from taskdist.protocol.clamp import clamp
from taskdist.protocol.messages import Hello
from taskdist.protocol.observations import CloseSession, DeletePod, Now, PodRecord


class Presence(Answers):
    """What the operator's end knows of agents' being there."""

    def _replace(self, former: Session) -> None:
        self._sessions.pop(former.id, None)
        self._out.append(CloseSession(former.id, "the agent's session is over"))

    def _agent_dead(self, pod: str, message: str, now: Now) -> None:
        """Confirmed death: the pod is gone or over, or the agent's container has ended."""
        session = self._by_pod.pop(pod, None)
        if session is not None:
            self._replace(session)
        self._refresh(pod, now)
        for entry in list(self._leases.get(pod, {}).values()):
            lease = entry.lease
            if lease is None or lease.stage is Stage.OVER or lease.stage in UNWRITTEN:
                continue
            if lease.stage is Stage.UNSENT:
                self._attempt_over(entry, Reason.GIVEN_BACK, message, now, counted=False)
            elif lease.cancelling is not None:
                self._over_as_asked(entry, lease.cancelling, message, now)
            else:
                self._attempt_over(entry, Reason.AGENT_LOST, message, now, died=pod)

    def _finish_removal(self, uid: str) -> None:
        """Delete what a former leader marked and may not have deleted, once nothing is held there."""
        pod = self._pods.get(uid)
        if pod is None or pod.removed_by in (0, self.epoch) or pod.deleting or uid in self._removing:
            return
        if self._taken_over and self._holds_nothing(uid):
            self._removing.add(uid)
            message = f"leadership {pod.removed_by} had decided to delete it"
            self._delete(DeletePod(uid, pod.namespace, pod.name, Reason.IDLE, message, self.epoch))

    def _delete(self, action: DeletePod) -> None:
        """An agent that may hold a former leader's unrecorded lease is not idle: it goes once that is known."""
        if self._recovering and action.uid not in self._heard:
            self._deferred.append(action)
        else:
            self._out.append(action)

    def _container_ended(self, pod: PodRecord) -> bool:
        """Whether the present instance is known to have ended: by its name, never by comparing clocks or counts.

        Status comes late: a restart that it shows may be the one that brought the present instance.
        """
        last = self._last_confirmed.get(pod.uid)
        return last is not None and last.hello.instance_id in pod.ended_instances

    def _clamped(self, session: Session) -> Agent | None:
        pool = self._pools.get((session.identity.namespace, session.identity.pool))
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
        )
        record = self._pods.get(session.identity.pod_uid)
        return clamp(wish, session.identity, pool, () if record is None else record.topology)

    def _refresh(self, pod: str, now: Now) -> None:
        """Tell the core whether the agent takes work, and what it offers."""
        agent = self._ready_agent(pod)
        if agent == self._told.get(pod):
            return
        if agent is not None:
            self._told[pod] = agent
            self.core.handle(AgentReady(agent), now.wall)
        else:
            del self._told[pod]
            self.core.handle(AgentNotReady(pod), now.wall)

    def _ready_agent(self, pod: str) -> Agent | None:
        session, record = self._by_pod.get(pod), self._pods.get(pod)
        if session is None or session.leaving or session.strangers:
            return None  # how many slots a lease takes that is not in the books is not known: it is stopped first
        if record is None or record.going or record.ended:
            return None
        if self._settings.require_ready_pods and not record.ready:
            return None
        agent = self._clamped(session)
        return agent if agent is not None and agent.slots > 0 else None
