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
    def open_tasks() -> list[str]:
        """The gauges that count Tasks of this namespace that wait or are leased, where they are not 0."""
        told = metrics(shared.stack.operators[0]).items()
        names = [
            name
            for name, count in told
            if name.startswith(("taskdist_tasks_waiting", "taskdist_tasks_leased")) and count
        ]
        return [name for name in names if f'namespace="{shared.namespace}"' in name]

    assert open_tasks(), "some wait yet"
    for name in ("no-handler", "left"):
        shared.patch("tasks", name, cancel=True)
    shared.ended()
    numbers = metrics(shared.stack.operators[0])
    assert numbers["taskdist_conservation_error"] == 0
    assert numbers["taskdist_unknown_writes"] == 0
    assert open_tasks() == []
