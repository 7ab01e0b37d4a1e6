"""Status of pools and queues: written on the version that was observed, while leading, and mended if overwritten."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any, cast
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskdist.api import AgentPool, BreakerState, Reason, TaskQueue
from taskdist.common.backoff import Backoff
from taskdist.controller import keepers
from taskdist.controller.bridge import NoFacts, PodFact, PoolReport
from taskdist.controller.pods import LinkInfo
from taskdist.controller.status import PoolFacts, QueueFacts, ToldCause
from taskdist.core.agents.performance import AgentPerformance, PoolPerformance, TypePerformance
from taskdist.core.limits.levels import Level
from taskdist.core.model import Key, Trouble
from taskdist.core.views import BreakerView, FailingPods
from taskdist.kube import ApiError

KEY = ("ns", "it")
SPECS: dict[str, dict[str, Any]] = {
    "queue": {"pools": ["p"]},
    "pool": {"template": {"spec": {"containers": [{"name": "a", "image": "i"}]}}},
}
# What a stranger might write over it, by kind.
FALSE: dict[str, dict[str, Any]] = {"queue": {"accepting": False, "waiting": 9}, "pool": {"readyReplicas": 9}}


class Facts:
    """What the dispatch loop says: the same until a test changes it. None: it does not know."""

    queue: QueueFacts | None = QueueFacts()
    pool: PoolFacts | None = PoolFacts()

    @property
    def number(self) -> int:
        return self.queue.waiting if self.queue is not None else -1

    @number.setter
    def number(self, number: int) -> None:
        self.queue, self.pool = QueueFacts(waiting=number), PoolFacts(ready=number)

    async def tell_pool(self, key: Key, version: Any) -> PoolReport:
        if self.pool is None:
            raise NoFacts
        count = self.pool.desired + self.pool.surge
        return PoolReport(self.pool, tuple(PodFact(f"u{n}", f"it-{n}", False, False, False) for n in range(count)))

    async def tell_queue(self, key: Key, version: Any) -> QueueFacts:
        if self.queue is None:
            raise NoFacts
        return self.queue


class Server:
    """One object with its version, and a watch that tells when it is asked to."""

    def __init__(self, kind: str, spec: dict[str, Any] | None = None) -> None:
        self.kind = kind
        self.leads = True
        self.writes: list[dict[str, Any]] = []
        metadata = {"namespace": "ns", "name": "it", "uid": "u", "generation": 1}
        self.object: dict[str, Any] = {"metadata": metadata, "spec": SPECS[kind] | (spec or {}), "status": {}}
        self.version = 7
        self.facts = Facts()
        self.before_patch: Callable[[], None] = lambda: None
        self.keepers = self.leader()
        self.asked = asyncio.Event()

    def leader(self) -> keepers.Keepers:
        return keepers.Keepers(
            cast("Any", self),
            cast("Any", self.facts),
            LinkInfo("link:1", "link", "audience"),
            "system",
            self._publish,
            lambda *_: None,
            self._may_act,
            least_lease=15,
        )

    def _may_act(self) -> bool:
        self.asked.set()
        return self.leads

    async def _publish(self, namespace: str) -> None: ...

    @property
    def now(self) -> dict[str, Any]:
        return {**self.object, "metadata": {**self.object["metadata"], "resourceVersion": str(self.version)}}

    @property
    def status(self) -> dict[str, Any]:
        return dict(self.object["status"])

    def overwrite(self, status: dict[str, Any]) -> None:
        """A merge patch: what is None is removed."""
        self.version += 1
        merged = {**self.status, **status}
        self.object = {**self.object, "status": {k: v for k, v in merged.items() if v is not None}}

    def tell(self) -> None:
        (self.keepers.pool_seen if self.kind == "pool" else self.keepers.queue_seen)(self.now)

    def look(self) -> None:
        (self.keepers.look_at_pool if self.kind == "pool" else self.keepers.look_at_queue)(KEY)

    async def settle(self) -> None:
        work = self.keepers._pool_work if self.kind == "pool" else self.keepers._queue_work
        async with asyncio.timeout(5):
            await work.idle()

    async def patch(self, resource: Any, name: str, body: dict[str, Any], *_: Any, **__: Any) -> dict[str, Any]:
        self.before_patch()
        self.writes.append(body["metadata"])
        if body["metadata"] != {"uid": "u", "resourceVersion": str(self.version)}:
            raise ApiError(409, "Conflict", "the object has been modified")
        self.overwrite(stored(body["status"]))
        return self.now

    async def get(self, *_: Any, **__: Any) -> dict[str, Any]:
        return self.now

    async def create(self, *_: Any, **__: Any) -> dict[str, Any]:
        return {}


def stored(value: Any) -> Any:
    """As the API server has it: a number without a fraction is whole."""
    return json.loads(
        json.dumps(value), parse_float=lambda text: int(float(text)) if float(text) % 1 == 0 else float(text)
    )


@pytest.fixture(params=["queue", "pool"])
async def server(request: pytest.FixtureRequest) -> Any:
    made = Server(request.param)
    made.tell()
    await made.settle()
    yield made
    await made.keepers.close()


async def test_it_is_written_on_the_version_that_was_observed_and_once(server: Server) -> None:
    assert server.writes == [{"uid": "u", "resourceVersion": "7"}]
    server.tell()
    await server.settle()
    assert len(server.writes) == 1, "its echo says nothing new"


async def test_what_another_wrote_over_it_is_mended(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keepers, "MENDING", Backoff(first=0.0, most=0.0))
    right = server.status
    for _ in range(3):
        server.overwrite(FALSE[server.kind])
        server.tell()
        await server.settle()
        assert server.status == right


async def test_two_that_write_over_each_other_do_so_with_growing_pauses(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(
        asyncio.get_running_loop(), "call_later", lambda pause, look, key: pauses.append(pause), raising=False
    )
    for _ in range(10):
        server.overwrite(FALSE[server.kind])
        server.tell()
        await server.settle()
    assert len(server.writes) == 2, "the first is mended at once"
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    # A day of it: two to the number of times is no float any more.
    for key in server.keepers._overwritten:
        server.keepers._overwritten[key] = (1500, time.monotonic())
    server.overwrite(FALSE[server.kind])
    server.tell()
    await server.settle()
    assert pauses[9:] == [60.0]


async def test_a_label_that_is_set_while_status_is_written_does_not_keep_it_from_being_written(server: Server) -> None:
    def label() -> None:
        server.before_patch = lambda: None
        server.version += 1
        server.tell()

    server.before_patch = label
    server.facts.number = 3
    server.look()
    await server.settle()
    assert server.status["readyReplicas" if server.kind == "pool" else "waiting"] == 3


async def test_a_conflict_is_followed_by_a_write_on_what_is_there(server: Server) -> None:
    right = server.status
    server.overwrite(FALSE[server.kind])
    server.overwrite({})  # and the watch is late
    server.keepers._written.clear()
    known = server.keepers._pools if server.kind == "pool" else server.keepers._queues
    cast("Any", known[KEY]).status = type(known[KEY].status)()
    server.look()
    await server.settle()
    assert server.status == right
    assert [int(each["resourceVersion"]) for each in server.writes] == [7, 8, 10]


async def test_nothing_is_written_while_leadership_is_not_sure(server: Server) -> None:
    right = server.status
    server.leads = False
    server.asked.clear()
    server.overwrite(FALSE[server.kind])
    server.tell()
    await asyncio.wait_for(server.asked.wait(), 5)
    assert len(server.writes) == 1
    server.leads = True
    await server.settle()
    assert server.status == right


# --- whatever is told ---

COUNTS, SHARES = st.integers(0, 9), st.floats(0, 1)
FIGURES, TIMES = st.floats(0, 1e4), st.floats(1.7e9, 1.8e9)
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
NAMES = st.text("ab-.", min_size=1, max_size=8)
HELD = st.none() | st.builds(ToldCause, st.sampled_from([Reason.RATE_LIMITED, Reason.NO_AGENT]), WORDS, WORDS)


def told_apart(by: str, each: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    """None, one or some, each of another name."""
    return st.lists(each, max_size=3, unique_by=lambda one: getattr(one, by)).map(tuple)


LEVELS = st.builds(
    Level,
    st.sampled_from(["rate.queue", "rate.perTenant", "rate.perTenant/a", "budgets/b"]),
    st.floats(-9, 99),
    st.integers(0, 99),
    st.just(0.0) | FIGURES,
    TIMES,
)
QUEUES = st.builds(
    QueueFacts,
    waiting=COUNTS,
    leased=COUNTS,
    dead_letters=COUNTS,
    closed=st.just("") | WORDS,
    bottleneck=HELD,
    limits=told_apart("name", LEVELS),
)
BREAKERS = st.builds(
    BreakerView, NAMES, NAMES, st.sampled_from([BreakerState.OPEN, BreakerState.HALF_OPEN]), TIMES, TIMES
)
PERFORMANCE = st.builds(
    PoolPerformance,
    FIGURES,
    told_apart("type", st.builds(TypePerformance, NAMES, COUNTS, FIGURES, FIGURES, SHARES)),
    told_apart("name", st.builds(AgentPerformance, NAMES, COUNTS, SHARES, FIGURES, FIGURES)),
)
POOLS = st.builds(
    PoolFacts,
    desired=COUNTS,
    reason=st.none() | st.sampled_from([Reason.FIXED_SIZE, Reason.IDLE]),
    message=WORDS,
    ready=COUNTS,
    slots=COUNTS,
    busy_slots=COUNTS,
    surge=st.integers(0, 1),
    outdated=COUNTS,
    breakers=told_apart("name", BREAKERS),
    performance=st.just(PoolPerformance()) | PERFORMANCE,
    bottleneck=HELD,
    failing=st.none() | st.builds(FailingPods, st.integers(1, 9), NAMES, st.builds(Trouble, WORDS, WORDS, NAMES)),
    held_back=st.booleans(),
)
QUEUE_SPECS = st.fixed_dictionaries(
    {}, optional={"paused": st.booleans(), "leaseSeconds": st.sampled_from([5, 60]), "pools": st.just(["p", "absent"])}
)


class LaterEachTime:
    """A clock by which a minute passes between any two looks at it."""

    def __init__(self) -> None:
        self.now = 1.9e9

    def time(self) -> float:
        self.now += 60.0
        return self.now

    monotonic = time


async def is_told(server: Server, facts: list[Any], *, served: bool) -> None:
    """Each of these facts after the other: one write where it says something new, and none after it."""

    def begin() -> None:
        """A leader begins."""
        server.keepers = server.leader()
        if served:  # the pool of the queue is there, and nothing is known of it yet
            server.keepers.pool_seen(
                {**server.now, "metadata": {"namespace": "ns", "name": "p"}, "spec": SPECS["pool"]}
            )
        server.tell()

    begin()
    for now in facts:
        before, count = server.status, len(server.writes)
        if server.kind == "pool":
            server.facts.pool = now
        else:
            server.facts.queue = now
        server.look()
        await server.settle()
        status = server.status
        news = int(status != before)
        assert len(server.writes) == count + news
        says(server, now)
        for again in (server.tell, server.look, begin):
            again()
            await server.settle()
            assert (len(server.writes), server.status) == (count + news, status), again.__name__
        await server.keepers.close()
        begin()


def says(server: Server, now: Any) -> None:
    if server.kind == "pool":
        pool = AgentPool.model_validate(server.now).status
        assert (pool.ready_replicas, pool.desired_replicas, pool.slots) == (now.ready, now.desired, now.slots)
        assert [each.agent for each in pool.breakers] == [each.name for each in now.breakers]
        assert [each.type for each in pool.performance] == [each.type for each in now.performance.types]
        assert [each.agent for each in pool.weakest] == [each.name for each in now.performance.weakest]
        assert (pool.scaling_reason, pool.scaling_message) == (now.reason, now.message)
        held = now.bottleneck
    else:
        queue = TaskQueue.model_validate(server.now).status
        assert (queue.waiting, queue.leased, queue.dead_lettered) == (now.waiting, now.leased, now.dead_letters)
        assert (queue.accepting, [each.name for each in queue.limits]) == (not now.closed, [e.name for e in now.limits])
        held = now.bottleneck
    flags = {each["type"]: each["status"] for each in server.status["conditions"]}
    assert flags["Bottleneck"] == ("False" if held is None else "True")


@settings(deadline=None, max_examples=60)
@given(st.lists(QUEUES, min_size=1, max_size=3), QUEUE_SPECS, st.booleans())
def test_a_queue_s_status_is_written_once_for_each_change(
    facts: list[QueueFacts], spec: dict[str, Any], served: bool
) -> None:
    async def play() -> None:
        server = Server("queue", spec)
        server.facts.pool = None
        await is_told(server, facts, served=served)
        await server.keepers.close()

    with patch.object(keepers, "time", LaterEachTime()):
        asyncio.run(play())


@settings(deadline=None, max_examples=60)
@given(st.lists(POOLS, min_size=1, max_size=3))
def test_a_pool_s_status_is_written_once_for_each_change(facts: list[PoolFacts]) -> None:
    async def play() -> None:
        server = Server("pool")
        await is_told(server, facts, served=False)
        await server.keepers.close()

    with patch.object(keepers, "time", LaterEachTime()):
        asyncio.run(play())
