"""Each command against a cluster in memory: what it prints, where, and with which exit code it ends."""

import json
import re
import sys
from typing import Any

import pytest
import yaml

from memory_cluster import ASSIGNED, FAILED_STATUS, SUCCEEDED, MemoryCluster, Outcome, call
from taskdist.cli import waiting
from taskdist.cli.cluster import Target
from taskdist.cli.main import PLUGIN
from taskdist.cli.run import FAILED, OK, TIMED_OUT, USAGE, complain
from taskdist.client import explaining
from taskdist.kube import (
    AGENTPOOLS,
    TASKQUEUES,
    TASKS,
    ApiError,
    ConfigurationError,
    Unanswered,
    Unreachable,
    WatchEvent,
)


@pytest.fixture
def cluster() -> MemoryCluster:
    made = MemoryCluster()
    made.add(TASKQUEUES, {"metadata": {"name": "q"}, "spec": {"pools": ["p"]}})
    return made


# --- submit ---


@pytest.mark.parametrize(
    ("arguments", "spec"),
    [
        pytest.param([], {}, id="plain"),
        pytest.param(["--payload", '{"a": 1}'], {"payload": {"a": 1}}, id="payload"),
        pytest.param(["--priority", "High"], {"priority": "High"}, id="priority"),
        pytest.param(["--priority", "normal"], {"priority": "Normal"}, id="priority-in-any-case-and-said-is-sent"),
        pytest.param(["--tenant", "acme"], {"tenant": "acme"}, id="tenant"),
        pytest.param(
            ["--not-before", "2030-01-31T12:00:00+01:00", "--deadline", "2030-01-31T12:00:00Z"],
            {"notBefore": "2030-01-31T11:00:00Z", "deadline": "2030-01-31T12:00:00Z"},
            id="times",
        ),
        pytest.param(
            ["--waiting-timeout", "1h", "--execution-timeout", "30s", "--progress-timeout", "500ms"],
            {"timeouts": {"waitingSeconds": 3600, "executionSeconds": 30, "progressSeconds": 0.5}},
            id="timeouts",
        ),
        pytest.param(["--execution-timeout", "5"], {"timeouts": {"executionSeconds": 5}}, id="one-timeout"),
        pytest.param(["--ttl", "500ms"], {"ttlSecondsAfterFinished": 1}, id="a-part-of-a-second-is-not-none"),
        pytest.param(["--ttl", "0"], {"ttlSecondsAfterFinished": 0}, id="no-time-to-live-is-said"),
        pytest.param(
            ["--concurrency-key", "host 1", "--ordering-key", "account:7"],
            {"concurrencyKey": "host 1", "orderingKey": "account:7"},
            id="keys",
        ),
        pytest.param(["--skill", "gpu", "--skill", "fast"], {"skills": ["gpu", "fast"]}, id="skills"),
        pytest.param(["--slots", "2", "--resource", "disk=3"], {"slots": 2, "resources": {"disk": 3}}, id="size"),
        pytest.param(["-l", "zone=a"], {"agentSelector": {"matchLabels": {"zone": "a"}}}, id="selector"),
    ],
)
def test_submit_creates_what_was_said_and_nothing_else(
    cluster: MemoryCluster, arguments: list[str], spec: dict[str, Any]
) -> None:
    outcome = call(cluster, "submit", "q", "--type", "t", "--name", "a", *arguments)
    assert outcome == Outcome(OK, "task.taskdist.dev/a created\n", "")
    made = cluster.objects[(str(TASKS), "ns", "a")]
    assert made["spec"] == {"queue": "q", "type": "t"} | spec
    assert (made["apiVersion"], made["kind"]) == ("taskdist.dev/v1alpha1", "Task")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["--type", "Ana_lyse.v2"], "ana-lyse-v2-x7k2p"),
        (["--type", "t", "--generate-name", "job-"], "job-x7k2p"),
        (["--type", "t", "--name", "mine"], "mine"),
    ],
)
def test_names(cluster: MemoryCluster, arguments: list[str], name: str) -> None:
    assert call(cluster, "submit", "q", "-o", "name", *arguments).out == f"task.taskdist.dev/{name}\n"


def test_submit_takes_the_payload_from_standard_input(cluster: MemoryCluster) -> None:
    call(cluster, "submit", "q", "-t", "t", "--name", "a", "-p", "-", input='{"a": 1}')
    assert cluster.objects[(str(TASKS), "ns", "a")]["spec"]["payload"] == {"a": 1}


def test_submit_prints_the_object_without_bookkeeping(cluster: MemoryCluster) -> None:
    for output, load in (("json", json.loads), ("yaml", yaml.safe_load)):
        made = load(call(cluster, "submit", "q", "-t", "t", "--name", f"a-{output}", "-o", output).out)
        assert made["metadata"]["name"] == f"a-{output}"
        assert "managedFields" not in made["metadata"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["--payload", "[1]"], "a payload is a JSON object", id="payload"),
        pytest.param(["--payload", "{a}"], "is not JSON", id="json"),
        pytest.param(["--selector", "a=b=c"], "is no label requirement", id="selector"),
        pytest.param(["--resource", "gpu"], "write NAME=NUMBER", id="resource"),
        pytest.param(["--wait", "--timeout", "soon"], "is no duration", id="timeout"),
        pytest.param(["--timeout", "5s"], "add --wait", id="timeout-without-wait"),
        pytest.param(["--name", "a", "--generate-name", "b"], "exclude each other", id="two-names"),
        pytest.param(["--priority", "5"], "'high'", id="priority"),
        pytest.param(["--deadline", "tomorrow"], "is no time: write 2030-01-31T12:00:00Z", id="deadline"),
        pytest.param(["--not-before", "2030-01-31T12:00:00"], "in which zone", id="zone"),
        pytest.param(["--execution-timeout", "soon"], "is no duration", id="execution-timeout"),
        pytest.param(["--on-dependency-failure", "wait"], "'skip'", id="on-dependency-failure"),
        pytest.param(["-o", "xml"], "xml", id="output"),
        pytest.param(["--colour"], "No such option", id="option"),
    ],
)
def test_wrong_usage_creates_nothing(cluster: MemoryCluster, arguments: list[str], message: str) -> None:
    outcome = call(cluster, "submit", "q", "--type", "t", *arguments)
    assert outcome.code == USAGE
    assert message in re.sub(r"[\s│]+", " ", outcome.err)
    assert not [key for key in cluster.objects if key[0] == str(TASKS)]


def test_a_queue_that_is_not_there_is_a_warning_that_names_the_others(cluster: MemoryCluster) -> None:
    outcome = call(cluster, "submit", "code", "-t", "t", "--name", "a", "--pool", "nowhere")
    assert outcome.code == OK
    assert "there is no queue 'code' in namespace ns; there are: q. The Task waits for it." in outcome.err
    assert "there is no pool 'nowhere' in namespace ns, and no other pool either." in outcome.err


def test_dependencies(cluster: MemoryCluster) -> None:
    cluster.task("parse")
    parents = ("--depends-on", "parse", "--depends-on", "lint", "--on-dependency-failure", "skip")
    outcome = call(cluster, "submit", "q", "-t", "t", "--name", "a", *parents)
    made = cluster.objects[(str(TASKS), "ns", "a")]["spec"]
    assert made["dependsOn"] == [{"name": "parse"}, {"name": "lint"}]
    assert made["onDependencyFailure"] == "Skip"
    assert outcome.err == "warning: there is no task 'lint' in namespace ns. The Task waits for it.\n"


def test_who_may_not_read_queues_may_submit(cluster: MemoryCluster) -> None:
    cluster.errors["get"] = ApiError(403, "Forbidden", "taskqueues is forbidden")
    assert call(cluster, "submit", "q", "-t", "t", "--name", "a") == Outcome(OK, "task.taskdist.dev/a created\n", "")


def test_what_the_server_refuses_is_said_in_its_words(cluster: MemoryCluster) -> None:
    words = 'Task.taskdist.dev "a" is invalid: spec.slots: Invalid value: 0: must be at least 1'
    cluster.errors["create"] = ApiError(422, "Invalid", words, {"name": "a"})
    assert call(cluster, "submit", "q", "-t", "t", "--name", "a") == Outcome(FAILED, "", f"error: {words}\n")


def submit_and_see(cluster: MemoryCluster, *statuses: dict[str, Any]) -> None:
    """The watch after a submit of `a` shows these."""
    cluster.task("a")
    cluster.watches.append([cluster.seen("a", status) for status in statuses])
    del cluster.objects[(str(TASKS), "ns", "a")]


def test_wait_tells_what_happens_and_prints_the_result(cluster: MemoryCluster) -> None:
    waiting = {"reason": "NoFreeSlots", "message": "all agents are busy"}
    running = ASSIGNED | {"progress": {"fraction": 0.5, "message": "half"}}
    submit_and_see(cluster, waiting, waiting, ASSIGNED, running, SUCCEEDED)
    outcome = call(cluster, "submit", "q", "-t", "t", "--name", "a", "--wait")
    assert outcome.code == OK
    assert json.loads(outcome.out) == {"lines": 3}
    assert outcome.err.splitlines() == [
        "task.taskdist.dev/a created",
        "task a: Pending",
        "task a: Pending (NoFreeSlots: all agents are busy)",
        "task a: Assigned on p-0 (attempt 1)",
        "task a: Assigned on p-0 (attempt 1), 50% half",
        "task a: Succeeded",
    ]


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (FAILED_STATUS, "error: task a is Failed: RetriesExhausted: failed 2 times"),
        ({"phase": "Cancelled", "reason": "Cancelled"}, "error: task a is Cancelled: Cancelled"),
        (
            FAILED_STATUS | {"phase": "DeadLettered"},
            "error: task a is DeadLettered: RetriesExhausted: failed 2 times\nTry it again: taskdist redrive a",
        ),
    ],
)
def test_wait_ends_with_1_if_the_task_did_not_succeed(
    cluster: MemoryCluster, status: dict[str, Any], message: str
) -> None:
    submit_and_see(cluster, status)
    outcome = call(cluster, "submit", "q", "-t", "t", "--name", "a", "--wait")
    assert (outcome.code, outcome.out) == (FAILED, "")
    assert message in outcome.err


def test_wait_gives_up_in_time_and_says_that_the_task_goes_on(cluster: MemoryCluster) -> None:
    outcome = call(cluster, "submit", "q", "-t", "t", "--name", "a", "--wait", "--timeout", "10ms")
    assert outcome.code == TIMED_OUT
    assert "the Task has not ended; it goes on. task a: Pending" in outcome.err
    assert "taskdist explain a" in outcome.err


def test_wait_says_why_a_task_does_not_start_and_says_it_once(
    cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert explaining.NO_LEADER == "NoLeader", "it is loaded: that takes longer than all else here"
    monkeypatch.setattr(waiting, "WHY_SECONDS", (0.001,))
    pool = {"metadata": {"name": "p"}, "spec": {"template": {"spec": {"containers": [{"name": "agent"}]}}}}
    cluster.add(AGENTPOOLS, pool)
    outcome = call(cluster, "submit", "q", "-t", "t", "--name", "a", "--wait", "--timeout", "500ms")
    said = [line for line in outcome.err.splitlines() if line.startswith("task a: Pending (")]
    assert len(said) == 1
    assert "NoAgent" in said[0]


def test_what_is_suggested_means_the_same_cluster_and_namespace(cluster: MemoryCluster) -> None:
    options = ["-n", "prod", "--context", "my cluster"]
    outcome = call(cluster, "submit", "q", "-t", "t", "--name", "a", "--wait", "--timeout", "10ms", *options)
    assert "taskdist explain a -n prod --context 'my cluster'" in outcome.err
    cluster.task("b", FAILED_STATUS | {"phase": "DeadLettered"})
    assert "taskdist redrive b -n prod" in call(cluster, "result", "b", "-n", "prod").err
    assert "taskdist explain a -n prod" in call(cluster, "result", "a", "-n", "prod").err
    assert "taskdist explain a -n prod" in call(cluster, "logs", "a", "-n", "prod").err


@pytest.mark.parametrize(("no_color", "plain"), [("1", True), ("", False)], ids=["NO_COLOR", "colours"])
def test_errors_have_no_colour_where_none_is_wanted(
    no_color: str, plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setattr("typer.echo", lambda message, err: said.append(message))
    complain("no")
    assert [("\x1b" not in message) for message in said] == [plain]


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(ApiError(410, "Expired", "too old"), id="gone"),
        pytest.param(Unanswered("cut"), id="cut"),
        pytest.param(Unreachable("restarting"), id="unreachable"),
        pytest.param(ApiError(503, "", "overloaded"), id="overloaded"),
        pytest.param(None, id="ended-in-order"),
    ],
)
def test_wait_survives_what_passes(cluster: MemoryCluster, trouble: Exception | None) -> None:
    cluster.task("a")
    cluster.watches = [[trouble] if trouble else [], [cluster.seen("a", SUCCEEDED)]]
    outcome = call(cluster, "result", "a", "--wait", "--timeout", "60s")
    assert json.loads(outcome.out) == {"lines": 3}


def test_wait_does_not_survive_what_lasts(cluster: MemoryCluster) -> None:
    cluster.task("a")
    cluster.watches = [[ApiError(403, "Forbidden", "tasks is forbidden")]]
    assert call(cluster, "result", "a", "--wait").err.endswith("error: tasks is forbidden\n")


def test_wait_notices_a_deleted_and_a_replaced_task(cluster: MemoryCluster) -> None:
    cluster.task("a")
    cluster.watches = [[cluster.seen("a", {}, "DELETED")]]
    assert "error: task a was deleted" in call(cluster, "result", "a", "--wait").err
    cluster.task("a")
    other = cluster.seen("a", SUCCEEDED)
    other.object["metadata"]["uid"] = "another"
    bookmark = WatchEvent("BOOKMARK", {"metadata": {"resourceVersion": "9"}})

    async def replace() -> None:
        cluster.objects[(str(TASKS), "ns", "a")] = other.object

    cluster.watches = [[bookmark]]
    listing = cluster.list
    lists = 0

    async def list_then_replace(*args: Any, **kwargs: Any) -> Any:
        nonlocal lists
        lists += 1
        if lists == 2:
            await replace()
        return await listing(*args, **kwargs)

    cluster.list = list_then_replace  # type: ignore[method-assign]
    assert "another was made under its name" in call(cluster, "result", "a", "--wait").err


# --- get ---


def rows(text: str) -> list[list[str]]:
    return [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]


def test_get_is_a_table(cluster: MemoryCluster) -> None:
    cluster.task("b", ASSIGNED, queue="other", priority="High")
    cluster.task("a", {"reason": "NoAgent"}, priority="Normal")
    shown = rows(call(cluster, "get").out)
    assert shown[0] == ["NAME", "QUEUE", "TYPE", "PRIORITY", "PHASE", "DONE", "REASON", "AGENT", "ATTEMPT", "AGE"]
    assert [row[:6] for row in shown[1:]] == [
        ["a", "q", "t", "Normal", "Pending", "NoAgent"],
        ["b", "other", "t", "High", "Assigned", "Assigned"],
    ]


def test_wide_shows_whose_it_is_and_until_when(cluster: MemoryCluster) -> None:
    cluster.task("a", {"message": "m"}, tenant="acme", pool="p", deadline="2999-01-01T00:00:00Z")
    cluster.task("b", ASSIGNED | {"progress": {"fraction": 0.5}, "message": "n"}, deadline="2020-01-01T00:00:00Z")
    head, *shown = rows(call(cluster, "get", "-o", "wide").out)
    assert head[-5:] == ["POOL", "TENANT", "DEADLINE", "PROGRESS", "MESSAGE"]
    assert [shown[0][-4:-2], shown[0][-1]] == [["p", "acme"], "m"]
    assert re.fullmatch(r"in \d+d", shown[0][-2])
    assert re.fullmatch(r"\d+d ago", shown[1][-3])
    assert shown[1][-4:-3] + shown[1][-2:] == ["ns", "50%", "n"]


def test_a_pipe_gets_whole_lines(cluster: MemoryCluster) -> None:
    cluster.task("a" * 63, {"reason": "NoAgent", "message": "x" * 4000})
    lines = call(cluster, "get", "-o", "wide").out.splitlines()
    assert len(lines) == 2
    assert "a" * 63 in lines[1]
    assert lines[1].endswith("x" * 4000)


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        pytest.param([], ["a", "b", "c"], id="all"),
        pytest.param(["--queue", "other"], ["b"], id="queue"),
        pytest.param(["--phase", "Succeeded"], ["c"], id="phase"),
        pytest.param(["--phase", "succeeded"], ["c"], id="phase-in-any-case"),
        pytest.param(["a", "c"], ["a", "c"], id="names"),
        pytest.param(["-A"], ["a", "b", "c", "d"], id="everywhere"),
        pytest.param(["-n", "elsewhere"], ["d"], id="namespace"),
    ],
)
def test_get_filters(cluster: MemoryCluster, arguments: list[str], names: list[str]) -> None:
    cluster.task("a")
    cluster.task("b", queue="other")
    cluster.task("c", SUCCEEDED)
    cluster.add(TASKS, {"metadata": {"name": "d", "namespace": "elsewhere"}, "spec": {"queue": "q", "type": "t"}})
    items = json.loads(call(cluster, "get", "-o", "json", *arguments).out)["items"] if len(names) > 0 else []
    assert [each["metadata"]["name"] for each in items] == names


@pytest.mark.parametrize("form", ["task.taskdist.dev/a", "tasks.taskdist.dev/a", "task/a", "tk/a", "a"])
@pytest.mark.parametrize("command", ["get", "result", "explain", "logs", "suspend", "cancel"])
def test_a_name_is_taken_as_it_is_printed(cluster: MemoryCluster, command: str, form: str) -> None:
    cluster.task("a")
    outcome = call(cluster, command, form)
    assert "not found" not in outcome.err
    assert "no task" not in outcome.err


def test_get_by_labels_and_names_for_a_script(cluster: MemoryCluster) -> None:
    call(cluster, "submit", "q", "-t", "t", "--name", "a", "--label", "batch=nightly", "--label", "x=")
    cluster.task("b")
    assert cluster.objects[str(TASKS), "ns", "a"]["metadata"]["labels"] == {"batch": "nightly", "x": ""}
    assert call(cluster, "get", "-l", "batch=nightly", "-o", "name").out == "task.taskdist.dev/a\n"
    assert call(cluster, "get", "-o", "name").out == "task.taskdist.dev/a\ntask.taskdist.dev/b\n"


@pytest.mark.parametrize("output", [[], ["-o", "json"], ["-o", "name"]], ids=["table", "json", "names"])
def test_get_prints_what_it_found_and_says_what_is_missing(cluster: MemoryCluster, output: list[str]) -> None:
    cluster.task("there")
    outcome = call(cluster, "get", "there", "nosuch", *output)
    assert outcome.code == FAILED
    assert "there" in outcome.out
    assert outcome.err.count("error:") == 1
    assert "nosuch" in outcome.err


def test_get_one_is_the_object_itself(cluster: MemoryCluster) -> None:
    cluster.task("a")
    assert yaml.safe_load(call(cluster, "get", "a", "-o", "yaml").out)["metadata"]["name"] == "a"


def test_nothing_found_is_said_beside_the_output(cluster: MemoryCluster) -> None:
    assert call(cluster, "get") == Outcome(OK, "", "no Tasks in namespace ns\n")
    assert call(cluster, "get", "-A", "--queue", "x") == Outcome(OK, "", "no Tasks in any namespace match\n")


def test_watch_prints_a_line_for_each_change_until_the_end(cluster: MemoryCluster) -> None:
    cluster.task("a")
    cluster.task("b")
    cluster.watches = [
        [cluster.seen("a", ASSIGNED), cluster.seen("b", ASSIGNED), Unanswered("cut")],
        [cluster.seen("a", SUCCEEDED, "DELETED"), Unreachable("gone")],
    ]
    outcome = call(cluster, "get", "a", "--watch")
    assert [row[3] for row in rows(outcome.out)] == ["PRIORITY", "Pending", "Assigned", "Succeeded"]
    assert outcome.out.rstrip().endswith("(gone)")
    assert outcome.code == FAILED


@pytest.mark.parametrize("arguments", [["a", "--queue", "q"], ["a", "-A"], ["--watch", "-o", "json"]])
def test_get_refuses_what_cannot_be_meant(cluster: MemoryCluster, arguments: list[str]) -> None:
    assert call(cluster, "get", *arguments).code == USAGE


# --- result ---


@pytest.mark.parametrize(
    ("status", "code", "out", "err"),
    [
        pytest.param(SUCCEEDED, OK, {"lines": 3}, "", id="there"),
        pytest.param({"phase": "Succeeded"}, OK, {}, "", id="empty"),
        pytest.param(FAILED_STATUS, FAILED, None, "attempt 1 on p-0: HandlerError: boom", id="failed"),
        pytest.param(
            {"reason": "NoAgent", "message": "none is ready"},
            FAILED,
            None,
            "task a: Pending (NoAgent: none is ready)\nIt has no result yet",
            id="waits",
        ),
        pytest.param(ASSIGNED, FAILED, None, "task a: Assigned on p-0 (attempt 1)", id="runs"),
        pytest.param(
            FAILED_STATUS | {"phase": "DeadLettered"},
            FAILED,
            None,
            "Try it again: taskdist redrive a",
            id="dead-letter",
        ),
    ],
)
def test_result(cluster: MemoryCluster, status: dict[str, Any], code: int, out: Any, err: str) -> None:
    cluster.task("a", status)
    outcome = call(cluster, "result", "a")
    assert outcome.code == code
    assert (json.loads(outcome.out) if outcome.out else None) == out
    assert err in outcome.err


# --- cancel, suspend, resume ---


@pytest.mark.parametrize(
    ("command", "spec", "field", "value", "said"),
    [
        pytest.param("cancel", {}, "cancel", True, "cancelled", id="cancel"),
        pytest.param("cancel", {"cancel": True}, "cancel", True, "was cancelled already", id="cancel-again"),
        pytest.param("suspend", {}, "suspend", True, "suspended", id="suspend"),
        pytest.param("resume", {"suspend": True}, "suspend", False, "resumed", id="resume"),
        pytest.param("resume", {}, "suspend", None, "was resumed already", id="resume-what-runs"),
    ],
)
def test_change(
    cluster: MemoryCluster, command: str, spec: dict[str, Any], field: str, value: bool | None, said: str
) -> None:
    cluster.task("a", **spec)
    assert call(cluster, command, "a") == Outcome(OK, f"task.taskdist.dev/a {said}\n", "")
    assert cluster.objects[(str(TASKS), "ns", "a")]["spec"].get(field) is value


def test_change_goes_on_with_the_others(cluster: MemoryCluster) -> None:
    cluster.task("done", SUCCEEDED)
    cluster.task("b")
    outcome = call(cluster, "cancel", "done", "missing", "b")
    assert outcome.code == FAILED
    assert outcome.out == "task.taskdist.dev/b cancelled\n"
    assert "task done is Succeeded: an ended Task does not change any more" in outcome.err
    assert '"missing" not found' in outcome.err


def test_cancel_waits_for_the_end(cluster: MemoryCluster) -> None:
    cluster.task("a")
    cluster.watches = [[cluster.seen("a", {"phase": "Cancelled", "reason": "Cancelled"})]]
    assert call(cluster, "cancel", "a", "--wait").code == OK
    assert not cluster.watches


def test_a_cancelled_dead_letter_is_waited_for_to_its_end(cluster: MemoryCluster) -> None:
    cluster.task("a", FAILED_STATUS | {"phase": "DeadLettered"})
    cluster.watches = [[cluster.seen("a", {"message": "kept"}), cluster.seen("a", {"phase": "Cancelled"})]]
    assert "Cancelled" in call(cluster, "cancel", "a", "--wait").err
    assert not cluster.watches


# --- redrive ---


def dead(cluster: MemoryCluster, name: str, reason: str = "RetriesExhausted", **spec: Any) -> None:
    cluster.task(name, FAILED_STATUS | {"phase": "DeadLettered", "reason": reason}, **spec)


def redrives(cluster: MemoryCluster) -> dict[str, int]:
    tasks = {name: obj for (kind, _, name), obj in cluster.objects.items() if kind == str(TASKS)}
    return {name: obj["spec"]["redrive"] for name, obj in tasks.items() if "redrive" in obj["spec"]}


def test_redrive_raises_the_field_by_one_above_what_was_done(cluster: MemoryCluster) -> None:
    dead(cluster, "a")
    cluster.task("b", {"phase": "DeadLettered", "redrives": 4}, redrive=4)
    outcome = call(cluster, "redrive", "a", "b")
    assert outcome == Outcome(OK, "task.taskdist.dev/a redriven\ntask.taskdist.dev/b redriven\n", "")
    assert redrives(cluster) == {"a": 1, "b": 5}


def test_redrive_asks_once(cluster: MemoryCluster) -> None:
    cluster.task("a", {"phase": "DeadLettered", "redrives": 1}, redrive=2)
    assert call(cluster, "redrive", "a") == Outcome(OK, "task.taskdist.dev/a was redriven already\n", "")
    assert redrives(cluster) == {"a": 2}
    assert not cluster.calls


def test_redrive_goes_on_with_the_others(cluster: MemoryCluster) -> None:
    cluster.task("failed", FAILED_STATUS)
    dead(cluster, "a")
    outcome = call(cluster, "redrive", "failed", "missing", "a")
    assert outcome.code == FAILED
    assert outcome.out == "task.taskdist.dev/a redriven\n"
    assert "task failed is Failed: only a dead letter can be redriven" in outcome.err
    assert '"missing" not found' in outcome.err


@pytest.mark.parametrize(
    ("arguments", "names", "said"),
    [
        pytest.param(["--all"], ["a", "b", "c"], "3 dead letters in namespace ns redriven", id="all"),
        pytest.param(["--all", "--queue", "other"], ["c"], "1 dead letter of queue other redriven", id="queue"),
        pytest.param(
            ["--all", "--reason", "poisoned"], ["b"], "1 dead letter in namespace ns with reason Poisoned", id="reason"
        ),
        pytest.param(
            ["--all", "-q", "q", "--reason", "HandlerError"],
            ["a", "b"],
            "2 dead letters of queue q with reason HandlerError redriven",
            id="reason-of-the-last-attempt",
        ),
        pytest.param(["--all", "--queue", "x"], [], "no dead letters of queue x\n", id="none"),
    ],
)
def test_redrive_all(cluster: MemoryCluster, arguments: list[str], names: list[str], said: str) -> None:
    dead(cluster, "b", "Poisoned")
    dead(cluster, "a")
    dead(cluster, "c", queue="other")
    cluster.task("waits")
    outcome = call(cluster, "redrive", *arguments)
    assert outcome.code == OK
    assert outcome.out == "".join(f"task.taskdist.dev/{name} redriven\n" for name in names)
    assert said in outcome.err
    assert redrives(cluster) == dict.fromkeys(names, 1)


def test_redrive_all_counts_what_it_could_not_do(cluster: MemoryCluster) -> None:
    dead(cluster, "a")
    dead(cluster, "b")
    cluster.errors["patch"] = ApiError(409, "Conflict", "the object has been modified")
    outcome = call(cluster, "redrive", "--all")
    assert outcome.code == FAILED
    assert outcome.err == "error: task a: the object has been modified\n1 dead letter in namespace ns redriven\n"


def test_redrive_dry(cluster: MemoryCluster) -> None:
    dead(cluster, "a")
    outcome = call(cluster, "redrive", "--all", "--dry-run")
    assert outcome.out == "task.taskdist.dev/a would be redriven (RetriesExhausted)\n"
    assert outcome.err == "1 dead letter in namespace ns would be redriven\n"
    assert not redrives(cluster)


@pytest.mark.parametrize(
    "arguments", [[], ["a", "--all"], ["a", "--queue", "q"], ["a", "--reason", "Poisoned"], ["--queue", "q"]]
)
def test_redrive_refuses_what_cannot_be_meant(cluster: MemoryCluster, arguments: list[str]) -> None:
    dead(cluster, "a")
    assert call(cluster, "redrive", *arguments).code == USAGE
    assert not redrives(cluster)


# --- what all of them share ---


def test_cluster_options_arrive(cluster: MemoryCluster) -> None:
    call(cluster, "get", "-n", "other", "--context", "c", "--kubeconfig", "/k")
    assert cluster.targets == [Target("other", "c", "/k")]


@pytest.mark.parametrize(
    ("verb", "error", "message"),
    [
        pytest.param("connect", ConfigurationError("there is no kubeconfig at /k"), "taskdist dev up", id="no-config"),
        pytest.param("get", Unreachable("connection refused"), "Is the cluster up", id="unreachable"),
        pytest.param("get", Unanswered("timed out"), "It may have done it or not", id="unanswered"),
        pytest.param(
            "get",
            ApiError(404, "NotFound", "the server could not find the requested resource", {}),
            "helm install taskdist",
            id="not-installed",
        ),
        pytest.param("get", ApiError(401, "Unauthorized", "Unauthorized"), "does not accept the credentials", id="401"),
        pytest.param("get", ApiError(403, "Forbidden", 'tasks is forbidden: User "u"'), 'User "u"', id="forbidden"),
        pytest.param("get", ApiError(404, "NotFound", 'tasks "a" not found', {"name": "a"}), '"a" not found', id="404"),
    ],
)
@pytest.mark.parametrize("command", ["result", "cancel", "explain", "logs"])
def test_trouble_is_one_message_that_says_what_to_do(
    cluster: MemoryCluster, command: str, verb: str, error: Exception, message: str
) -> None:
    cluster.task("a")
    cluster.errors[verb] = error
    outcome = call(cluster, command, "a")
    assert (outcome.code, outcome.out) == (FAILED, "")
    assert outcome.err.startswith("error: ")
    assert message in outcome.err
    assert "Traceback" not in outcome.err


COMMANDS = (
    "submit",
    "get",
    "result",
    "logs",
    "explain",
    "why",
    "cancel",
    "suspend",
    "resume",
    "redrive",
    "agent",
    "operator",
)


@pytest.mark.parametrize("program", ["taskdist", PLUGIN])
@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_by_examples_under_the_name_it_was_called(
    cluster: MemoryCluster, command: str, program: str
) -> None:
    outcome = call(cluster, command, "--help", program=program)
    assert outcome.code == OK
    assert f"Usage: {program} {command}" in outcome.out
    examples = outcome.out.split("Examples")[1]
    assert f"{program} {'explain' if command == 'why' else command} " in re.sub(r"\s+", " ", examples)


def test_without_arguments_it_shows_what_there_is(cluster: MemoryCluster) -> None:
    shown = call(cluster)
    for command in (*COMMANDS, "dev", "version"):
        assert re.search(rf"│ {command}\b", shown.out + shown.err), command


def test_a_slip_of_the_finger_is_helped(cluster: MemoryCluster) -> None:
    outcome = call(cluster, "sumbit")
    assert outcome.code == USAGE
    assert "submit" in outcome.err


def test_version(cluster: MemoryCluster) -> None:
    assert re.fullmatch(r"taskdist \d+\.\d+\.\d+\n", call(cluster, "version").out)


def test_an_agent_without_work_is_told_how(cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TASKDIST_MODULE", "TASKDIST_COMMAND", "TASKDIST_HTTP"):
        monkeypatch.delenv(name, raising=False)
    outcome = call(cluster, "agent")
    assert outcome.code == USAGE
    assert "a module, --command or --http" in outcome.err


def test_an_operator_without_settings_is_told_which(cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TASKDIST_NAMESPACE", raising=False)
    outcome = call(cluster, "operator")
    assert outcome.code == USAGE
    assert "TASKDIST_NAMESPACE is not set" in outcome.err


@pytest.mark.parametrize("command", ["run", "up", "down", "status", "node"])
def test_dev_says_what_to_install_where_it_is_not(
    cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, command: str
) -> None:
    monkeypatch.setitem(sys.modules, "taskdist.local", None)
    outcome = call(cluster, "dev", command, "--dir", str(tmp_path))
    assert (outcome.code, outcome.out) == (FAILED, "")
    assert "pip install 'taskdist[local]'" in outcome.err


def test_dev_says_how_to_start(cluster: MemoryCluster, tmp_path: Any) -> None:
    for command in ("status", "node"):
        outcome = call(cluster, "dev", command, "--dir", str(tmp_path))
        assert outcome.code == FAILED
        assert "taskdist dev up" in outcome.err
    assert call(cluster, "dev", "down", "--dir", str(tmp_path)).err == f"nothing was started in {tmp_path}\n"


def test_pools_are_known_by_name(cluster: MemoryCluster) -> None:
    cluster.add(AGENTPOOLS, {"metadata": {"name": "p"}, "spec": {}})
    assert call(cluster, "submit", "q", "-t", "t", "--name", "a", "--pool", "p").err == ""
