"""The deletion of a pod is bound to a leadership: marked, asked for leadership again, then deleted."""

from typing import Any, cast

import pytest

from taskdist.api import REMOVED_BY_ANNOTATION, Reason
from taskdist.common.backoff import Backoff
from taskdist.controller.effects import KubeEffects
from taskdist.kube import ApiError, Unanswered
from taskdist.protocol.observations import RemovePod

ACTION = RemovePod("u1", "ns", "p-1", Reason.IDLE, "", 3)
MARK = ("patch", {"uid": "u1", "annotations": {REMOVED_BY_ANNOTATION: "3"}})
DELETION = ("delete", "u1")
CONFLICT, NOT_FOUND = (
    ApiError(409, "Conflict", "another uid"),
    ApiError(404, "NotFound", "no such pod", {"name": "p-1"}),
)
LOST = Unanswered("no answer")


class Server:
    """Answers as scripted, and leads as scripted: each question takes the next answer."""

    def __init__(self, answers: list[Exception | None], leads: list[bool]) -> None:
        self.asked: list[Any] = []
        self._answers = answers
        self._leads = leads

    def may_act(self) -> bool:
        return self._leads.pop(0) if self._leads else True

    def _answer(self, what: Any) -> dict[str, Any]:
        self.asked.append(what)
        error = self._answers.pop(0) if self._answers else None
        if error is not None:
            raise error
        return {}

    async def patch(self, resource: Any, name: str, body: dict[str, Any], namespace: str) -> dict[str, Any]:
        return self._answer(("patch", body["metadata"]))

    async def delete(self, resource: Any, name: str, namespace: str, *, uid: str) -> dict[str, Any]:
        return self._answer(("delete", uid))


@pytest.mark.parametrize(
    ("answers", "leads", "asked", "absent"),
    [
        pytest.param([], [], [MARK, DELETION], False, id="marked, then deleted"),
        pytest.param([NOT_FOUND], [], [MARK], True, id="there is no such pod"),
        pytest.param([CONFLICT], [], [MARK], True, id="the name is another pod's"),
        pytest.param([None, NOT_FOUND], [], [MARK, DELETION], True, id="gone in between"),
        pytest.param([LOST], [], [MARK, MARK, DELETION], False, id="a mark without an answer does not count"),
        pytest.param([None, LOST], [], [MARK, DELETION, DELETION], False, id="marked once"),
        pytest.param([], [False, False], [MARK, DELETION], False, id="nothing while leadership is not sure"),
        pytest.param([], [True, False], [MARK, DELETION], False, id="no deletion while it is not sure any more"),
    ],
)
async def test_a_pod_is_marked_then_deleted(
    answers: list[Exception | None], leads: list[bool], asked: list[Any], absent: bool
) -> None:
    server = Server(answers, leads)
    nothing = cast("Any", None)
    effects = KubeEffects(
        cast("Any", server), nothing, nothing, nothing, lambda key: "", lambda pools, queues: None, server.may_act
    )
    effects._backoff = Backoff(first=0.0, most=0.0)
    assert await effects.delete_pod(ACTION) is absent
    assert server.asked == asked
