"""More lines of the lease protocol switched off: what faults have taught, and the second line of each defence."""

from typing import Any

from taskdist.core.model import Queue
from taskdist.protocol.agent import AgentEnd
from taskdist.protocol.leader import Leader

# --- unknown writes, keys, bounds ---


class FreesWhatIsInDoubt(Leader):
    """An assignment without an answer gives back what it took, and what lands late is sent."""

    def _assign_unknown(self, entry: Any, now: Any) -> None:
        entry.not_until = 0.0
        self._take_back(entry, now)


# --- death, rules of a grant ---


class TakesAbsenceForDeath(Leader):
    """A pod that is out of sight is taken for dead."""

    def _on_pod_lost(self, uid: str, now: Any) -> None:
        self._on_pod_gone(uid, now)


class ForgetsTheUnseen(Leader):
    """An agent that was not heard, and whose pod is out of sight, is not waited for at the takeover."""

    def _all_heard(self) -> bool:
        self._lost_unheard.clear()
        return super()._all_heard()


class TimesByThePresentQueue(Leader):
    """A former leader's lease is timed by the queue as it is now."""

    def _foreign_until(self, lease: Any) -> float:
        queue = self._queues.get(lease.queue) or Queue(*lease.queue)
        return self._takeover + self._settings.beyond(max(queue.hold_seconds, queue.lease_seconds))

    def _as_held(self, lease: Any, session: Any) -> None:
        queue = self._queues.get(lease.queue) or Queue(*lease.queue)
        lease.lease_seconds, lease.hold_seconds = queue.lease_seconds, queue.hold_seconds


# --- sessions ---


class SendsBesideStrangers(Leader):
    """Leases that are not in the books take no room."""

    def _crowded(self, session: Any) -> bool:
        return False

    def _ready_agent(self, pod: str) -> Any:
        session = self._by_pod.get(pod)
        if session is None:
            return super()._ready_agent(pod)
        strangers, session.strangers = session.strangers, set()
        found = super()._ready_agent(pod)
        session.strangers = strangers
        return found


# --- the agent's second lines ---


class CountsNoSlots(AgentEnd):
    def _refusal(self, grant: Any, boot: float, out: Any) -> str:
        said = super()._refusal(grant, boot, out)
        return "" if "slots" in said else said


class CountsNoResources(AgentEnd):
    def _refusal(self, grant: Any, boot: float, out: Any) -> str:
        said = super()._refusal(grant, boot, out)
        return "" if " of " in said and "slots" not in said else said


class DrainedForGood(AgentEnd):
    """That it drains outlives the leader that said so."""

    def received(self, message: Any, boot: float) -> Any:
        drained = self._drained
        out = super().received(message, boot)
        if type(message).__name__ == "Welcome":
            self._drained = self._drained or drained
        return out
