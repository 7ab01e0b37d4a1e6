"""The Tasks that wait, in order, such that the first one that fits somewhere is found without looking at the others.

Owns where each eligible Task stands. A level is two bands: Tasks whose deadline can be met, and below them those that
are too late. In a band, queues and in them tenants take turns (`fair_sharing`); a tenant's Tasks of one shape stand in
a line by latest start, and its lines of one profile in a group. Bands, queues and tenants know by masks for which
profiles they have Tasks, so that "nothing here fits" is one `and`. Refuses to know why a Task is not eligible: such
Tasks are not here, or stand in what was parked under its blocker.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from heapq import heappush
from math import inf
from typing import TYPE_CHECKING, Final

from taskdist.core import order
from taskdist.core.fleet.equivalence import Demand, Profile, Shape
from taskdist.core.limits.budgets import NotYet, Short, amount_taken
from taskdist.core.model import EMERGENCY, Key, Queue, Task
from taskdist.core.order import Place
from taskdist.core.ordering.fair_sharing import MOST_COMPARED, Share, even
from taskdist.core.ordering.lines import Band, Charge, Group, HeapLine, HeapTask, Line, TaskRecord
from taskdist.core.primitives.bitsets import OrTree, bits, has

if TYPE_CHECKING:
    from taskdist.core.limits.blockers import Blocker

# Two to a level: 2 × level + 1 for Tasks that can meet their deadlines, 2 × level for those that cannot.
BANDS: Final = 2 * (EMERGENCY + 1)
# The most sets of free profiles for which a tenant's next line is remembered.
REMEMBERED: Final = 16


class WaitingIndex:
    """All eligible Tasks, in order, by band, queue, tenant and profile."""

    def __init__(self, queue_of: Callable[[Key], Queue]) -> None:
        """`queue_of` gives a queue's rules; for one that is gone, the defaults."""
        self._queue_of = queue_of
        self._bands = [Band() for _ in range(BANDS)]
        # By band, highest first: the profiles that Tasks wait for there.
        self._masks = OrTree(BANDS)
        self._stamp = 0
        # By shape, band and tenant.
        self._lines: dict[Shape, dict[tuple[int, str], Line]] = {}
        # Tasks that try whether their key is free and were found too late: others behind that key may go before them.
        self.overtaken: list[TaskRecord] = []

    @property
    def profiles(self) -> int:
        """The profiles that any eligible Task waits for, without those that are parked."""
        return self._masks.union

    def lines(self, shape: Shape) -> list[Line]:
        """Return the lines in which the shape's eligible Tasks stand."""
        lines = self._lines.get(shape)
        return list(lines.values()) if lines is not None else []

    def has(self, line: Line) -> bool:
        """Whether the line is still one of its shape's."""
        lines = self._lines.get(line.shape)
        return lines is not None and lines.get((line.band, line.tenant)) is line

    def add(self, record: TaskRecord, now: float) -> None:
        """Enter the Task where its level and latest start say."""
        shape, task = record.shape, record.task
        band = 2 * record.level + (record.hopeless_from >= now)
        lines = self._lines.get(shape)
        if lines is None:
            lines = self._lines[shape] = {}
        line = lines.get((band, task.tenant))
        if line is None:
            line = lines[band, task.tenant] = Line(shape, band, task.tenant)
        self._stamp += 1
        record.line = line
        record.stamp = stamp = self._stamp
        entry = HeapTask(record.place(), stamp, record)
        line.trim()
        heap = line.heap
        heappush(heap, entry)
        line.live += 1
        line.since += record.since
        if task.concurrency_key is not None:
            line.count_key(task.concurrency_key, 1, record.since)
        if heap[0].stamp == stamp:
            self._lead(line, entry)
        self._want(line, shape.demand, 1)

    def remove(self, record: TaskRecord) -> None:
        line = record.line
        assert line is not None, "only Tasks that stand in a line are removed"
        led = line.heap[0].stamp == record.stamp
        record.line, record.stamp = None, 0
        line.live -= 1
        line.since -= record.since
        if record.task.concurrency_key is not None:
            line.count_key(record.task.concurrency_key, -1, -record.since)
        self._want(line, line.shape.demand, -1)
        if led:
            self._lead(line, line.first())
        if not line.live:
            lines = self._lines[line.shape]
            del lines[line.band, line.tenant]
            if not lines:
                del self._lines[line.shape]
        else:
            line.trim()

    def rehome(self, shape: Shape, profile: Profile | None) -> None:
        """Put the shape's lines under another profile, or under none: closed shapes are not found."""
        for line in self.lines(shape):
            self._want(line, shape.demand, -line.live)
            self._withdraw(line, shape.profile)
            self._enter(line, profile)
            self._want(line, shape.demand, line.live)

    def redirect(self, shape: Shape, former: Demand | None, demand: Demand | None) -> None:
        """Count the shape's Tasks under another demand."""
        for line in self.lines(shape):
            self._want(line, former, -line.live)
            self._want(line, demand, line.live)

    @staticmethod
    def _want(line: Line, demand: Demand | None, tasks: int) -> None:
        """Change by `tasks` how many of the line's Tasks want room there. A line in no group wants none."""
        if demand is not None and tasks and line.group is not None:
            line.group.want(demand, tasks)

    def best(self, free: int, now: float) -> TaskRecord | None:
        """Return the first Task in order among those of the given profiles."""
        while True:
            at = self._masks.first(free)
            if at is None:
                return None
            record = _turn(self._bands[at].root.pick(free), free)
            if record.hopeless_from >= now or not _leaf(at) & 1:
                return record
            # Too late by now: it goes after those that can still make it.
            self.remove(record)
            self.add(record, now)
            if record.trying:
                self.overtaken.append(record)

    # Shares.

    def charge(self, record: TaskRecord, pool: Key, service: float, now: float) -> None:
        """Charge the grant of a Task to its shares: `service` seconds are expected of it."""
        line = record.line
        assert line is not None
        assert line.share is not None, "what is granted stands in a line that was found"
        share, queue = line.share, line.share.parent
        assert queue is not None
        band = self._bands[_leaf(line.band)]
        queue.present = max(queue.present, min(share.vt, queue.turn))
        band.present[pool] = max(band.present.get(pool, 0.0), queue.vt)
        cost = service * record.task.slots
        share.charge(cost)
        queue.charge(cost)
        queue.pending += cost
        record.charge = Charge(share, cost, now)

    def correct_charge(self, record: TaskRecord, now: float) -> None:
        """Correct what was charged for the Task by what it took: its lease is over."""
        charge, record.charge = record.charge, None
        if charge is None:
            return
        correction = (now - charge.since) * record.task.slots - charge.cost
        charge.share.charge(correction)
        if charge.share.parent is not None:
            charge.share.parent.charge(correction)
            charge.share.parent.pending -= charge.cost

    def reweigh(self, queue: Queue) -> None:
        """Adopt the queue's weights."""
        weights = dict(queue.tenant_weights)
        for band in self._bands:
            share = band.root.children.get(order.full_name(queue))
            if share is not None:
                share.weight = float(queue.weight)
                for tenant in share.children.values():
                    tenant.weight = float(weights.get(tenant.key, queue.tenant_weight))

    # Limits.

    def park(self, line: Line, blocker: "Blocker") -> None:
        """Hide the line until `unpark`."""
        if line.parked is None:
            self._want(line, line.shape.demand, -line.live)
            self._withdraw(line, line.shape.profile)
        line.parked = blocker

    def unpark(self, line: Line) -> None:
        """Show the line again."""
        if line.parked is not None:
            line.parked = None
            self._enter(line, line.shape.profile)
            self._want(line, line.shape.demand, line.live)

    def park_group(self, line: Line, blocker: "Blocker") -> Group:
        """Hide the line's group until `unpark_group`."""
        group = line.group
        assert group is not None, "what is found stands in a group"
        group.park(blocker)
        self._show(_leaf(line.band))
        return group

    def unpark_group(self, group: Group, blocker: "Blocker") -> None:
        """Show the group again, if it is parked under that blocker still."""
        if group.parked is blocker:
            group.parked = None
            if group.lines:
                line = group.first()
                self._gain(line, group.share, group.number)
                for demand, tasks in group.demands.items():
                    group.share.want(demand, tasks)

    def park_share(self, line: Line, blocker: "Blocker") -> Share[Group, Line]:
        """Hide the line's tenant, in its queue and band, until `unpark_share`."""
        share = line.share
        assert share is not None
        share.park(blocker)
        self._show(_leaf(line.band))
        return share

    def unpark_share(self, share: Share[Group, Line], pools: tuple[Key, ...]) -> None:
        """Show the share again; `pools` are those that it may use."""
        root = share
        while root.parent is not None:
            root = root.parent
        at = next(at for at, band in enumerate(self._bands) if band.root is root)
        share.unpark(self._present(self._bands[at], pools))
        self._show(at)

    @staticmethod
    def _present(band: Band, pools: tuple[Key, ...]) -> float:
        """Return the virtual time at which a queue starts that had nothing to serve in these pools."""
        return min((band.present[pool] for pool in pools if pool in band.present), default=0.0)

    # What pools are asked to grow for.

    def tenants(self) -> list[Share[Group, Line]]:
        """Return the shares that have Tasks which are not parked."""
        return [tenant for band in self._bands for queue in band.root.order for tenant in queue.order]

    @staticmethod
    def first_of(share: Share[Group, Line]) -> TaskRecord | None:
        """Return the first Task of a tenant, whether there is room for it or not; None if all are parked."""
        if not share.mask:
            return None
        return _leader(_first_of(share, share.mask))

    def findings(self) -> Iterator[str]:
        """Yield broken invariants of the index itself."""
        for at, band in enumerate(self._bands):
            for queue in band.root.children.values():
                for tenant in queue.children.values():
                    if tenant.profiles != {number for number, group in tenant.groups.items() if group.parked is None}:
                        yield f"a tenant of band {at} counts other profiles than it has groups of that go on"
                    for number, group in tenant.groups.items():
                        demands = Counter[int]()
                        heads = [entry for entry in group.heap if entry.live]
                        for head in heads:
                            if head.line.shape.demand is not None:
                                demands[id(head.line.shape.demand)] += head.line.live
                        if {id(demand): tasks for demand, tasks in group.demands.items()} != demands:
                            yield f"a group of band {at} and profile {number} counts other demands than its lines"
                        if len(heads) != group.lines or not heads:
                            yield f"a group of band {at} and profile {number} counts {group.lines}, not {len(heads)}"
                        for head in heads:
                            yield from _keys_of(head.line)
                            first = head.line.first()
                            if first is None or head.place.compare(first.place):
                                yield f"a line of band {at} and profile {number} stands under another than its first"
                    for numbers, kept in tenant.firsts.items():
                        groups = [tenant.groups[number] for number in bits(numbers) if number in tenant.groups]
                        if kept is not min((group.first() for group in groups), key=_place, default=None):
                            yield f"a tenant of band {at} has forgotten whose turn it is of profiles {numbers:b}"
            yield from band.root.findings()
            if self._masks[at] != band.root.mask:
                yield f"the mask of band {at} does not name its groups"

    def _lead(self, line: Line, first: HeapTask | None) -> None:
        """Enter the line in its group under its new first Task."""
        group = line.group
        if first is None:
            self._withdraw(line, line.shape.profile)
        elif group is None:
            self._enter(line, line.shape.profile)
        else:
            group.trim()
            self._head(line, group, first)

    def _enter(self, line: Line, profile: Profile | None) -> None:
        first = line.first()
        if profile is None or first is None or line.parked is not None:
            return
        share = line.share
        if share is None or not share.known:
            share = line.share = self._share(line, first.record.task)
        group = share.groups.get(profile.number)
        if group is None:
            group = share.groups[profile.number] = Group(profile, share)
            self._gain(line, share, profile.number)
        group.join(line.shape)
        line.group = group
        parked = group.parked
        if isinstance(parked, NotYet) or (
            isinstance(parked, Short) and amount_taken(parked.purse, line.shape.budgets) < parked.amount
        ):
            # It may go though the others may not.
            self.unpark_group(group, parked)
        self._head(line, group, first)

    def _gain(self, line: Line, share: Share[Group, Line], profile: int) -> None:
        """Let the share be found under this profile, of which it has a group now: that of the line."""
        at = _leaf(line.band)
        band, queue = self._bands[at], share.parent
        idle = queue is not None and not queue.mask
        share.gain(profile, self._present(band, line.shape.pools) if idle else None)
        self._show(at)

    def _show(self, at: int) -> None:
        """Keep the mask of the band right, by which it is found."""
        self._masks[at] = self._bands[at].root.mask

    def _head(self, line: Line, group: Group, first: HeapTask) -> None:
        """Enter the line in its group by its first Task."""
        self._stamp += 1
        line.stamp = self._stamp
        line.lead = record = first.record
        heappush(group.heap, HeapLine(first.place, line.stamp, line))
        assert line.share is not None
        firsts = line.share.firsts
        for numbers, former in list(firsts.items()):
            if former is line:
                # Another line may go first now.
                del firsts[numbers]
            elif has(numbers, group.number) and record.before(_leader(former)):
                firsts[numbers] = line

    def _share(self, line: Line, task: Task) -> Share[Group, Line]:
        queue = self._queue_of(line.shape.queue_key)
        name, tenant = order.owner(queue, task)
        of_queue = self._bands[_leaf(line.band)].root.child(name, float(queue.weight))
        known = of_queue.children.get(tenant)
        if known is not None:
            return known
        return of_queue.child(tenant, float(dict(queue.tenant_weights).get(tenant, queue.tenant_weight)))

    def _withdraw(self, line: Line, profile: Profile | None) -> None:
        group, line.group, line.lead, line.stamp = line.group, None, None, 0
        if group is None or profile is None:
            return
        group.part(line.shape)
        share = line.share
        if share is not None:
            for numbers, former in list(share.firsts.items()):
                if former is line:
                    del share.firsts[numbers]
        if not group.lines and share is not None:
            del share.groups[profile.number]
            if group.parked is None:
                share.lose(profile.number)
                self._show(_leaf(line.band))


def in_hurry(record: TaskRecord) -> bool:
    """Whether the Task has a deadline."""
    return record.hopeless_from < inf


def _turn(queue: Share[Group, Line], free: int) -> TaskRecord:
    """Return the first Task of the tenant whose turn it is, among those that the given profiles serve.

    It is that of the one that lags most; a few that are as good as even with it go first if a deadline decides so.
    """
    found: TaskRecord | None = None
    looked, least, pending = 0, 0.0, queue.pending
    for share in queue.order:
        open_here = share.mask & free
        if not open_here:
            continue
        if found is None:
            found, least = _leader(share.firsts.get(open_here) or _first_of(share, open_here)), share.vt
            if pending <= 0.0:
                break
        elif even(share.vt, share.weight, least, pending):
            lead = _leader(share.firsts.get(open_here) or _first_of(share, open_here))
            # Of those without a deadline only shares decide.
            if in_hurry(lead) and lead.before(found):
                found = lead
        looked += 1
        if looked == MOST_COMPARED:
            break
    assert found is not None, "a share's mask names a profile that none of its children waits for"
    queue.turn = least
    return found


def _first_of(share: Share[Group, Line], open_here: int) -> Line:
    """Return the first line of a tenant's among those of these profiles."""
    groups, firsts, left = share.groups, share.firsts, open_here
    found: Line | None = None
    while left:
        low = left & -left
        line = groups[low.bit_length() - 1].first()
        if found is None or _leader(line).before(_leader(found)):
            found = line
        left ^= low
    assert found is not None, "there is one, as the mask says"
    if len(firsts) >= REMEMBERED:
        firsts.clear()
    firsts[open_here] = found
    return found


def _leader(line: Line) -> TaskRecord:
    """Return the first Task of a line that stands in a group: it is never dead."""
    lead = line.lead
    assert lead is not None, "a line without Tasks stands in no group"
    return lead


def _keys_of(line: Line) -> Iterator[str]:
    keys = Counter(each.task.concurrency_key for each in line.tasks() if each.task.concurrency_key is not None)
    if keys != {key: count.tasks for key, count in (line.keys or {}).items()}:
        yield f"a line of queue {line.shape.queue_key} counts other concurrency keys than its Tasks have"


def _place(line: Line) -> Place:
    return _leader(line).place()


def _leaf(band: int) -> int:
    return BANDS - 1 - band
