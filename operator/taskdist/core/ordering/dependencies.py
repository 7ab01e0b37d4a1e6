"""Which Tasks others depend on: what holds a dependent back, what becomes of it, and what it does for its parents.

Owns the graph of waiting Tasks and the parents that they wait for. Answers three questions: may this Task run yet (its
gate), how urgent do the Tasks that wait for it make a parent (its level), and how long is the longest chain of Tasks
that wait below it (its chain). It takes parents as they are pinned and neither resolves names nor orders anything.

Cost: an event touches the edges of its Task, and of those whose answer it changes. A Task closes a cycle only if some
Task waits for it already, so only then are its ancestors searched.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from taskdist.api import OnDependencyFailure, Phase, Reason
from taskdist.core.model import EMERGENCY, TOP, Parent, Task

# Longer chains count as so long: beyond it no order is decided by it, and a long chain costs no more to extend.
LONGEST_CHAIN: Final = 100
# So many names are said in a message; the rest is counted.
NAMED: Final = 4

_FAILED: Final = (Phase.FAILED, Phase.CANCELLED)


@dataclass(frozen=True, slots=True)
class Gate:
    """Why a Task may not run yet or, if `phase` is set, how it ends without having run.

    `parent` is the name of the first parent that is to blame.
    """

    reason: Reason
    message: str
    unblock: str = ""
    phase: Phase | None = None
    parent: str = ""


class Urgency(NamedTuple):
    """What a Task lends each of its parents: its level, and the length of the chain that begins with it."""

    level: int
    chain: int


NO_URGENCY: Final = Urgency(0, 0)


@dataclass(slots=True)
class _Node:
    """A Task with parents.

    `parents`: by uid, those that it waits for or that are over. `waits`: those that have not ended. `links`: those that
    it lends its level and chain to.
    """

    task: Task
    level: int
    parents: dict[str, Parent] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    waits: set[str] = field(default_factory=set)  # uids of parents that have not ended
    bad: list[Parent] = field(default_factory=list)  # parents that did not succeed
    links: tuple[str, ...] = ()  # parents at which it is counted, in the order of the spec
    counted: Urgency = NO_URGENCY  # as what it is counted there
    cycles: dict[str, tuple[str, ...]] = field(default_factory=dict)  # by the uid of the Task that closes it: its names


@dataclass(slots=True)
class _Below:
    """The Tasks that wait for a parent, and the level and chain that they give it."""

    children: dict[str, None] = field(default_factory=dict)  # all that name it, in the order in which they came
    levels: list[int] = field(default_factory=lambda: [0] * (EMERGENCY + 1))  # how many lift it to each level
    chains: Counter[int] = field(default_factory=Counter)  # how many have a chain of this length, themselves included
    level: int = -1
    chain: int = 0


class Dependencies:
    """The graph of waiting Tasks with parents. See the module for what it answers."""

    def __init__(self) -> None:
        self._nodes: dict[str, _Node] = {}
        self._below: dict[str, _Below] = {}
        self._members: dict[str, tuple[str, ...]] = {}  # by the uid of the Task that closes a cycle: its uids
        self._changed: dict[str, None] = {}  # parents whose level or chain changed
        self._regated: dict[str, None] = {}  # others whose gate changed

    def __bool__(self) -> bool:
        """Whether there are any dependencies, or changes by them that were not taken yet."""
        return bool(self._nodes or self._below or self._changed or self._regated)

    # Events.

    def add(self, task: Task, level: int) -> Gate | None:
        """Take in a waiting Task with its parents as they are pinned, or its new values; return what holds it back.

        `level` is its own, which it lends to its parents. A Task without parents needs no call. What an event changes
        for others, `take_regated` and `take_changed` tell.
        """
        node = self._nodes.get(task.uid)
        if node is None:
            if not task.parents:
                return None
            node = self._nodes[task.uid] = _Node(task, level)
        former, waited = node.parents, node.waits
        node.task, node.level = task, level
        self._take_parents(node)
        for parent in node.parents:
            if parent not in former:
                self._obtain(parent).children[task.uid] = None
        self._search_and_link(task.uid, waited)
        for parent in former:
            if parent not in node.parents:
                self._leave(parent, task.uid)
        return self.gate(task.uid)

    def remove(self, uid: str) -> None:
        """Remove a Task that no longer waits for its parents: it is over, deleted or runs."""
        node = self._nodes.get(uid)
        if node is None:
            return
        self._dissolve(uid)
        self._unlink(uid)
        del self._nodes[uid]
        for parent in node.parents:
            self._leave(parent, uid)

    def ended(self, uid: str, phase: Phase | None) -> list[str]:
        """Note how the Task ended; None: it was deleted before. Return the Tasks whose gate may have changed.

        A dead letter has not ended: it waits again if it is redriven. Repeats are harmless.
        """
        below = self._below.get(uid)
        if below is None:
            return []
        children = list(below.children)
        for child in children:
            node = self._nodes[child]
            known, waited = node.parents[uid], node.waits
            if not _over(known):
                node.parents[uid] = Parent(known.name, uid, phase, phase is None)
                self._judge(node)
                self._search_and_link(child, waited)
        for child in children:
            self._regated.pop(child, None)
        return children

    # Questions.

    def gate(self, uid: str) -> Gate | None:
        """Return what holds the Task back, or how it ends without having run; None if nothing does."""
        node = self._nodes.get(uid)
        if node is None:
            return None
        policy = node.task.on_parent_failure
        if node.bad and policy is not OnDependencyFailure.RUN:
            return _verdict(node.bad, policy)
        if node.cycles:
            return _cycle(node.task.name, next(iter(node.cycles.values())))
        if node.missing:
            return _missing(node.missing)
        if node.waits:
            return _waiting([node.parents[parent] for parent in node.parents if parent in node.waits])
        return None

    def level(self, uid: str, own: int) -> int:
        """Return the level at which the Task is to be ordered: the highest of its own and of those that wait for it.

        They lift it to the top level but emergency at most. That one skips shares and rates and is for tenants who
        were allowed it, by name and up to a cap: a Task of another tenant does not come by it through a dependant.
        """
        below = self._below.get(uid)
        return own if below is None else max(own, below.level)

    def chain(self, uid: str) -> int:
        """Return how many Tasks are in the longest chain that waits below this one; 0 if none does."""
        below = self._below.get(uid)
        return 0 if below is None else below.chain

    def take_changed(self) -> list[str]:
        """Take and return the Tasks whose `level` or `chain` has changed since the last call."""
        changed, self._changed = self._changed, {}
        return list(changed)

    def take_regated(self) -> list[str]:
        """Take and return further Tasks, named by no event, whose gate has changed since the last call.

        Only cycles do that: who closes one changes the gate of all that are in it.
        """
        regated, self._regated = self._regated, {}
        return [uid for uid in regated if uid in self._nodes]

    # What a Task waits for.

    def _take_parents(self, node: _Node) -> None:
        known, node.parents = node.parents, {}
        for parent in node.task.parents:
            if not parent.uid:
                continue
            # What has ended stays so, whatever an older view says.
            before = known.get(parent.uid)
            node.parents[parent.uid] = before if before is not None and _over(before) else parent
        node.missing = tuple(parent.name for parent in node.task.parents if not parent.uid)
        self._judge(node)

    def _judge(self, node: _Node) -> None:
        parents = node.parents.values()
        node.bad = [each for each in parents if each.gone or each.phase in _FAILED]
        node.waits = {each.uid for each in parents if not _over(each)}

    def _search_and_link(self, uid: str, waited: set[str]) -> None:
        """Look for a cycle and link the Task to its parents, after what it waits for may have changed."""
        node = self._nodes[uid]
        if node.waits != waited:
            was_in_cycles = bool(node.cycles)
            self._dissolve(uid)
            if was_in_cycles or not node.waits <= waited:
                self._look_for_cycle(uid)
        self._link(uid)

    def _obtain(self, uid: str) -> _Below:
        below = self._below.get(uid)
        if below is None:
            below = self._below[uid] = _Below()
        return below

    def _leave(self, parent: str, child: str) -> None:
        below = self._below[parent]
        del below.children[child]
        if not below.children:
            del self._below[parent]

    # Cycles.

    def _look_for_cycle(self, uid: str) -> None:
        """Search the Task's ancestors for itself. The Task that closes a cycle lifts nobody, so that levels and chains
        have no cycle."""
        below = self._below.get(uid)
        if below is None:
            return  # nobody waits for it
        path = self._path(uid)
        if path is None:
            return
        names = tuple(self._nodes[each].task.name for each in path)
        self._unlink(uid)
        self._members[uid] = tuple(path)
        for each in path:
            self._nodes[each].cycles[uid] = names
            if each != uid:
                self._regated[each] = None

    def _path(self, start: str) -> list[str] | None:
        """Return the Tasks of a cycle through this one, each followed by a parent that it waits for."""
        came: dict[str, str] = {}
        stack = [start]
        while stack:
            uid = stack.pop()
            node = self._nodes.get(uid)
            if node is None:
                continue
            for parent in reversed([each for each in node.parents if each in node.waits]):
                if parent == start:
                    path = [uid]
                    while path[-1] != start:
                        path.append(came[path[-1]])
                    return path[::-1]
                if parent not in came:
                    came[parent] = uid
                    stack.append(parent)
        return None

    def _dissolve(self, uid: str) -> None:
        """Undo the cycles of a Task that has changed. Whatever closes one of those that are left finds it again."""
        node = self._nodes[uid]
        if node.cycles:
            self._unlink(uid)
        for closer in list(node.cycles):
            for member in self._members.pop(closer):
                other = self._nodes[member]
                del other.cycles[closer]
                if member != uid:
                    self._regated[member] = None
            if closer != uid:
                self._again(closer, without=uid)

    def _again(self, closer: str, without: str) -> None:
        node = self._nodes[without]
        held, node.waits = node.waits, set()  # what is about to change leads nowhere
        self._look_for_cycle(closer)
        self._link(closer)
        node.waits = held

    # Levels and chains.

    def _link(self, uid: str) -> None:
        """Count the Task at the parents that it waits for, unless it closes a cycle."""
        node = self._nodes[uid]
        links = () if uid in self._members else tuple(each for each in node.parents if each in node.waits)
        for parent in node.links:
            if parent not in links:
                self._count(parent, node.counted, None)
        now = self._counts(uid)
        before, was = node.counted, node.links
        node.links, node.counted = links, now
        for parent in links:
            self._count(parent, before if parent in was else None, now)

    def _unlink(self, uid: str) -> None:
        node = self._nodes[uid]
        for parent in node.links:
            self._count(parent, node.counted, None)
        node.links = ()

    def _counts(self, uid: str) -> Urgency:
        node = self._nodes[uid]
        return Urgency(min(TOP, self.level(uid, node.level)), min(LONGEST_CHAIN, self.chain(uid) + 1))

    def _count(self, parent: str, before: Urgency | None, now: Urgency | None) -> None:
        """Count a child of the parent with other values, and go on to the parent's own parents as long as that changes
        them."""
        pending = [(parent, before, now)]
        while pending:
            uid, before, now = pending.pop()
            if before == now:
                continue
            below = self._below[uid]
            if before is not None:
                below.levels[before.level] -= 1
                below.chains[before.chain] -= 1
                if not below.chains[before.chain]:
                    del below.chains[before.chain]
            if now is not None:
                below.levels[now.level] += 1
                below.chains[now.chain] += 1
            level = next((each for each in range(TOP, -1, -1) if below.levels[each]), -1)
            chain = max(below.chains, default=0)
            if (level, chain) == (below.level, below.chain):
                continue
            below.level, below.chain = level, chain
            self._changed[uid] = None
            node = self._nodes.get(uid)
            if node is not None and node.links:
                was, node.counted = node.counted, self._counts(uid)
                pending += [(each, was, node.counted) for each in node.links]

    # Checking.

    def findings(self) -> Iterator[str]:
        """Yield what does not hold in here. The cost is that of a walk over everything."""
        for uid, node in self._nodes.items():
            closes = uid in self._members
            if set(node.links) != (set() if closes else node.waits):
                yield f"{uid} is counted at {sorted(node.links)} and waits for {sorted(node.waits)}"
            if any(uid not in self._below[parent].children for parent in node.parents):
                yield f"{uid} is not among the children of a parent"
            if not closes and node.waits and node.counted != self._counts(uid):
                yield f"{uid} counts as {node.counted} and is {self._counts(uid)}"
            if closes != (uid in node.cycles):
                yield f"{uid} closes a cycle and does not know it"
        for uid, below in self._below.items():
            linked = [node for node in map(self._nodes.__getitem__, below.children) if uid in node.links]
            level = max((node.counted.level for node in linked), default=-1)
            chain = max((node.counted.chain for node in linked), default=0)
            if (below.level, below.chain) != (level, chain):
                yield f"{uid} has level {below.level} and chain {below.chain} from below, not {level} and {chain}"
            if not below.children:
                yield f"{uid} is kept without children"


def _over(parent: Parent) -> bool:
    """Whether the parent never runs again."""
    return parent.gone or (parent.phase is not None and parent.phase.terminal)


def _verdict(bad: list[Parent], policy: OnDependencyFailure) -> Gate:
    said = _list(f"{each.name} ({'deleted' if each.gone else each.phase})" for each in bad)
    message = f"It depends on {said}, which did not succeed"
    if policy is OnDependencyFailure.SKIP:
        return Gate(Reason.SKIPPED, f"{message}: skipped.", "", Phase.CANCELLED, bad[0].name)
    return Gate(Reason.DEPENDENCY_FAILED, f"{message}.", "", Phase.FAILED, bad[0].name)


def _cycle(name: str, names: tuple[str, ...]) -> Gate:
    at = names.index(name)
    path = [*names[at:], *names[:at], name]
    if len(path) > NAMED + 2:
        path = [*path[:NAMED], f"… {len(path) - NAMED - 1} more …", path[-1]]
    return Gate(
        Reason.DEPENDENCY_CYCLE,
        f"It waits for itself: {' → '.join(path)}.",
        "Cancel or delete one of them, and create it again without the dependency.",
        parent=path[1],
    )


def _missing(names: tuple[str, ...]) -> Gate:
    return Gate(
        Reason.DEPENDENCY_NOT_FOUND,
        f"It depends on {_list(names)}: no such Task in its namespace yet.",
        "Create the Task, or cancel this one.",
        parent=names[0],
    )


def _waiting(parents: list[Parent]) -> Gate:
    dead = [each for each in parents if each.phase is Phase.DEAD_LETTERED]
    if dead:
        return Gate(
            Reason.DEPENDENCY,
            f"It depends on {_list(each.name for each in dead)}: a dead letter, which has not ended.",
            "Redrive or cancel it.",
            parent=dead[0].name,
        )
    return Gate(
        Reason.DEPENDENCY,
        f"It depends on {_list(each.name for each in parents)}, which {_has(parents)} not ended.",
        "Wait; what holds that Task back is what holds this one back.",
        parent=parents[0].name,
    )


def _has(parents: list[Parent]) -> str:
    return "has" if len(parents) == 1 else "have"


def _list(names: Iterable[str]) -> str:
    told = list(names)
    more = len(told) - NAMED
    return ", ".join(told[:NAMED]) + (f" and {more} more" if more > 0 else "")
