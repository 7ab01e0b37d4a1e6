"""Downloads: what arrives is what was published, or nothing."""

from __future__ import annotations

import hashlib
import io
import socket
import tarfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from taskdist.local.downloads import Downloader, DownloadError, Release, checksum_of

CONTENT = b"#!/bin/sh\necho tool\n"


def archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        info = tarfile.TarInfo("linux-amd64/tool")
        info.size = len(CONTENT)
        tar.addfile(info, io.BytesIO(CONTENT))
    return buffer.getvalue()


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    packed = archive()
    files = {
        "/tool": CONTENT,
        "/tool.sha256": digest(CONTENT).encode(),
        "/wrong.sha256": digest(b"other").encode(),
        "/tool.tar.gz": packed,
        "/SUMS": f"{digest(b'x')}  other.tar.gz\n{digest(packed)}  tool.tar.gz\n".encode(),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = files.get(self.path)
            self.send_response(200 if body else 404)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def fetch(release: Release, target: Path) -> None:
    Downloader().fetch(release, {"os": "linux", "arch": "amd64"}, target, lambda line: None)


def test_a_plain_file_and_its_bare_digest(site: str, tmp_path: Path) -> None:
    fetch(Release(f"{site}/tool", f"{site}/tool.sha256"), tmp_path / "tool")
    assert (tmp_path / "tool").read_bytes() == CONTENT


def test_a_member_of_an_archive_named_in_a_list_of_digests(site: str, tmp_path: Path) -> None:
    fetch(Release(f"{site}/tool.tar.gz", f"{site}/SUMS", "{os}-{arch}/tool"), tmp_path / "tool")
    assert (tmp_path / "tool").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["tool"]


@pytest.mark.parametrize(
    ("url", "checksum", "member", "why"),
    [
        pytest.param("/tool", "/wrong.sha256", None, "SHA-256", id="other content than published"),
        pytest.param("/tool", "/absent", None, "404", id="no checksum published"),
        pytest.param("/tool.tar.gz", "/SUMS", "absent", "absent", id="no such member"),
        pytest.param("/absent.tar.gz", "/SUMS", None, "does not name", id="not in the list of digests"),
    ],
)
def test_nothing_arrives(site: str, tmp_path: Path, url: str, checksum: str, member: str | None, why: str) -> None:
    with pytest.raises(DownloadError, match=why):
        fetch(Release(site + url, site + checksum, member), tmp_path / "tool")
    assert not (tmp_path / "tool").exists()


def test_a_silent_host_costs_its_time_out_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def silent(*arguments: object, **options: object) -> None:
        over.wait(10)
        raise OSError("no answer")

    monkeypatch.setattr(socket, "create_connection", silent)
    downloader = Downloader(connect_timeout=0.1)
    release = Release("https://example.invalid/tool", "https://example.invalid/sum")
    began = time.monotonic()
    for _ in range(5):
        with pytest.raises(DownloadError, match="does not answer"):
            downloader.fetch(release, {}, tmp_path / "tool", lambda line: None)
    over.set()
    assert time.monotonic() - began < 2


def test_a_digest_is_found_by_the_exact_name() -> None:
    assert checksum_of("aa  x/tool\nbb *tool\n", "tool") == "bb"
    with pytest.raises(ValueError, match="does not name"):
        checksum_of("aa  tool.asc\nbb  tools\n", "tool")
