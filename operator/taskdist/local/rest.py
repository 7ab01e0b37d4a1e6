"""The least of a Kubernetes client: kubeconfig in, JSON over HTTPS, waiting (sync) or not (async).

Owns reading and writing kubeconfigs of local control planes and speaking to one API server. It has no cache, no
retries and no types of its own: objects are what JSON gives. It understands certificates and bearer tokens, not
credential plugins.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import ssl
import tempfile
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import aiohttp
import yaml

from taskdist.api import nesting
from taskdist.local.certificates import write_private

Object = dict[str, Any]

MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"

FIELD_MANAGER = "taskdist-local"


class ApiError(Exception):
    """The API server refused: `code` is the HTTP status, the message is the server's own."""

    def __init__(self, code: int, message: str, reason: str = "") -> None:
        super().__init__(f"{code} {reason}: {message}" if reason else f"{code}: {message}")
        self.code = code
        self.reason = reason


@dataclass(frozen=True)
class Access:
    """Where an API server is, and as whom to speak to it."""

    server: str
    tls: ssl.SSLContext | None
    token: str | None

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    @classmethod
    def from_kubeconfig(cls, path: Path) -> Access:
        """Reads the current context. Raises ValueError where it needs something that is not understood here."""
        config = yaml.safe_load(path.read_text())
        context = _named(config, "contexts", config.get("current-context"))["context"]
        cluster = _named(config, "clusters", context["cluster"])["cluster"]
        user = _named(config, "users", context["user"]).get("user") or {}
        if unknown := {"exec", "auth-provider", "username"} & user.keys():
            raise ValueError(f"{path}: {', '.join(sorted(unknown))} credentials are not understood here")
        base = path.parent
        tls = None
        if cluster["server"].startswith("https"):
            authority = _content(cluster, "certificate-authority", base)
            tls = ssl.create_default_context(cadata=authority.decode() if authority else None)
            if cluster.get("insecure-skip-tls-verify"):
                tls.check_hostname = False
                tls.verify_mode = ssl.CERT_NONE
            certificate, key = _content(user, "client-certificate", base), _content(user, "client-key", base)
            if certificate and key:
                _load_client_certificate(tls, certificate, key)
        token = user.get("token")
        if not token and (file := user.get("tokenFile")):
            token = (base / file).read_text().strip()
        return cls(server=cluster["server"].rstrip("/"), tls=tls, token=token)


def _named(config: Mapping[str, Any], section: str, name: str | None) -> Mapping[str, Any]:
    for entry in config.get(section) or ():
        if entry["name"] == name:
            found: Mapping[str, Any] = entry
            return found
    raise ValueError(f"the kubeconfig has no {section} entry named {name!r}")


def _content(section: Mapping[str, Any], name: str, base: Path) -> bytes | None:
    if data := section.get(f"{name}-data"):
        return base64.b64decode(data)
    file = section.get(name)
    return (base / file).read_bytes() if file else None


def _load_client_certificate(tls: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:  # The ssl module reads keys from files only.
        pair = Path(folder) / "pair.pem"
        write_private(pair, key + b"\n" + certificate)
        tls.load_cert_chain(pair)


def write_kubeconfig(path: Path, server: str, authority: bytes, user: Mapping[str, str], namespace: str = "") -> Path:
    """Writes a kubeconfig with one context; `user` is its user section. Readable by its owner only."""
    context = {"cluster": "local", "user": "user", **({"namespace": namespace} if namespace else {})}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "local",
        "clusters": [
            {
                "name": "local",
                "cluster": {"server": server, "certificate-authority-data": base64.b64encode(authority).decode()},
            }
        ],
        "users": [{"name": "user", "user": dict(user)}],
        "contexts": [{"name": "local", "context": context}],
    }
    write_private(path, yaml.safe_dump(config, sort_keys=False).encode())
    return path


def _decode(code: int, body: bytes) -> Any:
    try:
        answer = nesting.loads(body) if body else None
    except ValueError:
        answer = body.decode(errors="replace")
    if code >= 400:
        if isinstance(answer, dict):
            raise ApiError(code, str(answer.get("message")), str(answer.get("reason") or ""))
        raise ApiError(code, str(answer)[:200])
    return answer


class Client:
    """Waits for each answer. A connection per request: for set-up and tests, where that does not matter."""

    def __init__(self, access: Access, timeout: float = 30.0) -> None:
        self._access = access
        self._timeout = timeout

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> Any:
        """One request; `path` begins with `/api…`. Returns the decoded answer. Raises ApiError, or OSError.

        A `body` of bytes is sent as it is.
        """
        parts = urlsplit(self._access.server)
        sent = body if body is None or isinstance(body, bytes) else json.dumps(body)
        target = parts.path + path + (f"?{urlencode(query)}" if query else "")
        headers = {**self._access.headers, "Accept": "application/json", "Content-Type": content_type}
        with contextlib.closing(self._connection(parts.hostname or "", parts.port)) as connection:
            connection.request(method, target, sent, headers)
            response = connection.getresponse()
            return _decode(response.status, response.read())

    def _connection(self, host: str, port: int | None) -> http.client.HTTPConnection:
        if self._access.tls is not None:
            return http.client.HTTPSConnection(host, port, timeout=self._timeout, context=self._access.tls)
        return http.client.HTTPConnection(host, port, timeout=self._timeout)

    def get(self, path: str, **query: str) -> Any:
        return self.request("GET", path, query=query)

    def create(self, path: str, body: Object) -> Any:
        return self.request("POST", path, body)

    def delete(self, path: str, grace_seconds: int | None = None) -> Any:
        body = None if grace_seconds is None else {"gracePeriodSeconds": grace_seconds}
        return self.request("DELETE", path, body)

    def apply(self, path: str, body: Object) -> Any:
        """Server-side apply; takes fields from other managers."""
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return self.request("PATCH", path, body, content_type=APPLY_PATCH, query=query)


class AsyncClient:
    """Many requests at a time over a few kept connections, and watches."""

    def __init__(self, access: Access, concurrency: int = 32, timeout: float = 30.0) -> None:
        self._access = access
        # Watches take a connection each for as long as they live, so they do not share the pool of requests.
        self._session = aiohttp.ClientSession(
            headers=access.headers,
            connector=aiohttp.TCPConnector(limit=concurrency, ssl=access.tls or False),
            timeout=aiohttp.ClientTimeout(total=timeout),
        )
        self._watches = aiohttp.ClientSession(
            headers=access.headers,
            connector=aiohttp.TCPConnector(limit=0, ssl=access.tls or False),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
            read_bufsize=1 << 20,
        )

    async def close(self) -> None:
        await self._session.close()
        await self._watches.close()

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> Any:
        """As Client.request. Raises ApiError, aiohttp.ClientError or TimeoutError."""
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": content_type}
        url = self._access.server + path
        async with self._session.request(method, url, data=data, headers=headers, params=query) as response:
            return _decode(response.status, await response.read())

    async def watch(self, path: str, resource_version: str, seconds: int = 300) -> AsyncGenerator[Object, None]:
        """Events after `resource_version`, until the server ends the watch. Raises ApiError (410: list again)."""
        query = {
            "watch": "1",
            "resourceVersion": resource_version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
        }
        async with self._watches.get(self._access.server + path, params=query) as response:
            if response.status >= 400:
                _decode(response.status, await response.read())
            pending = b""
            async for chunk in response.content.iter_any():
                *lines, pending = (pending + chunk).split(b"\n")
                for line in lines:
                    event: Object = nesting.loads(line)
                    if event["type"] == "ERROR":
                        status = event["object"]
                        raise ApiError(int(status.get("code") or 500), str(status.get("message")))
                    yield event
