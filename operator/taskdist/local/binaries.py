"""Finds the control plane's binaries, and makes them where the machine has none.

Owns the order of the search (KUBEBUILDER_ASSETS, PATH, the cache, an official release, a build from the Go modules
beside this file), the cache's layout, and the one table of versions. A given kubeconfig means that nobody asks here.
It never installs anything outside the cache.

The cache is `$XDG_CACHE_HOME/taskdist/bin/<version>/<name>`. What stands there is complete: files arrive by rename.
"""

from __future__ import annotations

import fcntl
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from taskdist.local.downloads import Downloader, DownloadError, Release

KUBERNETES = "v1.34.4"
ETCD = "v3.6.5"
HELM = "v3.19.0"
KUBECONFORM = "v0.8.0"

MODULES = Path(__file__).parent / "modules"

Report = Callable[[str], None]
"""Told what is going on, a line at a time: a first build takes minutes and must not look stuck."""


@dataclass(frozen=True)
class Binary:
    """One binary: what to ask it for its version, the oldest that will do, where it is released and built from."""

    name: str
    version: str
    oldest: tuple[int, int]
    version_arguments: tuple[str, ...]
    module: str
    package: str
    ldflags: str
    release: Release


def _kubernetes(name: str) -> Binary:
    stamp = "k8s.io/component-base/version"
    major, minor = KUBERNETES.removeprefix("v").split(".")[:2]
    return Binary(
        name=name,
        version=KUBERNETES,
        oldest=(1, 30),
        version_arguments=("version", "--client") if name == "kubectl" else ("--version",),
        module="kubernetes",
        package=f"k8s.io/kubernetes/cmd/{name}",
        ldflags=f"-X {stamp}.gitVersion={KUBERNETES} -X {stamp}.gitMajor={major} -X {stamp}.gitMinor={minor}",
        release=Release(
            url=f"https://dl.k8s.io/release/{KUBERNETES}/bin/{{os}}/{{arch}}/{name}",
            checksum=f"https://dl.k8s.io/release/{KUBERNETES}/bin/{{os}}/{{arch}}/{name}.sha256",
        ),
    )


_ETCD_RELEASE = f"https://github.com/etcd-io/etcd/releases/download/{ETCD}"
_KUBECONFORM_RELEASE = f"https://github.com/yannh/kubeconform/releases/download/{KUBECONFORM}"

BINARIES: Mapping[str, Binary] = {
    binary.name: binary
    for binary in (
        *(_kubernetes(name) for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")),
        Binary(
            name="etcd",
            version=ETCD,
            oldest=(3, 5),
            version_arguments=("--version",),
            module="etcd",
            package="go.etcd.io/etcd/server/v3",
            ldflags="",
            release=Release(
                url=f"{_ETCD_RELEASE}/etcd-{ETCD}-{{os}}-{{arch}}.tar.gz",
                checksum=f"{_ETCD_RELEASE}/SHA256SUMS",
                member=f"etcd-{ETCD}-{{os}}-{{arch}}/etcd",
            ),
        ),
        Binary(
            name="helm",
            version=HELM,
            oldest=(3, 14),
            version_arguments=("version", "--short"),
            module="helm",
            package="helm.sh/helm/v3/cmd/helm",
            ldflags=f"-X helm.sh/helm/v3/internal/version.version={HELM}",
            release=Release(
                url=f"https://get.helm.sh/helm-{HELM}-{{os}}-{{arch}}.tar.gz",
                checksum=f"https://get.helm.sh/helm-{HELM}-{{os}}-{{arch}}.tar.gz.sha256sum",
                member="{os}-{arch}/helm",
            ),
        ),
        Binary(
            name="kubeconform",
            version=KUBECONFORM,
            oldest=(0, 6),
            version_arguments=("-v",),
            module="kubeconform",
            package="github.com/yannh/kubeconform/cmd/kubeconform",
            ldflags=f"-X main.version={KUBECONFORM}",
            release=Release(
                url=f"{_KUBECONFORM_RELEASE}/kubeconform-{{os}}-{{arch}}.tar.gz",
                checksum=f"{_KUBECONFORM_RELEASE}/CHECKSUMS",
                member="kubeconform",
            ),
        ),
    )
}

CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")
"""What the demo and the tests cannot do without; helm and kubeconform are for the chart's checks."""


class BinaryNotFound(Exception):
    """Nowhere to be had. The message says where was looked, why each place failed, and what to do."""

    def __init__(self, binary: Binary, tried: list[tuple[str, str]]) -> None:
        places = "\n".join(f"  {place}: {why}" for place, why in tried)
        super().__init__(
            f"{binary.name} was not found and could not be made.\n{places}\n"
            f"Do one of these:\n"
            f"  - install Go 1.24 or later (https://go.dev/dl): the first use then builds it, once\n"
            f"  - put {binary.name} {'.'.join(map(str, binary.oldest))} or later on PATH, or into a directory named by"
            f" KUBEBUILDER_ASSETS\n"
            f"  - copy it to {cache_path(binary)}\n"
            f"  - use a cluster that you have, by its kubeconfig: no binaries are needed then"
        )
        self.binary = binary
        self.tried = tried


def cache_path(binary: Binary, environ: Mapping[str, str] = os.environ) -> Path:
    """Where the cache keeps it."""
    home = environ.get("HOME") or str(Path.home())
    base = environ.get("XDG_CACHE_HOME") or str(Path(home) / ".cache")
    return Path(base) / "taskdist" / "bin" / binary.version / binary.name


def find(name: str, report: Report | None = None) -> Path:
    """The path of a binary that answers; made first where the machine has none. Raises BinaryNotFound, or KeyError
    for a name that is not in the table."""
    return Finder(os.environ, report or to_stderr).find(name)


def to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Finder:
    """One search after another under one environment; remembers which download hosts did not answer."""

    def __init__(
        self,
        environ: Mapping[str, str],
        report: Report,
        downloader: Downloader | None = None,
        modules: Path = MODULES,
    ) -> None:
        self._environ = environ
        self._report = report
        self._downloader = downloader or Downloader(enabled=environ.get("TASKDIST_DOWNLOAD", "1") != "0")
        self._modules = modules

    def find(self, name: str) -> Path:
        binary = BINARIES[name]
        tried: list[tuple[str, str]] = []
        for place, candidate in self._standing(binary):
            why = f"no {candidate.name} in {candidate.parent}" if candidate else "not set or has none"
            if candidate is not None and os.access(candidate, os.X_OK) and candidate.is_file():
                why = self._refusal(binary, candidate)
                if not why:
                    return candidate
            tried.append((place, why))
        cached = cache_path(binary, self._environ)
        if _runnable(cached):
            return cached
        tried.append(("cache", f"no {cached}"))
        with self._only_builder(cached):
            if _runnable(cached):  # Another process made it while this one waited.
                return cached
            for place, make in (("download", self._download), ("build", self._build)):
                why = make(binary, cached)
                if not why:
                    return cached
                tried.append((place, why))
        raise BinaryNotFound(binary, tried)

    def _standing(self, binary: Binary) -> Iterator[tuple[str, Path | None]]:
        assets = self._environ.get("KUBEBUILDER_ASSETS")
        yield "KUBEBUILDER_ASSETS", Path(assets) / binary.name if assets else None
        found = shutil.which(binary.name, path=self._environ.get("PATH", os.defpath))
        yield "PATH", Path(found) if found else None

    def _refusal(self, binary: Binary, candidate: Path) -> str:
        """Why this file does not count, or an empty string. Another program may bear the same name."""
        try:
            answer = subprocess.run(
                [candidate, *binary.version_arguments], capture_output=True, text=True, timeout=20, check=True
            )
        except (OSError, subprocess.SubprocessError) as error:
            return f"{candidate} does not tell its version ({error})"
        match = re.search(r"\bv?(\d+)\.(\d+)", answer.stdout)
        if match is None:
            return f"{candidate} does not tell its version (it said {answer.stdout.strip()[:60]!r})"
        major, minor = int(match[1]), int(match[2])
        if (major, minor) < binary.oldest:
            wanted = ".".join(map(str, binary.oldest))
            return f"{candidate} is {major}.{minor}, older than {wanted}"
        return ""

    @contextmanager
    def _only_builder(self, cached: Path) -> Iterator[None]:
        cached.parent.mkdir(parents=True, exist_ok=True)
        with (cached.parent / f".{cached.name}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._report(f"{cached.name}: another process is making it; waiting")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield  # Closing the file gives the lock back; so does the end of the process.

    def _download(self, binary: Binary, cached: Path) -> str:
        try:
            with _arriving(cached) as target:
                self._downloader.fetch(binary.release, platform_names(), target, self._report)
        except DownloadError as error:
            return str(error)
        return ""

    def _build(self, binary: Binary, cached: Path) -> str:
        go = shutil.which("go", path=self._environ.get("PATH", os.defpath))
        if go is None:
            return "no go on PATH"
        try:
            with _arriving(cached) as target:
                _go_build(go, binary, self._modules / binary.module, target, self._environ, self._report)
        except BuildError as error:
            return str(error)
        return ""


class BuildError(Exception):
    """`go build` failed; the message carries the end of what it said."""


def _runnable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


@contextmanager
def _arriving(cached: Path) -> Iterator[Path]:
    """A path to write to that becomes `cached` at once, or nothing if the block fails."""
    with tempfile.TemporaryDirectory(dir=cached.parent, prefix=f".{cached.name}-") as folder:
        target = Path(folder) / cached.name
        yield target
        target.chmod(0o755)
        target.replace(cached)


def platform_names() -> Mapping[str, str]:
    """This machine in the words of Go's releases."""
    machine = platform.machine().lower()
    arch = {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)
    return {"os": platform.system().lower(), "arch": arch}


def _go_build(go: str, binary: Binary, module: Path, target: Path, environ: Mapping[str, str], report: Report) -> None:
    env = {**environ, "CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": "-mod=readonly -buildvcs=false"}
    command = [
        go, "build", "-v", "-trimpath", "-ldflags", f"-s -w {binary.ldflags}".strip(), "-o", str(target), binary.package
    ]  # fmt: skip
    what = f"{binary.name} {binary.version}"
    report(f"{what}: building from source with {go} (once; the largest takes some 8 minutes on 2 cores)")
    started = time.monotonic()
    process = subprocess.Popen(
        command, cwd=module, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    lines: list[str] = []
    assert process.stderr is not None

    def read(stream: Iterator[str]) -> None:
        lines.extend(stream)

    reader = threading.Thread(target=read, args=(iter(process.stderr),), daemon=True)
    reader.start()
    try:
        while True:
            try:
                code = process.wait(timeout=10)
                break
            except subprocess.TimeoutExpired:
                report(f"{what}: {_progress(lines)}, {time.monotonic() - started:.0f} s")
    except BaseException:  # Ctrl-C: do not leave a compiler running.
        process.kill()
        process.wait()
        raise
    finally:
        reader.join(timeout=5)
        process.stderr.close()
    if code != 0:
        raise BuildError(f"go build failed ({code}): " + " | ".join(line.strip() for line in lines[-5:]))
    report(f"{what}: built in {time.monotonic() - started:.0f} s ({_progress(lines)})")


def _progress(lines: list[str]) -> str:
    """`go build -v` says a package a line as it compiles them, and `go: downloading …` for each module."""
    fetched = sum(line.startswith("go: downloading") for line in lines)
    modules = f"{fetched} modules fetched, " if fetched else ""
    return f"{modules}{len(lines) - fetched} packages compiled"
