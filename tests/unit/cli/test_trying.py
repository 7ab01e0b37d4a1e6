"""`agent try`: a handler is run once, as in a pod, with nothing around it."""

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
            "would be tried again after 20 s",
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
