"""The merge patches: names, forms and bounds of what is written."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from taskdist.api import Delivery, Phase, Reason, Reclaim, Strategy, TaskStatus
from taskdist.api.task import MAX_ATTEMPT_BYTES, MAX_ATTEMPT_RECORDS
from taskdist.core.cost import Spent
from taskdist.protocol import status
from taskdist.protocol.observations import Terms

TERMS = Terms(15.0, 120.0, Reclaim.LEASE, Delivery.AT_LEAST_ONCE, True)


def test_a_timestamp_has_microseconds_in_utc() -> None:
    assert status.timestamp(1.5) == "1970-01-01T00:00:01.500000Z"


def test_every_patch_is_valid_status() -> None:
    record = status.attempt_record(1, Reason.HANDLER_ERROR, "x" * 9000, "p-1", 3.0)
    patches = [
        status.assigned(
            1,
            2,
            agent="p-1",
            agent_uid="u",
            pool="p",
            taken=status.route("r", 2, "p"),
            message="m",
            wall=1.0,
            terms=TERMS,
        ),
        status.assigned(
            1,
            2,
            agent="p-1",
            agent_uid="u",
            pool="p",
            taken=status.route("r", 2, "p", Strategy.PACK, -0.5),
            message="m",
            wall=1.0,
            terms=TERMS,
        ),
        status.waiting(
            1, 2, reason=Reason.HANDLER_ERROR, message="m", failures=1, not_before=4.0, attempts=[record], agent_uid="u"
        ),
        status.ended(Phase.FAILED, 1, 2, reason=Reason.RETRIES_EXHAUSTED, message="m", wall=1.0, agent=("a", "u", "p")),
        status.explained(Reason.NO_AGENT, "m"),
        status.ended(
            Phase.DEAD_LETTERED,
            1,
            2,
            reason=Reason.POISONED,
            message="m",
            wall=1.0,
            deaths=("u",),
            redrives=2,
            dropped=1,
        ),
        status.spilled("other", 2, reason=Reason.QUEUE_FULL, message="m"),
        status.redriven(2, 1, message="m", wall=1.0),
        status.progressed(status.progress(0.5, "y" * 5000, 1.0)),
    ]
    known = {field.alias for field in TaskStatus.model_fields.values()}
    for patch in patches:
        assert set(patch) <= known
        TaskStatus.model_validate({key: value for key, value in patch.items() if value is not None})


def test_a_route_says_all_of_the_way_with_six_digits_of_the_score() -> None:
    told = {"rule": "r", "step": 2, "pool": "p", "strategy": "Cost", "score": 0.000123457}
    assert status.route("r", 2, "p", Strategy.COST, 0.000123456789) == told
    assert status.route("", 0, "p") == {"rule": "", "step": 0, "pool": "p", "strategy": None, "score": None}


def test_costs_that_are_not_known_are_left_as_they_are() -> None:
    def told(spent: Spent | None) -> dict[str, float]:
        patch = status.ended(Phase.FAILED, 1, 1, reason=Reason.HANDLER_ERROR, message="", wall=0.0, spent=spent)
        return {name: patch[name] for name in ("cost", "energyWh") if name in patch}

    assert told(None) == told(Spent()) == {}
    assert told(Spent(0.123456789)) == {"cost": 0.123457}
    assert told(Spent(0.0, 2.0)) == {"cost": 0.0, "energyWh": 2.0}


def test_conditions_serve_kubectl_wait() -> None:
    def conditions(phase: Phase) -> dict[str, str]:
        patch = status.ended(phase, 1, 1, reason=Reason.COMPLETED, message="", wall=0.0)
        return {one["type"]: one["status"] for one in patch["conditions"]}

    assert conditions(Phase.SUCCEEDED) == {"Complete": "True", "Failed": "False"}
    assert conditions(Phase.FAILED) == {"Complete": "False", "Failed": "True"}
    assert conditions(Phase.CANCELLED) == {"Complete": "False", "Failed": "True"}
    assert conditions(Phase.DEAD_LETTERED) == {"DeadLettered": "True"}
    redriven = status.redriven(2, 1, message="", wall=0.0)["conditions"]
    assert [(one["type"], one["status"]) for one in redriven] == [("DeadLettered", "False")]


def history(*messages: str) -> tuple[list[dict[str, Any]], int]:
    attempts: list[dict[str, Any]] = []
    dropped = 0
    for n, message in enumerate(messages, 1):
        attempts, dropped = status.with_attempt(
            attempts, status.attempt_record(n, Reason.AGENT_LOST, message, "p-1", 0.0), dropped
        )
    return attempts, dropped


def test_of_each_attempt_there_is_one_record() -> None:
    attempts, _ = history("a", "b")
    again = status.attempt_record(2, Reason.HANDLER_ERROR, "c", "", 0.0)
    assert [one["message"] for one in status.with_attempt(attempts, again)[0]] == ["a", "c"]


def test_all_retries_that_a_queue_may_allow_leave_their_whole_history() -> None:
    attempts, dropped = history(*["boom"] * 101)
    assert ([one["attempt"] for one in attempts], dropped) == (list(range(1, 102)), 0)


def test_what_is_dropped_is_counted() -> None:
    attempts, dropped = history(*["boom"] * (MAX_ATTEMPT_RECORDS + 5))
    assert (attempts[0]["attempt"], len(attempts), dropped) == (6, MAX_ATTEMPT_RECORDS, 5)


def test_long_messages_are_cut_from_the_oldest_on_before_anything_is_dropped() -> None:
    attempts, dropped = history(*["x" * 4096] * 101)
    assert (len(attempts), dropped) == (101, 0)
    lengths = [len(one["message"]) for one in attempts]
    assert lengths == sorted(lengths)
    assert lengths[-1] == 4096


@given(st.lists(st.text(max_size=5000), max_size=60))
def test_a_history_keeps_its_bounds_and_its_newest(messages: list[str]) -> None:
    attempts, dropped = history(*messages)
    assert len(attempts) + dropped == len(messages)
    assert len(json.dumps(attempts, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")) <= (
        MAX_ATTEMPT_BYTES + 2
    )
    if messages:
        assert attempts[-1]["message"] == status.clip(messages[-1])


def test_clip_keeps_the_beginning() -> None:
    assert status.clip("abcdef", 4) == "abc…"
    assert status.clip("abcd", 4) == "abcd"
