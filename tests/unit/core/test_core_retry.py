"""What follows a failed attempt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import QueueBuilder, make_queue, make_task
from taskdist.api import Delivery, Reason
from taskdist.core.decisions import Fail, Retry
from taskdist.core.events import AttemptFailed
from taskdist.core.model import RetryPolicy
from taskdist.core.retry import after_failure, back_off

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


def failed(**fields: bool) -> AttemptFailed:
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


def test_a_failure_without_words_names_its_reason() -> None:
    answer = after_failure(make_task("t").build(), make_queue().build(), AttemptFailed("t", Reason.AGENT_LOST, ""), 0.0)
    assert "AgentLost" in answer.message
