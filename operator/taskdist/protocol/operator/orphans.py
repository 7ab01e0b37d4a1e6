"""Orphans: leases that an agent names and whose Task the leader does not know.

Each Task is read under the name that the agent gives, as often as it takes. What follows is not decided here.
"""

from taskdist.api import Reason
from taskdist.protocol.messages import Cancel, Failure, LeaseName, Result, Verdict, array_uid
from taskdist.protocol.observations import Now, ReadTask
from taskdist.protocol.operator.actions import Actions
from taskdist.protocol.operator.books import Orphan, Session
from taskdist.protocol.operator.state import State
from taskdist.protocol.operator.timers import TimerKind
from taskdist.protocol.rules import Rules
from taskdist.protocol.settings import LeaderSettings

# The longest pause, in seconds, before a Task that an agent speaks of and that cannot be read is asked for again.
LONGEST_ORPHAN_PAUSE = 30.0


class Orphans:
    """Leases that agents name and whose Tasks the leader does not know.

    Each such Task is read before its agent hears "no such Task": it may be younger than the leader's view.
    """

    def __init__(self, state: State, out: Actions, settings: LeaderSettings, rules: Rules) -> None:
        self._state = state
        self._out = out
        self._settings = settings
        self._rules = rules
        self._known: dict[tuple[str, LeaseName], Orphan] = {}  # by the pod whose agent speaks of it
        self._reads: dict[int, Orphan] = {}  # by token of the read under way
        self._pauses: dict[int, Orphan] = {}  # by mark of the timer at whose end it is read again

    def speak_of(self, session: Session, name: LeaseName, outcome: Result | Failure | None) -> None:
        """An agent speaks of it: before it hears "no such Task", the Task is read."""
        held, known = session.held(name), self._known.get((session.pod, name))
        if known is not None:
            known.outcome = outcome or known.outcome
        elif held is None or not self._rules.read_before_gone:
            self.tell_gone(session.pod, name, outcome)
        else:
            orphan = self._known[session.pod, name] = Orphan(name, session.pod, held.namespace, held.name, outcome)
            self._read(orphan)

    def answered(self, token: int) -> Orphan | None:
        """Take in that a read was answered: return the orphan that it was for, None if it was for none."""
        return self._reads.pop(token, None)

    def found_out(self, orphan: Orphan) -> None:
        """It is known what became of its Task."""
        del self._known[orphan.pod, orphan.name]

    def read_again(self, mark: int) -> None:
        """A pause is over."""
        self._read(self._pauses.pop(mark))

    def _read(self, orphan: Orphan) -> None:
        token = self._out.next_token()
        self._reads[token] = orphan
        self._out.add(ReadTask(token, array_uid(orphan.name.task_uid), orphan.namespace, orphan.task_name))

    def put_off(self, orphan: Orphan, now: Now) -> None:
        """It could not be read. Without a session nobody waits for the answer: the agent's next hello lists it."""
        if orphan.pod not in self._state.by_pod:
            self.found_out(orphan)
            return
        first = self._settings.retry_seconds
        orphan.pause = min(2 * orphan.pause, LONGEST_ORPHAN_PAUSE) if orphan.pause else first
        mark = self._out.next_token()
        self._pauses[mark] = orphan
        self._state.timers.add(now.boot + orphan.pause, TimerKind.ORPHAN, orphan.name.task_uid, mark)

    def tell_gone(self, pod: str, name: LeaseName, outcome: Result | Failure | None) -> None:
        """The agent hears that there is no such Task."""
        if outcome is not None:
            self._out.final(pod, name, Verdict.GONE, "no such Task")
        else:
            self._out.send(pod, Cancel(name, Reason.CANCELLED, "no such Task"))
