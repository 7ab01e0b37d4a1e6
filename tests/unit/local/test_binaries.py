"""Where binaries are looked for, in which order, and what counts as one."""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from taskdist.local.binaries import BINARIES, ETCD, MODULES, Binary, BinaryNotFound, Finder, cache_path
from taskdist.local.downloads import Downloader, DownloadError, Release

GOOD = "echo etcd Version: 3.6.0"


class FakeDownloads(Downloader):
    """Writes a file, or fails as a machine without a network does."""

    def __init__(self, works: bool) -> None:
        super().__init__()
        self.works = works
        self.asked = 0

    def fetch(self, release: Release, names: Mapping[str, str], target: Path, report: object) -> None:
        self.asked += 1
        if not self.works:
            raise DownloadError("example.invalid does not answer")
        target.write_text("#!/bin/sh\necho downloaded\n")


def script(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


@dataclass
class Machine:
    """A machine with nothing on it, to which a case adds."""

    root: Path
    downloads: bool = False
    lines: list[str] = field(default_factory=list)

    @property
    def environ(self) -> dict[str, str]:
        return {
            "HOME": str(self.root),
            "XDG_CACHE_HOME": str(self.root / "cache"),
            "PATH": str(self.root / "path"),
            "KUBEBUILDER_ASSETS": str(self.root / "assets"),
        }

    def put(self, place: str, body: str = GOOD) -> Path:
        path = cache_path(BINARIES["etcd"], self.environ) if place == "cache" else self.root / place / "etcd"
        return script(path, body)

    def go(self, body: str) -> None:
        # The file to write follows -o; the shell's own commands are all it may use on this path.
        loop = 'while [ "$1" != -o ]; do shift; done'
        script(self.root / "path" / "go", f"{loop}\n{body}")

    def find(self) -> Path:
        return Finder(self.environ, self.lines.append, FakeDownloads(self.downloads)).find("etcd")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        pytest.param(["assets", "path", "cache"], "assets", id="assets win over all"),
        pytest.param(["path", "cache"], "path", id="the path wins over the cache"),
        pytest.param(["cache"], "cache", id="the cache"),
    ],
)
def test_the_first_place_wins(machine: Machine, present: list[str], expected: str) -> None:
    paths = {place: machine.put(place) for place in present}
    assert machine.find() == paths[expected]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("exit 1", id="it fails"),
        pytest.param("echo hello", id="it tells no version"),
        pytest.param("echo etcd Version: 3.4.9", id="it is too old"),
    ],
)
def test_a_wrong_program_of_that_name_is_passed_over(machine: Machine, body: str) -> None:
    machine.put("path", body)
    cached = machine.put("cache")
    assert machine.find() == cached


def test_a_download_goes_into_the_cache_and_is_asked_for_once(machine: Machine) -> None:
    machine.downloads = True
    cached = cache_path(BINARIES["etcd"], machine.environ)
    assert machine.find() == cached
    assert cached.stat().st_mode & 0o111
    machine.downloads = False
    assert machine.find() == cached
    assert ETCD in str(cached)


def test_a_build_follows_where_no_download_is_possible(machine: Machine) -> None:
    machine.go('echo "go: downloading a v1" >&2\necho some/package >&2\necho "#!/bin/sh" > "$2"')
    cached = cache_path(BINARIES["etcd"], machine.environ)
    assert machine.find() == cached
    assert any("1 modules fetched, 1 packages compiled" in line for line in machine.lines)
    assert [path.name for path in cached.parent.iterdir() if not path.name.endswith(".lock")] == ["etcd"]


def test_a_failed_build_leaves_nothing_and_says_why(machine: Machine) -> None:
    machine.go('echo half > "$2"\necho "main.go:1: no such thing" >&2\nexit 1')
    with pytest.raises(BinaryNotFound, match=r"no such thing"):
        machine.find()
    assert not cache_path(BINARIES["etcd"], machine.environ).exists()


def test_nothing_to_be_had_says_where_was_looked_and_what_to_do(machine: Machine) -> None:
    with pytest.raises(BinaryNotFound) as caught:
        machine.find()
    message = str(caught.value)
    for part in ("KUBEBUILDER_ASSETS", "PATH", "cache", "download: example.invalid does not answer", "no go on PATH"):
        assert part in message
    assert "install Go" in message


def test_two_processes_do_not_make_it_at_once(machine: Machine) -> None:
    cached = cache_path(BINARIES["etcd"], machine.environ)
    cached.parent.mkdir(parents=True)
    waiting = threading.Event()

    def report(line: str) -> None:
        if "another process" in line:
            waiting.set()

    downloads = FakeDownloads(works=True)
    found: list[Path] = []
    finder = Finder(machine.environ, report, downloads)
    with (cached.parent / ".etcd.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread = threading.Thread(target=lambda: found.append(finder.find("etcd")))
        thread.start()
        assert waiting.wait(10)
        machine.put("cache")
    thread.join(10)
    assert found == [cached]
    assert downloads.asked == 0


@pytest.mark.parametrize("binary", BINARIES.values(), ids=BINARIES.keys())
def test_each_module_builds_the_version_it_is_cached_as(binary: Binary) -> None:
    assert binary.package.startswith(
        tuple(
            line.split()[0]
            for line in (MODULES / binary.module / "go.mod").read_text().splitlines()
            if f" {binary.version} " in f"{line} "
        )
    )
