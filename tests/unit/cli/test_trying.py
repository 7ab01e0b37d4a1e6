"""`agent try`: a handler is run once, as in a pod, with nothing around it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from taskdist.cli.main import build

SAMPLE = str(Path(__file__).parents[2] / "agents" / "sample.py")


def run(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner(env={"NO_COLOR": "1"}).invoke(build("taskdist"), ["agent", "try", *arguments])
    return done.exit_code, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "out", "err"),
    [
        pytest.param(
            (f"{SAMPLE}:agent", "--type", "progress", "--payload", '{"steps": 1, "seconds": 0.5}'),
            0,
            '"steps": 1',
            "100%",
            id="handler",
        ),
        pytest.param(
            (f"{SAMPLE}:agent", "--type", "fail", "--payload", '{"message": "boom"}'),
            1,
            "",
            "HandlerError: ValueError: boom\nits Task would be tried again",
            id="failure",
        ),
        pytest.param(
            (f"{SAMPLE}:agent", "--type", "throttled", "--payload", '{"after": 20}'),
            1,
            "",
            "would be tried again after 20 s, unless its queue delivers at most once",
            id="throttled",
        ),
        pytest.param((f"{SAMPLE}:agent", "--type", "nope"), 1, "", "no handler for type 'nope'", id="another-type"),
        pytest.param(("no.such.module:agent", "--type", "x"), 1, "", "ModuleNotFoundError", id="no-module"),
        pytest.param(
            ("--command", "sh -c cat", "--type", "x", "--payload", '{"a": null}'), 0, "null", "", id="command"
        ),
        pytest.param(("--command", "cat", "--type", "x", "--payload", "[1]"), 2, "", "is a list", id="bad-payload"),
        pytest.param(("--command", "cat"), 2, "", "--type TYPE", id="no-type"),
        pytest.param(("--type", "x"), 2, "", "say what runs the work", id="nothing-to-run"),
        pytest.param(("--http", "localhost:80", "--type", "x"), 2, "", "write http://", id="no-url"),
    ],
)
def test_a_handler_is_tried(
    arguments: tuple[str, ...], code: int, out: str, err: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The process that runs the tests is not to become the parent of others' orphans.
    monkeypatch.setattr("taskdist.agent.processes.adopt_orphans", lambda: None)
    found = run(*arguments)
    assert found[0] == code, found
    assert out in found[1]
    assert err in found[2]


CHATTY = """
import os
from taskdist.agent import Agent

agent = Agent()


@agent.task("talk")
def talk(payload: dict) -> dict:
    print("said by print", flush=True)
    os.system("echo said by a child")
    return {"x": 1}
"""


def test_stdout_holds_the_result_alone(tmp_path: Path) -> None:
    module = tmp_path / "chatty.py"
    module.write_text(CHATTY)
    program = [sys.executable, "-m", "taskdist.cli.main", "agent", "try", f"{module}:agent", "--type", "talk"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout) == {"x": 1}
    assert "said by print" in done.stderr
    assert "said by a child" in done.stderr
