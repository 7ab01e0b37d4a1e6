"""Where the configuration comes from, and that it is read again rightly."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from taskdist.kube import ConfigurationError, Credentials


def kubeconfig(path: Path, user: dict[str, Any], **cluster: Any) -> str:
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "here",
                "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1", **cluster}}],
                "users": [{"name": "u", "user": user}],
                "contexts": [
                    {"name": "here", "context": {"cluster": "c", "user": "u"}},
                    {"name": "there", "context": {"cluster": "c", "user": "u", "namespace": "away"}},
                ],
            }
        )
    )
    return str(path)


def plugin(path: Path, output: str, code: int = 0) -> dict[str, Any]:
    path.write_text(f"#!/bin/sh\ncat <<'EOF'\n{output}\nEOF\nexit {code}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": str(path),
            "interactiveMode": "Never",
        }
    }


def test_a_token(tmp_path: Path) -> None:
    access = Credentials(kubeconfig(tmp_path / "k", {"token": "secret"})).load()
    assert (access.server, access.authorization, access.namespace) == ("http://127.0.0.1:1", "Bearer secret", "default")
    assert access.tls is None


def test_the_context_says_the_namespace(tmp_path: Path) -> None:
    assert Credentials(kubeconfig(tmp_path / "k", {"token": "t"}), "there").load().namespace == "away"


def test_a_token_file_is_read_again_and_may_end_in_a_newline(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("one\n")
    credentials = Credentials(kubeconfig(tmp_path / "k", {"tokenFile": str(token)}))
    assert credentials.load().authorization == "Bearer one"
    token.write_text("two\n")
    assert credentials.load().authorization == "Bearer two"


def test_basic_authentication(tmp_path: Path) -> None:
    access = Credentials(kubeconfig(tmp_path / "k", {"username": "me", "password": "p"})).load()
    assert access.authorization == "Basic bWU6cA=="


def test_an_exec_plugin_is_run(tmp_path: Path) -> None:
    user = plugin(
        tmp_path / "plugin",
        '{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{"token":"made"}}',
    )
    assert Credentials(kubeconfig(tmp_path / "k", user)).load().authorization == "Bearer made"


def test_an_exec_plugin_that_fails_is_named(tmp_path: Path) -> None:
    user = plugin(tmp_path / "plugin", "", 1)
    with pytest.raises(ConfigurationError, match="exec plugin of kubeconfig"):
        Credentials(kubeconfig(tmp_path / "k", user)).load()


@pytest.mark.parametrize("content", ["", "{[", "a: b", "just text"])
def test_a_broken_kubeconfig_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "k"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=r"kubeconfig .*k"):
        Credentials(str(path)).load()


def test_a_missing_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no kubeconfig at"):
        Credentials(str(tmp_path / "none")).load()


def test_an_unknown_context_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no context 'nowhere'"):
        Credentials(kubeconfig(tmp_path / "k", {}), "nowhere").load()


def test_a_proxy_comes_from_the_kubeconfig_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://env:1")
    monkeypatch.setenv("HTTPS_PROXY", "http://env:1")
    assert Credentials(kubeconfig(tmp_path / "k", {})).load().proxy is None
    given = {"proxy-url": "http://given:2"}
    assert Credentials(kubeconfig(tmp_path / "k", {}, **given)).load().proxy == "http://given:2"


def test_the_order_of_sources(tmp_path: Path) -> None:
    explicit, named = kubeconfig(tmp_path / "e", {}), kubeconfig(tmp_path / "n", {})
    pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    assert Credentials(explicit, environ={**pod, "KUBECONFIG": named}).source == f"kubeconfig {explicit}"
    assert Credentials(environ={**pod, "KUBECONFIG": named}).source == f"kubeconfig {named}"
    assert Credentials(environ=pod).source == "the pod's service account"
    assert Credentials(environ={}).source.endswith(".kube/config")


class TestPod:
    def account(self, tmp_path: Path, ca: Path) -> Credentials:
        (tmp_path / "token").write_text("one\n")
        (tmp_path / "namespace").write_text("system\n")
        return Credentials(
            environ={"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"},
            token_file=str(tmp_path / "token"),
            ca_file=str(ca),
            namespace_file=str(tmp_path / "namespace"),
        )

    def test_everything_comes_from_the_mounted_files(self, tmp_path: Path, authority: Path) -> None:
        access = self.account(tmp_path, authority).load()
        assert (access.server, access.authorization, access.namespace) == (
            "https://[fd00::1]:443",
            "Bearer one",
            "system",
        )
        assert access.tls is not None
        assert access.proxy is None

    def test_a_rotated_token_is_seen_and_the_connections_are_kept(self, tmp_path: Path, authority: Path) -> None:
        credentials = self.account(tmp_path, authority)
        assert credentials.max_age == 60
        first = credentials.load()
        (tmp_path / "token").write_text("two\n")
        second = credentials.load()
        assert second.authorization == "Bearer two"
        assert second.tls is first.tls

    def test_a_missing_token_is_named(self, tmp_path: Path, authority: Path) -> None:
        credentials = self.account(tmp_path, authority)
        (tmp_path / "token").unlink()
        with pytest.raises(ConfigurationError, match="service account"):
            credentials.load()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate authority's file."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("ca") / "ca.crt"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return path
