"""The image's recipe and its lock file, as far as they can be judged without an engine to build with."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

import taskdist

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Step:
    """One instruction of a Dockerfile, its continuation lines joined."""

    stage: int
    word: str
    rest: str


def steps() -> list[Step]:
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.M).replace("\\\n", " ")
    found: list[Step] = []
    stage = -1
    for line in filter(str.strip, text.splitlines()):
        word, _, rest = line.strip().partition(" ")
        stage += word == "FROM"
        found.append(Step(stage, word, " ".join(rest.split())))
    return found


@pytest.fixture(name="last")
def last_stage() -> list[Step]:
    every = steps()
    return [step for step in every if step.stage == every[-1].stage]


def test_there_is_a_stage_to_build_and_one_to_run() -> None:
    assert [step.stage for step in steps() if step.word == "FROM"] == [0, 1]


def test_the_last_stage_runs_nothing_and_takes_the_environment_from_the_first(last: list[Step]) -> None:
    assert not [step for step in last if step.word in ("RUN", "ADD")]
    assert "--from=build /opt/taskdist /opt/taskdist" in [step.rest for step in last if step.word == "COPY"]


def test_it_runs_as_a_number_that_is_not_root_and_that_the_chart_asks_for(last: list[Step]) -> None:
    (user,) = (step.rest for step in last if step.word == "USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    deployment = (ROOT / "charts" / "taskdist" / "templates" / "deployment.yaml").read_text()
    assert f"runAsUser: {user.partition(':')[0]}\n" in deployment


def test_the_number_has_a_name_and_a_home_that_can_be_written(last: list[Step]) -> None:
    (number,) = (step.rest.partition(":")[0] for step in last if step.word == "USER")
    (added,) = (step.rest for step in steps() if step.word == "RUN" and step.rest.startswith("useradd"))
    assert f"--uid {number} " in added
    assert "--home-dir /tmp " in added  # the chart mounts it; all else is read-only
    assert "--from=build /etc/passwd /etc/group /etc/" in [step.rest for step in last if step.word == "COPY"]


def test_its_entry_is_the_command(last: list[Step]) -> None:
    assert [step.rest for step in last if step.word == "ENTRYPOINT"] == ['["taskdist"]']


def test_wheels_are_checked_by_hash() -> None:
    installs = [step.rest for step in steps() if step.word == "RUN" and "-r requirements" in step.rest]
    assert installs
    assert all("--require-hashes" in each and "--only-binary :all:" in each for each in installs)


def test_what_is_copied_is_what_is_not_ignored_and_is_there() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    copies = [step.rest for step in steps() if step.word == "COPY" and "--from" not in step.rest]
    assert {source for rest in copies for source in rest.split()[:-1]} == allowed
    assert {"operator/taskdist", "requirements-runtime.lock"} <= allowed
    assert not [path for path in sorted(allowed) if not (ROOT / path).exists()]
    assert ignored[1] == "*"  # all else is ignored


def distributed(*parts: str) -> set[str]:
    """What the wheel of the project in this folder holds."""
    found = WheelBuilder(str(ROOT.joinpath(*parts))).recurse_included_files()
    return {each.distribution_path for each in found}


def test_what_runs_on_ones_own_machine_is_in_a_wheel_of_its_own_and_not_in_the_image() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored.index("operator/taskdist/local") > ignored.index("!operator/taskdist")
    image, local = distributed(), distributed("packages", "taskdist-local")
    assert {"taskdist/cli/main.py", "taskdist/agent/__main__.py", "taskdist/controller/main.py"} <= image
    assert not [path for path in sorted(image) if path.startswith("taskdist/local/")]
    assert {"taskdist/local/dev.py", "taskdist/local/manifests/install.yaml"} <= local
    assert not [path for path in sorted(local) if not path.startswith("taskdist/local/")]


def test_both_wheels_have_one_version() -> None:
    import tomllib

    whole = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    local = tomllib.loads((ROOT / "packages" / "taskdist-local" / "pyproject.toml").read_text())["project"]
    assert whole["version"] == local["version"] == taskdist.__version__
    assert local["dependencies"] == [f"taskdist[operator]=={whole['version']}"]
    assert whole["optional-dependencies"]["local"] == [f"taskdist-local=={whole['version']}"]
    assert local["requires-python"] == whole["requires-python"]


def pins(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;\\]+)", (ROOT / name).read_text(), flags=re.M))


def test_the_image_has_the_versions_that_are_tested() -> None:
    runtime, tested = pins("requirements-runtime.lock"), pins("requirements.lock")
    assert runtime.items() <= tested.items()
    assert not runtime.keys() & {"pytest", "mypy", "ruff", "hatchling", "grpcio-tools"}


def test_the_image_has_all_that_the_project_depends_on() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["operator"]
    names = {re.split(r"[<>=~!\[; ]", each)[0].lower() for each in wanted}
    assert names <= {name.lower() for name in pins("requirements-runtime.lock")}
