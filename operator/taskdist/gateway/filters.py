"""Which Tasks of a list or stream are meant: by queue, type, phase and labels, as kubectl spells them."""

from collections.abc import Callable

from taskdist.api import Phase
from taskdist.common import label_selector
from taskdist.common.label_selector import Requirement
from taskdist.gateway.board import Row
from taskdist.gateway.problems import Problem


def requirements(selector: str) -> tuple[Requirement, ...]:
    """Return what a label selector requires. Raises Problem."""
    try:
        return label_selector.parse(selector)
    except label_selector.SelectorError as error:
        raise Problem(400, str(error), reason="Invalid") from None


def wanted(*, name: str, queue: str, type: str, phases: list[Phase], selector: str) -> Callable[[Row], bool]:
    """Return whether a row is meant; an empty filter means all. Raises Problem."""
    needed, in_phases = requirements(selector), frozenset(phases)

    def wants(row: Row) -> bool:
        return (
            (not name or row.name == name)
            and (not queue or row.queue == queue)
            and (not type or row.type == type)
            and (not in_phases or row.phase in in_phases)
            and label_selector.meets(row.labels, needed)
        )

    return wants
