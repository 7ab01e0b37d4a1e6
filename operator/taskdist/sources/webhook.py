"""A webhook as `taskdist sources` sees it: it says whether the source can work. The gateway takes deliveries.

The gateway has many replicas and no right to write status; what it does for a source its metrics tell.
"""

from taskdist.api import SourceReason
from taskdist.sources.reporting import Reporter


class WebhookSource:
    """Says once that nothing is wrong with the source."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    async def run(self) -> None:
        """Return once it is said: only a change of the source makes it another one. Raises like `Reporter.flush`."""
        namespace, name = self._reporter.key
        self._reporter.say(
            SourceReason.RUNNING,
            f"Post deliveries to /v1/namespaces/{namespace}/webhooks/{name} of a gateway that serves this namespace",
        )
        await self._reporter.flush()
