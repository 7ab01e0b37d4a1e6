"""`pip install taskdist` is enough for agents and clients: what only the operator needs is an extra."""

import os
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# Stands for an environment with the base package alone: all else that is installed here cannot be imported.
ALONE = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
import taskdist
assert taskdist.__file__.startswith(WHEEL), taskdist.__file__
"""


@dataclass(frozen=True)
class Environment:
    """Where the wheel is installed, and the modules that it has to do without."""

    folder: Path
    absent: frozenset[str]

    def python(self, code: str) -> subprocess.CompletedProcess[str]:
        whole = f"ABSENT = {set(self.absent)!r}\nWHEEL = {str(self.folder)!r}\n{ALONE}\n{code}"
        environ = {**os.environ, "PYTHONPATH": str(self.folder), "COLUMNS": "200", "NO_COLOR": "1"}
        # -P: what stands in the working directory is not what is installed.
        return subprocess.run(
            [sys.executable, "-P", "-c", whole], env=environ, capture_output=True, text=True, timeout=120, check=False
        )

    def commands(self, *lines: str) -> subprocess.CompletedProcess[str]:
        """Calls of the command, one after the other in one process: it costs a second each to start one."""
        return self.python(
            f"for line in {lines!r}:\n"
            "    sys.argv = line.split()\n"
            "    try:\n"
            "        from taskdist.cli.main import main\n"
            "        main()\n"
            "    except SystemExit as ending:\n"
            "        print(f'{line}: {ending.code or 0}')\n"
        )


def closure(requirements: list[str]) -> set[str]:
    """Names of the distributions that installing these brings, without extras."""
    found: set[str] = set()
    todo = [Requirement(each) for each in requirements]
    while todo:
        each = todo.pop()
        name = canonicalize_name(each.name)
        if name in found or (each.marker and not each.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        todo += [Requirement(line) for line in distribution(each.name).requires or ()]
    return found


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("wheel")
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(folder / "dist"), versions=["standard"])
    here = folder / "site"
    words = ["install", "-q", "--no-deps", "--no-index", "--no-compile", "--target", str(here), str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", "--disable-pip-version-check", *words], check=True, timeout=120)
    wanted = closure(PROJECT["dependencies"])
    absent = {
        module
        for module, names in packages_distributions().items()
        if not {canonicalize_name(name) for name in names} & wanted and module not in ("taskdist", "google")
    }
    return Environment(here, frozenset(absent))


def test_what_only_the_operator_needs_is_absent(base: Environment) -> None:
    assert {"kopf", "kubernetes", "cryptography", "prometheus_client", "pytest"} <= base.absent
    assert not base.absent & {"aiohttp", "grpc", "pydantic", "typer", "yaml", "rich", "structlog"}
    done = base.python("import kopf")
    assert "No module named 'kopf'" in done.stderr


def test_agents_and_clients_import_without_it(base: Environment) -> None:
    agents, clients = (
        "taskdist.agent.runner, taskdist.agent.transport",
        "taskdist.client.explaining, taskdist.client.testing",
    )
    done = base.python(f"import {agents}, {clients}; from taskdist import AsyncClient, Client")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_command_works_without_it(base: Environment, tmp_path: Path) -> None:
    path = tmp_path / "k"
    path.write_text(
        "current-context: c\nclusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]\n"
        "contexts: [{name: c, context: {cluster: c}}]\n"
    )
    helps = ("taskdist --help", "taskdist submit --help", "taskdist agent --help", "taskdist simulate --help")
    done = base.commands(
        *helps, f"taskdist get --kubeconfig {path}", "taskdist operator", "taskdist archive", "taskdist mcp"
    )
    for line in helps:
        assert f"{line}: 0" in done.stdout
    assert done.stdout.count("Usage: taskdist") == len(helps)
    assert "the API server cannot be reached" in done.stderr
    assert "taskdist operator: 1" in done.stdout
    assert "pip install 'taskdist[operator]'" in done.stderr
    assert "pip install 'taskdist[archive]'" in done.stderr
    assert "pip install 'taskdist[mcp]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_wheel_holds_the_steps_of_the_archive_s_schema(base: Environment) -> None:
    shipped = {file.name for file in (base.folder / "taskdist" / "archive" / "migrations").glob("*.sql")}
    assert shipped == {file.name for file in (ROOT / "operator/taskdist/archive/migrations").glob("*.sql")} != set()
