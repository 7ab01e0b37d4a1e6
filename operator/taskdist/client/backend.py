"""The cluster as the client sees it: one namespace and a few verbs, so that others than the API server can stand there.

`client.kube` is the API server's; `client.testing` has one in memory for users' tests.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from taskdist.api.view import TaskRow
from taskdist.client.questions import AnswerT, Question
from taskdist.kube import Obj, Page, Resource, WatchEvent


class Backend(Protocol):
    """What the client asks. Errors are those of the API client (`KubeError`)."""

    @property
    def namespace(self) -> str:
        """The namespace meant where none is said."""
        ...

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Obj:
        """In the namespace meant, or another one."""
        ...

    async def list(
        self,
        resource: Resource,
        *,
        everywhere: bool = False,
        labels: str = "",
        fields: str = "",
        most: int | None = None,
    ) -> Page:
        """All of them, or no more than about `most`."""
        ...

    def pages(self, resource: Resource, *, labels: str = "", fields: str = "") -> AsyncIterator[Page]:
        """All of them, a part at a time: for those who need not keep them."""
        ...

    async def create(self, resource: Resource, body: Obj) -> Obj: ...

    async def patch(self, resource: Resource, name: str, body: Obj) -> Obj:
        """JSON merge patch."""
        ...

    def watch(
        self, resource: Resource, version: str, *, everywhere: bool = False, labels: str = "", fields: str = ""
    ) -> AbstractAsyncContextManager[AsyncIterator[WatchEvent]]: ...


class Source(StrEnum):
    """The party that explains a Task: the operator that leads, or the cluster's objects."""

    LEADER = "leader"
    CLUSTER = "cluster"


class Told(NamedTuple):
    """An explanation of a Task, as scripts read it.

    `warnings`: what could not be read. `not_asked`: why the leader was not asked, if it was to be.
    """

    story: dict[str, Any]
    warnings: tuple[str, ...] = ()
    not_asked: str = ""
    told_by: Source = Source.CLUSTER


class Asks(Protocol):
    """A way to ask the operator that leads."""

    @property
    def lease(self) -> str:
        """NAMESPACE/NAME of that operator's Lease; empty before it has answered."""
        ...

    async def ask(self, question: Question[AnswerT]) -> AnswerT:
        """Raises NoAnswer."""
        ...


class View(Asks, Protocol):
    """The leader's view: questions that the operator which leads answers from its memory."""

    def progress(self, namespace: str, name: str) -> AbstractAsyncContextManager[AsyncIterator[TaskRow]]:
        """The Task as it is, and each time that its agent has reported progress. Raises NoAnswer."""
        ...
