"""An authority of a folder: the same one when it is opened again, and its keys are its owner's."""

from pathlib import Path

import pytest
from cryptography import x509

from taskdist.local.certificates import LocalAuthority, signing_key


def test_an_authority_is_opened_where_it_stands(tmp_path: Path) -> None:
    first, second = LocalAuthority(tmp_path), LocalAuthority(tmp_path)
    root = x509.load_pem_x509_certificate(first.certificate.read_bytes())
    for pair in (first.server("etcd"), second.client("system:kube-controller-manager", ("system:masters",))):
        x509.load_pem_x509_certificate(pair.certificate.read_bytes()).verify_directly_issued_by(root)
        assert pair.key.stat().st_mode & 0o777 == 0o600


def test_what_is_no_authority_names_its_file(tmp_path: Path) -> None:
    LocalAuthority(tmp_path)
    (tmp_path / "ca.key").write_text("no key")
    with pytest.raises(ValueError, match=r"ca\.key"):
        LocalAuthority(tmp_path)


def test_tokens_are_signed_by_a_key_of_its_own(tmp_path: Path) -> None:
    pair = signing_key(tmp_path)
    assert pair.certificate.read_bytes().startswith(b"-----BEGIN PUBLIC KEY-----")
    assert pair.key.stat().st_mode & 0o777 == 0o600
