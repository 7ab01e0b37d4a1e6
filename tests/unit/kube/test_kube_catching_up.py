"""A view brought up to the server's present at once: what it asks for, and what it believes."""

from __future__ import annotations

import pytest

from taskdist.kube import (
    TASKS,
    Added,
    Answer,
    ApiError,
    Client,
    Deleted,
    Event,
    Informer,
    Request,
    Unanswered,
    Updated,
    catch_up,
)
from taskdist.kube import catching_up as module
from unit.kube.fakes import GONE, NOT_FOUND, Script, Step, Stream, event, listing, make, ok, status, streaming

FAILED = status(500, "InternalError")
GONE_ERROR = Unanswered("cut")
REFUSED = status(422, "Invalid", "sendInitialEvents is forbidden")


class Server(Script):
    """A script, a view on it, what the view told, and what it held when each request came."""

    def __init__(self, *steps: Step, stream: Step = REFUSED) -> None:
        """`stream`: what becomes of the list as a stream; by default it is in pages."""
        super().__init__(stream, *steps)
        self.held: list[list[str]] = []
        self.told: list[str] = []
        self.client = Client(self)
        self.view = Informer[str](
            self.client,
            TASKS,
            transform=lambda obj: f"{obj['metadata']['name']}@{obj['metadata']['resourceVersion']}",
            on_event=self.tell,
        )

    def tell(self, event: Event[str]) -> None:
        match event:
            case Added(new) | Updated(_, new):
                self.told.append(new)
            case Deleted(old):
                self.told.append(f"-{old}")

    async def exchange(self, request: Request) -> Answer:
        self.held.append(sorted(self.view.store))
        return await super().exchange(request)

    def watched(self, *known: tuple[str, int]) -> None:
        """What the watch has brought so far."""
        for name, version in known:
            self.view.apply_own(make(name, version))
        self.told.clear()

    async def catch_up(self, *, by_name: bool = False) -> list[str]:
        await catch_up(self.client, self.view, None, by_name=by_name)
        assert not self.steps, "all that the script has was asked for"
        return sorted(self.view.store)

    @property
    def lists(self) -> list[Request]:
        """The lists in pages that were asked for."""
        return [request for request in self.asked if request.query and "watch=" not in request.query]

    @property
    def read(self) -> list[str]:
        return [request.path.rpartition("/")[2] for request in self.asked if not request.query]


async def test_it_holds_one_page_of_a_list_at_a_time() -> None:
    server = Server(
        listing(7, make("a", 2), token="more"), listing(7, make("b", 5), token="more"), listing(7, make("c", 3))
    )
    assert await server.catch_up() == ["a@2", "b@5", "c@3"]
    assert server.held == [[], ["a@2"], ["a@2", "b@5"]]


@pytest.mark.parametrize("by_name", [False, True], ids=["whole", "by-name"])
async def test_what_the_list_lacks_is_gone_unless_it_is_newer(by_name: bool) -> None:
    server = Server(listing(7, make("a", 2), token="more"), listing(7, make("b", 5)))
    server.watched(("a", 2), ("gone", 3), ("new", 8), ("b", 6))
    assert await server.catch_up(by_name=by_name) == ["a@2", "b@6", "new@8"]
    assert server.told == ["-gone@3"]
    assert server.read == []


@pytest.mark.parametrize("by_name", [False, True], ids=["whole", "by-name"])
async def test_it_starts_over_where_the_pages_expire(by_name: bool) -> None:
    # `a` goes between the first try and the second: only the last, whole list says what there is.
    server = Server(
        listing(7, make("a", 2), token="more"),
        GONE,
        listing(9, make("b", 5), token="more"),
        GONE,
        listing(11, make("b", 5), make("c", 10)),
    )
    server.watched(("a", 2), ("b", 5), ("c", 10))
    assert await server.catch_up(by_name=by_name) == ["b@5", "c@10"]
    assert ["limit=" in request.query for request in server.asked[1:]] == [True, True, True, True, False]


async def test_by_name_nothing_is_read_that_the_watch_has_brought() -> None:
    server = Server(listing(7, make("a", 2), make("b", 5)))
    server.watched(("a", 2), ("b", 5))
    assert await server.catch_up(by_name=True) == ["a@2", "b@5"]
    assert [request.accept.partition(";")[2] for request in server.asked] == [
        "as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
        "as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
    ]
    assert server.queries()[1] == {"limit": "500"}, "a list that no cache of any age answers"


async def test_where_the_server_streams_its_list_no_page_is_asked_for() -> None:
    server = Server(ok(make("b", 6)), stream=streaming(7, make("a", 2), make("b", 6)))
    server.watched(("a", 2), ("b", 5), ("gone", 4))
    assert await server.catch_up(by_name=True) == ["a@2", "b@6"]
    assert server.lists == []
    query = server.queries()[0]
    assert (query["sendInitialEvents"], query["resourceVersionMatch"]) == ("true", "NotOlderThan")
    assert "resourceVersion" not in query, "as new as etcd is, not of any age"


@pytest.mark.parametrize(
    "cut",
    [
        pytest.param(Stream(streaming(7, make("a", 2), make("b", 5)).lines[:-1]), id="before-its-end"),
        pytest.param(Stream(streaming(7, make("a", 2)).lines[:1], GONE_ERROR), id="with-an-error"),
        pytest.param(Stream([event("ADDED", make("a", 2)), event("MODIFIED", make("a", 3))]), id="by-something-else"),
    ],
)
async def test_of_a_stream_that_is_cut_nothing_is_concluded(cut: Stream) -> None:
    # What the stream showed is gone when the pages are read.
    server = Server(listing(9, make("c", 8)), stream=cut)
    server.watched(("c", 8))
    assert await server.catch_up() == ["c@8"]
    assert len(server.lists) == 1


async def test_what_another_leader_wrote_just_before_is_seen_whatever_the_watch_lags_behind() -> None:
    server = Server(listing(9, make("assigned", 9), make("same", 3), make("created", 8)), ok(make("assigned", 9)))
    server.add(ok(make("created", 8)))
    server.watched(("assigned", 4), ("same", 3))
    assert await server.catch_up(by_name=True) == ["assigned@9", "created@8", "same@3"]
    assert server.told == ["assigned@9", "created@8"]


async def test_what_is_read_may_be_newer_than_the_list() -> None:
    server = Server(listing(9, make("a", 9)), ok(make("a", 12)))
    server.watched(("a", 4))
    assert await server.catch_up(by_name=True) == ["a@12"]


async def test_what_is_gone_when_it_is_read_is_gone() -> None:
    server = Server(listing(9, make("a", 9), make("b", 8)), NOT_FOUND, ok(make("b", 11, uid="another")))
    server.watched(("a", 4), ("b", 5))
    assert await server.catch_up(by_name=True) == ["b@11"]
    assert server.told == ["-a@4", "-b@5", "b@11"]


async def test_what_the_watch_brings_meanwhile_is_not_read() -> None:
    server = Server(listing(9, make("a", 9), token="more"), listing(9))

    async def exchange(request: Request) -> Answer:
        if "continue" in request.query:
            server.view.apply_own(make("a", 9))
        return await Server.exchange(server, request)

    server.client._transport.exchange = exchange  # type: ignore[method-assign]
    server.watched(("a", 4))
    assert await server.catch_up(by_name=True) == ["a@9"]
    assert server.read == []


async def test_where_much_differs_a_whole_list_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_READ", 2)
    late = [make(name, 9) for name in "abc"]
    server = Server(listing(9, *late), REFUSED, listing(10, *late, make("d", 10)))
    server.watched(("a", 4), ("b", 4), ("gone", 5))
    assert await server.catch_up(by_name=True) == ["a@9", "b@9", "c@9", "d@10"]
    assert server.read == []


async def test_a_failure_is_the_caller_s() -> None:
    server = Server(listing(9, make("a", 9)), FAILED)
    server.watched(("a", 4))
    with pytest.raises(ApiError):
        await server.catch_up(by_name=True)
