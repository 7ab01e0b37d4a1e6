"""Certificates of a local control plane: one authority, and what it signs.

Owns key and certificate files of one directory. They are short-lived by intent and serve loopback only; this is no
authority for anything that outlives a demo or a test run.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFETIME = datetime.timedelta(days=30)
_CLOCK_SKEW = datetime.timedelta(minutes=5)


@dataclass(frozen=True)
class KeyPair:
    """A certificate and its private key, as PEM files."""

    certificate: Path
    key: Path


class Authority:
    """Signs server and client certificates; made new in `directory`, or opened where it stands."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._pair = KeyPair(directory / "ca.crt", directory / "ca.key")
        if self._pair.key.exists():
            key = serialization.load_pem_private_key(self._pair.key.read_bytes(), None)
            if not isinstance(key, ec.EllipticCurvePrivateKey):
                raise ValueError(f"{self._pair.key} is not an elliptic-curve key")
            self._key = key
            self._certificate = x509.load_pem_x509_certificate(self._pair.certificate.read_bytes())
        else:
            self._key = ec.generate_private_key(ec.SECP256R1())
            name = _name("taskdist-local-ca")
            builder = (
                _builder(name, name, self._key.public_key())
                .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
                .add_extension(_usage(authority=True), critical=True)
            )
            self._certificate = builder.sign(self._key, hashes.SHA256())
            self._write(self._pair, self._key, self._certificate)

    @property
    def certificate(self) -> Path:
        """The authority's own certificate, PEM."""
        return self._pair.certificate

    def server(self, name: str) -> KeyPair:
        """A certificate for a server on loopback."""
        hosts = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
        alternatives: list[x509.GeneralName] = [x509.DNSName(host) for host in hosts]
        alternatives.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
        # etcd dials itself with its server certificate, so it has to do as a client's too.
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        return self._sign(name, _name(name), usages, x509.SubjectAlternativeName(alternatives))

    def client(self, user: str, groups: tuple[str, ...] = ()) -> KeyPair:
        """A certificate by which kube-apiserver knows a user and its groups."""
        file = user.replace(":", "-").replace("/", "-")
        return self._sign(file, _name(user, groups), [ExtendedKeyUsageOID.CLIENT_AUTH], None)

    def _sign(
        self,
        file: str,
        subject: x509.Name,
        usages: list[x509.ObjectIdentifier],
        alternatives: x509.SubjectAlternativeName | None,
    ) -> KeyPair:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            _builder(subject, self._certificate.subject, key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        )
        if alternatives is not None:
            builder = builder.add_extension(alternatives, critical=False)
        pair = KeyPair(self._directory / f"{file}.crt", self._directory / f"{file}.key")
        self._write(pair, key, builder.sign(self._key, hashes.SHA256()))
        return pair

    @staticmethod
    def _write(pair: KeyPair, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        write_private(pair.key, private_pem(key))
        pair.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def signing_key(directory: Path) -> KeyPair:
    """The key by which ServiceAccount tokens are signed; `certificate` holds its public half."""
    key = ec.generate_private_key(ec.SECP256R1())
    pair = KeyPair(directory / "service-account.pub", directory / "service-account.key")
    write_private(pair.key, private_pem(key))
    public = serialization.PublicFormat.SubjectPublicKeyInfo
    pair.certificate.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, public))
    return pair


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, from its first byte on."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)


def _name(common: str, organizations: tuple[str, ...] = ()) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, each) for each in organizations]
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + _LIFETIME)
    )


def _usage(authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
