"""Which holders of a Lease are known to be dead: those of the own pod, and processes that are not there any more."""

import os
import subprocess
import sys

import pytest

from taskdist.kube.identity import Identity, Process

OWN = Process.own()
assert OWN is not None


def of(process: Process) -> str:
    return Identity("operator", process=process).name


@pytest.mark.parametrize(
    ("mine", "holder", "dead"),
    [
        pytest.param(Identity("op-a", "u1"), Identity("op-a", "u1").name, True, id="the former process of this pod"),
        pytest.param(Identity("op-a", "u1"), Identity("op-b", "u2").name, False, id="a process of another pod"),
        pytest.param(Identity("op-a", "u1"), of(Process(OWN.machine, 2**22, 1)), False, id="no pod at all"),
        pytest.param(Identity("op"), of(Process(OWN.machine, 2**22 + 1, 1)), True, id="a number nobody has"),
        pytest.param(Identity("op"), of(Process(OWN.machine, os.getpid(), 1)), True, id="a number given again"),
        pytest.param(Identity("op"), of(OWN), False, id="another candidate of this very process"),
        pytest.param(Identity("op"), of(Process(OWN.machine, 1, 0)), True, id="the first process, started later"),
        pytest.param(Identity("op"), of(Process("other.1", 2**22, 1)), False, id="a process of another machine"),
        pytest.param(Identity("op"), Identity("op", "u1").name, False, id="a pod's, seen from no pod"),
        pytest.param(Identity("op"), "op_0123456789ab", False, id="a name of an older release"),
        pytest.param(Identity("op"), f"op_process.{OWN.machine}.x.y_ff", False, id="no number"),
        pytest.param(Identity("op"), f"op_process.{OWN.machine}.-5.1_ff", False, id="a number of a group"),
        pytest.param(Identity("op"), "", False, id="nobody"),
    ],
)
def test_who_is_dead(mine: Identity, holder: str, dead: bool) -> None:
    assert mine.is_dead(holder) is dead


def test_a_process_is_dead_once_it_has_ended_also_before_its_parent_asks() -> None:
    show = "from taskdist.kube.identity import Identity; print(Identity('op').name, flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", show], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    name = child.stdout.readline().strip()
    mine = Identity("op")
    assert not mine.is_dead(name)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is a zombie
    assert mine.is_dead(name)
    child.communicate()
    assert mine.is_dead(name)


def test_names_differ_and_never_judge_their_own() -> None:
    first, second = Identity("op", "u1"), Identity("op", "u1")
    assert first.name != second.name
    assert not first.is_dead(first.name)
