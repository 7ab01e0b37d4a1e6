"""The page on backups, command by command, on a real API server: what comes back, and what is not run again."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import jq
import pytest

from taskdist.api import Phase
from taskdist.local.binaries import find

pytestmark = pytest.mark.usefixtures("crds")
PAGE = (Path(__file__).parents[3] / "docs" / "backup.md").read_text()
API = "taskdist.dev/v1alpha1"


class Shell:
    """kubectl in one namespace; the page's is `team-a`."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self.kubeconfig, self.namespace = kubeconfig, namespace

    def run(self, *words: str, given: object = None, ok: bool = True) -> str:
        command: list[str | Path] = [find("kubectl"), "--kubeconfig", self.kubeconfig, "-n", self.namespace, *words]
        text = None if given is None else json.dumps(given)
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode == 0) == ok, done.stdout + done.stderr
        return done.stdout + done.stderr

    def page(self, start: str) -> Any:
        """Run the one command of the page that begins so, as far as the redirection, and return what it prints."""
        (line,) = [each for each in PAGE.splitlines() if each.startswith(start)]
        words = line.partition(" > ")[0].replace("-n team-a ", "").split()
        return json.loads(self.run(*words[1:]))

    def names(self, kind: str) -> set[str]:
        return {each["metadata"]["name"] for each in json.loads(self.run("get", kind, "-o", "json"))["items"]}


def restorable(dump: Any) -> Any:
    (program,) = re.findall(r"^```jq\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return jq.compile(program).input_value(dump).first()


def task(name: str) -> dict[str, Any]:
    return {"apiVersion": API, "kind": "Task", "metadata": {"name": name}, "spec": {"queue": "analysis", "type": "t"}}


def test_a_dump_is_restored_and_what_has_ended_does_not_run_again(kubeconfig: Path, namespace: str) -> None:
    shell = Shell(kubeconfig, namespace)
    template = {"spec": {"containers": [{"name": "agent", "image": "agent:1"}]}}
    pool = {"metadata": {"name": "p"}, "spec": {"replicas": 1, "template": template}}
    queue = {"metadata": {"name": "analysis"}, "spec": {"pools": ["p"]}}
    template_of = {"queue": "analysis", "type": "t"}
    source = {"metadata": {"name": "s"}, "spec": {"cron": {"schedule": "0 3 * * *"}, "task": template_of}}
    for kind, body in (("AgentPool", pool), ("TaskQueue", queue), ("TaskSource", source)):
        shell.run("create", "-f", "-", given={"apiVersion": API, "kind": kind, **body})
    for phase in Phase:
        name = phase.value.lower()
        shell.run("create", "-f", "-", given=task(name))
        lease = {"attempt": 1, "epoch": 1, "agent": "p-1", "agentUid": "u"} if phase is Phase.ASSIGNED else {}
        patch = json.dumps({"status": {"phase": phase.value, **lease}})
        shell.run("patch", "tasks.taskdist.dev", name, "--subresource=status", "--type=merge", "-p", patch)
    shell.run("create", "-f", "-", given=task("new"))

    setup = shell.page("kubectl get taskqueues.taskdist.dev,agentpools")
    tasks = shell.page("kubectl get tasks.taskdist.dev -n team-a -o json")
    assert len(setup["items"]) == 3
    assert len(tasks["items"]) == len(Phase) + 1
    shell.run(
        "delete", "tasks.taskdist.dev,taskqueues.taskdist.dev,agentpools.taskdist.dev,tasksources.taskdist.dev", "--all"
    )

    shell.run("create", "-f", "-", given=restorable(setup))
    shell.run("create", "-f", "-", given=restorable(tasks))
    assert shell.names("tasks.taskdist.dev") == {"pending", "assigned", "new"}
    found = json.loads(shell.run("get", "taskqueues.taskdist.dev", "analysis", "-o", "json"))
    assert found["spec"]["paused"]
    assert json.loads(shell.run("get", "tasksources.taskdist.dev", "s", "-o", "json"))["spec"]["suspend"]
    assert "AlreadyExists" in shell.run("create", "-f", "-", given=restorable(tasks), ok=False)
    unpause = '{"spec":{"paused":false}}'
    assert f"taskqueues.taskdist.dev analysis -n team-a --type=merge -p '{unpause}'" in PAGE
    shell.run("patch", "taskqueues.taskdist.dev", "analysis", "--type=merge", "-p", unpause)
