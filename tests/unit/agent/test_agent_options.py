"""Options from variables and flags, the probes' endpoint, and the sample agent's count."""

import asyncio
import importlib.util
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from taskdist.agent.health import HealthServer
from taskdist.agent.options import AgentOptions, OptionError, options_from_args, options_from_env
from taskdist.agent.runner import main, make_end, make_executor, run_agent
from taskdist.agent.supervisor import EXIT_USAGE
from taskdist.agent.work import Offered
from taskdist.cli.main import build
from taskdist.cli.run import USAGE
from taskdist.protocol.agent.work import SendUp
from taskdist.protocol.instances import instance_of
from taskdist.protocol.messages import Hello
from taskdist.protocol.settings import AgentSettings

GOOD = AgentOptions(module="m:agent", address="host:1")


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        pytest.param({}, {}, id="nothing"),
        pytest.param({"TASKDIST_SLOTS": "4"}, {"slots": 4}, id="slots"),
        pytest.param({"TASKDIST_SKILLS": "a, b,,"}, {"skills": ("a", "b")}, id="skills"),
        pytest.param({"TASKDIST_LABELS": "zone=a,x="}, {"labels": (("zone", "a"), ("x", ""))}, id="labels"),
        pytest.param({"TASKDIST_RESOURCES": "gpu=2"}, {"resources": (("gpu", 2),)}, id="resources"),
        pytest.param({"TASKDIST_COMMAND": "sh -c 'a b'"}, {"command": ("sh", "-c", "a b")}, id="command"),
        pytest.param({"TASKDIST_HEALTH_PORT": "0"}, {"health_port": 0}, id="health"),
        pytest.param({"TASKDIST_GRACE_SECONDS": "7"}, {"grace_seconds": 7.0}, id="grace"),
        pytest.param({"HOSTNAME": "pod-1"}, {"agent": "pod-1"}, id="the-pod-names-the-agent"),
        pytest.param({"TASKDIST_TYPES": "a,b"}, {"types": ("a", "b")}, id="types"),
        pytest.param({"TASKDIST_TERMINATION_LOG": "/t"}, {"termination_log": Path("/t")}, id="termination-log"),
    ],
)
def test_variables(env: dict[str, str], expected: dict[str, Any]) -> None:
    assert options_from_env(env) == replace(AgentOptions(), **expected)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        pytest.param({"http": "127.0.0.1:8000"}, "http://", id="no-scheme"),
        pytest.param({"http": "ftp://x/run"}, "does not begin with http://", id="another-scheme"),
        pytest.param({"http": "http:///run"}, "names no host", id="no-host"),
        pytest.param({"http": "http://[::1/run"}, "is no URL", id="half-a-bracket"),
        pytest.param({"http": "http://x:port/"}, "is no URL", id="no-port"),
        pytest.param({"http": "http://x:99999/"}, "is no URL", id="port-too-large"),
        pytest.param({"http": "http://x y/"}, "spaces", id="spaces"),
        pytest.param({"http": "http://x/\u0000"}, "control", id="control-characters"),
        pytest.param({"module": "m:agent", "health_port": 70000}, "from 0 to 65535", id="probes-port"),
        pytest.param({"module": "m:agent", "grace_seconds": float("nan")}, "not negative", id="grace"),
        pytest.param({"module": "m:agent", "skills": ("no skill",)}, "hello.skills", id="skill"),
        pytest.param({"module": "m:agent", "skills": ("\udc80",)}, "would not take", id="skill-of-odd-bytes"),
        pytest.param({"module": "m:agent", "types": ("",)}, "hello.types", id="type"),
        pytest.param({"module": "m:agent", "resources": (("gpu", 10**12),)}, "hello.resources", id="resource"),
    ],
)
def test_what_makes_no_agent_does_not_start(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(OptionError, match=re.escape(says)):
        run_agent(replace(AgentOptions(address="host:1"), **changes))


def test_a_command_without_its_closing_quote_is_refused() -> None:
    with pytest.raises(OptionError, match="TASKDIST_COMMAND"):
        options_from_env({"TASKDIST_COMMAND": "sh -c 'a"})


@pytest.mark.parametrize(
    ("argv", "env", "expected"),
    [
        pytest.param(["m:a"], {}, {"module": "m:a"}, id="target"),
        pytest.param(["--module", "m:a"], {"TASKDIST_COMMAND": "cat"}, {"module": "m:a"}, id="flags-say-what-runs"),
        pytest.param(["--command", "cat -n"], {}, {"command": ("cat", "-n")}, id="command"),
        pytest.param(["--http", "http://x"], {}, {"http": "http://x"}, id="http"),
        pytest.param(
            ["m", "--in-process", "--slots", "3"],
            {"TASKDIST_SLOTS": "2"},
            {"module": "m", "slots": 3, "in_process": True},
            id="flags-over-variables",
        ),
        pytest.param([], {"TASKDIST_MODULE": "m:a"}, {"module": "m:a"}, id="variables-alone"),
    ],
)
def test_flags(argv: list[str], env: dict[str, str], expected: dict[str, Any]) -> None:
    assert options_from_args(argv, env) == replace(AgentOptions(), **expected)


@pytest.mark.parametrize(
    ("env", "said"),
    [
        pytest.param({"TASKDIST_SLOTS": "many"}, "TASKDIST_SLOTS='many' is not a number", id="slots"),
        pytest.param({"TASKDIST_LABELS": "zone"}, "TASKDIST_LABELS: 'zone' is not KEY=VALUE", id="labels"),
        pytest.param({"TASKDIST_RESOURCES": "gpu=-1"}, "not a whole number", id="resources"),
        pytest.param({"TASKDIST_RESOURCES": "gpu=" + "9" * 5000}, "TASKDIST_RESOURCES: gpu=9", id="5000 digits"),
    ],
)
def test_variables_that_cannot_be_read(env: dict[str, str], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        options_from_env(env)


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "1e400", "-1", "9" * 5000])
@pytest.mark.parametrize("name", ["TASKDIST_SLOTS", "TASKDIST_HEALTH_PORT", "TASKDIST_GRACE_SECONDS"])
def test_numbers_that_make_no_sense_are_named(name: str, value: str) -> None:
    env = {"TASKDIST_MODULE": "m:a", "TASKDIST_ADDRESS": "op:1", name: value}
    with pytest.raises(OptionError, match=name):
        options_from_env(env).check()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({}, "", id="good"),
        pytest.param({"module": ""}, "exactly one", id="no-work"),
        pytest.param({"http": "http://x"}, "module and http", id="two-works"),
        pytest.param({"address": ""}, "TASKDIST_ADDRESS", id="no-address"),
        pytest.param({"slots": 0}, "slots", id="no-slots"),
        pytest.param(
            {"module": "", "command": ("cat",), "in_process": True}, "Python modules", id="in-process-command"
        ),
        pytest.param({"grace_seconds": -1.0}, "grace", id="negative-grace"),
    ],
)
def test_options_are_checked(change: dict[str, Any], said: str) -> None:
    options = replace(GOOD, **change)
    if said:
        with pytest.raises(OptionError, match=said):
            options.check()
    else:
        options.check()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        pytest.param([], "say what runs the work", id="nothing to run"),
        pytest.param(["--command", "no-such-program-anywhere"], "no-such-program-anywhere", id="no such program"),
        pytest.param(["--no-such-option"], "--no-such-option", id="no such option"),
    ],
)
def test_wrong_usage_ends_both_commands_with_one_status(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKDIST_ADDRESS", "localhost:1")

    def status(run: Callable[[], int]) -> int:
        try:
            return run()
        except SystemExit as end:
            return int(end.code or 0)

    for command in (
        lambda: main(argv),
        lambda: build("taskdist")(["agent", *argv], standalone_mode=True, prog_name="taskdist"),
    ):
        assert status(command) == USAGE == EXIT_USAGE
        assert said in capsys.readouterr().err


def test_a_command_that_does_not_exist() -> None:
    from taskdist.agent.logs import make_logger

    with pytest.raises(OptionError, match="no program 'no-such-program'"):
        make_executor(replace(GOOD, module="", command=("no-such-program",)), make_logger())


@pytest.mark.parametrize(
    ("wanted", "offered", "said"),
    [
        pytest.param(None, ("a", "b"), ("a", "b"), id="the-module-says"),
        pytest.param(("b", "c"), ("a", "b"), ("b",), id="narrowed"),
        pytest.param(("b",), None, ("b",), id="a-command-takes-any"),
        pytest.param(None, None, None, id="any"),
    ],
)
def test_types_on_offer(wanted: Any, offered: Any, said: Any) -> None:
    end = make_end(replace(GOOD, types=wanted), 1.0, AgentSettings(), Offered(offered, True))
    (action,) = end.connected(0.0)
    assert isinstance(action, SendUp)
    assert isinstance(action.message, Hello)
    assert action.message.types == said
    assert action.message.started == 1.0


@pytest.mark.parametrize("writable", [True, False])
def test_an_agent_leaves_its_name_for_its_pods_status(tmp_path: Path, writable: bool) -> None:
    log = tmp_path / "termination-log" if writable else tmp_path / "none" / "termination-log"
    (action,) = make_end(replace(GOOD, termination_log=log), 1.0, AgentSettings(), Offered(None, True)).connected(0.0)
    assert isinstance(action, SendUp)
    assert isinstance(action.message, Hello)
    if writable:
        assert instance_of(log.read_text()) == action.message.instance_id


@pytest.mark.parametrize(
    ("request_line", "why", "status"),
    [
        pytest.param("GET /readyz HTTP/1.1", "", "200", id="ready"),
        pytest.param("GET /readyz?x=1 HTTP/1.1", "draining", "503", id="not-ready"),
        pytest.param("GET /healthz HTTP/1.1", "draining", "200", id="alive"),
        pytest.param("GET / HTTP/1.1", "", "404", id="other-path"),
        pytest.param("POST /readyz HTTP/1.1", "", "405", id="other-method"),
        pytest.param("nonsense", "", "405", id="nonsense"),
    ],
)
async def test_probes(request_line: str, why: str, status: str) -> None:
    server = HealthServer(lambda: why, 0, "127.0.0.1")
    reader, writer = await asyncio.open_connection("127.0.0.1", await server.start())
    writer.write(f"{request_line}\r\n\r\n".encode())
    answer = (await asyncio.wait_for(reader.read(), 10)).decode()
    assert answer.split()[1] == status
    if status == "503":
        assert answer.endswith("\r\n\r\ndraining\n")
    writer.close()
    await writer.wait_closed()
    await server.stop()


def test_the_sample_agent_counts() -> None:
    path = Path(__file__).parents[3] / "manifests" / "samples" / "agents" / "analyse.py"
    spec = importlib.util.spec_from_file_location("analyse", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    source = b"""
class A:
    def f(self, x):
        if x and x > 1 or not x:
            return [y for y in x]
        try:
            return lambda: x
        except ValueError:
            return None
"""
    found = module.analyse_source(source)
    assert found.model_dump() == {"lines": 9, "bytes": len(source), "functions": 2, "classes": 1, "complexity": 7}
