"""`taskdist lint` from the command line: what it reads, prints, and with which code it ends."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from memory_cluster import MemoryCluster, Outcome, call
from taskdist.cli.run import FAILED, OK, USAGE
from taskdist.kube import AGENTPOOLS, TASKQUEUES, TASKS, ApiError, Resource
from taskdist.lint import RULES

ROOT = Path(__file__).parents[3]
SAMPLES = ROOT / "manifests" / "samples"
QUOTAS = Resource("", "v1", "resourcequotas")

REQUESTS = {"requests": {"cpu": "1", "memory": "1Gi"}}
CONTAINER = {"name": "agent", "image": "agent:1", "resources": REQUESTS}
POOL = {"template": {"spec": {"containers": [CONTAINER]}}}
QUEUE = {"pools": ["p"], "ttlSecondsAfterFinished": 3600, "overflow": {"highWater": 10, "lowWater": 5}}


def text(kind: str, name: str, spec: dict[str, Any]) -> str:
    return yaml.safe_dump(
        {"apiVersion": "taskdist.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec},
        sort_keys=False,
    )


def bad(path: Path) -> Path:
    """A queue with an error, a warning and a hint."""
    queue = {**QUEUE, "leaseSeconds": 300, "overflow": {"highWater": 5, "lowWater": 5}, "ttlSecondsAfterFinished": 0}
    path.write_text("---\n".join([text("TaskQueue", "q", queue), text("AgentPool", "p", POOL)]))
    return path


def lint(*arguments: object, cluster: MemoryCluster | None = None, input: str | None = None) -> Outcome:
    return call(cluster or MemoryCluster(), "lint", *map(str, arguments), input=input)


def test_a_finding_has_place_object_field_words_and_mend(tmp_path: Path) -> None:
    file = bad(tmp_path / "a.yaml")
    done = lint(file)
    assert done.code == FAILED
    assert done.out.startswith(
        f"{file}:5: error lease-above-hold\n"
        "  TaskQueue q · spec.holdSeconds\n"
        "  120 s is less than leaseSeconds, 300\n"
        "  mend: Raise holdSeconds.\n"
        "      spec:\n"
        "        holdSeconds: 300\n\n"
    )
    assert done.err == "1 error, 1 warning, 1 hint in 2 objects\n"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        pytest.param([], FAILED, id="an-error"),
        pytest.param(["--disable", "lease-above-hold"], OK, id="a-warning"),
        pytest.param(["--disable", "lease-above-hold", "--strict"], FAILED, id="a-warning-and-strict"),
        pytest.param(
            ["--disable", "lease-above-hold", "--disable", "water-marks-equal", "--strict"], OK, id="a-hint-and-strict"
        ),
    ],
)
def test_the_code_says_how_bad_it_is(tmp_path: Path, arguments: list[str], code: int) -> None:
    assert lint(bad(tmp_path / "a.yaml"), *arguments).code == code


def test_json(tmp_path: Path) -> None:
    file = bad(tmp_path / "a.yaml")
    done = lint(file, "--json")
    assert (done.code, done.err) == (FAILED, "")
    found = json.loads(done.out)
    assert {key: found[key] for key in ("objects", "errors", "warnings", "hints")} == {
        "objects": 2,
        "errors": 1,
        "warnings": 1,
        "hints": 1,
    }
    assert found["findings"][0] == {
        "rule": "lease-above-hold",
        "severity": "error",
        "object": "TaskQueue q",
        "path": "spec.holdSeconds",
        "message": "120 s is less than leaseSeconds, 300",
        "mend": "Raise holdSeconds.",
        "yaml": "spec:\n  holdSeconds: 300",
        "source": f"{file}:5",
    }


def test_the_mend_of_another_object_says_so() -> None:
    objects = [
        text("TaskQueue", "q", QUEUE),
        text("AgentPool", "p", POOL),
        text("Task", "t", {"queue": "q", "type": "a", "skills": ["b"]}),
    ]
    done = lint("-", input="---\n".join(objects))
    assert done.code == FAILED
    assert "stdin:" in done.out
    assert "create the Task again without it. In AgentPool p:\n      spec:\n        skills:\n        - b\n" in done.out


def test_findings_that_are_alike_are_told_once() -> None:
    tasks = [text("Task", f"t{number}", {"queue": "r", "type": "a"}) for number in range(6)]
    done = lint("-", input="---\n".join([text("TaskQueue", "q", QUEUE), text("AgentPool", "p", POOL), *tasks]))
    assert done.out.count("queue-not-found") == 1
    assert "  Task t0 · spec.queue, and so t1, t2, t3 and 2 more\n" in done.out
    assert done.err == "6 errors in 8 objects\n"


# Where manifests come from.


def test_a_folder_is_all_manifests_below_it(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "pool.json").write_text(json.dumps(yaml.safe_load(text("AgentPool", "p", POOL))))
    (tmp_path / "queue.yml").write_text(text("TaskQueue", "q", QUEUE))
    (tmp_path / "chart.yaml").write_text("{{ if x }}\nkind: Deployment\n")
    (tmp_path / "notes.txt").write_text("no manifest")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "hidden.yaml").write_text(text("TaskQueue", "hidden", {}))
    assert lint(tmp_path) == Outcome(OK, "", "nothing to find fault with in 2 objects\n")


def test_a_broken_file_is_a_finding_if_it_is_named_or_ours(tmp_path: Path) -> None:
    broken = tmp_path / "a.yaml"
    broken.write_text("a: 1\nb: [1\n")
    done = lint(broken)
    assert done.code == FAILED
    assert done.out.startswith(f"{broken}:3: error not-yaml\n  {broken}\n")
    assert lint(tmp_path).code == OK
    broken.write_text("apiVersion: taskdist.dev/v1alpha1\nb: [1\n")
    assert lint(tmp_path).code == FAILED
    assert lint(tmp_path, "--disable", "not-yaml").code == OK


def test_templates_of_a_folder_are_passed_over_and_counted(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("apiVersion: taskdist.dev/v1alpha1\n{{ if .x }}\nkind: Task\n{{ end }}\n")
    done = lint(tmp_path)
    assert (done.code, done.out) == (OK, "")
    assert "1 template passed over" in done.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param([], "say what to review", id="nothing"),
        pytest.param(["/nonexistent/a.yaml"], "no such file", id="no-file"),
        pytest.param(["-", "--disable", "pool-unusd"], "there is no rule pool-unusd", id="no-rule"),
    ],
)
def test_wrong_usage(arguments: list[str], words: str) -> None:
    done = lint(*arguments)
    assert (done.code, done.out) == (USAGE, "")
    assert words in done.err


@pytest.mark.parametrize("empty", ["", " \n\n"])
def test_an_empty_standard_input_is_said(empty: str) -> None:
    done = lint("-", input=empty)
    assert (done.code, done.out) == (USAGE, "")
    assert "standard input is empty" in done.err


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00")
    done = lint(tmp_path)
    assert done.code == USAGE
    assert "line 1 is not UTF-8" in done.err


def test_the_samples_have_no_errors_and_no_warnings() -> None:
    done = lint(SAMPLES, "--strict")
    assert done.code == OK, done.out


def test_the_rules_are_listed_and_explained() -> None:
    done = lint("--rules")
    assert done.code == OK
    for rule in RULES:
        assert f"{rule.id} ({rule.severity}): {rule.title}\n    {rule.explanation}\n" in done.out
    told = json.loads(lint("--rules", "--json").out)
    assert [each["rule"] for each in told] == [rule.id for rule in RULES]


# The cluster.


@pytest.fixture
def cluster() -> MemoryCluster:
    made = MemoryCluster()
    made.add(AGENTPOOLS, {"metadata": {"name": "p"}, "spec": POOL})
    made.add(TASKQUEUES, {"metadata": {"name": "q"}, "spec": QUEUE})
    return made


def test_what_is_in_the_cluster(cluster: MemoryCluster) -> None:
    assert lint("--cluster", cluster=cluster) == Outcome(OK, "", "nothing to find fault with in 2 objects\n")
    cluster.task("big", slots=9)
    cluster.task("ended", {"phase": "Succeeded"}, slots=9)
    done = lint("--cluster", cluster=cluster)
    assert done.code == FAILED
    assert done.out.startswith("error larger-than-any-agent\n  Task ns/big · spec.slots\n")
    assert done.out.count("larger-than-any-agent") == 1


def test_the_mend_of_a_live_object_is_a_command(cluster: MemoryCluster) -> None:
    cluster.task("t", queue="q", priority="Emergency", tenant="a")
    done = lint("--cluster", cluster=cluster)
    patch = """'{"spec":{"tenants":{"emergency":["a"]}}}'"""
    assert f"kubectl patch taskqueues.taskdist.dev q -n ns --type=merge -p {patch}\n" in done.out
    assert "emergency:" not in done.out


def test_a_live_task_cannot_be_mended_but_in_what_may_change(cluster: MemoryCluster) -> None:
    cluster.task("t", queue="qq")
    cluster.task("u", pool="r")
    done = lint("--cluster", cluster=cluster)
    assert "delete it, and create another" in done.out
    assert """kubectl patch tasks.taskdist.dev u -n ns --type=merge -p '{"spec":{"pool":null}}'""" in done.out


def test_files_are_reviewed_as_if_they_were_applied(cluster: MemoryCluster) -> None:
    cluster.task("small", skills=["a"])
    assert lint("--cluster", cluster=cluster).code == FAILED
    pool = text("AgentPool", "p", {**POOL, "skills": ["a"]})
    assert lint("-", "--cluster", cluster=cluster, input=pool).code == OK
    # And for itself the file does not know what is there.
    assert "may be in the cluster" in lint("-", input=text("Task", "t", {"queue": "q", "type": "a"})).out


def test_a_parent_that_has_ended_is_found_by_its_name(cluster: MemoryCluster) -> None:
    child = text("Task", "child", {"queue": "q", "type": "a", "dependsOn": [{"name": "parent"}]})
    assert "no Task parent in the namespace" in lint("-", "--cluster", cluster=cluster, input=child).out
    cluster.task("parent", {"phase": "Succeeded"})
    assert lint("-", "--cluster", cluster=cluster, input=child).out == ""


def test_the_hard_cap_of_the_namespace_counts(cluster: MemoryCluster) -> None:
    cluster.add(QUOTAS, {"metadata": {"name": "cap"}, "spec": {"hard": {"count/tasks.taskdist.dev": "9"}}})
    assert "warning hard-cap-too-low\n  ResourceQuota ns/cap" in lint("--cluster", cluster=cluster).out


def test_who_may_not_see_quotas_is_told(cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = cluster.list

    async def listed(resource: Resource, **more: Any) -> Any:
        if resource == QUOTAS:
            raise ApiError(403, "Forbidden", "you may not list resourcequotas")
        return await seen(resource, **more)

    monkeypatch.setattr(cluster, "list", listed)
    done = lint("--cluster", cluster=cluster)
    assert (done.code, done.out) == (OK, "")
    assert "ResourceQuotas are left out: you may not list resourcequotas" in done.err


def test_a_cluster_that_is_away(cluster: MemoryCluster) -> None:
    cluster.errors["list"] = ApiError(401, "Unauthorized", "who are you")
    done = lint("--cluster", cluster=cluster)
    assert done.code == FAILED
    assert "who are you" in done.err


def test_the_namespace_is_the_one_that_is_said(cluster: MemoryCluster) -> None:
    cluster.add(TASKS, {"metadata": {"name": "t", "namespace": "other"}, "spec": {"queue": "none", "type": "a"}})
    assert lint("--cluster", "-n", "ns", cluster=cluster).code == OK
    assert cluster.targets[-1].namespace == "ns"
