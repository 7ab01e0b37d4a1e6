"""The merge patches: names, forms and bounds of what is written."""

from taskdist.api import Phase, Reason, TaskStatus
from taskdist.protocol import status


def test_a_timestamp_has_microseconds_in_utc() -> None:
    assert status.timestamp(1.5) == "1970-01-01T00:00:01.500000Z"


def test_every_patch_is_valid_status() -> None:
    record = status.attempt_record(1, Reason.HANDLER_ERROR, "x" * 9000, "p-1", 3.0)
    patches = [
        status.assigned(1, 2, agent="p-1", agent_uid="u", pool="p", message="m", wall=1.0),
        status.waiting(
            1, 2, reason=Reason.HANDLER_ERROR, message="m", failures=1, not_before=4.0, attempts=[record], agent_uid="u"
        ),
        status.ended(Phase.FAILED, 1, 2, reason=Reason.RETRIES_EXHAUSTED, message="m", wall=1.0, agent=("a", "u", "p")),
        status.explained(Reason.NO_AGENT, "m"),
        status.progressed(status.progress(0.5, "y" * 5000, 1.0)),
    ]
    known = {field.alias for field in TaskStatus.model_fields.values()}
    for patch in patches:
        assert set(patch) <= known
        TaskStatus.model_validate({key: value for key, value in patch.items() if value is not None})


def test_conditions_serve_kubectl_wait() -> None:
    def conditions(phase: Phase) -> dict[str, str]:
        patch = status.ended(phase, 1, 1, reason=Reason.COMPLETED, message="", wall=0.0)
        return {one["type"]: one["status"] for one in patch["conditions"]}

    assert conditions(Phase.SUCCEEDED) == {"Complete": "True", "Failed": "False"}
    assert conditions(Phase.FAILED) == {"Complete": "False", "Failed": "True"}
    assert conditions(Phase.CANCELLED) == {"Complete": "False", "Failed": "True"}


def test_attempts_are_bounded_and_one_each() -> None:
    attempts: list[dict[str, object]] = []
    for n in (*range(1, 15), 14):
        attempts = status.with_attempt(attempts, status.attempt_record(n, Reason.AGENT_LOST, "", "", 0.0))
    assert [one["attempt"] for one in attempts] == list(range(5, 15))


def test_clip_keeps_the_beginning() -> None:
    assert status.clip("abcdef", 4) == "abc…"
    assert status.clip("abcd", 4) == "abcd"
