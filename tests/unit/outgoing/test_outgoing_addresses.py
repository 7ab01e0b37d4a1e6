"""Which addresses a sink may send to."""

import pytest

from taskdist.outgoing.addresses import Malformed, parse_allowed

NOTHING = parse_allowed(())


@pytest.mark.parametrize(
    ("address", "may"),
    [
        pytest.param("1.1.1.1", True, id="a public address"),
        pytest.param("2606:4700::1111", True, id="a public address of the sixth version"),
        pytest.param("::ffff:1.1.1.1", True, id="a public one, mapped"),
        pytest.param("10.0.0.1", False, id="a private address"),
        pytest.param("172.20.0.1", False, id="a private address, where Services often are"),
        pytest.param("100.64.0.1", False, id="shared address space"),
        pytest.param("127.0.0.1", False, id="the process's own machine"),
        pytest.param("0.0.0.0", False, id="its own machine by another name"),
        pytest.param("169.254.169.254", False, id="a cloud's metadata"),
        pytest.param("168.63.129.16", False, id="a cloud's metadata in the public range"),
        pytest.param("fd00:ec2::254", False, id="a cloud's metadata of the sixth version"),
        pytest.param("::1", False, id="its own machine, of the sixth version"),
        pytest.param("fe80::1%eth0", False, id="a link-local address with its zone"),
        pytest.param("fec0::1", False, id="a site-local address"),
        pytest.param("fc00::1", False, id="a unique local address"),
        pytest.param("::ffff:10.0.0.1", False, id="a private one, mapped"),
        pytest.param("::10.0.0.1", False, id="a private one in the old mapped form"),
        pytest.param("64:ff9b::a00:1", False, id="a private one behind NAT64"),
        pytest.param("2002:a00:1::1", False, id="a private one behind 6to4"),
        pytest.param("ff0e::1", False, id="a group"),
        pytest.param("255.255.255.255", False, id="everyone"),
        pytest.param("10.1", False, id="what is no address"),
    ],
)
def test_only_public_addresses_are_dialled(address: str, may: bool) -> None:
    assert NOTHING.address("receiver.example.com", address) is may


@pytest.mark.parametrize(
    ("allowed", "host", "address", "may"),
    [
        pytest.param("hooks.team.svc", "hooks.team.svc", "10.0.0.1", True, id="a host by name"),
        pytest.param("hooks.team.svc", "Hooks.Team.svc.", "10.0.0.1", True, id="a host, written otherwise"),
        pytest.param("hooks.team.svc", "other.team.svc", "10.0.0.1", False, id="another host"),
        pytest.param("*.team.svc", "hooks.team.svc", "10.0.0.1", True, id="all hosts of a name"),
        pytest.param("*.team.svc", "a.b.team.svc", "10.0.0.1", True, id="those further below"),
        pytest.param("*.team.svc", "team.svc", "10.0.0.1", False, id="not the name itself"),
        pytest.param("*.team.svc", "eviteam.svc", "10.0.0.1", False, id="not what merely ends alike"),
        pytest.param("10.0.0.0/8", "whoever", "10.9.9.9", True, id="a network"),
        pytest.param("10.0.0.7", "whoever", "10.0.0.7", True, id="one address"),
        pytest.param("10.0.0.0/8", "whoever", "::ffff:10.9.9.9", True, id="a network, mapped"),
        pytest.param("10.0.0.0/8", "whoever", "192.168.0.1", False, id="another network"),
        pytest.param("*.svc", "evil.svc", "169.254.169.254", False, id="a name that stands for metadata"),
        pytest.param("*.svc", "evil.svc", "127.0.0.1", False, id="a name that stands for the machine"),
        pytest.param("127.0.0.0/8", "whoever", "127.0.0.1", True, id="the machine, where a network says so"),
    ],
)
def test_what_is_allowed_beside(allowed: str, host: str, address: str, may: bool) -> None:
    assert parse_allowed((allowed,)).address(host, address) is may


@pytest.mark.parametrize(
    ("allowed", "host", "address", "may"),
    [
        pytest.param((), "example.com", "1.1.1.1", False, id="over the Internet"),
        pytest.param(("hooks.team.svc",), "hooks.team.svc", "10.0.0.1", True, id="to an allowed host"),
        pytest.param(("10.0.0.0/8",), "whoever", "10.0.0.1", True, id="to an allowed network"),
        pytest.param(("10.0.0.0/8",), "whoever", "10.1", False, id="to what is no address"),
    ],
)
def test_plain_http_goes_only_to_what_is_allowed(allowed: tuple[str, ...], host: str, address: str, may: bool) -> None:
    assert parse_allowed(allowed).plain(host, address) is may


@pytest.mark.parametrize("word", ["10.0.0.0/40", "http://x", "a b", "*", "10.0.0.300", "x/8", "a*.b"])
def test_what_is_neither_host_nor_network_is_refused(word: str) -> None:
    with pytest.raises(Malformed, match="neither a host nor a network"):
        parse_allowed((word,))
