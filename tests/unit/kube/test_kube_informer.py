"""The loop around the view: what is asked of the server, in which order, and what it leads to."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from taskdist.kube import (
    PODS,
    TASKS,
    Added,
    Client,
    Deleted,
    Difference,
    Event,
    HistoryWentBack,
    Informer,
    InformerSettings,
    Unanswered,
    Unreachable,
    Updated,
)
from unit.kube.fakes import GONE, Script, Step, Stream, bookmark, event, listing, make, ok, status, streaming


class Watched:
    """An informer on a script, running, with what it told and how long it waited."""

    def __init__(self, *steps: Step, namespaces: list[str] | None = None, **rest: Any) -> None:
        self.script = Script(*steps)
        self.told: list[str] = []
        self.waits: list[float] = []
        self.differences: list[Difference] = []
        self.now = 0.0
        self.informer: Informer[str] = Informer(
            Client(self.script, rng=random.Random(1)),
            rest.pop("resource", TASKS),
            transform=lambda obj: f"{obj['metadata']['name']}@{obj['metadata']['resourceVersion']}",
            on_event=rest.pop("on_event", self.tell),
            on_difference=self.differences.append,
            namespaces=namespaces,
            settings=InformerSettings(check=0, streamed=rest.pop("streamed", False), **rest.pop("settings", {})),
            rng=random.Random(1),
            clock=self.clock,
            sleep=self.sleep,
            **rest,
        )

    def tell(self, event: Event[str]) -> None:
        match event:
            case Added(new):
                self.told.append(f"+{new}")
            case Updated(old, new):
                self.told.append(f"{old}>{new}")
            case Deleted(old, seen):
                self.told.append(f"-{old}" if seen else f"?{old}")

    def clock(self) -> float:
        # Each look takes ten seconds: no watch of these tests counts as ended at once unless it says so.
        self.now += 10
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        await asyncio.sleep(0)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Watched]:
        """Runs until the script is through: the last watch then hangs."""
        task = asyncio.create_task(self.informer.run())
        through = asyncio.create_task(self.script.exhausted.wait())
        try:
            await asyncio.wait({task, through}, timeout=10, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
            assert through.done(), "the script was not played to its end"
            yield self
        finally:
            task.cancel()
            through.cancel()
            await asyncio.gather(task, through, return_exceptions=True)


A1, A2, B1, C3 = make("a", 1), make("a", 2), make("b", 1), make("c", 3)


async def test_lists_then_watches_from_there() -> None:
    watched = Watched(listing(5, A1), Stream([event("ADDED", make("b", 6)), event("DELETED", make("a", 7))], hang=True))
    async with watched.running():
        assert watched.told == ["+a@1", "+b@6", "-a@7"]
        assert set(watched.informer.store) == {"b@6"}
        assert watched.informer.is_synced
        await watched.informer.synced()
        first, second = watched.script.queries()
        assert first == {"limit": "500"}
        assert second["resourceVersion"] == "5"
        assert second["allowWatchBookmarks"] == "true"


async def test_no_list_names_a_version() -> None:
    watched = Watched(listing(5, A1, token="t"), listing(5, B1), Stream([], GONE_ERROR), listing(9, A1))
    async with watched.running():
        lists = [query for query in watched.script.queries() if not query.get("watch")]
        assert len(lists) >= 2
        assert not [query for query in lists if "resourceVersion" in query]


GONE_ERROR = Unanswered("cut")


async def test_pages_are_one_list() -> None:
    watched = Watched(listing(5, A1, token="more"), listing(5, B1, token="last"), listing(5, C3))
    async with watched.running():
        assert set(watched.informer.store) == {"a@1", "b@1", "c@3"}
        assert [query.get("continue") for query in watched.script.queries()[:3]] == [None, "more", "last"]


async def test_a_list_comes_as_a_stream_and_the_watch_goes_on_from_there() -> None:
    watched = Watched(streaming(5, A1, B1), Stream([event("DELETED", make("a", 7))], hang=True), streamed=True)
    async with watched.running():
        assert watched.told == ["+a@1", "+b@1", "-a@7"]
        first, second = watched.script.queries()
        assert first["sendInitialEvents"] == "true"
        assert "resourceVersion" not in first, "as new as etcd is at the request"
        assert second["resourceVersion"] == "5"
        assert "sendInitialEvents" not in second


async def test_what_a_later_stream_does_not_bring_was_deleted_meanwhile() -> None:
    watched = Watched(streaming(5, A1, B1), GONE, streaming(9, A1), streamed=True)
    async with watched.running():
        assert watched.told == ["+a@1", "+b@1", "?b@1"]


@pytest.mark.parametrize(
    ("failed", "again"),
    [
        pytest.param(status(422, "Invalid", "sendInitialEvents is forbidden"), False, id="refused-for-good"),
        pytest.param(status(504, "Timeout", "Too large resource version"), True, id="not-now"),
        pytest.param(Stream([event("ADDED", make("gone", 2))]), True, id="cut-before-its-end"),
    ],
)
async def test_where_no_stream_is_to_be_had_pages_are_listed(failed: Step, again: bool) -> None:
    watched = Watched(
        failed,
        listing(5, A1, token="more"),
        listing(5, B1),
        GONE,
        *([streaming(9, A1)] if again else [listing(9, A1)]),
        streamed=True,
    )
    async with watched.running():
        assert set(watched.informer.store) == {"a@1"}
        asked = ["sendInitialEvents" in query for query in watched.script.queries()]
        assert asked == [True, False, False, False, again, False]


async def test_goes_on_after_a_bookmark_and_an_orderly_end() -> None:
    watched = Watched(listing(5), Stream([bookmark(80)]), Stream(hang=True))
    async with watched.running():
        assert [query.get("resourceVersion") for query in watched.script.queries()] == [None, "5", "80"]
        assert watched.informer.counts.lists == 1


@pytest.mark.parametrize(
    "expired",
    [
        pytest.param(
            Stream([event("ERROR", {"kind": "Status", "code": 410, "reason": "Expired"})]), id="in the stream"
        ),
        pytest.param(GONE, id="as the answer"),
    ],
)
async def test_410_lists_again_and_tells_what_was_missed(expired: Step) -> None:
    watched = Watched(listing(5, A1, B1), expired, listing(9, A2, C3), Stream(hang=True))
    async with watched.running():
        assert watched.told == ["+a@1", "+b@1", "a@1>a@2", "+c@3", "?b@1"]
        assert watched.waits == [], "the first time it goes on without waiting"
        assert watched.informer.counts.expired == 1
        assert watched.script.queries()[3]["resourceVersion"] == "9"


async def test_410_again_and_again_is_waited_out() -> None:
    watched = Watched(listing(5), GONE, listing(6), GONE, listing(7), GONE, listing(8), Stream(hang=True))
    # A clock that stands: no watch lasts long enough to prove anything.
    watched.informer._clock = lambda: 0.0
    async with watched.running():
        assert len(watched.waits) == 2
        assert watched.waits[1] > watched.waits[0] * 0.9


async def test_410_after_a_long_outage_lists_at_once_as_the_server_is_there_again() -> None:
    down = [Unreachable("refused")] * 60
    watched = Watched(listing(5, A1), *down, GONE, listing(9, A2), Stream(hang=True))
    async with watched.running():
        assert len(watched.waits) == 60, "the 410 was not waited out"
        assert max(watched.waits) <= 2.0
        assert watched.told == ["+a@1", "a@1>a@2"]


async def test_a_server_that_answers_after_an_outage_is_asked_again_soon() -> None:
    down = [Unreachable("refused")] * 60
    starting = status(503, "ServiceUnavailable", "apiserver not ready")
    watched = Watched(*down, starting, listing(9, A2), Stream(hang=True))
    async with watched.running():
        assert watched.waits[60] <= 0.2


async def test_a_lost_connection_goes_on_from_the_last_event() -> None:
    watched = Watched(listing(5), Stream([event("ADDED", make("a", 6))], Unanswered("cut")), Stream(hang=True))
    async with watched.running():
        assert watched.script.queries()[2]["resourceVersion"] == "6"
        assert watched.informer.counts.lists == 1
        assert len(watched.waits) == 1


async def test_failures_wait_longer_each_time_until_something_is_heard() -> None:
    down = [Unreachable("refused")] * 4
    watched = Watched(*down, listing(5), Stream([event("ADDED", A2)], Unanswered("cut")), Stream(hang=True))
    async with watched.running():
        assert len(watched.waits) == 5
        for before, after in zip(watched.waits[:3], watched.waits[1:4], strict=True):
            assert after > before * 0.9
        assert watched.waits[4] <= 0.2
        assert watched.informer.counts.failures == 5


async def test_a_retry_after_is_honoured() -> None:
    watched = Watched(listing(5), status(429, "TooManyRequests", retry_after="7"), Stream(hang=True))
    async with watched.running():
        assert watched.waits == [7.0]


async def test_a_token_that_expires_midway_starts_over_and_at_last_asks_for_all() -> None:
    watched = Watched(
        listing(5, A1, token="t"), GONE, listing(6, A1, token="t"), GONE, listing(7, A1, B1), Stream(hang=True)
    )
    async with watched.running():
        assert watched.told == ["+a@1", "+b@1"]
        assert [query.get("limit") for query in watched.script.queries()] == ["500", "500", "500", "500", None, None]


async def test_a_watch_that_ends_at_once_is_a_failure() -> None:
    watched = Watched(listing(5), Stream([]), Stream(hang=True))
    watched.informer._clock = lambda: 0.0
    async with watched.running():
        assert len(watched.waits) == 1


async def test_history_that_went_back_ends_it() -> None:
    watched = Watched(
        listing(50, make("a", 40), make("b", 45)), Stream([], Unanswered("cut")), GONE, listing(30, make("a", 20))
    )
    with pytest.raises(ExceptionGroup) as caught:
        await watched.informer.run()
    assert caught.group_contains(HistoryWentBack, match="listed as of version 30, after they were watched up to 50")
    assert watched.told == ["+a@40", "+b@45"]


class TestOwnAnswers:
    async def test_older_events_are_ignored_after_one(self) -> None:
        watched = Watched(listing(5, A1), Stream(hang=True))
        async with watched.running():
            watched.informer.apply_own(make("a", 9))
            watched.informer._tell(watched.informer.store.put(make("a", 7)))
            assert watched.told == ["+a@1", "a@1>a@9"]

    async def test_a_list_from_before_one_does_not_take_it_back(self) -> None:
        watched = Watched(listing(5, A1), GONE, listing(8, A2), Stream(hang=True))

        def tell(event: Event[str]) -> None:
            watched.tell(event)
            if isinstance(event, Updated) and event.new == "a@2":
                watched.informer.apply_own(make("a", 9))
                watched.informer.apply_own(make("own", 10))

        watched.informer._on_event = tell
        async with watched.running():
            assert set(watched.informer.store) == {"a@9", "own@10"}

    async def test_a_read_that_shows_it_gone(self) -> None:
        watched = Watched(listing(5, A1), Stream(hang=True))
        async with watched.running():
            watched.informer.apply_gone("uid-a")
            watched.informer.apply_own(make("a", 9))
            assert watched.told == ["+a@1", "?a@1"]


class TestNamespaces:
    async def test_each_has_its_own_list_and_watch(self) -> None:
        here, there = make("a", 1, namespace="one"), make("a", 2, namespace="two", uid="other")
        watched = Watched(
            listing(5, here), listing(6, there), Stream(hang=True), Stream(hang=True), namespaces=["one", "two", "one"]
        )
        async with watched.running():
            await watched.informer.synced()
            paths = {request.path for request in watched.script.asked}
            assert paths == {f"/apis/taskdist.dev/v1alpha1/namespaces/{name}/tasks" for name in ("one", "two")}
            assert set(watched.informer.store) == {"a@1", "a@2"}

    async def test_none_of_them_would_be_blind(self) -> None:
        with pytest.raises(ValueError, match="no namespaces"):
            Watched(namespaces=[])

    async def test_all_are_one(self) -> None:
        watched = Watched(listing(5), Stream(hang=True), resource=PODS)
        async with watched.running():
            assert watched.script.asked[0].path == "/api/v1/pods"


class TestCheck:
    async def mended(self, *steps: Step, before: Callable[[Watched], None] = lambda _: None) -> Watched:
        watched = Watched(listing(5, A1, B1), Stream(hang=True))
        async with watched.running():
            before(watched)
            watched.script.add(*steps)
            await watched.informer.check()
        return watched

    async def test_equal_says_nothing(self) -> None:
        watched = await self.mended(listing(5, A1, B1))
        assert watched.differences == []
        assert "PartialObjectMetadataList" in watched.script.asked[2].accept

    async def test_differences_are_told_and_mended(self) -> None:
        gone = status(404, "NotFound", name="b")
        watched = await self.mended(listing(9, A2, C3), ok(A2), ok(C3), gone)
        assert [(d.kind, d.name) for d in watched.differences] == [("stale", "a"), ("missing", "c"), ("extra", "b")]
        assert watched.told == ["+a@1", "+b@1", "a@1>a@2", "+c@3", "?b@1"]
        assert watched.informer.counts.differences == 3

    async def test_history_that_went_back_ends_it(self) -> None:
        with pytest.raises(HistoryWentBack):
            await self.mended(listing(4, A1, B1))

    async def test_lag_is_waited_out(self) -> None:
        def late(watched: Watched) -> None:
            async def sleep(seconds: float) -> None:
                watched.waits.append(seconds)
                watched.informer._tell(watched.informer.store.put(A2))
                watched.informer._tell(watched.informer.store.remove(make("b", 8)))

            watched.informer._sleep = sleep

        watched = await self.mended(listing(9, A2), before=late)
        assert watched.differences == []
        assert watched.waits == [5.0]

    async def test_what_exists_but_no_longer_matches_leaves(self) -> None:
        watched = await self.mended(listing(9, A1), ok(make("b", 8)))
        assert watched.told[-1] == "?b@1"

    async def test_a_successor_takes_the_name(self) -> None:
        watched = await self.mended(listing(9, A1), ok(make("b", 8, uid="second")))
        assert watched.told[-2:] == ["?b@1", "+b@8"]


async def test_an_error_of_the_consumer_ends_it() -> None:
    def fail(event: Event[str]) -> None:
        raise LookupError("consumer")

    watched = Watched(listing(5, A1), on_event=fail)
    with pytest.raises(ExceptionGroup) as caught:
        await watched.informer.run()
    assert caught.group_contains(LookupError)


async def test_silence_is_measured() -> None:
    watched = Watched(listing(5), Stream(hang=True))
    assert watched.informer.silent_for == float("inf")
    async with watched.running():
        assert 0 < watched.informer.silent_for < 100
