"""Queries of lists: what they mean, and that a mistake is named."""

import pytest

from taskdist.api import Phase
from taskdist.controller.view.problems import Problem
from taskdist.controller.view.selecting import Selection
from taskdist.core.model import Task
from taskdist.protocol.observations import ObservedTask


@pytest.mark.parametrize(
    ("query", "names"),
    [
        pytest.param({"labelSelector": "a=b=c"}, "labelSelector", id="two equals"),
        pytest.param({"phase": "Running"}, "phase is 'Running': it is one of Pending, ", id="no phase"),
        pytest.param({"limit": "0"}, "from 1 to 250", id="none at a time"),
        pytest.param({"limit": "251"}, "from 1 to 250", id="too many at a time"),
        pytest.param({"limit": "9" * 9000}, "from 1 to 250", id="digits without end"),
        pytest.param({"limit": "٣"}, "from 1 to 250", id="digits of another script"),
        pytest.param(
            {"sort": "age"},
            "'sort' is no parameter: there are queue, phase, labelSelector, limit, continue",
            id="unknown",
        ),
    ],
)
def test_mistakes_are_named(query: dict[str, str], names: str) -> None:
    with pytest.raises(Problem) as refused:
        Selection.read(query)
    assert refused.value.status == 400
    assert names in str(refused.value)


def test_all_that_is_asked_must_hold() -> None:
    record = ObservedTask(Task("u", "ns", "t", "q", "echo", 0.0, labels=(("team", "red"),)), 1)
    for query, wanted in (
        ({}, True),
        ({"queue": "q", "phase": "Pending", "labelSelector": "team=red"}, True),
        ({"queue": "other"}, False),
        ({"phase": "Assigned"}, False),
        ({"labelSelector": "team=blue"}, False),
    ):
        assert Selection.read(query).takes(record, Phase.PENDING) is wanted, query
