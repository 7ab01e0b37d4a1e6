"""Where a sink may send to. Pure.

Who writes a sink chooses its URL, and the process that follows it stands in the cluster's network: without a rule, a
sink could reach what its author cannot, such as a database, a cloud's metadata, or the node itself. So only addresses
of the public Internet are dialled, over https, unless whoever runs taskdist allows more. What counts is the address
that is dialled, not the name: a name may stand for any address, and for another one a moment later.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

_HOST: Final = re.compile(r"(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
# Prefixes of the sixth version behind which an address of the fourth is reached.
_NAT64: Final = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))
# Where clouds tell a machine about itself, beside link-local addresses; the first is in the public range.
_METADATA: Final = (IPv4Address("168.63.129.16"), IPv4Address("100.100.100.200"), IPv6Address("fd00:ec2::254"))

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Malformed(ValueError):
    """The text is neither a host nor a network; the message says what to write."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """The hosts and networks that may be dialled beside the public Internet.

    Args:
        hosts: names, in lower case; `*.` before one stands for all names that end so.
        networks: addresses.
    """

    hosts: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()

    def host(self, name: str) -> bool:
        """Whether this name is allowed."""
        name = name.lower().rstrip(".")
        parts = name.split(".")
        return name in self.hosts or any("*." + ".".join(parts[at:]) in self.hosts for at in range(1, len(parts)))

    def address(self, host: str, address: str) -> bool:
        """Whether this address, for which the host's name stands, may be dialled.

        A host that is allowed may be in the cluster's network. What is near the process itself (its own machine, the
        link it is on, and with that a cloud's metadata) is dialled only where a network says so.
        """
        try:
            found = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        every = [found, *_within(found)]
        if any(each in network for each in every for network in self.networks if each.version == network.version):
            return True
        if any(_near(each) for each in every):
            return False
        return self.host(host) or all(_public(each) for each in every)

    def plain(self, host: str, address: str) -> bool:
        """Whether what is sent may be readable on its way: only to what is allowed by name or network."""
        try:
            found = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        named = any(found in network for network in self.networks if found.version == network.version)
        return named or self.host(host)


PUBLIC_ONLY: Final = Allowed()


def parse_allowed(words: Iterable[str]) -> Allowed:
    """Read hosts and networks: `receiver.team.svc.cluster.local`, `*.example.com`, `10.0.0.0/8`. Raises `Malformed`."""
    hosts, networks = set(), []
    for word in words:
        try:
            networks.append(ip_network(word, strict=False))
        except ValueError:
            name = word.lower().rstrip(".")
            if "/" in word or not _HOST.fullmatch(name) or name.rpartition(".")[2].isdecimal():
                raise Malformed(
                    f"{word[:80]!r} is neither a host nor a network: write one such as hooks.team.svc.cluster.local, "
                    "*.example.com or 10.0.0.0/8"
                ) from None
            hosts.add(name)
    return Allowed(frozenset(hosts), tuple(networks))


def _near(address: Address) -> bool:
    local = address.is_loopback or address.is_link_local or address.is_unspecified
    return local or address.is_multicast or address in _METADATA


def _public(address: Address) -> bool:
    # Site-local addresses are deprecated, and count as global in the library.
    return address.is_global and not (isinstance(address, IPv6Address) and address.is_site_local)


def _within(address: Address) -> list[Address]:
    """The address of the fourth version that is reached by this one of the sixth."""
    if isinstance(address, IPv4Address):
        return []
    found: list[Address | None] = [address.ipv4_mapped, address.sixtofour]
    if address.teredo is not None:
        found += address.teredo
    if any(address in network for network in _NAT64):
        found.append(IPv4Address(int(address) & 0xFFFFFFFF))
    # The old form of a mapped address: no router takes it, and some kernels do.
    if int(address) >> 32 == 0:
        found.append(IPv4Address(int(address)))
    return [each for each in found if each is not None]
