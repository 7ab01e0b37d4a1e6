"""Addresses of pods: no two nodes of one machine give out the same, and a node started again keeps those it gave."""

from __future__ import annotations

import ipaddress
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest

from taskdist.local.addresses import Addresses, NoRange

Make = Callable[..., Addresses]


@pytest.fixture
def make() -> Iterator[Make]:
    with ExitStack() as stack:

        def made(*earlier: str) -> Addresses:
            addresses = Addresses(earlier)
            stack.callback(addresses.close)
            return addresses

        yield made


def test_two_nodes_of_one_machine_have_ranges_of_their_own(make: Make) -> None:
    one, other = make(), make()
    assert not one.range.overlaps(other.range)
    assert one.take() != other.take()


def test_a_node_in_another_process_counts_until_that_process_is_killed(make: Make) -> None:
    program = "from taskdist.local.addresses import Addresses as A; a = A(); print(a.take(), flush=True); input()"
    other = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        theirs = other.stdout.readline().strip()
        assert make(theirs).take(theirs) != theirs
    finally:
        other.kill()
        other.communicate()
    assert make(theirs).take(theirs) == theirs


def test_a_node_started_again_has_its_range_again_and_each_pod_its_address(make: Make) -> None:
    before = make()
    first, second = before.take(), before.take()
    before.close()
    again = make(first, second)
    assert again.range == before.range
    assert again.take() not in {first, second}  # A new pod that happens to be seen before the old ones.
    assert [again.take(first), again.take(second)] == [first, second]


@pytest.mark.parametrize(
    "earlier", ["", "127.0.0.1", "10.0.0.7", "fd00::1"], ids=["none", "the machine's own", "a cluster's", "of IPv6"]
)
def test_an_address_of_elsewhere_is_not_kept(make: Make, earlier: str) -> None:
    addresses = make(*filter(None, [earlier]))
    assert addresses.take(earlier) != earlier


def test_no_address_has_two_pods_and_one_that_was_given_back_comes_last(make: Make) -> None:
    addresses = make()
    taken = [addresses.take() for _ in range(1000)]
    assert len(set(taken)) == len(taken)
    addresses.give_back(taken[0])
    assert addresses.take() not in taken


def test_where_no_range_is_left_it_says_so() -> None:
    space = ipaddress.IPv4Network("127.200.0.0/16")  # Not that of nodes which others run on this machine.
    with closing(Addresses(space=space)), pytest.raises(NoRange, match=r"all 1 ranges of .* stop one of them"):
        Addresses(space=space)
