"""Programs of the distribution's packages: those that are there, or installed now where that can be."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path


def program(package: str, find: Callable[[], Path | None]) -> Path:
    """Return what `find` finds: at once, or after the package was installed."""
    found = find()
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        # A server that the package starts by itself is none of ours: the run level keeps it from doing so.
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", package]):
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        found = find()
    assert found is not None, f"the package {package} is not installed: apt-get install {package}"
    return found


def on_path(name: str) -> Path | None:
    """Return the program of this name on PATH, if there is one."""
    there = shutil.which(name)
    return None if there is None else Path(there)
