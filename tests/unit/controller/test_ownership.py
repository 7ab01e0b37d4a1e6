"""One namespace, one installation: whoever finds another's asks, a living owner answers, a dead one's is taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from taskdist.controller import ownership as module
from taskdist.controller.ownership import AGAIN_SECONDS, ASKED_ANNOTATION, WAIT_SECONDS, Ownership, seen_bundle
from taskdist.controller.pods import CA_CONFIGMAP
from taskdist.controller.trust import INSTALLATION_ANNOTATION
from taskdist.kube import CONFIGMAPS, ApiError, Client, Informer, Unreachable
from unit.kube.fakes import Script, make

# From the end of an owner until another installation has its namespace: a question, an answer waited for, some looks.
TAKEN_SECONDS = int(AGAIN_SECONDS + WAIT_SECONDS) + 5


class Cluster:
    """The ConfigMaps of one API server, its time, and the installations that watch it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.maps: dict[str, dict[str, Any]] = {}
        self.members: list[Member] = []
        self.writes: list[dict[str, Any]] = []
        self._version = 0

    def put(self, namespace: str, owner: str, asked_by: str = "", bundle: str = "old") -> None:
        """As somebody writes it who asks nobody."""
        said = {INSTALLATION_ANNOTATION: f"taskdist.dev/{owner}"} if owner else {}
        said |= {ASKED_ANNOTATION: asked_by} if asked_by else {}
        self._set(namespace, said, {"ca.crt": bundle})

    def delete(self, namespace: str) -> None:
        gone = self.maps.pop(namespace)
        for member in self.members:
            member.view.apply_gone(gone["metadata"]["uid"])

    def change(self, namespace: str, change: dict[str, Any]) -> dict[str, Any]:
        """A merge patch of the version that it names."""
        present = self.maps.get(namespace)
        if present is None:
            raise ApiError(404, "NotFound", "", {"name": CA_CONFIGMAP})
        if change["metadata"]["resourceVersion"] != present["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "the object has been modified")
        self.writes.append(change)
        said = present["metadata"]["annotations"] | change["metadata"]["annotations"]
        kept = {name: value for name, value in said.items() if value is not None}
        return self._set(namespace, kept, present["data"] | change.get("data", {}))

    def _set(self, namespace: str, said: dict[str, str], data: dict[str, str]) -> dict[str, Any]:
        self._version += 1
        uid = f"uid-{namespace}"
        body = make(
            CA_CONFIGMAP, self._version, uid=uid, namespace=namespace, metadata={"annotations": said}, data=data
        )
        self.maps[namespace] = body
        for member in self.members:
            member.hear(body)
        return body

    def owner(self, namespace: str) -> str:
        return seen_bundle(self.maps[namespace]).owner.removeprefix("taskdist.dev/")

    async def passes(self, seconds: int, also: Callable[[], object] = lambda: None) -> None:
        for _ in range(seconds):
            self.now += 1
            for member in self.members:
                if member.runs:
                    await member.ownership.look()
            also()


class Member:
    """An installation, or one of its replicas, that leads: its next leadership begins as soon as it asks for one."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.runs = self.leads = True
        self.reaches = self.hears = True
        self.anew: list[str] = []
        self.told: list[tuple[str, str]] = []
        self.view = Informer(Client(Script()), CONFIGMAPS, transform=seen_bundle, on_event=lambda event: None)
        for body in cluster.maps.values():
            self.view.apply_own(body)
        cluster.members.append(self)
        self.ownership = Ownership(
            cast("Any", self),
            self.view,
            f"taskdist.dev/{name}",
            name.encode,
            lambda: self.leads,
            self._begin_anew,
            lambda namespace, words: self.told.append((namespace, words)),
            lambda: cluster.now,
        )
        self.ownership.begin()

    def _begin_anew(self, why: str) -> None:
        self.anew.append(why)
        self.ownership.begin()

    def hear(self, body: dict[str, Any]) -> None:
        if self.hears:
            self.view.apply_own(body)

    async def patch(self, resource: object, name: str, body: dict[str, Any], namespace: str) -> dict[str, Any]:
        assert (resource, name) == (CONFIGMAPS, CA_CONFIGMAP)
        assert self.leads, "nothing is written by one that does not lead"
        if not self.reaches:
            raise Unreachable("refused")
        return self.cluster.change(namespace, body)

    def serves(self, namespace: str = "ns") -> bool:
        return self.runs and self.ownership.serves(namespace)


def two(owner: str = "a-ns/a", newcomer: str = "b-ns/b") -> tuple[Cluster, Member, Member]:
    """An installation that has the namespace, and one that was installed after it."""
    cluster = Cluster()
    cluster.put("ns", owner)
    return cluster, Member(cluster, owner), Member(cluster, newcomer)


async def test_the_second_installation_leaves_the_namespace_alone_and_says_who_is_there() -> None:
    cluster, a, b = two()
    served = []
    with structlog.testing.capture_logs() as logs:
        await cluster.passes(300, lambda: served.append((a.serves(), b.serves())))
    assert set(served) == {(True, False)}
    assert cluster.owner("ns") == "a-ns/a"
    ((namespace, words),) = b.told
    assert namespace == "ns"
    assert "namespace ns is served by another installation, a-ns/a: this one, b-ns/b, leaves it alone" in words
    assert "Uninstall one of them, or set their watchNamespaces apart" in words
    assert b.ownership.problem(["ns"]) == words
    assert [line["log_level"] for line in logs if line["event"] == words] == ["error"], "once, not each time it asks"
    assert (a.anew, b.anew, a.told) == ([], [], [])
    assert [line["this"] for line in logs if line["other"] == "b-ns/b"] == ["a-ns/a"], "and the owner says who asks"
    assert 2 <= len(cluster.writes) / 2 <= 300 / AGAIN_SECONDS + 1, "a mark and an answer now and then"


async def test_what_is_an_installation_s_own_is_served_beside_what_is_not() -> None:
    cluster, _, b = two()
    cluster.put("mine", "b-ns/b")
    await cluster.passes(60)
    assert (b.serves("ns"), b.serves("mine"), b.serves("new")) == (False, True, True)
    assert b.ownership.problem(["ns", "mine"]) is None
    assert b.ownership.problem([]) is None


async def test_a_former_installation_s_namespace_is_taken_when_nobody_answers() -> None:
    cluster, a, b = two()
    a.runs = False
    await cluster.passes(int(WAIT_SECONDS))
    assert not b.serves(), "not before its time"
    assert "it is asked whether it still runs" in str(b.ownership.problem(["ns"]))
    await cluster.passes(3)
    assert b.serves()
    assert len(b.anew) == 1
    assert cluster.owner("ns") == "b-ns/b"
    assert cluster.maps["ns"]["data"] == {"ca.crt": "b-ns/b"}, "its agents are to trust the new one"
    assert ASKED_ANNOTATION not in cluster.maps["ns"]["metadata"]["annotations"]
    assert len(cluster.writes) == 2, "the mark and the name"
    assert b.ownership.problem(["ns"]) is None


async def test_the_end_of_an_owner_is_found_out() -> None:
    cluster, a, b = two()
    await cluster.passes(70)
    a.runs = False
    await cluster.passes(TAKEN_SECONDS)
    assert b.serves()
    assert cluster.owner("ns") == "b-ns/b"


async def test_a_hundred_namespaces_are_taken_by_one_new_leadership() -> None:
    cluster = Cluster()
    for i in range(100):
        cluster.put(f"ns-{i}", "a-ns/a")
    b = Member(cluster, "b-ns/b")
    await cluster.passes(int(WAIT_SECONDS) + 3)
    assert all(b.serves(f"ns-{i}") for i in range(100))
    assert len(b.anew) == 1


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        pytest.param("a-ns/a", "a-ns/a", id="another replica, or the same release under another name of its parts"),
        pytest.param("", "a-ns/a", id="a release that did not say whose it is"),
    ],
)
async def test_nobody_is_asked_for_what_is_no_other_s(owner: str, name: str) -> None:
    cluster = Cluster()
    cluster.put("ns", owner)
    first, second = Member(cluster, name), Member(cluster, name)
    await cluster.passes(100)
    assert first.serves()
    assert second.serves()
    assert (cluster.writes, first.anew, second.anew) == ([], [], [])


@pytest.mark.parametrize(
    "by_the_other_replica", [pytest.param(False, id="the same replica"), pytest.param(True, id="the other replica")]
)
async def test_an_owner_that_changes_its_leader_meanwhile_keeps_the_namespace(by_the_other_replica: bool) -> None:
    cluster, a, b = two()
    a.runs = False
    await cluster.passes(int(WAIT_SECONDS) - 3)
    if by_the_other_replica:
        Member(cluster, "a-ns/a")
    else:
        a.runs = True
    await cluster.passes(100)
    assert not b.serves()
    assert cluster.owner("ns") == "a-ns/a"


async def test_a_newcomer_that_changes_its_leader_waits_anew() -> None:
    cluster, a, b = two()
    a.runs = False
    await cluster.passes(15)
    b.ownership.begin()
    await cluster.passes(15)
    assert not b.serves(), "it was without the API server, say: so may the owner have been"
    await cluster.passes(10)
    assert b.serves()


async def test_an_answer_at_the_last_moment_counts() -> None:
    cluster, a, b = two()
    a.runs = False
    await cluster.passes(int(WAIT_SECONDS))
    # The answer is there, and the newcomer has not heard of it.
    b.hears = False
    a.runs = True
    await a.ownership.look()
    await cluster.passes(5)
    assert cluster.owner("ns") == "a-ns/a"
    b.hears = True
    b.hear(cluster.maps["ns"])
    await cluster.passes(100)
    assert (a.serves(), b.serves()) == (True, False)


async def test_what_is_heard_late_is_no_answer() -> None:
    cluster, a, b = two()
    a.runs, b.hears = False, False
    await cluster.passes(int(WAIT_SECONDS) + 3)
    assert b.serves(), "its own mark has not come back to it, and nobody took it off"


async def test_an_owner_that_follows_another_one_is_asked_itself() -> None:
    cluster, a, b = two()
    a.runs = False
    await cluster.passes(int(WAIT_SECONDS) - 1)
    cluster.put("ns", "c-ns/c", asked_by="taskdist.dev/b-ns/b")
    await cluster.passes(int(WAIT_SECONDS) - 1)
    assert cluster.owner("ns") == "c-ns/c"
    Member(cluster, "c-ns/c")
    await cluster.passes(60)
    assert not b.serves()


async def test_an_owner_that_comes_back_too_late_is_the_one_that_asks() -> None:
    cluster, a, b = two()
    a.runs = False
    await cluster.passes(60)
    assert b.serves()
    a.runs = True
    await cluster.passes(2)
    assert (a.serves(), b.serves()) == (False, True)
    assert a.anew == ["namespace ns has been taken by another installation, b-ns/b"]
    await cluster.passes(300)
    assert (a.serves(), b.serves()) == (False, True)
    assert len(a.anew) == len(b.anew) == 1, "they do not take it from each other"
    assert "b-ns/b" in a.told[0][1]


async def test_of_two_newcomers_one_takes_what_is_left() -> None:
    cluster, a, b = two()
    c = Member(cluster, "c-ns/c")
    a.runs = False
    await cluster.passes(100)
    assert [b.serves(), c.serves()].count(True) == 1
    assert {each[1].split("another installation, ")[1][:6] for each in b.told + c.told} == {cluster.owner("ns")}


async def test_a_namespace_whose_bundle_is_deleted_is_nobody_s() -> None:
    cluster, _, b = two()
    await cluster.passes(30)
    cluster.delete("ns")
    await cluster.passes(1)
    assert b.anew == ["namespace ns is served by no other installation any more"]
    assert b.serves()


async def test_a_replica_that_does_not_lead_writes_nothing() -> None:
    cluster, a, b = two()
    a.leads = False
    await cluster.passes(10)
    b.leads = False
    await cluster.passes(60)
    assert len(cluster.writes) == 1, "the newcomer's mark: nobody answered it, and nobody took the namespace"


async def test_an_api_server_that_does_not_answer_is_asked_again() -> None:
    cluster, a, b = two()
    b.reaches = False
    with structlog.testing.capture_logs() as logs:
        await cluster.passes(30)
    assert len(logs) == 1, "and that is said once"
    b.reaches = True
    await cluster.passes(2)
    assert ASKED_ANNOTATION not in cluster.maps["ns"]["metadata"]["annotations"]
    a.reaches = False
    await cluster.passes(int(AGAIN_SECONDS) + 5)
    a.reaches = True
    await cluster.passes(60)
    assert (a.serves(), b.serves()) == (True, False)


async def test_who_writes_the_mark_or_the_name_again_and_again_costs_little() -> None:
    cluster = Cluster()
    cluster.put("ns", "a-ns/a")
    a = Member(cluster, "a-ns/a")
    cluster.put("other", "a-ns/a")
    for i in range(720):
        cluster.put("ns", "nobody/there" if i % 2 else "a-ns/a", asked_by="x" * 10_000)
        await cluster.passes(5)
        assert a.serves("other")
    assert len(a.anew) <= 12, "leaderships begun anew in an hour"
    assert len(cluster.writes) <= 3600
    assert len(a.ownership._told) <= 1


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 30), st.sets(st.sampled_from("abc"))), max_size=6))
async def test_whatever_stops_and_starts_one_of_those_that_run_serves_in_the_end(
    history: list[tuple[int, set[str]]],
) -> None:
    cluster = Cluster()
    cluster.put("ns", "gone/gone")
    members = {name: Member(cluster, name) for name in "abc"}
    for seconds, running in history:
        for name, member in members.items():
            member.runs = name in running
        await cluster.passes(seconds)
    for member in members.values():
        member.runs = True
    # Twice: who lost it must begin anew first, and does so at most as often as is bounded.
    await cluster.passes(int(module.MOST_PAUSE_SECONDS) + 2 * TAKEN_SECONDS)
    assert [name for name, member in members.items() if member.serves()] == [cluster.owner("ns")]
    before = [len(member.anew) for member in members.values()]
    await cluster.passes(200)
    assert [len(member.anew) for member in members.values()] == before, "and it stays so"


def test_a_long_name_is_cut_in_words() -> None:
    cluster = Cluster()
    cluster.put("ns", "x" * 100_000)
    b = Member(cluster, "b-ns/b")
    assert len(str(b.ownership.problem(["ns"]))) < 500
