"""Queries of lists: what they mean, and that a mistake is named."""

import pytest

from taskdist.api import Phase
from taskdist.controller.view.problems import Problem
from taskdist.controller.view.selecting import MOST_REQUIREMENTS, Selection, requirements
from taskdist.core.model import Task
from taskdist.protocol.observations import ObservedTask

LABELS = {"team": "red", "tier": "web", "example.com/kept": ""}


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        pytest.param("", True, id="nothing asked"),
        pytest.param("team=red", True, id="equal"),
        pytest.param("team==red,tier=web", True, id="both"),
        pytest.param("team = red , tier != db", True, id="blanks"),
        pytest.param("team=blue", False, id="another value"),
        pytest.param("team!=red", False, id="not equal"),
        pytest.param("gone!=red", True, id="not equal holds where there is none"),
        pytest.param("tier in (web,db)", True, id="one of"),
        pytest.param("tier notin (web, db)", False, id="none of"),
        pytest.param("gone notin (web)", True, id="none of holds where there is none"),
        pytest.param("example.com/kept", True, id="there"),
        pytest.param("!example.com/kept", False, id="not there"),
        pytest.param("!gone,team", True, id="not there, and there"),
        pytest.param("example.com/kept=", True, id="empty value"),
    ],
)
def test_label_selectors_mean_what_kubectl_means(selector: str, matches: bool) -> None:
    assert all(holds(LABELS) for holds in requirements(selector)) is matches


@pytest.mark.parametrize(
    ("query", "names"),
    [
        pytest.param({"labelSelector": "a=b=c"}, "labelSelector", id="two equals"),
        pytest.param({"labelSelector": "=b"}, "labelSelector", id="no key"),
        pytest.param({"labelSelector": "a in x"}, "labelSelector", id="no parentheses"),
        pytest.param({"labelSelector": "a," * MOST_REQUIREMENTS + "a"}, "up to 32 parts", id="too many parts"),
        pytest.param({"labelSelector": "a" * 100_000}, "labelSelector", id="a key beyond all keys"),
        pytest.param({"phase": "Running"}, "phase is 'Running': it is one of Pending, ", id="no phase"),
        pytest.param({"limit": "0"}, "from 1 to 250", id="none at a time"),
        pytest.param({"limit": "251"}, "from 1 to 250", id="too many at a time"),
        pytest.param({"limit": "9" * 9000}, "from 1 to 250", id="digits without end"),
        pytest.param({"limit": "٣"}, "from 1 to 250", id="digits of another script"),
        pytest.param({"sort": "age"}, "'sort' is no parameter", id="unknown"),
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
