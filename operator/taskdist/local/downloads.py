"""Fetches official releases: gives up fast where there is no network, and keeps nothing whose checksum differs.

Owns time-outs, the check of the published SHA-256, and unpacking. It does not know what the files are for, and
leaves placing them to its caller. The checksum comes from the release's own host over TLS: it finds broken and cut
transfers, it is no proof against that host.
"""

from __future__ import annotations

import hashlib
import http.client
import socket
import tarfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

_CONNECT_SECONDS = 2.0
_READ_SECONDS = 10.0
_CHUNK = 1 << 20
_REPORT_SECONDS = 5.0


class DownloadError(Exception):
    """The release could not be had; the message says which host or file and why."""


@dataclass(frozen=True)
class Release:
    """Where a file is published; `{os}` and `{arch}` are filled in. `member` is its path in a tar archive."""

    url: str
    checksum: str
    member: str | None = None


class Downloader:
    """Fetches releases; a host that did not answer is not asked again."""

    def __init__(self, enabled: bool = True, connect_timeout: float = _CONNECT_SECONDS) -> None:
        self._enabled = enabled
        self._connect_timeout = connect_timeout
        self._silent_hosts: set[str] = set()

    def fetch(self, release: Release, names: Mapping[str, str], target: Path, report: Callable[[str], None]) -> None:
        """Writes the released file to `target`. Raises DownloadError."""
        if not self._enabled:
            raise DownloadError("switched off (TASKDIST_DOWNLOAD=0)")
        url = release.url.format(**names)
        checksum = release.checksum.format(**names)
        self._check_reachable(url)
        try:
            wanted = checksum_of(self._read(checksum).decode(), urlsplit(url).path.rsplit("/", 1)[-1])
            report(f"{target.name}: downloading {url}")
            raw = target.with_name(target.name + ".download")
            found = self._save(url, raw, report)
            if found != wanted:
                raise DownloadError(f"{url}: its SHA-256 is {found}, published is {wanted}")
            if release.member is None:
                raw.replace(target)
            else:
                unpack(raw, release.member.format(**names), target)
                raw.unlink()
        except (OSError, http.client.HTTPException, tarfile.TarError, ValueError, KeyError) as error:
            raise DownloadError(f"{url}: {error}") from error

    def _check_reachable(self, url: str) -> None:
        """Connect in a thread: name resolution without a network can hang far beyond any socket's time-out."""
        parts = urlsplit(url)
        proxy = urllib.request.getproxies().get(parts.scheme)
        if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
            parts = urlsplit(proxy if "//" in proxy else f"//{proxy}")
        host, port = parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443)
        if host in self._silent_hosts:
            raise DownloadError(f"{host} does not answer")
        reached = threading.Event()

        def connect() -> None:
            try:
                socket.create_connection((host, port), timeout=self._connect_timeout).close()
            except OSError:
                return
            reached.set()

        thread = threading.Thread(target=connect, daemon=True)
        thread.start()
        thread.join(self._connect_timeout)
        if not reached.is_set():
            self._silent_hosts.add(host)
            raise DownloadError(f"{host} does not answer")

    def _read(self, url: str) -> bytes:
        with urllib.request.urlopen(url, timeout=_READ_SECONDS) as response:
            body: bytes = response.read(_CHUNK)
            return body

    def _save(self, url: str, raw: Path, report: Callable[[str], None]) -> str:
        digest = hashlib.sha256()
        done, last = 0, time.monotonic()
        with urllib.request.urlopen(url, timeout=_READ_SECONDS) as response, raw.open("wb") as file:
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                if time.monotonic() - last > _REPORT_SECONDS:
                    last = time.monotonic()
                    report(f"{raw.stem}: {done >> 20} MiB")
        return digest.hexdigest()


def checksum_of(text: str, filename: str) -> str:
    """The SHA-256 for `filename` in a published checksum file: either one bare digest, or `digest  name` lines."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    if len(lines) == 1 and len(lines[0]) == 1:
        return lines[0][0].lower()
    for fields in lines:
        if len(fields) == 2 and fields[1].lstrip("*") == filename:
            return fields[0].lower()
    raise ValueError(f"the checksum file does not name {filename}")


def unpack(archive: Path, member: str, target: Path) -> None:
    """Writes one regular file of a tar archive to `target`; nothing else of it touches the disk."""
    with tarfile.open(archive) as tar:
        source = tar.extractfile(member)
        if source is None:
            raise ValueError(f"{member} is not a file")
        with source, target.open("wb") as file:
            while chunk := source.read(_CHUNK):
                file.write(chunk)
