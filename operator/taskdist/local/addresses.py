"""Addresses for the pods of one node: a range of loopback that no other node on this machine has.

Owns the reservation of the range and which of its addresses are in use. Linux answers on all of 127.0.0.0/8 without
any set-up, so each pod can have an address of its own; two nodes that gave out the same ones would answer each other's
probes.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Iterable

from taskdist.local.locks import hold

SPACE = ipaddress.IPv4Network("127.64.0.0/10")
"""What the nodes of one machine share among them, a sixty-fourth each."""


class NoRange(OSError):
    """All ranges are in use by other nodes of this machine."""


class Addresses:
    """The addresses of one node. `close` gives the range back; so does the end of the process."""

    def __init__(self, earlier: Iterable[str] = (), space: ipaddress.IPv4Network = SPACE) -> None:
        """Reserve a range: where `earlier`, the addresses of pods that the node had, come from one that is free, that.

        None of these is given to another pod.
        """
        self._avoided = frozenset(earlier)
        ranges = list(space.subnets(new_prefix=16))
        known = [each for each in ranges if any(ipaddress.ip_address(one) in each for one in self._avoided)]
        # Not always the first: who still calls an address of a node that has just ended must not meet a new pod.
        first = secrets.randbelow(len(ranges))
        for candidate in (*known, *ranges[first:], *ranges[:first]):
            lock = hold("pod-addresses", str(candidate))
            if lock is not None:
                self._lock = lock
                self.range: ipaddress.IPv4Network = candidate
                break
        else:
            raise NoRange(f"all {len(ranges)} ranges of {space} have a node on this machine already; stop one of them")
        self._taken: set[str] = set()
        self._next = secrets.randbelow(self.range.num_addresses - 2)

    def take(self, earlier: str = "") -> str:
        """An address nobody has: `earlier`, the one that the pod had before, where it is of this range."""
        if earlier and earlier not in self._taken and ipaddress.ip_address(earlier) in self.range:
            self._taken.add(earlier)
            return earlier
        while True:
            # An address is used again as late as possible: a late visitor must not meet another pod.
            self._next = self._next % (self.range.num_addresses - 2) + 1
            address = str(self.range[self._next])
            if address not in self._taken and address not in self._avoided:
                self._taken.add(address)
                return address

    def give_back(self, address: str) -> None:
        """The pod that had it is gone."""
        self._taken.discard(address)

    def close(self) -> None:
        """Give the range back. Safe to repeat."""
        self._lock.close()
