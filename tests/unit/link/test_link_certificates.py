"""What certificates say, whoever has them made: verified by X.509's rules, not by how they were built."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from taskdist.link.certificates import Signed, make_authority, make_certificate, named

BEGINS = datetime(2030, 1, 1, tzinfo=UTC)
ENDS = BEGINS + timedelta(days=1)
SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
ROOT = make_authority("test", BEGINS, ENDS)


def signed(usage: x509.ObjectIdentifier, *names: str, by: Signed = ROOT) -> Signed:
    return make_certificate(by, named("someone", ("team-a", "team-b")), [usage], names, BEGINS, ENDS)


def policy() -> PolicyBuilder:
    return PolicyBuilder().store(Store([ROOT.certificate])).time(BEGINS + timedelta(hours=1))


def test_a_server_is_trusted_by_the_names_it_has() -> None:
    certificate = signed(SERVER, "localhost", "127.0.0.1", "localhost").certificate
    policy().build_server_verifier(x509.DNSName("localhost")).verify(certificate, [])
    with pytest.raises(VerificationError):
        policy().build_server_verifier(x509.DNSName("elsewhere")).verify(certificate, [])


def test_a_client_has_groups_and_may_not_serve() -> None:
    certificate = signed(CLIENT, "localhost").certificate
    policy().build_client_verifier().verify(certificate, [])
    groups = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    assert [group.value for group in groups] == ["team-a", "team-b"]
    with pytest.raises(VerificationError):
        policy().build_server_verifier(x509.DNSName("localhost")).verify(certificate, [])


def test_what_an_authority_signs_can_sign_nothing() -> None:
    middle = signed(SERVER, "localhost")
    forged = signed(SERVER, "localhost", by=middle).certificate
    with pytest.raises(VerificationError):
        policy().build_server_verifier(x509.DNSName("localhost")).verify(forged, [middle.certificate])


def test_authorities_differ_by_name_where_they_ask_for_it() -> None:
    subjects = {make_authority("link {serial}", BEGINS, ENDS).certificate.subject for _ in range(3)}
    assert len(subjects) == 3


def test_a_pair_is_what_it_was_after_pem() -> None:
    again = Signed.from_pem(ROOT.certificate_pem, ROOT.key_pem)
    assert again.certificate == ROOT.certificate
    assert again.key_pem == ROOT.key_pem


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, spelled: serialization.PrivateFormat) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, spelled, serialization.NoEncryption())


def test_keys_that_an_earlier_release_wrote_are_read() -> None:
    again = Signed.from_pem(ROOT.certificate_pem, pem(ROOT.key, serialization.PrivateFormat.TraditionalOpenSSL))
    assert again.key_pem == ROOT.key_pem


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(ROOT.certificate_pem, id="a certificate"),
        pytest.param(
            pem(rsa.generate_private_key(65537, 2048), serialization.PrivateFormat.PKCS8), id="a key of another kind"
        ),
    ],
)
def test_what_is_no_key_of_ours_is_refused(key: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Signed.from_pem(ROOT.certificate_pem, key)
