"""A running audit of the core's books: a little each second. Each finding is logged once.

Owns how much is looked at in one go, and which findings were told. It changes nothing: a finding is a bug, and what
mends it is another leadership, which builds its books anew from the API server.
"""

import structlog

from taskdist.core import Core

_log = structlog.get_logger("taskdist.audit")

# Things looked at in one go. 1,000 take about 2 ms, so that a round over 20,000 Tasks takes 20 s to 40 s.
STEP = 1000
# So many findings of a round are told in words; the metric has the number of all.
TOLD = 20


class Auditor:
    """Audits one core at a time; another core begins another round."""

    def __init__(self) -> None:
        self._core: Core | None = None
        self._told: set[str] = set()
        self.findings = 0
        """What the last whole round found."""

    def look(self, core: Core) -> None:
        """Audit a little more."""
        if self._core is not core:
            self.forget()
            self._core = core
        found = core.inspect(STEP)
        if found is None:
            return
        self.findings = len(found)
        fresh = [each for each in dict.fromkeys(found) if each not in self._told][:TOLD]
        for each in fresh:
            _log.error("the books do not agree with each other; restart the leader and report it", finding=each)
        self._told.update(fresh)

    def forget(self) -> None:
        """The core is no more."""
        self._core = None
        self._told.clear()
        self.findings = 0
