"""Whether an object that is read again shows the very write that was not answered."""

from typing import Any

import pytest

from taskdist.controller.effects import is_ours
from taskdist.protocol.observations import WriteStatus

COMMIT = {"phase": "Assigned", "epoch": 3, "array": {"succeeded": "0-5", "commit": "3-7"}}


def stands(written: dict[str, Any], there: dict[str, Any]) -> bool:
    return is_ours(WriteStatus(1, "a", "ns", "task-a", 10, written))({"status": there})


@pytest.mark.parametrize(
    ("there", "ours"),
    [
        pytest.param(COMMIT | {"reason": "Assigned"}, True, id="it stands"),
        pytest.param({"phase": "Assigned", "epoch": 3, "array": {"commit": "3-6"}}, False, id="the one before stands"),
        pytest.param({"phase": "Assigned", "epoch": 3}, False, id="there is none"),
        pytest.param({"phase": "Pending", "epoch": 3, "array": {"commit": "3-7"}}, False, id="it was redriven since"),
        pytest.param({}, False, id="nothing is there"),
    ],
)
def test_a_write_of_an_array_is_known_by_its_name(there: dict[str, Any], ours: bool) -> None:
    assert stands(COMMIT, there) is ours


def test_any_other_is_known_by_what_it_says() -> None:
    assignment = {"phase": "Assigned", "attempt": 2, "epoch": 3, "message": "told"}
    assert stands(assignment, {"phase": "Assigned", "attempt": 2, "epoch": 3})
    assert not stands(assignment, {"phase": "Assigned", "attempt": 1, "epoch": 3})
