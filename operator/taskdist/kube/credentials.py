"""Address and credentials of the API server: kubeconfig or in-cluster.

Owns finding the configuration and keeping the credentials fresh (rotating service-account tokens, exec plugins).
Sends no request to the API server. Loading may read files and run a plugin, so it blocks: it belongs in a thread.
"""

from __future__ import annotations

import hashlib
import os
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import yaml

from taskdist.kube import official
from taskdist.kube.errors import ConfigurationError
from taskdist.kube.kubeconfig import Kubeconfig, Login, bearer, lasts

SERVICE_HOST = "KUBERNETES_SERVICE_HOST"
SERVICE_PORT = "KUBERNETES_SERVICE_PORT"
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
TOKEN_FILE = f"{ACCOUNT}/token"
CA_FILE = f"{ACCOUNT}/ca.crt"
NAMESPACE_FILE = f"{ACCOUNT}/namespace"


@dataclass(frozen=True, slots=True)
class Access:
    """All that a transport needs to reach the API server, as it was loaded at one time."""

    server: str
    """Scheme, host, port and possibly a path, without a trailing slash."""
    authorization: str | None
    """Value of the Authorization header; None where a client certificate (or nothing) speaks for us."""
    tls: ssl.SSLContext | None
    """None for plain http."""
    server_name: str | None
    """The name the server's certificate must bear, where it is not the host's."""
    proxy: str | None
    namespace: str
    """The namespace a command without one means."""
    headers: tuple[tuple[str, str], ...] = ()
    """What else each request carries: whom to act as."""
    certificate: bool = False
    """Whether a client certificate speaks for us, on each connection."""
    in_cluster: bool = False
    """Whether this is a pod, which speaks with its own account."""


class Credentials:
    """A source of `Access`: a kubeconfig or a pod's service account, read anew at each `load`."""

    def __init__(
        self,
        kubeconfig: str | os.PathLike[str] | None = None,
        context: str | None = None,
        *,
        environ: dict[str, str] | None = None,
        token_file: str = TOKEN_FILE,
        ca_file: str = CA_FILE,
        namespace_file: str = NAMESPACE_FILE,
    ) -> None:
        """An explicit `kubeconfig` wins; then $KUBECONFIG; then in-cluster; then ~/.kube/config.

        The files of the service account and the environment are arguments so that a test can be a pod.
        """
        self._kubeconfig = os.fspath(kubeconfig) if kubeconfig is not None else None
        self._context = context
        self._environ = environ
        self._token_file = token_file
        self._ca_file = ca_file
        self._namespace_file = namespace_file
        self._tls: _Tls | None = None
        self._lasts: float | None = None

    @property
    def source(self) -> str:
        """Where the configuration comes from, in words for a message."""
        path = self._kubeconfig_path()
        return "the pod's service account" if path is None else f"kubeconfig {path}"

    @property
    def max_age(self) -> float | None:
        """Seconds after which to load again unasked; None where a 401 tells soon enough.

        The kubelet renews a pod's token at 80% of its life and keeps the old one valid until its end, so a minute's
        delay costs nothing. Elsewhere loading may run a plugin: before its credentials end, if it says when that is,
        else only when the server asks for it.
        """
        return 60.0 if self._kubeconfig_path() is None else self._lasts

    def load(self) -> Access:
        """Read everything anew. Raises `ConfigurationError`."""
        path = self._kubeconfig_path()
        try:
            login = self._in_cluster() if path is None else self._from_kubeconfig(path)
            self._lasts = lasts(login.expires)
            return Access(
                server=login.server,
                authorization=login.authorization,
                tls=self._context_for(login) if login.server.startswith("https") else None,
                server_name=login.server_name,
                proxy=login.proxy,
                namespace=login.namespace,
                headers=login.headers,
                certificate=login.certificate is not None,
                in_cluster=path is None,
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
            raise ConfigurationError(f"cannot use {self.source}: {error}") from error

    def _kubeconfig_path(self) -> str | None:
        environ = os.environ if self._environ is None else self._environ
        if self._kubeconfig is not None:
            return self._kubeconfig
        # Read now, not at import as the official client does.
        if environ.get("KUBECONFIG"):
            return environ["KUBECONFIG"]
        if environ.get(SERVICE_HOST) and self._context is None:
            return None
        return str(Path("~/.kube/config").expanduser())

    def _in_cluster(self) -> Login:
        environ = os.environ if self._environ is None else self._environ
        host, port = environ.get(SERVICE_HOST, ""), environ.get(SERVICE_PORT, "")
        if not host or not port:
            raise ValueError(f"{SERVICE_HOST} and {SERVICE_PORT} have to be set")
        token = Path(self._token_file).read_text()
        if not token.strip():
            raise ValueError(f"{self._token_file} is empty")
        authority = Path(self._ca_file).read_bytes()
        if not authority.strip():
            raise ValueError(f"{self._ca_file} is empty")
        return Login(
            server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
            authorization=bearer(token),
            authority=authority,
            # No proxy here, whatever the environment says: the API server's Service address is inside the cluster.
            namespace=_read(self._namespace_file) or "default",
        )

    def _from_kubeconfig(self, path: str) -> Login:
        config = Kubeconfig(path)
        if config.needs_official_loader(self._context):
            return official.login(path, self._context)
        return config.login(self._context, self._environ)

    def _context_for(self, login: Login) -> ssl.SSLContext:
        """The same context while the same files say the same: a new one would empty the connection pool."""
        digest = hashlib.sha256(str(login.verify).encode())
        for part in (login.authority, login.certificate, login.key):
            digest.update(b"\0" + hashlib.sha256(part or b"").digest())
        if self._tls is None or self._tls.digest != digest.digest():
            self._tls = _Tls(digest.digest(), _tls(login))
        return self._tls.context


class _Tls(NamedTuple):
    """A context, and the digest of all files that it was made from."""

    digest: bytes
    context: ssl.SSLContext


@dataclass(frozen=True, slots=True)
class Loaded:
    """Credentials that were loaded once and last as long as they are needed."""

    access: Access
    max_age: None = None

    def load(self) -> Access:
        return self.access


def _tls(login: Login) -> ssl.SSLContext:
    # Beside the blocks an authority's file may hold any text, and cadata no other than ASCII.
    authority = login.authority.decode("ascii", "replace") if login.authority else None
    context = ssl.create_default_context(cadata=authority)
    if not login.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if login.certificate is not None and login.key is not None:
        # OpenSSL takes these from files only, which live until the context holds them; nobody else may read them.
        with tempfile.TemporaryDirectory(prefix="taskdist-") as scratch:
            certificate, key = Path(scratch, "certificate"), Path(scratch, "key")
            certificate.write_bytes(login.certificate)
            key.write_bytes(login.key)
            context.load_cert_chain(certificate, key)
    return context


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
