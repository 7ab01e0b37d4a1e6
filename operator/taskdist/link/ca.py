"""The installation's own certificate authority. Pure: a state and a time in, the next state out.

An authority signs short-lived serving certificates. Before it ends, a next one is made; both are published together
for five minutes before the next one signs, so that an agent that reads the bundle anew for each connection trusts the
server at every instant. The retired one stays in the bundle for as long again: no connection between an old server
and a new bundle is refused either.

Nothing is stored, published or timed here. Times are seconds since the Unix epoch.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from taskdist.link.certificates import Signed, general_names, make_authority, make_certificate, named

DAY = 86400.0
BACKDATED = 3600.0  # clocks of agents may be behind by as much


class DamagedAuthority(Exception):
    """The stored authority is damaged: it was edited or cut. The text says which part and what to do."""


@dataclass(frozen=True, slots=True)
class AuthoritySettings:
    """Lives and the time that old and new authority are published together, in seconds."""

    authority_seconds: float = 90 * DAY
    serving_seconds: float = 7 * DAY
    overlap_seconds: float = 300.0

    def __post_init__(self) -> None:
        if not 0 < self.overlap_seconds * 4 <= self.serving_seconds <= self.authority_seconds / 3:
            raise ValueError(
                "certificate lives do not fit: an authority must outlive three serving certificates, and a serving "
                "certificate four overlaps"
            )


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes

    @property
    def begins(self) -> float:
        return self._parsed.not_valid_before_utc.timestamp() + BACKDATED

    @property
    def ends(self) -> float:
        return self._parsed.not_valid_after_utc.timestamp()

    @property
    def _parsed(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.certificate)


@dataclass(frozen=True, slots=True)
class Authority:
    """The authority's whole state: what signs now, what signs next, and what is trusted yet.

    `next_published` is when the bundle with the next authority had reached every place it is read from; None until
    then. `retired` is the former authority's certificate (its key is gone), published until `retired_until`.
    """

    current: Pair
    serving: Pair
    next: Pair | None = None
    next_published: float | None = None
    retired: bytes | None = None
    retired_until: float = 0.0

    @property
    def bundle(self) -> bytes:
        """All certificates to trust, PEM."""
        next_one = self.next.certificate if self.next else None
        return b"".join(part for part in (self.current.certificate, next_one, self.retired) if part)


def rotate(state: Authority | None, names: Sequence[str], now: float, settings: AuthoritySettings) -> Authority:
    """Return what the state has to be now; the same value if nothing is due.

    Args:
        names: DNS names and IP addresses that agents dial.
        now: seconds since the Unix epoch.
    """
    if state is None or state.current.ends <= now:
        # Nobody can trust anything yet, or any more: there is nothing to overlap with.
        current = _authority(now, settings)
        return Authority(current, _sign(current, names, now, settings))
    state = _stage_next(state, now, settings)
    state = _switch(state, names, now, settings)
    if state.retired is not None and now >= state.retired_until:
        state = replace(state, retired=None, retired_until=0.0)
    if _serving_is_due(state.serving, names, now, settings):
        state = replace(state, serving=_sign(state.current, names, now, settings))
    return state


def published(state: Authority, now: float) -> Authority:
    """Return the state after its bundle has reached every place. Only the first time counts."""
    if state.next is None or state.next_published is not None:
        return state
    return replace(state, next_published=now)


def next_change(state: Authority, now: float, settings: AuthoritySettings) -> float:
    """Return when `rotate` is next worth calling, in seconds since the Unix epoch."""
    authority = _renewal(state.current, settings) if state.next is None else _switch_time(state, settings)
    moments = [state.serving.ends - settings.serving_seconds / 3, authority]
    if state.retired is not None:
        moments.append(state.retired_until)
    return max(now, min(moments))


def _renewal(pair: Pair, settings: AuthoritySettings) -> float:
    """A third of its life before its end: the last serving certificate still fits below it."""
    return pair.ends - settings.authority_seconds / 3


def _stage_next(state: Authority, now: float, settings: AuthoritySettings) -> Authority:
    if state.next is not None and state.next.ends > now:
        return state
    if state.next is None and now < _renewal(state.current, settings):
        return state
    return replace(state, next=_authority(now, settings), next_published=None)


def _switch_time(state: Authority, settings: AuthoritySettings) -> float:
    """When the next authority begins to sign.

    A place that cannot be reached must not hold it back until everything ends: half a serving life before the present
    authority's end it signs even so. Agents there cannot connect then; otherwise nobody could.
    """
    assert state.next is not None
    forced = max(state.current.ends - settings.serving_seconds / 2, state.next.begins + settings.overlap_seconds)
    if state.next_published is None:
        return forced
    return min(forced, state.next_published + settings.overlap_seconds)


def _switch(state: Authority, names: Sequence[str], now: float, settings: AuthoritySettings) -> Authority:
    if state.next is None or now < _switch_time(state, settings):
        return state
    return Authority(
        current=state.next,
        serving=_sign(state.next, names, now, settings),
        retired=state.current.certificate,
        retired_until=now + settings.overlap_seconds,
    )


def _serving_is_due(serving: Pair, names: Sequence[str], now: float, settings: AuthoritySettings) -> bool:
    certificate = x509.load_pem_x509_certificate(serving.certificate)
    listed = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(listed) != set(general_names(names)) or now >= serving.ends - settings.serving_seconds / 3


# --- certificates ---


def _authority(now: float, settings: AuthoritySettings) -> Pair:
    """Make a self-signed authority that may sign serving certificates and nothing below them."""
    return _pair(make_authority("taskdist link authority {serial}", *_life(now, now + settings.authority_seconds)))


def _sign(authority: Pair, names: Sequence[str], now: float, settings: AuthoritySettings) -> Pair:
    """Make a serving certificate for these DNS names and IP addresses; it never outlives its authority."""
    if not names:
        raise ValueError("a serving certificate needs at least one DNS name or IP address")
    ends = min(now + settings.serving_seconds, authority.ends)
    signer = Signed.from_pem(authority.certificate, authority.key)
    usages = [ExtendedKeyUsageOID.SERVER_AUTH]
    return _pair(make_certificate(signer, named("taskdist link"), usages, names, *_life(now, ends)))


def _life(now: float, ends: float) -> tuple[datetime, datetime]:
    begins = datetime.fromtimestamp(now, UTC).replace(microsecond=0)
    return begins - timedelta(seconds=BACKDATED), datetime.fromtimestamp(ends, UTC)


def _pair(signed: Signed) -> Pair:
    return Pair(signed.certificate_pem, signed.key_pem)


# --- as stored ---


def to_secret(state: Authority) -> dict[str, bytes]:
    """Return the data of the Secret that holds the state."""
    data = {
        "ca.crt": state.current.certificate,
        "ca.key": state.current.key,
        "tls.crt": state.serving.certificate,
        "tls.key": state.serving.key,
        "state.json": json.dumps({"nextPublished": state.next_published, "retiredUntil": state.retired_until}).encode(),
    }
    if state.next is not None:
        data |= {"next.crt": state.next.certificate, "next.key": state.next.key}
    if state.retired is not None:
        data["retired.crt"] = state.retired
    return data


def from_secret(data: Mapping[str, bytes]) -> Authority | None:
    """Return the state that a Secret holds; None if it holds nothing yet.

    Raises:
        DamagedAuthority: something is there, and it is no authority.
    """
    if not data:
        return None
    try:
        times = json.loads(data["state.json"])
        published_at, retired_until = times["nextPublished"], times["retiredUntil"]
        return Authority(
            current=_load(data, "ca"),
            serving=_load(data, "tls"),
            next=_load(data, "next") if "next.crt" in data else None,
            next_published=None if published_at is None else float(published_at),
            retired=_certificate(data["retired.crt"]) if "retired.crt" in data else None,
            retired_until=float(retired_until),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedAuthority(
            f"the Secret of the link's certificate authority is damaged ({type(error).__name__}: {error}): delete it "
            "to have a new authority made; agents connect again once they have the new bundle"
        ) from error


def _load(data: Mapping[str, bytes], name: str) -> Pair:
    pair = Pair(data[f"{name}.crt"], data[f"{name}.key"])
    signed = Signed.from_pem(pair.certificate, pair.key)
    if signed.certificate.public_key() != signed.key.public_key():
        raise ValueError(f"{name}.crt and {name}.key do not belong together")
    return pair


def _certificate(pem: bytes) -> bytes:
    x509.load_pem_x509_certificate(pem)
    return pem
