"""The HTTP door on a real API server: who may do what, one watch for all who wait, and what is said of what."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from gateway_process import Gateway
from integration.gateway.conftest import Room
from patience import until

# The first use of helm may build it.
pytestmark = pytest.mark.timeout(1200)

TASK = {"queue": "q", "type": "echo", "payload": {"n": 1}}
EVERYTHING = ("create", "get", "list", "watch", "patch", "delete")


def problem(answer: httpx.Response, status: int, reason: str) -> dict[str, Any]:
    """The problem that was answered, which must be of this kind."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    details: dict[str, Any] = answer.json()
    assert (details["status"], details["reason"]) == (status, reason), details
    return details


# What is tried, and by which verbs of kubectl it may be done.
DOORS: dict[str, tuple[str, str, Any, tuple[str, ...]]] = {
    "submit": ("POST", "/tasks", TASK, ("create",)),
    "list": ("GET", "/tasks", None, ("list",)),
    "get": ("GET", "/tasks/there", None, ("get",)),
    "wait": ("GET", "/tasks/there/wait?seconds=0.1", None, ("get", "watch")),
    "follow one": ("GET", "/tasks/there/events", None, ("get", "watch")),
    "follow all": ("GET", "/tasks:events", None, ("list", "watch")),
    "cancel": ("POST", "/tasks/there/cancel", None, ("patch",)),
    "suspend": ("POST", "/tasks/there/suspend", None, ("patch",)),
    "resume": ("POST", "/tasks/there/resume", None, ("patch",)),
    "delete": ("DELETE", "/tasks/there", None, ("delete",)),
}


def status_of(caller: httpx.Client, method: str, path: str, body: Any) -> int:
    with caller.stream(method, path, json=body) as answer:
        return answer.status_code


@pytest.mark.parametrize(("method", "path", "body", "verbs"), DOORS.values(), ids=DOORS.keys())
def test_who_may_by_kubectl_may_here_and_nobody_else(
    room: Room, method: str, path: str, body: Any, verbs: tuple[str, ...]
) -> None:
    room.task("there")
    for missing in verbs:
        others = [verb for verb in EVERYTHING if verb != missing]
        assert status_of(room.caller(*others), method, path, body) == 403, f"without {missing}"
    assert status_of(room.caller(*verbs), method, path, body) in (200, 201, 202, 204)
    stranger = room.anybody()
    assert status_of(stranger, method, path, body) == 401
    stranger.headers["Authorization"] = "Bearer not.a.token"
    assert status_of(stranger, method, path, body) == 401


def test_bulk_lines_of_who_may_not_create_are_refused_one_by_one(room: Room) -> None:
    answer = room.caller("get").post(
        "/tasks:bulk", content=json.dumps(TASK), headers={"Content-Type": "application/x-ndjson"}
    )
    assert answer.json()["problem"]["status"] == 403


def test_rights_in_one_namespace_are_none_in_another(room: Room) -> None:
    caller = room.caller(*EVERYTHING)
    details = problem(caller.get("../default/tasks"), 403, "NotAllowed")
    assert "may not list tasks.taskdist.dev in namespace default" in details["detail"]


def test_a_task_is_submitted_awaited_and_its_result_read(room: Room) -> None:
    caller = room.caller(*EVERYTHING)
    made = caller.post("/tasks", json=TASK | {"labels": {"app": "x"}})
    assert made.status_code == 201
    name = made.json()["name"]
    assert name.startswith("echo-")
    assert made.headers["location"].endswith(f"/tasks/{name}")
    assert made.json()["phase"] == "Pending"
    with ThreadPoolExecutor() as pool:
        waits = [pool.submit(caller.get, f"/tasks/{name}/wait?seconds=60") for _ in range(3)]
        until(lambda: all(each.running() for each in waits), "they wait")
        room.ends(name, result={"n": 2})
        for each in waits:
            answer = each.result()
            assert (answer.status_code, answer.json()["result"]) == (200, {"n": 2})
    got = caller.get(f"/tasks/{name}").json()
    assert (got["phase"], got["settled"], got["payload"], got["result"]) == ("Succeeded", True, {"n": 1}, {"n": 2})


def test_submit_can_wait_for_the_end(room: Room) -> None:
    caller = room.caller(*EVERYTHING)
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(caller.post, "/tasks?wait=60", json=TASK | {"name": "mine"})
        until(lambda: room.exists("mine"), "it is there")
        room.ends("mine", "Failed", message="it broke")
        assert answer.result().status_code == 201
        assert (answer.result().json()["phase"], answer.result().json()["message"]) == ("Failed", "it broke")


def test_a_wait_ends_in_time_with_how_it_stands(room: Room) -> None:
    room.task("slow")
    answer = room.caller("get", "watch").get("/tasks/slow/wait?seconds=0.2")
    assert (answer.status_code, answer.json()["phase"]) == (202, "Pending")


def test_who_waits_hears_that_the_task_was_deleted(room: Room) -> None:
    room.task("gone")
    caller = room.caller(*EVERYTHING)
    until(lambda: caller.get("/tasks").json()["items"], "it is in view")
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(caller.get, "/tasks/gone/wait?seconds=60")
        until(answer.running, "it waits")
        caller.delete("/tasks/gone")
        assert "deleted" in problem(answer.result(), 404, "NotFound")["detail"] or answer.result().status_code == 404


def test_a_key_makes_one_task_whoever_sends_it_how_often(room: Room) -> None:
    caller = room.caller(*EVERYTHING)
    headers = {"Idempotency-Key": "order-17"}
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda _: caller.post("/tasks", json=TASK, headers=headers), range(8)))
    assert sorted(each.status_code for each in answers) == [200] * 7 + [201]
    assert len({each.json()["uid"] for each in answers}) == 1
    assert {each.headers.get("idempotent-replayed") for each in answers} == {None, "true"}
    other = caller.post("/tasks", json=TASK | {"payload": {"n": 2}}, headers=headers)
    problem(other, 422, "KeyReused")


BAD: dict[str, tuple[Any, int, str, str]] = {
    "a field that is not there": (TASK | {"prioritee": "High"}, 422, "Invalid", "prioritee: there is no such field"),
    "a field within a field": (
        TASK | {"timeouts": {"executionSeconds": -1}},
        422,
        "Invalid",
        "timeouts.executionSeconds",
    ),
    "no queue": ({"type": "echo"}, 422, "Invalid", "queue"),
    "what only the API server can judge": (TASK | {"tenant": "A b"}, 422, "Invalid", "tenant"),
    "a list": ([TASK], 400, "BadJson", "JSON list"),
    "a number that would become another": (TASK | {"payload": {"n": 2**70}}, 400, "BadJson", "n"),
    "a body that is too large": (TASK | {"payload": {"x": "x" * 300_000}}, 413, "TooLarge", "bytes"),
}


@pytest.mark.parametrize(("body", "status", "reason", "says"), BAD.values(), ids=BAD.keys())
def test_what_makes_no_sense_is_refused_with_the_field(
    room: Room, body: Any, status: int, reason: str, says: str
) -> None:
    assert says in problem(room.caller("create").post("/tasks", json=body), status, reason)["detail"]


def test_a_body_that_is_no_json_is_refused(room: Room) -> None:
    for body in (b"", b"{", b"\xff\xfe", b'{"a": NaN}', b"[" * 100_000):
        problem(room.caller("create").post("/tasks", content=body), 400, "BadJson")


def test_many_are_submitted_at_once_and_each_is_answered(room: Room) -> None:
    lines = [json.dumps(TASK | {"name": f"b-{number}"}) for number in range(50)]
    lines[7] = json.dumps({"type": "echo"})
    lines[8] = "{"
    answer = room.caller("create").post(
        "/tasks:bulk", content="\n".join(lines), headers={"Content-Type": "application/x-ndjson"}
    )
    said = {each["index"]: each for each in map(json.loads, answer.text.splitlines())}
    assert sorted(said) == list(range(50))
    assert {index for index, each in said.items() if "problem" in each} == {7, 8}
    assert said[7]["problem"]["errors"][0]["field"] == "queue"
    assert said[9]["name"] == "b-9"
    assert said[9]["created"]


def test_lists_are_filtered_and_paged(room: Room) -> None:
    for number in range(5):
        room.cluster.create(
            f"/apis/taskdist.dev/v1alpha1/namespaces/{room.name}/tasks",
            {
                "apiVersion": "taskdist.dev/v1alpha1",
                "kind": "Task",
                "metadata": {"name": f"l-{number}", "labels": {"half": str(number % 2)}},
                "spec": {"queue": "q", "type": "echo"},
            },
        )
    room.ends("l-2")
    caller = room.caller("list")

    def names(**query: Any) -> list[str]:
        return [each["name"] for each in caller.get("/tasks", params=query).json()["items"]]

    until(lambda: names(phase="Succeeded") == ["l-2"], "all of it is in view")
    assert names(labelSelector="half=0") == ["l-0", "l-2", "l-4"]
    assert names(labelSelector="half notin (0)", phase="Pending") == ["l-1", "l-3"]
    assert names(queue="other") == []
    first = caller.get("/tasks", params={"limit": 2}).json()
    assert [each["name"] for each in first["items"]] == ["l-0", "l-1"]
    assert names(limit=2, after=first["next"]) == ["l-2", "l-3"]
    assert caller.get("/tasks", params={"limit": 2, "after": "l-3"}).json().get("next") is None
    assert "labelSelector" in problem(caller.get("/tasks?labelSelector=a=b=c"), 400, "Invalid")["detail"]
    assert "limit" in problem(caller.get("/tasks?limit=0"), 422, "Invalid")["detail"]


def test_a_stream_tells_of_a_task_until_its_end(room: Room) -> None:
    room.task("seen")
    caller = room.caller(*EVERYTHING)
    events: list[tuple[str, dict[str, Any]]] = []

    def follow() -> None:
        with caller.stream("GET", "/tasks/seen/events") as answer:
            name = ""
            for line in answer.iter_lines():
                key, _, value = line.partition(": ")
                if key == "event":
                    name = value
                elif key == "data":
                    events.append((name, json.loads(value)))

    reader = threading.Thread(target=follow)
    reader.start()
    until(lambda: events, "the first event")
    room.ends("seen", result={"secret": 1})
    reader.join(30)
    assert not reader.is_alive(), "the stream ends with the Task"
    assert [(name, each["phase"]) for name, each in events] == [("task", "Pending"), ("task", "Succeeded")]


def test_a_full_queue_says_when_to_come_again(room: Room, gateway: Gateway) -> None:
    cluster, kinds = room.cluster, f"/apis/taskdist.dev/v1alpha1/namespaces/{room.name}"
    cluster.create(
        f"{kinds}/taskqueues",
        {
            "apiVersion": "taskdist.dev/v1alpha1",
            "kind": "TaskQueue",
            "metadata": {"name": "q"},
            "spec": {"pools": ["p"], "overflow": {"highWater": 2, "lowWater": 1}},
        },
    )
    policy = f"full-{secrets.token_hex(3)}"
    admission = "/apis/admissionregistration.k8s.io/v1"
    cluster.create(
        f"{admission}/validatingadmissionpolicies",
        {
            "metadata": {"name": policy},
            "spec": {
                "matchConstraints": {
                    "resourceRules": [
                        {
                            "apiGroups": ["taskdist.dev"],
                            "apiVersions": ["*"],
                            "operations": ["CREATE"],
                            "resources": ["tasks"],
                        }
                    ],
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": room.name}},
                },
                "validations": [
                    {"expression": "false", "reason": "Forbidden", "message": "TaskQueue q takes no new Tasks now; 2"}
                ],
            },
        },
    )
    cluster.create(
        f"{admission}/validatingadmissionpolicybindings",
        {"metadata": {"name": policy}, "spec": {"policyName": policy, "validationActions": ["Deny"]}},
    )
    caller = room.caller("create")
    try:
        answer = until(
            lambda: found if (found := caller.post("/tasks", json=TASK)).status_code != 201 else None, "it is refused"
        )
        details = problem(answer, 429, "QueueFull")
        assert 1 <= int(answer.headers["retry-after"]) <= 300
        assert "q takes no new Tasks now" in details["detail"]
    finally:
        cluster.delete(f"{admission}/validatingadmissionpolicybindings/{policy}")
        cluster.delete(f"{admission}/validatingadmissionpolicies/{policy}")


def test_a_thousand_who_wait_cost_the_api_server_no_request_each(room: Room, gateway: Gateway) -> None:
    room.task("awaited")
    caller = room.caller("get", "watch", "list")
    until(lambda: caller.get("/tasks").json()["items"], "it is in view")
    caller.get("/tasks/awaited/wait?seconds=0.1")
    before = api_requests(room)
    with httpx.Client(limits=httpx.Limits(max_connections=None), timeout=120, headers=caller.headers) as many:
        url = f"{caller.base_url}tasks/awaited/wait?seconds=100"
        with ThreadPoolExecutor(1000) as pool:
            answers = [pool.submit(many.get, url) for _ in range(1000)]
            until(lambda: gateway.counts("taskdist_gateway_waiting")["taskdist_gateway_waiting"] == 1000, "all wait")
            room.ends("awaited", result={"n": 3})
            assert {each.result().json()["result"]["n"] for each in answers} == {3}
    asked = api_requests(room) - before
    # The caller is looked up once in ten seconds, a token and two rights, and whoever runs beside asks as well.
    assert asked < 100, f"{asked} requests for 1,000 who waited"


def api_requests(room: Room) -> float:
    """How many requests of Tasks and reviews the API server has answered, watches aside."""
    text = room.cluster.request("GET", "/metrics")
    lines = [line for line in str(text).splitlines() if line.startswith("apiserver_request_total{")]
    return sum(
        float(line.rpartition(" ")[2])
        for line in lines
        if 'verb="WATCH"' not in line and any(f'resource="{each}"' in line for each in COUNTED)
    )


COUNTED = ("tasks", "tokenreviews", "subjectaccessreviews")


def test_the_description_names_all_doors_and_the_page_needs_nothing_from_elsewhere(gateway: Gateway) -> None:
    described = httpx.get(f"{gateway.url}/openapi.json").json()
    assert {path.rpartition("/")[2] for path in described["paths"]} >= {
        "tasks",
        "tasks:bulk",
        "{name}",
        "wait",
        "events",
    }
    assert "executionSeconds" in json.dumps(described["components"]["schemas"])
    page = httpx.get(f"{gateway.url}/docs").text
    assert "https://" not in page
    assert "http://" not in page


def test_the_gateway_refuses_to_run_on_a_certificate_of_its_own(control_plane: Any) -> None:
    env = os.environ | {"KUBECONFIG": str(control_plane.kubeconfig), "TASKDIST_HOST": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "-m", "taskdist.cli.main", "gateway"], env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "run with the token of a service account" in done.stderr


def test_paths_and_methods_that_are_not_there_are_said_so(gateway: Gateway) -> None:
    problem(httpx.get(f"{gateway.url}/v1/nothing"), 404, "NoSuchPath")
    problem(httpx.put(f"{gateway.url}/v1/namespaces/x/tasks"), 405, "NoSuchPath")


def test_metrics_count_requests_by_their_path_and_never_by_name(room: Room, gateway: Gateway) -> None:
    room.caller("get").get("/tasks/some-name")
    counts = gateway.counts("taskdist_gateway_requests_total")
    assert any("/tasks/{name}" in each for each in counts)
    assert not any("some-name" in each for each in counts)
