"""What comes in over the rim of the gateway: selectors, bodies, tokens, settings; and what full queues answer."""

from collections.abc import Callable

import pytest
from fastapi import Request
from hypothesis import given
from hypothesis import strategies as st

from taskdist.common.environment import SettingsError
from taskdist.gateway.board import Board
from taskdist.gateway.bodies import a_task, an_object
from taskdist.gateway.callers import bearer
from taskdist.gateway.filters import requirements
from taskdist.gateway.problems import Problem, of_kube
from taskdist.gateway.queues import Queues, seen_queue
from taskdist.gateway.settings import Settings
from taskdist.gateway.shapes import NewTask
from taskdist.gateway.waiting import Places
from taskdist.kube import Added, ApiError, Obj, Unanswered, Unreachable


def refusal(ask: Callable[[], object]) -> int | None:
    """The status by which it is refused; None if it is not."""
    try:
        ask()
    except Problem as problem:
        return problem.status
    return None


@given(st.text(max_size=40))
def test_a_selector_is_read_or_refused_as_a_mistake_of_the_caller(selector: str) -> None:
    assert refusal(lambda: requirements(selector)) in (None, 400)


@given(st.binary(max_size=60))
def test_a_body_is_a_task_or_a_problem(body: bytes) -> None:
    assert refusal(lambda: a_task(an_object(body))) in (None, 400, 422)


def test_what_was_not_said_is_left_to_the_api_server() -> None:
    said = {"queue": "q", "type": "t", "labels": {"a": "b"}, "timeouts": {"executionSeconds": 5.0}}
    assert NewTask.model_validate(said).document() == said


def request(authorization: str | None) -> Request:
    headers = [] if authorization is None else [(b"authorization", authorization.encode("latin-1"))]
    return Request({"type": "http", "headers": headers})


def test_a_token_is_taken_from_its_header_and_from_nothing_else() -> None:
    assert bearer(request("Bearer abc")) == "abc"
    assert bearer(request("bearer  abc ")) == "abc"
    assert bearer(request(None)) == ""
    for odd in ("Basic abc", "Bearer a b", "Bearer \xe4", "Bearer a\tb"):
        with pytest.raises(Problem) as refused:
            bearer(request(odd))
        assert refused.value.status == 401


REFUSED: dict[str, tuple[dict[str, str], str]] = {
    "a port that is none": ({"TASKDIST_GATEWAY_PORT": "http"}, "TASKDIST_GATEWAY_PORT"),
    "one port for two servers": ({"TASKDIST_GATEWAY_PORT": "8080"}, "TASKDIST_METRICS_PORT"),
    "a certificate without its key": ({"TASKDIST_GATEWAY_TLS_CERT": "c"}, "TASKDIST_GATEWAY_TLS_KEY"),
    "a key without its certificate": ({"TASKDIST_GATEWAY_TLS_KEY": "k"}, "TASKDIST_GATEWAY_TLS_CERT"),
    "a path without its slash": ({"TASKDIST_GATEWAY_ROOT_PATH": "tasks"}, "TASKDIST_GATEWAY_ROOT_PATH"),
    "a view without its port": ({"TASKDIST_GATEWAY_VIEW": "taskdist-view"}, "TASKDIST_GATEWAY_VIEW"),
    "webhooks of a namespace that is not watched": (
        {"TASKDIST_WATCH_NAMESPACES": "a,b", "TASKDIST_GATEWAY_WEBHOOK_NAMESPACES": "b,c"},
        "TASKDIST_GATEWAY_WEBHOOK_NAMESPACES names c",
    ),
    "no place to wait": ({"TASKDIST_GATEWAY_MOST_WAITING": "0"}, "TASKDIST_GATEWAY_MOST_WAITING"),
}


@pytest.mark.parametrize(("env", "names"), REFUSED.values(), ids=REFUSED.keys())
def test_settings_are_refused_by_name(env: dict[str, str], names: str) -> None:
    with pytest.raises(SettingsError, match=names):
        Settings.from_env(env)


def test_settings_without_a_word_are_those_of_the_chart() -> None:
    assert Settings.from_env({}) == Settings()
    assert Settings.from_env({"TASKDIST_WATCH_NAMESPACES": "a, b,"}).watch_namespaces == ("a", "b")
    assert Settings.from_env({"TASKDIST_GATEWAY_WEBHOOK_NAMESPACES": "a"}).webhook_namespaces == ("a",)


def queue(accepting: bool | None = None, **spec: object) -> Obj:
    conditions = [{"type": "Accepting", "status": "False", "message": "spec.overflow.highWater is 4."}]
    status = {} if accepting is None else {"accepting": accepting, "conditions": conditions}
    metadata = {"name": "q", "namespace": "ns", "uid": "u", "resourceVersion": "1"}
    return {"metadata": metadata, "spec": {"pools": ["p"], **spec}, "status": status}


def test_a_full_queue_says_when_its_tasks_will_have_gone_below_the_low_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board(lambda _: "1")
    queues = Queues(board)
    queues.hear(Added(seen_queue(queue(False, overflow={"highWater": 40, "lowWater": 10}))))
    monkeypatch.setattr(board, "pending", lambda *_: 40)
    monkeypatch.setattr(board, "ends_per_second", lambda *_: 2.0)
    full = queues.full("ns", "q", 30.0)
    assert (full.status, full.retry_after) == (429, 15.0)
    assert "highWater is 4" in full.details.detail
    monkeypatch.setattr(board, "ends_per_second", lambda *_: 0.0)
    assert queues.full("ns", "q", 30.0).retry_after == 30.0


def test_what_the_api_server_refuses_before_the_watch_has_told_is_full_all_the_same() -> None:
    queues = Queues(Board(lambda _: "1"))
    queues.hear(Added(seen_queue(queue())))
    for name in ("q", "unknown"):
        full = queues.full("ns", name, 30.0)
        assert (full.retry_after, "Submit again later" in full.details.detail) == (30.0, True)


def test_places_are_so_many_and_are_given_back() -> None:
    places = Places(1)
    with places.one():
        with pytest.raises(Problem) as refused, places.one():
            pass
        assert (refused.value.status, refused.value.retry_after) == (429, 5)
    with places.one():
        assert places.taken == 1


SAID: dict[str, tuple[Exception, int]] = {
    "a refusal is passed on": (ApiError(403, "Forbidden", "no"), 403),
    "what is too large": (ApiError(500, "", "etcdserver: request is too large"), 413),
    "a status that callers have no use for": (ApiError(410, "Expired", "old"), 503),
    "a fault of the server": (ApiError(500, "", "oops"), 503),
    "no answer to what may have been done": (Unanswered("x"), 504),
    "nobody there": (Unreachable("x"), 503),
}


@pytest.mark.parametrize(("error", "status"), SAID.values(), ids=SAID.keys())
def test_what_the_api_server_says_becomes(error: Exception, status: int) -> None:
    assert of_kube(error).status == status  # type: ignore[arg-type]


def test_fields_that_the_api_server_refuses_are_named_as_the_caller_wrote_them() -> None:
    details = {"causes": [{"field": "spec.tenant", "message": "too long"}, {"reason": "x"}, "odd"]}
    (only,) = of_kube(ApiError(422, "Invalid", "no", details)).details.errors
    assert (only.field, only.message) == ("tenant", "too long")
