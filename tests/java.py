"""Java programs that tests start: their jars are fetched by Maven, pinned by checksums, and kept in the cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import distribution

_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
# A small heap, and no compiler that pays off after minutes only: what a short test needs.
_OPTIONS = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")


def command(pinned: Path, *words: str) -> list[str]:
    """Return the command that runs Java with the jars that the folder pins; `words`: options, the class, arguments."""
    java = str(distribution.program("default-jre-headless", lambda: distribution.on_path("java")))
    return [java, *_OPTIONS, "-cp", f"{_jars(pinned)}/*", *words]


@cache
def _jars(pinned: Path) -> Path:
    """Return the folder of the jars: from the cache, or fetched now by Maven; all as they are pinned."""
    name = pinned.name.removesuffix("_jars")
    sums = (pinned / "jars.sha256").read_bytes()
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "taskdist"
    folder = base / name / hashlib.sha256(sums).hexdigest()[:16]
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as made:
            shutil.copy(pinned / "pom.xml", made)
            maven = str(distribution.program("maven", lambda: distribution.on_path("mvn")))
            fetch = [maven, "-q", "-B", _COPY, "-DincludeScope=runtime", f"-DoutputDirectory={made}/jars"]
            done = subprocess.run(fetch, cwd=made, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"the jars of {name} could not be fetched:\n{done.stdout[-3000:]}"
            _check(Path(made, "jars"), pinned, sums)
            # What stands in the cache is complete.
            if not folder.exists():
                Path(made, "jars").rename(folder)
    _check(folder, pinned, sums)
    return folder


def _check(folder: Path, pinned: Path, sums: bytes) -> None:
    wanted = {name: digest for digest, name in (line.split() for line in sums.decode().splitlines())}
    found = {each.name: hashlib.sha256(each.read_bytes()).hexdigest() for each in folder.iterdir()}
    assert found == wanted, f"{folder}: other jars than those of {pinned / 'jars.sha256'}"
