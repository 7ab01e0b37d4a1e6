"""Where the API server is and who we are to it: kubeconfig or in-cluster, through the official client's loaders.

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
from typing import Any

import yaml
from kubernetes.client import Configuration
from kubernetes.config import ConfigException
from kubernetes.config.incluster_config import (
    SERVICE_CERT_FILENAME,
    SERVICE_HOST_ENV_NAME,
    SERVICE_TOKEN_FILENAME,
    InClusterConfigLoader,
)
from kubernetes.config.kube_config import ENV_KUBECONFIG_PATH_SEPARATOR, KubeConfigMerger, load_kube_config

from taskdist.kube.errors import ConfigurationError

NAMESPACE_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"


@dataclass(frozen=True, slots=True)
class Access:
    """One loading's result: all that a transport needs to talk to the API server."""

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


class Credentials:
    """Loads `Access` and loads it again when asked; remembers only where from."""

    def __init__(
        self,
        kubeconfig: str | os.PathLike[str] | None = None,
        context: str | None = None,
        *,
        environ: dict[str, str] | None = None,
        token_file: str = SERVICE_TOKEN_FILENAME,
        ca_file: str = SERVICE_CERT_FILENAME,
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
        self._tls: tuple[str, ssl.SSLContext] | None = None

    @property
    def source(self) -> str:
        """Where the configuration comes from, in words for a message."""
        path = self._kubeconfig_path()
        return "the pod's service account" if path is None else f"kubeconfig {path}"

    @property
    def max_age(self) -> float | None:
        """Seconds after which to load again unasked; None where a 401 tells soon enough.

        The kubelet renews a pod's token at 80% of its life and keeps the old one valid until its end, so a minute's
        delay costs nothing. Elsewhere loading may run a plugin, which is done only when the server asks for it.
        """
        return 60.0 if self._kubeconfig_path() is None else None

    def load(self) -> Access:
        """Read everything anew. Raises `ConfigurationError`."""
        path = self._kubeconfig_path()
        try:
            return self._in_cluster() if path is None else self._from_kubeconfig(path)
        except (ConfigException, OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
            raise ConfigurationError(f"cannot use {self.source}: {error}") from error

    def _kubeconfig_path(self) -> str | None:
        environ = os.environ if self._environ is None else self._environ
        if self._kubeconfig is not None:
            return self._kubeconfig
        # Read now, not at import as the official client does.
        if environ.get("KUBECONFIG"):
            return environ["KUBECONFIG"]
        if environ.get(SERVICE_HOST_ENV_NAME) and self._context is None:
            return None
        return str(Path("~/.kube/config").expanduser())

    def _in_cluster(self) -> Access:
        configuration = _blank()
        loader = InClusterConfigLoader(  # type: ignore[no-untyped-call]
            token_filename=self._token_file,
            cert_filename=self._ca_file,
            try_refresh_token=False,
            environ=os.environ if self._environ is None else self._environ,
        )
        loader.load_and_set(configuration)  # type: ignore[no-untyped-call]
        # No proxy here, whatever the environment says: the API server's Service address is inside the cluster.
        return self._access(configuration, None, _read(self._namespace_file) or "default")

    def _from_kubeconfig(self, path: str) -> Access:
        config, context = self._merged(path)
        configuration = _blank()
        # The loader writes keys that stand inside the kubeconfig to files; they live only until the context holds them.
        with tempfile.TemporaryDirectory(prefix="taskdist-") as scratch:
            load_kube_config(  # type: ignore[no-untyped-call]
                config_file=path,
                context=self._context,
                client_configuration=configuration,
                persist_config=False,
                temp_file_path=scratch,
            )
            access = self._access(configuration, _proxy(config, context), context.get("namespace") or "default")
        if _wants_plugin(config, context) and access.authorization is None and configuration.cert_file is None:
            # The loader logs a plugin's failure and goes on without credentials; said here, it is not a riddle later.
            raise ConfigurationError(f"the exec plugin of {self.source} gave no credentials")
        return access

    def _merged(self, path: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """The whole kubeconfig (several files are merged) and the context in force."""
        present = [part for part in path.split(ENV_KUBECONFIG_PATH_SEPARATOR) if Path(part).expanduser().exists()]
        if not present:
            raise ConfigurationError(f"there is no kubeconfig at {path}, and this is not a pod with a service account")
        config: dict[str, Any] = dict(KubeConfigMerger(path).config.value)  # type: ignore[no-untyped-call]
        for kind in ("clusters", "contexts", "users"):
            config[kind] = [entry.value for entry in config[kind]]
        wanted = self._context or config.get("current-context")
        for entry in config["contexts"]:
            if entry.get("name") == wanted:
                return config, entry.get("context") or {}
        raise ConfigurationError(f"kubeconfig {path} has no context {wanted!r}")

    def _access(self, configuration: Configuration, proxy: str | None, namespace: str) -> Access:
        # The configuration's own proxy is passed over: it comes from the environment without a look at NO_PROXY.
        token = configuration.api_key.get("BearerToken")
        server = str(configuration.host).rstrip("/")
        return Access(
            server=server,
            # A token file may end in a newline, which a header may not.
            authorization=_bearer(token) if token else None,
            tls=self._context_for(configuration) if server.startswith("https") else None,
            server_name=configuration.tls_server_name or None,
            proxy=proxy,
            namespace=namespace,
        )

    def _context_for(self, configuration: Configuration) -> ssl.SSLContext:
        """The same context while the same files say the same: a new one would empty the connection pool."""
        digest = hashlib.sha256(str(configuration.verify_ssl).encode())
        for path in (configuration.ssl_ca_cert, configuration.cert_file, configuration.key_file):
            digest.update(b"\0" + (Path(path).read_bytes() if path else b""))
        key = digest.hexdigest()
        if self._tls is None or self._tls[0] != key:
            self._tls = (key, _tls(configuration))
        return self._tls[1]


@dataclass(frozen=True, slots=True)
class Loaded:
    """Credentials that were loaded once and last as long as they are needed."""

    access: Access
    max_age: None = None

    def load(self) -> Access:
        return self.access


def _blank() -> Configuration:
    # The class's own call would hand out a copy of whatever default some other library has set.
    configuration: Configuration = type.__call__(Configuration)
    return configuration


def _bearer(token: str) -> str:
    scheme, _, value = token.strip().partition(" ")
    return f"{'Bearer' if scheme.lower() == 'bearer' else scheme} {value.strip()}"


def _tls(configuration: Configuration) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert or None)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
    return context


def _named(entries: Any, name: Any, kind: str) -> dict[str, Any]:
    return next((entry.get(kind) or {} for entry in entries or [] if entry.get("name") == name), {})


def _proxy(config: dict[str, Any], context: dict[str, Any]) -> str | None:
    url = _named(config.get("clusters"), context.get("cluster"), "cluster").get("proxy-url")
    return str(url) if url else None


def _wants_plugin(config: dict[str, Any], context: dict[str, Any]) -> bool:
    return "exec" in _named(config.get("users"), context.get("user"), "user")


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
