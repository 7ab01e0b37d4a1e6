"""The output of a leadership: its actions, in the order in which they are to be carried out.

The parts decide on actions and add them here; the leader hands them out after each input.
"""

from taskdist.api import Reason
from taskdist.core.model import Parent
from taskdist.protocol import status
from taskdist.protocol.messages import Body, Final, LeaseName, ToAgent, Verdict
from taskdist.protocol.observations import Action, Notice, ReadTask, Send, TaskName, WriteStatus
from taskdist.protocol.operator.array_books import Wish
from taskdist.protocol.operator.books import Purpose, TaskEntry
from taskdist.protocol.operator.state import State
from taskdist.protocol.rules import Rules


class Actions:
    """Collects the actions of one input, in order: messages, writes, reads, notices.

    Owns the tokens by which answers find their Task. The caller makes sure that no other write or read is under way.
    """

    def __init__(self, state: State, rules: Rules) -> None:
        self._state = state
        self._rules = rules
        self._actions: list[Action] = []
        self._token = 0
        self._under_way: dict[int, str] = {}  # by token of a write or read under way: which Task it is about

    def add(self, action: Action) -> None:
        """Have this done after what was added before."""
        self._actions.append(action)

    def take(self) -> list[Action]:
        """Return what is to be done, and forget it."""
        actions, self._actions = self._actions, []
        return actions

    def drop(self) -> None:
        """Nothing of it is to be done any more."""
        self._actions.clear()

    def next_token(self) -> int:
        """Return a number that no write, read or pause of this leadership has had."""
        self._token += 1
        return self._token

    def send(self, pod: str, message: ToAgent) -> None:
        """Tell the agent, if it has a session."""
        session = self._state.by_pod.get(pod)
        if session is not None:
            self.add(Send(session.id, message))

    def final(self, pod: str, name: LeaseName, verdict: Verdict, message: str = "") -> None:
        """Send the final reply. Without a session none is sent: the agent says it again when it is back."""
        if self._rules.results_are_answered:
            self.send(pod, Final(name, verdict, message))

    def notice(
        self, entry: TaskEntry, reason: Reason, message: str, lease: LeaseName | None = None, *, warning: bool = True
    ) -> None:
        """Tell people of it, by an Event on the Task and a log line."""
        task = entry.record.task
        text = status.clip(message, status.MAX_NOTICE)
        self.add(Notice(entry.holder, task.namespace, task.name, reason, text, warning, lease))

    def write(self, entry: TaskEntry, purpose: Purpose, patch: status.Status, body: Body | None = None) -> None:
        """Write the Task's status, and what is known of its parents with it; `body` is its result.

        What a part of an array has to write goes into the array's next write.
        """
        if entry.part is not None:
            entry.under_way, entry.written_on = purpose, entry.record.resource_version
            self._state.arrays[entry.part.array].wishes.append(Wish(entry, purpose, patch, body))
            self._state.wishing[entry.part.array] = None
            return
        token = self._begin(entry, purpose)
        task, version = entry.record.task, entry.record.resource_version
        entry.written_on = version
        parents: tuple[Parent, ...] = ()
        if task.parents:
            parents = self._state.lineage.parents(task) if purpose in (Purpose.ASSIGN, Purpose.COMMIT) else ()
            if self._state.lineage.unwritten(task):
                patch = patch | self._state.lineage.patch(task)
        first = entry.ending.copy_of if purpose is Purpose.ENDING and entry.ending is not None else None
        original = None
        if first is not None:
            patch, original = patch | {"duplicateOf": first.name}, TaskName(first.uid, first.name)
        self.add(
            WriteStatus(token, task.uid, task.namespace, task.name, version, patch, body, parents, result_of=original)
        )

    def read(self, entry: TaskEntry, purpose: Purpose, *, at: int = 0) -> None:
        """Read the Task from the API server; a view of it `at` this version will do as well."""
        token = self._begin(entry, purpose)
        task = entry.record.task
        parents = self._state.lineage.parents(task) if task.parents and purpose is Purpose.PAYLOAD else ()
        self.add(ReadTask(token, entry.holder, task.namespace, task.name, parents, at))

    def answered(self, token: int) -> tuple[TaskEntry, Purpose] | None:
        """The answer has come: return whose it is, and what was asked for; None if nobody waits for it any more."""
        entry = self._state.tasks.get(self._under_way.pop(token, ""))
        if entry is None or entry.under_way is None:
            return None
        purpose, entry.under_way = entry.under_way, None
        return entry, purpose

    def _begin(self, entry: TaskEntry, purpose: Purpose) -> int:
        token = self.next_token()
        self._under_way[token] = entry.uid
        entry.under_way = purpose
        return token
