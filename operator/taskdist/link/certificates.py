"""X.509 as this project uses it: an authority that signs end certificates and nothing below them.

The one place that builds certificates: the link's authority and that of a local control plane both use it. Owns keys,
extensions and PEM; when a certificate begins and ends, and whom it is for, is the caller's to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True, slots=True)
class Signed:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return private_pem(self.key)

    @classmethod
    def from_pem(cls, certificate: bytes, key: bytes) -> Signed:
        """Raises ValueError for what is no certificate, no key, or a key of another kind."""
        try:
            loaded = serialization.load_pem_private_key(key, None)
        except UnsupportedAlgorithm as error:
            raise ValueError(f"the key cannot be used: {error}") from error
        if not isinstance(loaded, ec.EllipticCurvePrivateKey):
            raise ValueError("the key is not an elliptic-curve key")
        return cls(x509.load_pem_x509_certificate(certificate), loaded)


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    spelled = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, spelled)


def named(common: str, organizations: Sequence[str] = ()) -> x509.Name:
    """A subject: of a client, the API server takes the organizations for its groups."""
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, each) for each in organizations]
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, common)])


def make_authority(common: str, begins: datetime, ends: datetime) -> Signed:
    """Make a self-signed authority. Its serial number is in its name if `common` has a place for it, `{serial}`.

    Where two authorities have one name, some verifiers try only the first.
    """
    key, serial = new_key(), x509.random_serial_number()
    # A common name has 64 characters at the most.
    name = named(common.format(serial=f"{serial:x}")[:64])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        _builder(name, name, key.public_key(), begins, ends, serial)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    return Signed(certificate, key)


def make_certificate(
    authority: Signed,
    subject: x509.Name,
    usages: Sequence[x509.ObjectIdentifier],
    names: Sequence[str],
    begins: datetime,
    ends: datetime,
) -> Signed:
    """Make a certificate of the authority with a new key.

    Args:
        usages: what it is good for, server or client.
        names: DNS names and IP addresses of a server; none for a client.
    """
    key = new_key()
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    serial = x509.random_serial_number()
    builder = (
        _builder(subject, authority.certificate.subject, key.public_key(), begins, ends, serial)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(issuer, critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(general_names(names)), critical=False)
    return Signed(builder.sign(authority.key, hashes.SHA256()), key)


def general_names(names: Sequence[str]) -> list[x509.GeneralName]:
    """DNS names and IP addresses as a certificate lists them, each once."""
    return [_general_name(name) for name in dict.fromkeys(names)]


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    begins: datetime,
    ends: datetime,
    serial: int,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(begins.replace(microsecond=0))
        .not_valid_after(ends.replace(microsecond=0))
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
