"""What waits for long says why on the Task itself. The last tests: their Tasks have waited through all others."""

from __future__ import annotations

from integration.controller.room import Room, metrics
from patience import until


def test_a_type_without_a_handler_is_written_as_reason(shared: Room) -> None:
    until(lambda: shared.status("tasks", "no-handler").get("reason") == "NoHandler", "the reason is written")
    status = shared.status("tasks", "no-handler")
    assert status["phase"] == "Pending"
    assert "unheard-of" in status["message"]
    assert "NoHandler" in shared.taskdist("explain", "no-handler")


def test_nothing_went_missing_in_all_of_this(shared: Room) -> None:
    for name in ("no-handler", "left"):
        shared.patch("tasks", name, cancel=True)
    shared.ended()
    numbers = metrics(shared.stack.operators[0])
    assert numbers["taskdist_conservation_error"] == 0
    assert numbers["taskdist_unknown_writes"] == 0
    left = {k: v for k, v in numbers.items() if k.startswith(("taskdist_tasks_waiting", "taskdist_tasks_leased")) and v}
    assert not [k for k in left if f'namespace="{shared.namespace}"' in k]
