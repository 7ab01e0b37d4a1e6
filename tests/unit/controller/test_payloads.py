"""Payloads that the watch has just brought: which are kept, for how long, and what is read all the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from taskdist.api import Phase
from taskdist.controller.effects import KubeEffects
from taskdist.controller.payloads import KEPT_SECONDS, OVERHEAD, RecentPayloads
from taskdist.core.model import Parent, Task
from taskdist.kube import Informer, StatusWriter
from taskdist.protocol.messages import ParentResult
from taskdist.protocol.observations import Found, Gone, ObservedTask, ReadTask

RECORD = ObservedTask(Task("uid-a", "ns", "a", "q", "echo", 1.0), 7)
OTHER = ObservedTask(Task("uid-b", "ns", "b", "q", "echo", 1.0), 8)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("seen", "version", "found"),
    [
        pytest.param([RECORD], 7, b"{}", id="the version that is asked for"),
        pytest.param([RECORD], 6, None, id="an older one is asked for"),
        pytest.param([RECORD, replace(RECORD, resource_version=9)], 7, None, id="it has changed since"),
        pytest.param([RECORD, replace(RECORD, phase=Phase.CANCELLED)], 7, None, id="it has ended since"),
        pytest.param([replace(RECORD, deleting=True)], 7, None, id="it is being deleted"),
    ],
)
def test_only_the_very_version_is_given(seen: list[ObservedTask], version: int, found: bytes | None) -> None:
    payloads = RecentPayloads(Clock())
    for record in seen:
        payloads.seen(record, b"{}")
    assert payloads.take("uid-a", version) == found


def test_a_payload_is_given_once_and_makes_room() -> None:
    payloads = RecentPayloads(Clock(), most_bytes=OVERHEAD + 2)
    payloads.seen(RECORD, b"{}")
    payloads.seen(OTHER, b"{}")
    assert payloads.take("uid-b", 8) is None, "there was no room, and the oldest is sent first"
    assert payloads.take("uid-a", 7) == b"{}"
    assert payloads.take("uid-a", 7) is None
    payloads.seen(OTHER, b"{}")
    assert payloads.take("uid-b", 8) == b"{}"


def test_a_task_that_cannot_start_gives_its_room_to_others() -> None:
    clock = Clock()
    payloads = RecentPayloads(clock, most_bytes=OVERHEAD + 2)
    payloads.seen(RECORD, b"{}")
    clock.now += KEPT_SECONDS + 1
    assert payloads.take("uid-a", 7) is None
    payloads.seen(OTHER, b"{}")
    assert payloads.take("uid-b", 8) == b"{}"
    assert len(payloads) == 0


class Server:
    """A writer that counts its reads, and finds nothing but a parent."""

    def __init__(self) -> None:
        self.read_uids: list[str] = []

    async def read(self, uid: str, namespace: str, name: str) -> dict[str, Any] | None:
        self.read_uids.append(uid)
        if uid != "uid-p":
            return None
        metadata = {"namespace": "ns", "name": name, "uid": uid, "resourceVersion": "3"}
        return {"metadata": metadata, "spec": {"queue": "q", "type": "t"}, "status": {"result": {"x": 1}}}


class View:
    def __init__(self) -> None:
        self.store = {"uid-a": RECORD}

    def apply_gone(self, uid: str) -> None: ...


def effects(server: Server, payloads: RecentPayloads) -> KubeEffects:
    made = KubeEffects(
        client=cast("Any", None),
        tasks=cast("Informer[ObservedTask]", View()),
        link=cast("Any", None),
        announce=lambda subject, reason, message, action, warning: None,
        pool_uid=lambda key: "",
        look_at=lambda pools, queues: None,
        may_act=lambda: True,
        payloads=payloads,
    )
    made.write_with(cast("StatusWriter", server))
    return made


async def test_what_the_watch_has_just_brought_is_not_read_again() -> None:
    server, payloads = Server(), RecentPayloads()
    payloads.seen(RECORD, b'{"n":1}')
    made = effects(server, payloads)
    assert await made.read_task(ReadTask(1, "uid-a", "ns", "a", at=7)) == Found(RECORD, b'{"n":1}')
    assert server.read_uids == []
    assert await made.read_task(ReadTask(2, "uid-a", "ns", "a", at=7)) == Gone()
    assert server.read_uids == ["uid-a"]


async def test_results_of_parents_are_read_all_the_same() -> None:
    server, payloads = Server(), RecentPayloads()
    payloads.seen(RECORD, b"{}")
    parent = Parent("p", "uid-p", Phase.SUCCEEDED)
    found = await effects(server, payloads).read_task(ReadTask(1, "uid-a", "ns", "a", (parent,), at=7))
    assert found == Found(RECORD, b"{}", (ParentResult("p", "Succeeded", b'{"x":1}'),))
    assert server.read_uids == ["uid-p"]
