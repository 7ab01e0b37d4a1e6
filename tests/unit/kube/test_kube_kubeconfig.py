"""Kubeconfigs are read as kubectl reads them, and as the official client's loader does where that does the same."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from taskdist.kube import ConfigurationError, Credentials, official
from taskdist.kube.kubeconfig import Kubeconfig, Login, lasts

V1 = "client.authentication.k8s.io/v1"
BETA = "client.authentication.k8s.io/v1beta1"
HTTPS: dict[str, Any] = {"server": "https://cluster:6443/sub/"}


def inline(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def write(
    path: Path,
    user: dict[str, Any] | None = None,
    cluster: dict[str, Any] | None = None,
    current: str = "here",
    **more: Any,
) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    context = {"cluster": "c", **({"user": "u"} if user is not None else {}), **more.pop("context", {})}
    config = {
        "current-context": current,
        "clusters": [{"name": "c", "cluster": cluster or {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": user}] if user is not None else [],
        "contexts": [{"name": "here", "context": context}],
        **more,
    }
    path.write_text(yaml.safe_dump(config))
    return str(path)


def program(path: Path, status: dict[str, Any], version: str = V1, code: int = 0) -> str:
    """A plugin that notes what it was told, and prints this."""
    path.parent.mkdir(parents=True, exist_ok=True)
    answer = json.dumps({"kind": "ExecCredential", "apiVersion": version, "status": status})
    path.write_text(
        f'#!/bin/sh\nprintf %s "$KUBERNETES_EXEC_INFO" > {path}.info\nprintf %s "$*:$EXTRA" > {path}.called\n'
        f"cat <<'END'\n{answer}\nEND\necho 'no, not you' >&2\nexit {code}\n"
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def plugin(command: str, version: str = V1, **more: Any) -> dict[str, Any]:
    return {"exec": {"apiVersion": version, "command": command, "interactiveMode": "Never", **more}}


Make = Callable[[Path], str]


def _files(tmp: Path) -> str:
    for name in ("ca", "crt", "key"):
        (tmp / "deep").mkdir(exist_ok=True)
        (tmp / "deep" / name).write_text(f"the {name}")
    user = {"client-certificate": "deep/crt", "client-key": "deep/key"}
    return write(tmp / "k", user, {**HTTPS, "certificate-authority": "deep/ca"})


def _token_file(tmp: Path) -> str:
    (tmp / "token").write_text("from a file\n")
    return write(tmp / "k", {"tokenFile": "token"})


def _several(tmp: Path) -> str:
    first = write(tmp / "one" / "k", {"token": "first"}, current="away")
    second = yaml.safe_dump(
        {
            "clusters": [{"name": "c", "cluster": {"server": "http://second"}}, {"name": "d", "cluster": HTTPS}],
            "users": [{"name": "u", "user": {"token": "second"}}, {"name": "v", "user": {"token": "other"}}],
            "contexts": [{"name": "away", "context": {"cluster": "d", "user": "v", "namespace": "far"}}],
        }
    )
    (tmp / "k2").write_text(second)
    return os.pathsep.join([first, str(tmp / "there is none"), str(tmp / "k2")])


SAME: dict[str, Make] = {
    "a token": lambda tmp: write(tmp / "k", {"token": "t"}),
    "a token file beside the kubeconfig": _token_file,
    "nothing": lambda tmp: write(tmp / "k", {}),
    "no user at all": lambda tmp: write(tmp / "k"),
    "an empty user": lambda tmp: write(tmp / "k", {"token": ""}),
    "a namespace": lambda tmp: write(tmp / "k", {"token": "t"}, context={"namespace": "ns"}),
    "a path behind the server": lambda tmp: write(tmp / "k", {"token": "t"}, HTTPS),
    "certificates inside": lambda tmp: write(
        tmp / "k",
        {"client-certificate-data": inline("c"), "client-key-data": inline("k")},
        {**HTTPS, "certificate-authority-data": inline("ca")},
    ),
    "certificates in files beside it": _files,
    "data goes before a file": lambda tmp: write(
        tmp / "k",
        {"token": "t"},
        {**HTTPS, "certificate-authority": "none", "certificate-authority-data": inline("ca")},
    ),
    "a certificate and a token": lambda tmp: write(
        tmp / "k", {"token": "t", "client-certificate-data": inline("c"), "client-key-data": inline("k")}, HTTPS
    ),
    "not verified": lambda tmp: write(tmp / "k", {}, {**HTTPS, "insecure-skip-tls-verify": True}),
    "verified": lambda tmp: write(tmp / "k", {}, {**HTTPS, "insecure-skip-tls-verify": False}),
    "another server's name": lambda tmp: write(tmp / "k", {}, {**HTTPS, "tls-server-name": "other"}),
    "a proxy": lambda tmp: write(tmp / "k", {}, {**HTTPS, "proxy-url": "http://proxy:1"}),
    "name and password": lambda tmp: write(tmp / "k", {"username": "me", "password": "p:w"}),
    "several files": _several,
    "a plugin's token": lambda tmp: write(tmp / "k", plugin(program(tmp / "p", {"token": "made"}))),
    "a plugin of v1beta1": lambda tmp: write(tmp / "k", plugin(program(tmp / "p", {"token": "made"}, BETA), BETA)),
    "a plugin's certificate": lambda tmp: write(
        tmp / "k",
        plugin(program(tmp / "p", {"clientCertificateData": "PEM c", "clientKeyData": "PEM k"})),
        HTTPS,
    ),
    "a plugin beside the kubeconfig": lambda tmp: write(
        tmp / "k", plugin("./" + Path(program(tmp / "p", {"token": "made"})).name)
    ),
    "a token goes before a plugin": lambda tmp: write(
        tmp / "k", {"token": "t", **plugin(program(tmp / "p", {"token": "made"}))}
    ),
}


@pytest.mark.parametrize("make", SAME.values(), ids=SAME.keys())
def test_it_is_read_as_by_the_official_loader(tmp_path: Path, make: Make) -> None:
    path = make(tmp_path)
    ours = Kubeconfig(path).login()
    assert ours == official.login(path, None)


def test_what_the_table_compares_is_not_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert Kubeconfig(_files(tmp_path / "a")).login() == Login(
        "https://cluster:6443/sub", authority=b"the ca", certificate=b"the crt", key=b"the key"
    )
    assert Kubeconfig(_several(tmp_path / "b")).login() == Login(
        "https://cluster:6443/sub", authorization="Bearer other", namespace="far"
    )


# Where the official loader does otherwise than kubectl, kubectl is followed.


def test_the_first_file_that_names_a_context_wins(tmp_path: Path) -> None:
    first = write(tmp_path / "one", {"token": "one"})
    write(tmp_path / "two", {"token": "two"}, current="other")
    assert Kubeconfig(f"{first}{os.pathsep}{tmp_path / 'two'}").login().authorization == "Bearer one"


def test_a_path_starts_from_the_file_that_names_it(tmp_path: Path) -> None:
    user = yaml.safe_dump({"users": [{"name": "u", "user": {"tokenFile": "token"}}]})
    (tmp_path / "users").mkdir()
    (tmp_path / "users" / "k").write_text(user)
    (tmp_path / "users" / "token").write_text("right")
    (tmp_path / "token").write_text("wrong")
    other = write(tmp_path / "k", context={"user": "u"})
    assert Kubeconfig(f"{other}{os.pathsep}{tmp_path / 'users' / 'k'}").login().authorization == "Bearer right"


def test_a_tokens_file_goes_before_a_token(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("fresh")
    assert Kubeconfig(write(tmp_path / "k", {"token": "old", "tokenFile": "token"})).login().authorization == (
        "Bearer fresh"
    )


def test_whom_to_act_as_goes_with_each_request(tmp_path: Path) -> None:
    user = {"token": "t", "as": "ann", "as-uid": "7", "as-groups": ["a", "b"], "as-user-extra": {"scope": ["x"]}}
    assert Credentials(write(tmp_path / "k", user)).load().headers == (
        ("Impersonate-User", "ann"),
        ("Impersonate-Uid", "7"),
        ("Impersonate-Group", "a"),
        ("Impersonate-Group", "b"),
        ("Impersonate-Extra-scope", "x"),
    )


# Plugins.


def test_a_plugin_gets_its_words_and_its_variables(tmp_path: Path) -> None:
    command = program(tmp_path / "p", {"token": "t"})
    user = plugin(command, args=["get", 1], env=[{"name": "EXTRA", "value": "more"}])
    Kubeconfig(write(tmp_path / "k", user)).login()
    assert (tmp_path / "p.called").read_text() == "get 1:more"


def test_a_plugin_is_told_of_the_cluster_if_it_asks(tmp_path: Path) -> None:
    command = program(tmp_path / "p", {"token": "t"})
    (tmp_path / "ca").write_text("the ca")
    extension = {"name": "client.authentication.k8s.io/exec", "extension": {"audience": "x"}}
    cluster = {**HTTPS, "certificate-authority": "ca", "tls-server-name": "n", "extensions": [extension]}
    Kubeconfig(write(tmp_path / "k", plugin(command, provideClusterInfo=True), cluster)).login()
    info = json.loads((tmp_path / "p.info").read_text())
    assert info == {
        "apiVersion": V1,
        "kind": "ExecCredential",
        "spec": {
            "interactive": False,
            "cluster": {
                "server": HTTPS["server"],
                "tls-server-name": "n",
                "certificate-authority-data": inline("the ca"),
                "config": {"audience": "x"},
            },
        },
    }
    Kubeconfig(write(tmp_path / "k", plugin(command), cluster)).login()
    assert "cluster" not in json.loads((tmp_path / "p.info").read_text())["spec"]


@pytest.mark.parametrize(
    ("mode", "interactive"), [("Never", False), ("IfAvailable", True), ("Always", True)], ids=lambda each: str(each)
)
def test_a_plugin_may_ask_where_there_is_a_terminal(tmp_path: Path, mode: str, interactive: bool) -> None:
    command = program(tmp_path / "p", {"token": "t"})
    path = write(tmp_path / "k", plugin(command, interactiveMode=mode))
    code = f"from taskdist.kube.kubeconfig import Kubeconfig; Kubeconfig({path!r}).login()"
    ours, theirs = os.openpty()
    try:
        subprocess.run([sys.executable, "-c", code], stdin=theirs, check=True, timeout=60)
    finally:
        os.close(ours)
        os.close(theirs)
    assert json.loads((tmp_path / "p.info").read_text())["spec"]["interactive"] is interactive


def test_a_plugin_does_not_ask_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = program(tmp_path / "p", {"token": "t"})
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        Kubeconfig(write(tmp_path / "k", plugin(command, interactiveMode="IfAvailable"))).login()
        assert json.loads((tmp_path / "p.info").read_text())["spec"]["interactive"] is False
        with pytest.raises(ValueError, match="there is no terminal"):
            Kubeconfig(write(tmp_path / "k", plugin(command, interactiveMode="Always"))).login()


def test_a_plugins_credentials_are_renewed_before_they_end(tmp_path: Path) -> None:
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
    command = program(tmp_path / "p", {"token": "t", "expirationTimestamp": soon})
    credentials = Credentials(write(tmp_path / "k", plugin(command)))
    before = credentials.max_age
    credentials.load()
    assert before is None
    assert 3500 < (credentials.max_age or 0.0) < 3580


@pytest.mark.parametrize(("left", "after"), [(3600, 3570), (40, 20), (4, 5), (-10, 5)])
def test_renewed_in_time_and_not_all_the_time(left: float, after: float) -> None:
    assert lasts(1000 + left, 1000) == after


# What is wrong is said.

WRONG: dict[str, tuple[Make, str]] = {
    "a plugin that fails": (
        lambda tmp: write(tmp / "k", plugin(program(tmp / "p", {}, code=3))),
        r"exec plugin of kubeconfig user 'u' gave no credentials \(exit code 3\): no, not you",
    ),
    "a plugin that is not there": (
        lambda tmp: write(tmp / "k", plugin("no-such-program", installHint="get it from our shelf")),
        "there is no program no-such-program\nget it from our shelf",
    ),
    "a plugin that speaks an old version": (
        lambda tmp: write(tmp / "k", plugin("p", "client.authentication.k8s.io/v1alpha1")),
        "v1alpha1; known: client.authentication.k8s.io/v1,",
    ),
    "a plugin that answers in another version": (
        lambda tmp: write(tmp / "k", plugin(program(tmp / "p", {"token": "t"}, BETA))),
        f"was asked for {V1}, and gave '{BETA}'",
    ),
    "a plugin that gives nothing": (
        lambda tmp: write(tmp / "k", plugin(program(tmp / "p", {}))),
        "neither a token nor a clientCertificateData",
    ),
    "a plugin that gives half of a pair": (
        lambda tmp: write(tmp / "k", plugin(program(tmp / "p", {"clientCertificateData": "c"}))),
        "a certificate without its key",
    ),
    "an end that is no time": (
        lambda tmp: write(tmp / "k", plugin(program(tmp / "p", {"token": "t", "expirationTimestamp": "soon"}))),
        "expirationTimestamp is 'soon'",
    ),
    "a user that is not there": (
        lambda tmp: write(tmp / "k", context={"user": "gone"}),
        "context 'here' is of user 'gone', which it has not",
    ),
    "a cluster that is not there": (
        lambda tmp: write(tmp / "k", {}, context={"cluster": "gone"}),
        "context 'here' is of cluster 'gone', which it has not",
    ),
    "a server that is no URL": (lambda tmp: write(tmp / "k", {}, {"server": "here:1"}), "server is 'here:1'"),
    "data that is not base64": (
        lambda tmp: write(tmp / "k", {}, {**HTTPS, "certificate-authority-data": "%"}),
        "certificate-authority-data is not base64",
    ),
    "a certificate without its key": (
        lambda tmp: write(tmp / "k", {"client-certificate-data": inline("c")}, HTTPS),
        "a client-certificate needs its client-key",
    ),
    "a file that is not there": (lambda tmp: write(tmp / "k", {"tokenFile": "gone"}), "gone"),
    "a proxy that is none of HTTP": (
        lambda tmp: write(tmp / "k", {}, {**HTTPS, "proxy-url": "socks5://p:1"}),
        "proxies are reached by http",
    ),
    "groups to act as, and nobody": (lambda tmp: write(tmp / "k", {"as-groups": ["a"]}), "need `as`"),
    "a list for a mapping": (lambda tmp: write(tmp / "k", users=[["u"]]), "an entry of users is no mapping"),
    "a mapping for a list": (lambda tmp: write(tmp / "k", users={"u": {}}), "users is no list"),
}


@pytest.mark.parametrize(("make", "said"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_said(tmp_path: Path, make: Make, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        Credentials(make(tmp_path)).load()


# Logins that kubectl knows no more.


def _oidc(path: Path) -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": time.time() + 3600}).encode()).decode().rstrip("=")
    token = f"a.{claims}.c"
    return write(path, {"auth-provider": {"name": "oidc", "config": {"id-token": token}}})


def test_a_legacy_login_is_the_official_loaders(tmp_path: Path) -> None:
    access = Credentials(_oidc(tmp_path / "k")).load()
    assert (access.authorization or "").startswith("Bearer a.")


def test_a_legacy_login_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As import sees a package that is not installed.
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    monkeypatch.setitem(sys.modules, "kubernetes.client", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'taskdist\[operator\]'"):
        Credentials(_oidc(tmp_path / "k")).load()
