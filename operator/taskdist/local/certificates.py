"""Certificates of a local control plane: one authority, and what it signs.

Owns key and certificate files of one directory. They are short-lived by intent and serve loopback only; this is no
authority for anything that outlives a demo or a test run.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from taskdist.link.certificates import (
    Signed,
    make_authority,
    make_certificate,
    named,
    new_key,
    private_pem,
    public_pem,
)

_LIFETIME = datetime.timedelta(days=30)
_CLOCK_SKEW = datetime.timedelta(minutes=5)
_NAMES = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "127.0.0.1")


@dataclass(frozen=True)
class KeyPair:
    """A certificate and its private key, as PEM files."""

    certificate: Path
    key: Path


class LocalAuthority:
    """Signs server and client certificates; made new in `directory`, or opened where it stands."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._pair = KeyPair(directory / "ca.crt", directory / "ca.key")
        if self._pair.key.exists():
            try:
                self._signed = Signed.from_pem(self._pair.certificate.read_bytes(), self._pair.key.read_bytes())
            except ValueError as error:
                raise ValueError(f"{self._pair.key}: {error}") from error
        else:
            self._signed = make_authority("taskdist-local-ca", *_life())
            self._write(self._pair, self._signed)

    @property
    def certificate(self) -> Path:
        """The authority's own certificate, PEM."""
        return self._pair.certificate

    def server(self, name: str) -> KeyPair:
        """A certificate for a server on loopback."""
        # etcd dials itself with its server certificate, so it has to do as a client's too.
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        return self._sign(name, named(name), usages, _NAMES)

    def client(self, user: str, groups: tuple[str, ...] = ()) -> KeyPair:
        """A certificate by which kube-apiserver knows a user and its groups."""
        file = user.replace(":", "-").replace("/", "-")
        return self._sign(file, named(user, groups), [ExtendedKeyUsageOID.CLIENT_AUTH], ())

    def _sign(
        self, file: str, subject: x509.Name, usages: Sequence[x509.ObjectIdentifier], names: Sequence[str]
    ) -> KeyPair:
        pair = KeyPair(self._directory / f"{file}.crt", self._directory / f"{file}.key")
        self._write(pair, make_certificate(self._signed, subject, usages, names, *_life()))
        return pair

    @staticmethod
    def _write(pair: KeyPair, signed: Signed) -> None:
        write_private(pair.key, signed.key_pem)
        pair.certificate.write_bytes(signed.certificate_pem)


def signing_key(directory: Path) -> KeyPair:
    """The key by which ServiceAccount tokens are signed; `certificate` holds its public half."""
    key = new_key()
    pair = KeyPair(directory / "service-account.pub", directory / "service-account.key")
    write_private(pair.key, private_pem(key))
    pair.certificate.write_bytes(public_pem(key))
    return pair


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, from its first byte on."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)


def _life() -> tuple[datetime.datetime, datetime.datetime]:
    now = datetime.datetime.now(datetime.UTC)
    return now - _CLOCK_SKEW, now + _LIFETIME
