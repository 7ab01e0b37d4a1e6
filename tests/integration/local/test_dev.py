"""`taskdist dev run`: from nothing to a Task that ran by what it prints, and nothing left after Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from patience import until
from taskdist.local.binaries import find

SCRIPTS = Path(sysconfig.get_path("scripts"))


# A cold start on a busy machine, and a Task.
@pytest.mark.timeout(300)
def test_what_it_prints_runs_a_task_and_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    where = tmp_path / "dev"
    env = {**os.environ, "PATH": os.pathsep.join([str(SCRIPTS), str(find("kubectl").parent), os.environ["PATH"]])}
    log = tmp_path / "said"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "taskdist.cli.main", "dev", "run", "--dir", str(where)],
            env=env,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Whoever runs the tests in the background may ignore SIGINT, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    try:
        until(lambda: "Ctrl-C ends" in log.read_text() or process.poll() is not None, "it is ready", 150)
        commands = re.findall(r"^  (.+)$", log.read_text(), re.M)
        assert len(commands) == 4, log.read_text()
        done = subprocess.run(
            ["bash", "-euc", "\n".join(commands)], env=env, capture_output=True, text=True, timeout=90, check=False
        )
        assert done.returncode == 0, done.stderr
        assert '"greeting": "Hello, you!"' in done.stdout
        assert left_of(where), "its processes name the directory"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
    assert log.read_text().endswith("stopping\n")
    assert sorted(each.name for each in where.iterdir() if each.name != "__pycache__") == [
        *("hello.py", "hello.yaml", "link-port", "log", "pods")
    ]
    assert left_of(where) == []


def left_of(where: Path) -> list[str]:
    """Processes that name the directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(where) in command:
                found.append(command)
    return found
