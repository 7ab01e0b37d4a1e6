"""helm, and what it renders."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from taskdist.local.binaries import find

CHART = Path(__file__).parents[3] / "charts" / "taskdist"

Object = dict[str, Any]
Render = Callable[..., list[Object]]


@pytest.fixture(scope="session")
def helm() -> Path:
    return find("helm")


@pytest.fixture(scope="session")
def render(helm: Path) -> Render:
    """Renders the chart with `--set` settings. Raises CalledProcessError, with what helm said as its stderr."""

    def run(*settings: str, release: str = "taskdist") -> list[Object]:
        command: list[str | Path] = [helm, "template", release, CHART]
        command += ["--namespace", "taskdist-system", "--kube-version", "1.34.0"]
        command += [part for setting in settings for part in ("--set", setting)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
        return [document for document in yaml.safe_load_all(done.stdout) if document]

    return run
