"""`taskdist simulate` from the command line: what it prints, writes and refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from sim_worlds import scenario, stream
from typer.testing import CliRunner

from taskdist.cli.main import build


def run(*arguments: str) -> Any:
    return CliRunner().invoke(build("taskdist"), ["simulate", *arguments])


@pytest.fixture
def small(tmp_path: Path) -> Path:
    tasks = stream({"poisson": {"perSecond": 3}}, {"exponential": {"mean": 1}}, 60, deadline={"slack": 1})
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(scenario(tasks, pools={"p": {"replicas": 4}}, seed=5)))
    return path


@pytest.fixture
def variants(tmp_path: Path) -> Path:
    tasks = stream({"poisson": {"perSecond": 3}}, {"exponential": {"mean": 1}}, 60)
    given = scenario(tasks, pools={"p": {"replicas": 4}}, compare={"ours": {}, "random": {"policy": "random"}})
    path = tmp_path / "variants.yaml"
    path.write_text(yaml.safe_dump(given))
    return path


def without_speed(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)
    del found["decisions_per_second"]
    return found


def test_a_table(small: Path) -> None:
    done = run(str(small))
    assert done.exit_code == 0, done.output
    for words in ("Tasks", "wait, p99", "deadline success", "priority inversions", "Pool"):
        assert words in done.stdout


def test_json_is_the_same_for_the_same_seed(small: Path) -> None:
    own, again, given, other = (run(str(small), "--json", *more) for more in ((), (), ("--seed", "5"), ("--seed", "6")))
    assert own.exit_code == 0
    assert len(own.stdout.splitlines()) == 1
    found = without_speed(own.stdout)
    assert found == without_speed(again.stdout) == without_speed(given.stdout)
    assert found != without_speed(other.stdout)
    assert found["completed"] == 60
    assert json.loads(own.stdout)["decisions_per_second"] > 0


def test_several_seeds(small: Path) -> None:
    found = json.loads(run(str(small), "--json", "--seeds", "3").stdout)
    assert list(found["seeds"]) == ["5", "6", "7"]
    low, high = found["spread"]["wait.mean"]["interval_95"]
    assert low < found["wait"]["mean"] < high
    assert "±" in run(str(small), "--seeds", "3").stdout


def test_variants_side_by_side(variants: Path) -> None:
    found = json.loads(run(str(variants), "--json").stdout)
    assert list(found["variants"]) == ["ours", "random"]
    assert list(found["paired"]) == ["ours vs random"]
    shown = run(str(variants), "--seeds", "2").stdout
    assert "ours vs random" in shown
    assert "wait.mean" in shown


def test_a_report(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.html"
    done = run(str(small), "--report", str(out), "--json")
    assert done.exit_code == 0
    assert out.read_text().startswith("<!doctype html>")
    assert str(out) in done.stderr
    json.loads(done.stdout)


def test_a_report_that_cannot_be_written(small: Path, tmp_path: Path) -> None:
    done = run(str(small), "--report", str(tmp_path / "no" / "out.html"))
    assert done.exit_code == 1
    assert "cannot be written" in done.stderr


def test_a_scenario_that_cannot_be_run(small: Path) -> None:
    text = small.read_text().replace("perSecond", "perHour")
    small.write_text(text)
    done = run(str(small))
    assert done.exit_code == 2
    assert "workload.streams[0].arrivals.poisson.perHour: there is no such field" in done.stderr
    assert done.stdout == ""


def test_a_scenario_that_is_not_there() -> None:
    done = run("/nonexistent/none.yaml")
    assert done.exit_code == 2
    assert "No such file" in done.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(b"a: [" * 3000, "no YAML", id="nested-deeply"),
        pytest.param(b"a: 2030-13-45", "no YAML", id="a-day-that-is-none"),
        pytest.param(b"a: M\xfcller", "utf-8", id="another-encoding"),
        pytest.param(b"1: a\nqueues: []\n", "Keys should be strings", id="a-number-for-a-field"),
    ],
)
def test_a_file_that_is_no_scenario_is_told(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)
    done = run(str(path))
    assert done.exit_code == 2, done.output
    assert words in done.stderr


def test_a_trace_without_a_task_is_played(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("time\n")
    (tmp_path / "empty.yaml").write_text(yaml.safe_dump(scenario(stream({"trace": "t.csv"}))))
    done = run(str(tmp_path / "empty.yaml"), "--json", "--report", str(tmp_path / "out.html"))
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["tasks"] == 0
