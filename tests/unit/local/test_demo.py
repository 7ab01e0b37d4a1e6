"""What the demo says, and how it ends where the cluster is somebody's."""

import re
from pathlib import Path

import pytest

from taskdist.local import demo
from taskdist.local.stack import Stack

ROOT = Path(__file__).parents[3]


def run(image: str) -> int:
    return demo.main(Path("unused"), count=1, keep=False, cluster="current", image=image, root=ROOT)


@pytest.mark.parametrize("image", ["", "taskdist", "registry.example:5000/taskdist"])
def test_an_image_without_a_tag_is_refused_before_anything_is_done(
    image: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(image) == 2
    assert "IMAGE=REPOSITORY:TAG" in capsys.readouterr().out


def test_a_cluster_that_does_not_answer_is_told_and_not_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kubectl = tmp_path / "kubectl"
    kubectl.write_text('#!/bin/sh\ncase "$*" in version*) echo v1.34.0;; *) echo no route to host >&2; exit 1;; esac\n')
    kubectl.chmod(0o755)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    assert run("taskdist:1") == 1
    assert "the demo failed: kubectl get deployments" in capsys.readouterr().out


def test_hints_of_a_local_demo_name_its_kubeconfig_and_how_to_end_it() -> None:
    said = demo.hints(Stack.local(Path("somewhere"), ROOT))
    assert "get tq,ap,tk" in said
    assert "make demo-stop" in said


def test_hints_on_a_cluster_name_nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = Stack.current(ROOT, "taskdist:1")
    monkeypatch.setattr(Stack, "removal", ["kubectl delete namespace demo", "helm uninstall taskdist"])
    said = demo.hints(stack)
    # `make demo-stop` ends processes of this machine, and agents elsewhere do not see its files.
    assert "demo-stop" not in said
    assert "KUBECONFIG" not in said
    assert re.search(r"--payload '\{\"source\"", said)
    assert said.endswith("end it:\n  kubectl delete namespace demo\n  helm uninstall taskdist")


def test_files_that_only_a_newer_python_parses_are_left_out_where_the_image_reads_them(tmp_path: Path) -> None:
    (tmp_path / "old.py").write_text("def f():\n    return 1\n")
    (tmp_path / "newer.py").write_text("type Number = int | float\n")
    assert [path.name for path in demo.modules(9, root=tmp_path, portable=True)] == ["old.py"]
    assert len(demo.modules(9, root=tmp_path)) == 2
