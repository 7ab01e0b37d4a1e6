"""Reads kubeconfigs as kubectl does: where a cluster is, and what to show it so that it knows who we are.

Owns the files (several are one: the first that sets a thing wins), paths relative to the file that names them, and
exec plugins. Makes no TLS context and sends nothing. Reading may run a plugin, so it blocks: it belongs in a thread.
Errors are `ValueError`, `OSError` or `yaml.YAMLError`; each says which entry is meant.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

PLUGIN_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
PLUGIN_SECONDS = 120.0
"""How long a plugin may take that cannot ask anybody; one that talks with a person takes the time it needs."""


@dataclass(frozen=True, slots=True)
class Login:
    """A context of a kubeconfig, with its files read and its plugins run."""

    server: str
    """Scheme, host, port and possibly a path, without a trailing slash."""
    authorization: str | None = None
    """Value of the Authorization header."""
    authority: bytes | None = None
    """PEM. None where the system's authorities are meant."""
    certificate: bytes | None = None
    """PEM of a client certificate."""
    key: bytes | None = None
    verify: bool = True
    server_name: str | None = None
    proxy: str | None = None
    namespace: str = "default"
    headers: tuple[tuple[str, str], ...] = ()
    """Whom to act as, where the user entry says so (`as`)."""
    expires: float | None = None
    """Unix time at which a plugin's credentials end."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A named part of a kubeconfig, and the folder that its relative paths start from."""

    what: str
    body: Mapping[str, Any]
    folder: Path

    def text(self, key: str) -> str:
        value = self.body.get(key)
        return "" if value is None else str(value)

    def file(self, key: str) -> bytes | None:
        """What stands in the file that `key` names."""
        name = self.text(key)
        return (self.folder / Path(name).expanduser()).read_bytes() if name else None

    def data_or_file(self, key: str) -> bytes | None:
        """`KEY-data` in base64, else the file that `KEY` names."""
        given = self.text(f"{key}-data")
        if not given:
            return self.file(key)
        try:
            return base64.b64decode("".join(given.split()), validate=True)
        except binascii.Error as error:
            raise ValueError(f"{self.what}: {key}-data is not base64: {error}") from None


class Kubeconfig:
    """The files of one path, merged; nothing but the files is read until `login`."""

    def __init__(self, path: str) -> None:
        """`path`: one file, or several as $KUBECONFIG lists them. Those that do not exist are passed over."""
        self._path = path
        self._found: dict[str, dict[str, _Entry]] = {"clusters": {}, "contexts": {}, "users": {}}
        self._current = ""
        files = [Path(part).expanduser() for part in path.split(os.pathsep) if part]
        present = [file for file in files if file.exists()]
        if not present:
            raise FileNotFoundError(f"there is no kubeconfig at {path}, and this is not a pod with a service account")
        for file in present:
            self._read(file)

    def _read(self, file: Path) -> None:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        if content is None:
            return
        content = _mapping(content, str(file))
        self._current = self._current or str(content.get("current-context") or "")
        for kind, found in self._found.items():
            entries = content.get(kind) or []
            if not isinstance(entries, list):
                raise ValueError(f"{file}: {kind} is no list")
            for entry in entries:
                name = str(_mapping(entry, f"{file}: an entry of {kind}").get("name") or "")
                what = f"{kind[:-1]} {name!r}"
                found.setdefault(name, _Entry(what, _mapping(entry.get(kind[:-1]) or {}, what), file.parent))

    def context(self, name: str | None) -> tuple[_Entry, _Entry, _Entry]:
        """The context (the current one, if none is named), its cluster and its user."""
        wanted = name or self._current
        context = self._found["contexts"].get(wanted)
        if not wanted or context is None:
            raise ValueError(f"it has no context {wanted!r}" if wanted else "it has no context, and names none")
        cluster = self._found["clusters"].get(context.text("cluster"))
        if cluster is None:
            raise ValueError(f"context {wanted!r} is of cluster {context.text('cluster')!r}, which it has not")
        user_name = context.text("user")
        user = self._found["users"].get(user_name)
        if user is None and user_name:
            raise ValueError(f"context {wanted!r} is of user {user_name!r}, which it has not")
        return context, cluster, user or _Entry("no user", {}, cluster.folder)

    def needs_official_loader(self, context: str | None) -> bool:
        """Whether the user logs in by an `auth-provider`, which kubectl itself knows no more."""
        _context, _cluster, user = self.context(context)
        return "auth-provider" in user.body

    def login(self, context: str | None = None, environ: Mapping[str, str] | None = None) -> Login:
        """Read the files that the context names, and run its plugin, if it has one."""
        chosen, cluster, user = self.context(context)
        server = cluster.text("server").rstrip("/")
        if not server.startswith(("http://", "https://")):
            raise ValueError(f"{cluster.what}: server is {server!r}, and has to be a URL")
        authority = cluster.data_or_file("certificate-authority")
        certificate, key = user.data_or_file("client-certificate"), user.data_or_file("client-key")
        authorization = _authorization(user)
        expires = None
        if authorization is None and "exec" in user.body:
            plugin = _Plugin(user, cluster, authority)
            made = plugin.run(os.environ if environ is None else environ)
            authorization, expires = made.authorization, made.expires
            if made.certificate is not None:
                certificate, key = made.certificate, made.key
        if certificate is not None and key is None:
            raise ValueError(f"{user.what}: a client-certificate needs its client-key")
        return Login(
            server=server,
            authorization=authorization,
            authority=authority,
            certificate=certificate,
            key=key,
            verify=cluster.body.get("insecure-skip-tls-verify") is not True,
            server_name=cluster.text("tls-server-name") or None,
            proxy=_proxy(cluster),
            namespace=chosen.text("namespace") or "default",
            headers=_impersonation(user),
            expires=expires,
        )


def bearer(token: str) -> str:
    """The header's value. A token file may end in a newline, which a header may not."""
    return f"Bearer {token.strip()}"


def _authorization(user: _Entry) -> str | None:
    """By a token or a password that stands there. As with kubectl, a token's file goes before a token."""
    written = user.file("tokenFile")
    token = written.decode() if written is not None else user.text("token")
    if token.strip():
        return bearer(token)
    if user.text("username") and "exec" not in user.body:
        pair = f"{user.text('username')}:{user.text('password')}"
        return f"Basic {base64.b64encode(pair.encode()).decode()}"
    return None


def _impersonation(user: _Entry) -> tuple[tuple[str, str], ...]:
    """Headers that say whom to act as."""
    headers = [("Impersonate-User", user.text("as")), ("Impersonate-Uid", user.text("as-uid"))]
    headers += [("Impersonate-Group", str(group)) for group in user.body.get("as-groups") or ()]
    for key, values in _mapping(user.body.get("as-user-extra") or {}, f"{user.what}: as-user-extra").items():
        headers += [(f"Impersonate-Extra-{key}", str(value)) for value in values or ()]
    given = tuple((name, value) for name, value in headers if value)
    if given and not user.text("as"):
        raise ValueError(f"{user.what}: as-uid, as-groups and as-user-extra need `as`")
    return given


def _proxy(cluster: _Entry) -> str | None:
    url = cluster.text("proxy-url")
    if url and urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"{cluster.what}: proxy-url is {url!r}; proxies are reached by http:// or https://")
    return url or None


# Exec plugins.


@dataclass(frozen=True, slots=True)
class _Made:
    """The credentials that a plugin gave."""

    authorization: str | None
    certificate: bytes | None
    key: bytes | None
    expires: float | None


class _Plugin:
    """A program that a user entry names; it prints credentials (client.authentication.k8s.io)."""

    def __init__(self, user: _Entry, cluster: _Entry, authority: bytes | None) -> None:
        self._what = f"the exec plugin of kubeconfig {user.what}"
        self._exec = _mapping(user.body["exec"], self._what)
        self._folder = user.folder
        self._cluster = cluster
        self._authority = authority
        self._version = str(self._exec.get("apiVersion") or "")
        if self._version not in PLUGIN_VERSIONS:
            raise ValueError(
                f"{self._what} speaks {self._version or 'no version'}; known: {', '.join(PLUGIN_VERSIONS)}"
            )
        if not self._exec.get("command"):
            raise ValueError(f"{self._what} has no command")

    def run(self, environ: Mapping[str, str]) -> _Made:
        command = str(self._exec["command"])
        if os.sep in command:
            command = str(self._folder / command)
        words = [command, *(str(each) for each in self._exec.get("args") or ())]
        interactive = self._interactive()
        environment = dict(environ)
        for each in self._exec.get("env") or ():
            pair = _mapping(each, f"{self._what}: env")
            environment[str(pair.get("name"))] = str(pair.get("value"))
        environment["KUBERNETES_EXEC_INFO"] = json.dumps(self._info(interactive))
        try:
            done = subprocess.run(
                words,
                env=environment,
                stdin=None if interactive else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=None if interactive else subprocess.PIPE,
                timeout=None if interactive else PLUGIN_SECONDS,
                check=False,
            )
        except FileNotFoundError:
            hint = str(self._exec.get("installHint") or "").strip()
            raise ValueError(f"{self._what}: there is no program {words[0]}" + (f"\n{hint}" if hint else "")) from None
        except subprocess.TimeoutExpired:
            raise ValueError(f"{self._what} gave no credentials in {PLUGIN_SECONDS:g} s") from None
        if done.returncode:
            said = (done.stderr or b"").decode(errors="replace").strip()[-1000:]
            raise ValueError(f"{self._what} gave no credentials (exit code {done.returncode}): {said}".rstrip(": "))
        return self._made(done.stdout)

    def _interactive(self) -> bool:
        """Whether it may ask the person at the terminal."""
        mode = str(self._exec.get("interactiveMode") or "IfAvailable")
        if mode not in ("Never", "IfAvailable", "Always"):
            raise ValueError(f"{self._what}: interactiveMode is {mode!r}; known: Never, IfAvailable, Always")
        there = bool(sys.stdin) and sys.stdin.isatty()  # a service has none
        if mode == "Always" and not there:
            raise ValueError(f"{self._what} has to ask a person, and there is no terminal")
        return there and mode != "Never"

    def _info(self, interactive: bool) -> dict[str, Any]:
        spec: dict[str, Any] = {"interactive": interactive}
        if self._exec.get("provideClusterInfo"):
            known = ("server", "tls-server-name", "insecure-skip-tls-verify", "proxy-url", "disable-compression")
            told = {key: self._cluster.body[key] for key in known if key in self._cluster.body}
            if self._authority is not None:
                told["certificate-authority-data"] = base64.b64encode(self._authority).decode()
            for each in self._cluster.body.get("extensions") or ():
                if each.get("name") == "client.authentication.k8s.io/exec":
                    told["config"] = each.get("extension")
            spec["cluster"] = told
        return {"apiVersion": self._version, "kind": "ExecCredential", "spec": spec}

    def _made(self, output: bytes) -> _Made:
        try:
            answer = json.loads(output)
        except (ValueError, RecursionError):
            raise ValueError(f"{self._what} gave no credentials: what it printed is not JSON") from None
        answer = _mapping(answer, f"{self._what}: what it printed")
        if answer.get("apiVersion") != self._version:
            raise ValueError(f"{self._what} was asked for {self._version}, and gave {answer.get('apiVersion')!r}")
        status = _mapping(answer.get("status") or {}, f"{self._what}: status")
        token, certificate, key = (
            str(status.get(name) or "") for name in ("token", "clientCertificateData", "clientKeyData")
        )
        if not token and not certificate:
            raise ValueError(f"{self._what} gave no credentials: neither a token nor a clientCertificateData")
        if bool(certificate) != bool(key):
            raise ValueError(f"{self._what} gave a certificate without its key, or a key without its certificate")
        return _Made(
            bearer(token) if token else None,
            certificate.encode() or None,
            key.encode() or None,
            _moment(status.get("expirationTimestamp"), self._what),
        )


def lasts(expires: float | None, now: float | None = None) -> float | None:
    """Seconds after which credentials are to be renewed: before they end, and not at once if they end soon."""
    if expires is None:
        return None
    left = expires - (time.time() if now is None else now)
    return max(left - 30, left / 2, 5.0)


def _moment(text: object, what: str) -> float | None:
    if not text:
        return None
    try:
        when = datetime.fromisoformat(str(text))
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise ValueError(f"{what}: expirationTimestamp is {text!r}, and has to be RFC 3339") from None


def _mapping(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} is no mapping")
    return value
