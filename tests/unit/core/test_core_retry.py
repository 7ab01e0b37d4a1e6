"""What follows a failed attempt."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import QueueBuilder, make_queue, make_task
from taskdist.api import Delivery, OnExhausted, Phase, Reason
from taskdist.core.decisions import Fail, Retry
from taskdist.core.engine.retry import after_failure, back_off, jittered
from taskdist.core.events import AttemptFailed
from taskdist.core.model import Queue, RetryPolicy

ONCE = make_queue().delivery(Delivery.AT_MOST_ONCE)


@pytest.mark.parametrize(
    ("failures", "expected"),
    [(1, 1.0), (2, 2.0), (3, 4.0), (8, 128.0), (9, 256.0), (10, 300.0), (100, 300.0)],
)
def test_back_off_doubles_up_to_its_bound(failures: int, expected: float) -> None:
    assert back_off(RetryPolicy(), failures) == expected


@given(
    st.builds(
        RetryPolicy,
        st.just(3),
        st.floats(0, 86400),
        st.floats(1, 10),
        st.floats(0, 86400),
    ),
    st.integers(1, 200),
)
def test_back_off_never_shrinks_and_never_passes_its_bound(policy: RetryPolicy, failures: int) -> None:
    assert 0 <= back_off(policy, failures) <= policy.max_seconds
    assert back_off(policy, failures) <= back_off(policy, failures + 1)


def failed(**fields: Any) -> AttemptFailed:
    return AttemptFailed("t", Reason.HANDLER_ERROR, "boom", **fields)


@pytest.mark.parametrize(
    ("queue", "failures", "event", "expected"),
    [
        pytest.param(make_queue(), 0, failed(), Retry("t", 101.0, 1, Reason.HANDLER_ERROR, ""), id="first-failure"),
        pytest.param(make_queue(), 2, failed(), Retry("t", 104.0, 3, Reason.HANDLER_ERROR, ""), id="last-retry"),
        pytest.param(make_queue(), 3, failed(), Fail("t", 4, Reason.RETRIES_EXHAUSTED, ""), id="retries-exhausted"),
        pytest.param(
            make_queue().retry(limit=0),
            0,
            failed(),
            Fail("t", 1, Reason.RETRIES_EXHAUSTED, ""),
            id="no-retries-allowed",
        ),
        pytest.param(
            make_queue(), 0, failed(retryable=False), Fail("t", 1, Reason.HANDLER_ERROR, ""), id="not-retryable"
        ),
        pytest.param(
            make_queue(), 9, failed(counted=False), Retry("t", 100.0, 9, Reason.HANDLER_ERROR, ""), id="says-nothing"
        ),
        pytest.param(ONCE, 0, failed(), Fail("t", 1, Reason.HANDLER_ERROR, ""), id="at-most-once"),
        pytest.param(
            ONCE, 0, failed(counted=False), Fail("t", 0, Reason.HANDLER_ERROR, ""), id="at-most-once-perhaps-started"
        ),
        pytest.param(
            ONCE,
            0,
            failed(counted=False, started=False),
            Retry("t", 100.0, 0, Reason.HANDLER_ERROR, ""),
            id="at-most-once-never-started",
        ),
        pytest.param(
            ONCE, 0, failed(started=False), Retry("t", 101.0, 1, Reason.HANDLER_ERROR, ""), id="at-most-once-not-begun"
        ),
    ],
)
def test_answers(queue: QueueBuilder, failures: int, event: AttemptFailed, expected: Retry | Fail) -> None:
    answer = after_failure(make_task("t").failures(failures).build(), queue.build(), event, 100.0)
    assert type(answer) is type(expected)
    assert (answer.task_uid, answer.failures, answer.reason) == (
        expected.task_uid,
        expected.failures,
        expected.reason,
    )
    if isinstance(answer, Retry) and isinstance(expected, Retry):
        assert answer.not_before == expected.not_before
    assert "boom" in answer.message


def throttled(after: float, **fields: Any) -> AttemptFailed:
    return AttemptFailed("t", Reason.THROTTLED, "boom", put_off=after, **fields)


THROTTLED = replace(make_queue().build(), retry=RetryPolicy(1, 4.0, throttled_seconds=60.0))


@pytest.mark.parametrize(
    ("queue", "put_off", "event", "expected"),
    [
        pytest.param(THROTTLED, 0.0, throttled(30.0), Retry("t", 130.0, 1, Reason.THROTTLED, "", (), 30.0), id="first"),
        pytest.param(
            THROTTLED, 30.0, throttled(30.0), Retry("t", 130.0, 1, Reason.THROTTLED, "", (), 60.0), id="up-to-the-bound"
        ),
        pytest.param(THROTTLED, 30.0, throttled(30.5), Fail("t", 2, Reason.RETRIES_EXHAUSTED, ""), id="beyond-it"),
        pytest.param(
            THROTTLED, 0.0, throttled(61.0), Fail("t", 2, Reason.RETRIES_EXHAUSTED, ""), id="too-long-a-wish-at-once"
        ),
        pytest.param(
            replace(THROTTLED, retry=replace(THROTTLED.retry, limit=2)),
            60.0,
            throttled(1.0),
            Retry("t", 108.0, 2, Reason.THROTTLED, ""),
            id="beyond-it-as-any-failure",
        ),
        pytest.param(
            replace(THROTTLED, retry=replace(THROTTLED.retry, reasons=frozenset({"AgentLost"}))),
            0.0,
            throttled(5.0),
            Retry("t", 105.0, 1, Reason.THROTTLED, "", (), 5.0),
            id="no-failure-so-no-reason-to-name",
        ),
        pytest.param(ONCE.build(), 0.0, throttled(5.0), Fail("t", 2, Reason.THROTTLED, ""), id="at-most-once"),
    ],
)
def test_who_is_throttled_is_put_off_within_bounds(
    queue: Queue, put_off: float, event: AttemptFailed, expected: Retry | Fail
) -> None:
    task = replace(make_task("t").failures(1).build(), put_off=put_off)
    answer = after_failure(task, queue, event, 100.0)
    assert replace(answer, message="") == expected
    assert "boom" in answer.message


def test_a_failure_without_words_names_its_reason() -> None:
    answer = after_failure(make_task("t").build(), make_queue().build(), AttemptFailed("t", Reason.AGENT_LOST, ""), 0.0)
    assert "AgentLost" in answer.message


policies = st.builds(
    RetryPolicy,
    limit=st.integers(0, 5),
    initial_seconds=st.floats(0, 86400),
    factor=st.floats(1, 10),
    max_seconds=st.floats(0, 86400),
    jitter=st.floats(0, 1),
    reasons=st.frozensets(st.sampled_from(["HandlerError", "LeaseExpired", "AgentLost"])),
    agent_deaths=st.integers(1, 4),
    on_exhausted=st.sampled_from(OnExhausted),
)


@given(policies, st.text(max_size=8), st.integers(1, 100))
def test_jitter_takes_off_at_most_its_part_and_is_the_same_each_time(policy: RetryPolicy, uid: str, n: int) -> None:
    whole, wait = back_off(policy, n), jittered(policy, uid, n)
    assert whole * (1 - policy.jitter) - 1e-6 <= wait <= whole
    assert wait == jittered(policy, uid, n)


def test_full_jitter_spreads_evenly() -> None:
    policy = RetryPolicy(initial_seconds=1.0, jitter=1.0)
    waits = sorted(jittered(policy, f"task-{n}", 1) for n in range(2000))
    # Kolmogorov–Smirnov against the uniform distribution: 1.63 ÷ √n is passed by chance once in a hundred.
    assert max(abs(wait - n / 2000) for n, wait in enumerate(waits)) < 1.63 / 2000**0.5
    assert jittered(policy, "a", 1) * 2 != jittered(policy, "a", 2), "each failure draws anew"


def policy(**fields: object) -> Queue:
    return replace(make_queue().build(), retry=replace(RetryPolicy(), **fields))  # type: ignore[arg-type]


def died(agent: str = "u1") -> AttemptFailed:
    return AttemptFailed("t", Reason.AGENT_LOST, "its pod is gone", died=agent)


@pytest.mark.parametrize(
    ("queue", "before", "event", "kind", "reason", "failures", "deaths"),
    [
        pytest.param(policy(), (0, ()), died(), Retry, "AgentLost", 0, ("u1",), id="a-death-is-no-failure"),
        pytest.param(
            policy(limit=0), (0, ()), died(), Retry, "AgentLost", 0, ("u1",), id="nor-does-the-limit-count-it"
        ),
        pytest.param(policy(), (0, ("u1",)), died(), Retry, "AgentLost", 1, ("u1",), id="a-second-one-of-an-agent-is"),
        pytest.param(policy(limit=0), (0, ("u1",)), died(), Fail, "RetriesExhausted", 1, ("u1",), id="and-is-limited"),
        pytest.param(policy(), (1, ("a", "b")), died(), Fail, "Poisoned", 1, ("a", "b", "u1"), id="three-agents-died"),
        pytest.param(policy(agent_deaths=1), (0, ()), died(), Fail, "Poisoned", 0, ("u1",), id="one-is-enough"),
        pytest.param(
            policy(), (3, ("a", "b")), failed(), Fail, "RetriesExhausted", 4, ("a", "b"), id="limit-all-the-same"
        ),
        pytest.param(
            policy(reasons=frozenset({"HandlerError"})),
            (0, ()),
            failed(),
            Retry,
            "HandlerError",
            1,
            (),
            id="named-reason",
        ),
        pytest.param(
            policy(reasons=frozenset({"LeaseExpired"})),
            (0, ()),
            failed(),
            Fail,
            "HandlerError",
            1,
            (),
            id="other-reason",
        ),
        pytest.param(
            policy(reasons=frozenset({"HandlerError"})),
            (0, ()),
            failed(counted=False),
            Retry,
            "HandlerError",
            0,
            (),
            id="what-is-not-counted-needs-no-reason",
        ),
        pytest.param(
            policy(reasons=frozenset({"HandlerError"})),
            (0, ()),
            died(),
            Fail,
            "AgentLost",
            0,
            ("u1",),
            id="death-unnamed",
        ),
        pytest.param(
            replace(policy(), delivery=Delivery.AT_MOST_ONCE), (0, ()), died(), Fail, "AgentLost", 0, ("u1",), id="once"
        ),
    ],
)
def test_deaths_and_reasons(
    queue: Queue,
    before: tuple[int, tuple[str, ...]],
    event: AttemptFailed,
    kind: type,
    reason: str,
    failures: int,
    deaths: tuple[str, ...],
) -> None:
    task = replace(make_task("t").failures(before[0]).build(), deaths=before[1])
    answer = after_failure(task, queue, event, 100.0)
    assert type(answer) is kind
    assert (answer.reason, answer.failures, answer.deaths) == (reason, failures, deaths)


@pytest.mark.parametrize("on_exhausted", OnExhausted)
@pytest.mark.parametrize(
    "event", [failed(), failed(retryable=False), died()], ids=["retries-exhausted", "not-retryable", "poisoned"]
)
def test_what_is_not_tried_again_ends_as_its_queue_says(on_exhausted: OnExhausted, event: AttemptFailed) -> None:
    queue = policy(limit=0, agent_deaths=1, on_exhausted=on_exhausted)
    answer = after_failure(make_task("t").build(), queue, event, 0.0)
    assert isinstance(answer, Fail)
    assert answer.phase is (Phase.DEAD_LETTERED if on_exhausted is OnExhausted.DEAD_LETTER else Phase.FAILED)


@given(
    policies,
    st.lists(
        st.tuples(st.sampled_from(["HandlerError", "AgentLost"]), st.sampled_from(["", "u1", "u2", "u3"])), max_size=40
    ),
)
def test_whatever_fails_the_end_comes(policy: RetryPolicy, history: list[tuple[str, str]]) -> None:
    """Counted failures and deaths end a Task after at most limit + 1 of the one and agent_deaths of the other."""
    task, queue = make_task("t").build(), replace(make_queue().build(), retry=policy)
    for n, (reason, agent) in enumerate(history):
        answer = after_failure(task, queue, AttemptFailed("t", Reason(reason), "", died=agent), 0.0)
        assert len(answer.deaths) <= policy.agent_deaths
        if isinstance(answer, Fail):
            return
        assert n < policy.limit + policy.agent_deaths
        task = replace(task, failures=answer.failures, deaths=answer.deaths)
