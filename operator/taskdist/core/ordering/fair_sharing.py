"""Whose turn it is: queues that compete in a band, and tenants within a queue, by virtual time.

Start-time fair queueing (Goyal, Vin, Cheng: Start-time Fair Queuing, SIGCOMM 1996), with slot-seconds in the place of
bytes. Each share has a virtual time; the one that lags most and has work that fits goes first. A grant charges
estimated service × slots ÷ weight, the release corrects that by the slot-seconds really held. One that was idle starts
at the present virtual time: it neither saves up nor pays for what went on without it.

What is under way was charged by an estimate, so virtual times are no better known than that. Tenants that differ by no
more are as good as even: between them a deadline may decide. Refuses to know Tasks: its leaves hold groups, which are
the index's.
"""

from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from taskdist.core.fleet.equivalence import Demand
    from taskdist.core.limits.blockers import Blocker

GroupT = TypeVar("GroupT")
LineT = TypeVar("LineT")
# The most shares, first in their order, among which a deadline may decide.
MOST_COMPARED: Final = 8


def even(vt: float, weight: float, least: float, pending: float) -> bool:
    """Whether two virtual times differ by no more than the error of running work, so that a deadline may decide."""
    return vt - pending / weight <= least


def tally(demands: "dict[Demand, int]", demand: "Demand", tasks: int) -> None:
    """Change by `tasks` how many Tasks want room there."""
    left = demands.get(demand, 0) + tasks
    if left:
        demands[demand] = left
    else:
        del demands[demand]


class Share(Generic[GroupT, LineT]):
    """A band, a queue in it, or a tenant of that: a node of a tree whose leaves hold groups by profile.

    `mask` are the profiles that anything below waits for, without what is parked. `order` are its children with such
    work, by virtual time and key. A parked share counts as one without work.
    """

    __slots__ = (
        "_counts",
        "children",
        "demands",
        "firsts",
        "groups",
        "key",
        "mask",
        "order",
        "parent",
        "parked",
        "pending",
        "present",
        "turn",
        "vt",
        "wanted",
        "weight",
    )

    def __init__(self, key: str, parent: "Share[GroupT, LineT] | None" = None, weight: float = 1.0) -> None:
        self.key = key
        self.parent = parent
        self.weight = weight
        self.vt = 0.0
        # The virtual time at which the last of its children was served, and that of the one whose turn it last was.
        self.present = 0.0
        self.turn = 0.0
        # Slot-seconds that were charged for what is under way: by so much may what was charged be wrong.
        self.pending = 0.0
        self.mask = 0
        self._counts: dict[int, int] = {}
        self.children: dict[str, Share[GroupT, LineT]] = {}
        self.order: list[Share[GroupT, LineT]] = []
        self.groups: dict[int, GroupT] = {}
        # By set of profiles: which line's turn it is of these groups. Whoever changes a group's first forgets that.
        self.firsts: dict[int, LineT] = {}
        # By demand: Tasks that want room there, without lines that are parked themselves; and the sum of all.
        self.demands: dict[Demand, int] = {}
        self.wanted = 0
        self.parked: Blocker | None = None

    def child(self, key: str, weight: float) -> "Share[GroupT, LineT]":
        found = self.children.get(key)
        if found is None:
            if len(self.children) > 64 and len(self.children) > 4 * len(self.order):
                self._forget()
            found = self.children[key] = Share(key, self, weight)
        return found

    def _forget(self) -> None:
        """Drop idle children whose past makes no difference: they would start at the present anyway."""
        idle = [
            child
            for child in self.children.values()
            if not child._counts
            and not child.groups
            and child.vt <= self.present
            and not any(each._counts or each.groups for each in child.children.values())
        ]
        for child in idle:
            del self.children[child.key]

    @property
    def known(self) -> bool:
        """Whether it, and each share above it, is still part of the tree."""
        parent = self.parent
        return parent is None or (parent.children.get(self.key) is self and parent.known)

    def gain(self, profile: int, present: float | None = None) -> None:
        """Something below waits for this profile. `present` is the virtual time at which an idle queue starts.

        A tenant starts at its queue's. A queue's cannot be its band's: bands span pools that have nothing to do with
        each other.
        """
        count = self._counts.get(profile, 0)
        self._counts[profile] = count + 1
        if not count and self.parked is None:
            self._show(1 << profile, present)

    def lose(self, profile: int) -> None:
        """Nothing more in one place below waits for this profile."""
        count = self._counts[profile] - 1
        if count:
            self._counts[profile] = count
            return
        del self._counts[profile]
        if self.parked is None:
            self._hide(1 << profile)

    @property
    def profiles(self) -> set[int]:
        """Return the profiles that are waited for below, parked or not."""
        return set(self._counts)

    def park(self, blocker: "Blocker") -> None:
        """Hide all that is below until `unpark`."""
        if self.parked is None:
            self._hide(self.mask)
            for demand, tasks in self.demands.items():
                demand.tasks -= tasks
        self.parked = blocker

    def unpark(self, present: float) -> None:
        """Show what is below again, at the present virtual time like a share that was idle."""
        if self.parked is not None:
            self.parked = None
            for demand, tasks in self.demands.items():
                demand.tasks += tasks
            self._show(sum(1 << profile for profile in self._counts), present)

    def want(self, demand: "Demand", tasks: int) -> None:
        """Change by `tasks` how many Tasks want room there. Pools are asked for it unless the share is parked."""
        self.wanted += tasks
        tally(self.demands, demand, tasks)
        if self.parked is None:
            demand.tasks += tasks

    def _show(self, bits: int, present: float | None) -> None:
        if not bits:
            return
        parent = self.parent
        if parent is not None and not self.mask:
            if parent.parent is not None:
                self.vt = max(self.vt, parent.present)
            elif present is not None:
                self.vt = max(self.vt, present)
            parent.order.insert(self._at(parent), self)
        self.mask |= bits
        if parent is not None:
            while bits:
                low = bits & -bits
                parent.gain(low.bit_length() - 1, present)
                bits ^= low

    def _hide(self, bits: int) -> None:
        if not bits:
            return
        parent = self.parent
        self.mask &= ~bits
        if parent is not None:
            if not self.mask:
                del parent.order[self._at(parent)]
            while bits:
                low = bits & -bits
                parent.lose(low.bit_length() - 1)
                bits ^= low

    def _at(self, parent: "Share[GroupT, LineT]") -> int:
        """Return its index among its parent's shares in order, or the one where it belongs."""
        order, vt, key = parent.order, self.vt, self.key
        low, high = 0, len(order)
        while low < high:
            middle = (low + high) // 2
            other = order[middle]
            if other.vt < vt or (other.vt == vt and other.key < key):
                low = middle + 1
            else:
                high = middle
        return low

    def pick(self, free: int) -> "Share[GroupT, LineT]":
        """Return the child that lags most of those with work for the given profiles. There must be one."""
        for child in self.order:
            if child.mask & free:
                return child
        raise AssertionError("a share's mask names a profile that none of its children waits for")

    def charge(self, cost: float) -> None:
        """Charge slot-seconds, or correct by a negative amount."""
        parent = self.parent
        if not self.mask or parent is None or len(parent.order) == 1:
            self.vt += cost / self.weight
            return
        del parent.order[self._at(parent)]
        self.vt += cost / self.weight
        parent.order.insert(self._at(parent), self)

    def findings(self) -> list[str]:
        """Return what does not hold in the share and all below."""
        found = []
        if self.wanted != sum(self.demands.values()):
            found.append(f"share {self.key} counts {self.wanted} wanted, not {sum(self.demands.values())}")
        if self.parent is None or self.parent.parent is None:
            counts: dict[int, int] = {}
            for child in self.children.values():
                for profile in child._counts if child.parked is None else ():
                    counts[profile] = counts.get(profile, 0) + 1
                found += child.findings()
            ordered = [child for child in self.children.values() if child.mask]
            if sorted(ordered, key=lambda child: (child.vt, child.key)) != self.order:
                found.append(f"share {self.key} orders other children than have work")
            if counts != self._counts:
                found.append(f"share {self.key} counts {self._counts}, not {counts}")
        shown = 0 if self.parked is not None else sum(1 << profile for profile in self._counts)
        if shown != self.mask:
            found.append(f"share {self.key} shows {self.mask:b}, not {shown:b}")
        return found
