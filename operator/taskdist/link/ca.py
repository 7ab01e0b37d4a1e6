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
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = 86400.0
BACKDATED = 3600.0  # clocks of agents may be behind by as much


class DamagedAuthority(Exception):
    """What is stored is no authority: it was edited or cut. The text says which part and what to do."""


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
    """The whole state.

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
        current = make_authority(now, settings)
        return Authority(current, sign(current, names, now, settings))
    state = _stage_next(state, now, settings)
    state = _switch(state, names, now, settings)
    if state.retired is not None and now >= state.retired_until:
        state = replace(state, retired=None, retired_until=0.0)
    if _serving_is_due(state.serving, names, now, settings):
        state = replace(state, serving=sign(state.current, names, now, settings))
    return state


def published(state: Authority, now: float) -> Authority:
    """Return the state after its bundle has reached every place. Only the first time counts."""
    if state.next is None or state.next_published is not None:
        return state
    return replace(state, next_published=now)


def next_change(state: Authority, now: float, settings: AuthoritySettings) -> float:
    """Return when `rotate` is next worth calling, in seconds since the Unix epoch."""
    moments = [state.serving.ends - settings.serving_seconds / 3, _renewal(state.current, settings)]
    if state.next is not None:
        moments = [moments[0], _switch_time(state, settings)]
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
    return replace(state, next=make_authority(now, settings), next_published=None)


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
        serving=sign(state.next, names, now, settings),
        retired=state.current.certificate,
        retired_until=now + settings.overlap_seconds,
    )


def _serving_is_due(serving: Pair, names: Sequence[str], now: float, settings: AuthoritySettings) -> bool:
    certificate = x509.load_pem_x509_certificate(serving.certificate)
    listed = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(listed) != set(_general_names(names)) or now >= serving.ends - settings.serving_seconds / 3


# --- certificates ---


def make_authority(now: float, settings: AuthoritySettings) -> Pair:
    """Make a self-signed authority that may sign serving certificates and nothing below them."""
    key = ec.generate_private_key(ec.SECP256R1())
    # The name differs with each authority: where two have one name, some verifiers try only the first.
    serial = x509.random_serial_number()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"taskdist link authority {serial:x}"[:64])])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        _builder(name, name, key.public_key(), now, now + settings.authority_seconds, serial)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    return _pair(certificate, key)


def sign(authority: Pair, names: Sequence[str], now: float, settings: AuthoritySettings) -> Pair:
    """Make a serving certificate for these DNS names and IP addresses; it never outlives its authority."""
    issuer = x509.load_pem_x509_certificate(authority.certificate)
    issuer_key = serialization.load_pem_private_key(authority.key, None)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "taskdist link")])
    ends = min(now + settings.serving_seconds, issuer.not_valid_after_utc.timestamp())
    authority_identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    certificate = (
        _builder(subject, issuer.subject, key.public_key(), now, ends, x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(_general_names(names)), critical=False)
        .add_extension(authority_identifier, critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    return _pair(certificate, key)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: float,
    ends: float,
    serial: int,
) -> x509.CertificateBuilder:
    begins = datetime.fromtimestamp(now, UTC).replace(microsecond=0)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(begins - timedelta(seconds=BACKDATED))
        .not_valid_after(datetime.fromtimestamp(ends, UTC).replace(microsecond=0))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_names(names: Sequence[str]) -> list[x509.GeneralName]:
    if not names:
        raise ValueError("a serving certificate needs at least one DNS name or IP address")
    return [_general_name(name) for name in dict.fromkeys(names)]


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    return Pair(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


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
    certificate = _certificate(data[f"{name}.crt"])
    key = serialization.load_pem_private_key(data[f"{name}.key"], None)
    if x509.load_pem_x509_certificate(certificate).public_key() != key.public_key():
        raise ValueError(f"{name}.crt and {name}.key do not belong together")
    return Pair(certificate, data[f"{name}.key"])


def _certificate(pem: bytes) -> bytes:
    x509.load_pem_x509_certificate(pem)
    return pem
