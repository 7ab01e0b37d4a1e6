"""The authority in virtual time: at every instant an agent that reads the bundle anew trusts the server."""

import random
from datetime import UTC, datetime
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from hypothesis import given, settings
from hypothesis import strategies as st

from taskdist.link.ca import (
    BACKDATED,
    DAY,
    Authority,
    AuthoritySettings,
    DamagedAuthority,
    from_secret,
    next_change,
    published,
    rotate,
    to_secret,
)

NAMES = ("taskdist.taskdist-system.svc", "localhost", "127.0.0.1", "::1")
START = datetime(2030, 1, 1, tzinfo=UTC).timestamp()
SETTINGS = AuthoritySettings()
# Short lives, so that many rotations fit in a test.
SHORT = AuthoritySettings(authority_seconds=12_000, serving_seconds=3_000, overlap_seconds=300)


def trusts(bundle: bytes, state: Authority, at: float, name: str = NAMES[0]) -> bool:
    """Whether a client with this bundle takes the serving certificate for this name, by X.509's rules."""
    roots = Store(x509.load_pem_x509_certificates(bundle))
    subject: x509.DNSName | x509.IPAddress = x509.DNSName(name)
    if name[0].isdigit() or ":" in name:
        subject = x509.IPAddress(ip_address(name))
    verifier = PolicyBuilder().store(roots).time(datetime.fromtimestamp(at, UTC)).build_server_verifier(subject)
    try:
        verifier.verify(x509.load_pem_x509_certificate(state.serving.certificate), [])
    except VerificationError:
        return False
    return True


@pytest.mark.parametrize("name", NAMES)
def test_the_first_certificate_is_trusted_for_every_name(name: str) -> None:
    state = rotate(None, NAMES, START, SETTINGS)
    assert trusts(state.bundle, state, START, name)
    assert trusts(state.bundle, state, START - BACKDATED + 1, name)
    assert trusts(state.bundle, state, START + 7 * DAY - 1, name)
    assert not trusts(state.bundle, state, START + 7 * DAY + 1, name)
    assert not trusts(state.bundle, state, START, "example.org")


def test_nothing_changes_while_nothing_is_due() -> None:
    state = rotate(None, NAMES, START, SETTINGS)
    assert rotate(state, NAMES, START + DAY, SETTINGS) is state
    assert next_change(state, START, SETTINGS) == pytest.approx(state.serving.ends - 7 * DAY / 3)


def test_serving_is_renewed_in_the_last_third_of_its_life() -> None:
    state = rotate(None, NAMES, START, SETTINGS)
    due = next_change(state, START, SETTINGS)
    later = rotate(state, NAMES, due, SETTINGS)
    assert later.serving != state.serving
    assert later.current == state.current
    assert trusts(state.bundle, later, due)


def test_a_new_name_is_signed_at_once() -> None:
    state = rotate(None, NAMES, START, SETTINGS)
    later = rotate(state, (*NAMES, "link.example.org"), START + 1, SETTINGS)
    assert trusts(state.bundle, later, START + 1, "link.example.org")


def test_the_next_authority_waits_until_it_was_published_everywhere_for_five_minutes() -> None:
    state = rotate(None, NAMES, START, SETTINGS)
    due = state.current.ends - SETTINGS.authority_seconds / 3
    assert rotate(state, NAMES, due - 1, SETTINGS).next is None
    staged = rotate(state, NAMES, due, SETTINGS)
    assert staged.next is not None
    assert staged.bundle == staged.current.certificate + staged.next.certificate
    assert rotate(staged, NAMES, due + DAY, SETTINGS).current == state.current  # it was published nowhere
    shown = published(staged, due + 60)
    assert published(shown, due + 99) is shown
    assert rotate(shown, NAMES, due + 60 + 299, SETTINGS).current == state.current
    assert next_change(shown, due + 60, SETTINGS) == due + 60 + 300
    switched = rotate(shown, NAMES, due + 60 + 300, SETTINGS)
    assert switched.current == staged.next
    assert switched.retired == state.current.certificate
    assert trusts(staged.next.certificate, switched, due + 360)
    assert not trusts(state.current.certificate, switched, due + 360)
    assert rotate(switched, NAMES, due + 360 + 299, SETTINGS).retired
    assert rotate(switched, NAMES, due + 360 + 300, SETTINGS).retired is None


def test_an_authority_that_cannot_be_published_everywhere_signs_before_everything_ends() -> None:
    first = state = rotate(None, NAMES, START, SETTINGS)
    for half_day in range(200):
        now = START + half_day * DAY / 2
        state = rotate(state, NAMES, now, SETTINGS)
        assert trusts(state.bundle, state, now)
        if now < first.current.ends - SETTINGS.serving_seconds / 2:
            assert state.current == first.current
    assert state.current != first.current


def test_an_authority_that_ended_unattended_is_made_anew() -> None:
    state = rotate(None, NAMES, START, SETTINGS)
    later = START + 400 * DAY
    fresh = rotate(state, NAMES, later, SETTINGS)
    assert trusts(fresh.bundle, fresh, later)
    assert fresh.retired is None


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32))
def test_at_every_instant_an_agent_that_reads_within_five_minutes_trusts_the_server(seed: int) -> None:
    """Rounds come at odd times and publishing fails now and then; each bundle is read up to five minutes late."""
    chance = random.Random(seed)
    now, state = START, rotate(None, NAMES, START, SHORT)
    shown = [(START, state.bundle)]  # what stood in the ConfigMap from when on
    rotations = 0
    while rotations < 3:
        now += chance.uniform(1, 200)
        current = state.current
        state = rotate(state, NAMES, now, SHORT)
        rotations += state.current != current
        # The server serves the new state from here on, before its bundle is written.
        for begin, bundle in reversed(shown):
            assert trusts(bundle, state, now), f"{rotations=}"
            if begin <= now - 300:
                break
        if chance.random() < 0.7:
            shown.append((now, state.bundle))
            state = published(state, now)


def test_what_is_stored_is_read_back() -> None:
    state = rotate(None, NAMES, START, SHORT)
    due = state.current.ends - SHORT.authority_seconds / 3
    staged = rotate(state, NAMES, due, SHORT)
    shown = published(staged, due)
    switched = rotate(shown, NAMES, due + 300, SHORT)
    for each in (state, staged, shown, switched):
        assert from_secret(to_secret(each)) == each
    assert from_secret({}) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("ca.crt", b"", id="no certificate"),
        pytest.param("ca.key", b"garbage", id="no key"),
        pytest.param("ca.key", None, id="key missing"),
        pytest.param("state.json", b"{}", id="no times"),
        pytest.param("state.json", b"[]", id="times of another shape"),
        pytest.param("tls.key", "ca.key", id="key of another certificate"),
    ],
)
def test_a_damaged_secret_says_what_to_do(name: str, value: bytes | str | None) -> None:
    data = to_secret(rotate(None, NAMES, START, SETTINGS))
    if value is None:
        del data[name]
    else:
        data[name] = data[value] if isinstance(value, str) else value
    with pytest.raises(DamagedAuthority, match="delete it"):
        from_secret(data)


@pytest.mark.parametrize(
    "lives",
    [
        pytest.param((10 * DAY, 7 * DAY, 300), id="authority ends too soon"),
        pytest.param((90 * DAY, 600, 300), id="serving ends within the overlap"),
        pytest.param((90 * DAY, 7 * DAY, 0), id="no overlap"),
    ],
)
def test_lives_that_do_not_fit_are_refused(lives: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        AuthoritySettings(*lives)


def test_without_a_name_nothing_is_signed() -> None:
    with pytest.raises(ValueError, match="at least one"):
        rotate(None, (), START, SETTINGS)
