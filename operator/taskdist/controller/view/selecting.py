"""Which Tasks of a list are meant: the query, read once and refused by name where it makes no sense."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from taskdist.api import Phase
from taskdist.common import label_selector
from taskdist.common.label_selector import Requirement
from taskdist.controller.view.problems import Problem, only
from taskdist.protocol.observations import ObservedTask

MOST_ROWS = 250


@dataclass(frozen=True, slots=True)
class Selection:
    """What of a namespace's Tasks is wanted, and how much at a time."""

    queue: str = ""
    phase: Phase | None = None
    labels: tuple[Requirement, ...] = ()
    limit: int = MOST_ROWS
    after: str = ""

    @classmethod
    def read(cls, query: Mapping[str, str]) -> "Selection":
        """Raises Problem."""
        only(query, "queue", "phase", "labelSelector", "limit", "continue")
        phase = query.get("phase", "")
        if phase and phase not in list(Phase):
            raise Problem(400, f"phase is {phase[:80]!r}: it is one of {', '.join(each.value for each in Phase)}")
        limit = query.get("limit", str(MOST_ROWS))
        if not re.fullmatch(r"[0-9]{1,6}", limit) or not 1 <= int(limit) <= MOST_ROWS:
            raise Problem(400, f"limit is {limit[:80]!r}: it is a whole number from 1 to {MOST_ROWS}")
        return cls(
            query.get("queue", ""),
            Phase(phase) if phase else None,
            _requirements(query.get("labelSelector", "")),
            int(limit),
            query.get("continue", ""),
        )

    @property
    def cost(self) -> int:
        """How long a look at one Task takes: as a multiple of one without labels."""
        return 1 + len(self.labels) // 6

    def takes(self, record: ObservedTask, phase: Phase) -> bool:
        """Whether it is one of those; `phase` is the one that is told."""
        return (
            (not self.queue or record.task.queue == self.queue)
            and (self.phase is None or phase is self.phase)
            and self._labelled(record)
        )

    def _labelled(self, record: ObservedTask) -> bool:
        return not self.labels or label_selector.meets(dict(record.task.labels), self.labels)


def _requirements(selector: str) -> tuple[Requirement, ...]:
    try:
        return label_selector.parse(selector)
    except label_selector.SelectorError as error:
        raise Problem(400, str(error)) from None
