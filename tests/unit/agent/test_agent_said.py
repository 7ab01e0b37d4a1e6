"""What workers say is read at the rim: each frame is one of ours, or Nonsense that names the field."""

from typing import Any

import pytest

from taskdist.agent import said
from taskdist.agent.frames import Frame
from taskdist.agent.outcomes import Cancelled, Failed, Returned
from taskdist.api import Reason

END: dict[str, Any] = {"kind": "end", "serial": 1, "left": [], "outcome": "returned"}
FAILED = END | {"outcome": "failed", "reason": "HandlerError", "message": "m", "retryable": True}

GOOD: dict[str, tuple[dict[str, Any], said.Said]] = {
    "ready": ({"kind": "ready", "types": ["a"]}, said.Ready(("a",))),
    "ready for any type": ({"kind": "ready", "types": None}, said.Ready(None)),
    "broken": ({"kind": "broken", "message": "why"}, said.Broken("why")),
    "started": ({"kind": "started", "serial": 3}, said.WorkStarted(3)),
    "progress": ({"kind": "progress", "serial": 1, "fraction": 1, "message": ""}, said.WorkProgress(1, 1.0, "")),
    "returned": (END | {"used": {"b": 1}}, said.Ended(1, Returned(b"{}"), used={"b": 1})),
    "failed": (
        FAILED | {"left": ["thread x"]},
        said.Ended(1, Failed(Reason.HANDLER_ERROR, "m", True), ("thread x",)),
    ),
    "cancelled": (END | {"outcome": "cancelled"}, said.Ended(1, Cancelled())),
}
BAD: dict[str, tuple[Any, str]] = {
    "no object": ([], "the head"),
    "no kind": ({}, "kind"),
    "another kind": ({"kind": "x"}, "kind"),
    "types that are none": ({"kind": "ready", "types": [1]}, "types"),
    "no serial": ({"kind": "started"}, "serial"),
    "a serial that is none": ({"kind": "started", "serial": True}, "serial"),
    "not a number": ({"kind": "progress", "serial": 1, "fraction": float("nan"), "message": ""}, "fraction"),
    "beyond all": ({"kind": "progress", "serial": 1, "fraction": 1.1, "message": ""}, "fraction"),
    "a message that is none": ({"kind": "progress", "serial": 1, "fraction": 1, "message": None}, "message"),
    "no outcome": ({"kind": "end", "serial": 1, "left": []}, "outcome"),
    "a reason that is none": (FAILED | {"reason": ["x"]}, "reason"),
    "a reason of its own": (FAILED | {"reason": "Tired"}, "reason"),
    "neither yes nor no": (FAILED | {"retryable": 1}, "retryable"),
    "nothing of what is left": ({"kind": "end", "serial": 1, "outcome": "returned"}, "left"),
}


@pytest.mark.parametrize(("head", "value"), [pytest.param(*case, id=name) for name, case in GOOD.items()])
def test_what_a_worker_says(head: dict[str, Any], value: said.Said) -> None:
    assert said.read(Frame(head, b"{}")) == value


@pytest.mark.parametrize(("head", "names"), [pytest.param(*case, id=name) for name, case in BAD.items()])
def test_what_no_worker_says(head: Any, names: str) -> None:
    with pytest.raises(said.Nonsense, match=f"^{names} is "):
        said.read(Frame(head))
