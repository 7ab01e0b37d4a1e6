"""Notes what an executor tells."""

from typing import Any

from agents.peer import until
from taskdist.agent.outcomes import Failed
from taskdist.protocol.messages import Body, LeaseName


class Recorder:
    """Everything told, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[str, LeaseName, tuple[Any, ...]]] = []
        # What was said to be used of budgets.
        self.used: dict[LeaseName, Any] = {}
        self.retry_after: dict[LeaseName, float] = {}
        self.broken: list[BaseException] = []

    def started(self, lease: LeaseName) -> None:
        self.told.append(("started", lease, ()))

    def progress(self, lease: LeaseName, fraction: float, message: str) -> None:
        self.told.append(("progress", lease, (fraction, message)))

    def finished(self, lease: LeaseName, body: Body, used: Any = None) -> None:
        self.used[lease] = used
        self.told.append(("finished", lease, (body,)))

    def failed(self, lease: LeaseName, failed: Failed, used: Any = None) -> None:
        self.used[lease] = used
        self.retry_after[lease] = failed.retry_after
        self.told.append(("failed", lease, (failed.reason, failed.message, failed.retryable)))

    def stopped(self, lease: LeaseName) -> None:
        self.told.append(("stopped", lease, ()))

    def broke(self, error: BaseException) -> None:
        self.broken.append(error)

    def find(self, lease: LeaseName, *kinds: str) -> tuple[str, tuple[Any, ...]] | None:
        return next(((kind, args) for kind, of, args in self.told if of == lease and kind in kinds), None)

    async def wait(self, lease: LeaseName, *kinds: str) -> tuple[str, tuple[Any, ...]]:
        await until(lambda: self.find(lease, *kinds), f"{kinds} of {lease}: {self.told}")
        found = self.find(lease, *kinds)
        assert found is not None
        return found

    async def ended(self, lease: LeaseName) -> tuple[str, tuple[Any, ...]]:
        return await self.wait(lease, "finished", "failed", "stopped")
