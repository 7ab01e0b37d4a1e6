"""Objects that are set aside are told of, once for each thing that is wrong, by the replica that leads."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from taskdist.api import Reason
from taskdist.controller import asides as module
from taskdist.controller.asides import Asides
from taskdist.kube import Added, Aside, Informer, Store
from unit.kube.fakes import make


def odd(version: int, message: str = "spec.x") -> Aside:
    return Aside("uid-a", "ns", "a", str(version), Reason.UNKNOWN_VALUE, message)


class Told:
    def __init__(self) -> None:
        self.leads = self.serves = True
        self.events: list[tuple[str, str, Reason, str, bool]] = []
        self.asides = Asides(self.announce, lambda: self.leads, lambda namespace: self.serves)

    def announce(self, subject: Any, reason: Reason, message: str, action: str, warning: bool) -> None:
        self.events.append((subject.kind, subject.name, reason, message, warning))


def test_it_is_told_once_for_each_thing_that_is_wrong() -> None:
    told = Told()
    changes: list[Any] = []
    uids: list[str] = []
    hear = told.asides.hear("Task", changes.append, uids.append)
    for event in (odd(1), odd(2), odd(3, "spec.y")):
        hear(event)
    assert [event[3].rpartition(" ")[2] for event in told.events] == ["spec.x", "spec.y"]
    assert told.events[0][:3] == ("Task", "a", Reason.UNKNOWN_VALUE)
    assert uids == ["uid-a"] * 3
    hear(Added("x"))
    assert changes == [Added("x")]


def test_nothing_is_told_of_another_installation_s_objects() -> None:
    told = Told()
    told.serves = False
    hear = told.asides.hear("Task", lambda change: None)
    hear(odd(1))
    assert told.events == []
    told.serves = True
    hear(odd(2))
    assert len(told.events) == 1


def test_a_replica_that_does_not_lead_is_silent_until_it_does() -> None:
    told = Told()
    told.leads = False

    def transform(obj: Any) -> str:
        raise KeyError("spec")

    store: Store[str] = Store(transform)
    informer = cast("Informer[str]", SimpleNamespace(store=store))
    told.asides.watch(TaskQueue=informer)
    uids: list[str] = []
    hear = told.asides.hear("TaskQueue", lambda change: None, uids.append)
    for event in store.put(make("a")):
        hear(event)
    assert told.events == []
    told.leads = True
    uids.clear()
    told.asides.begin()
    assert uids == ["uid-a"], "a leadership that begins hears of it again"
    assert [event[:3] for event in told.events] == [("TaskQueue", "a", Reason.UNREADABLE)]
    assert told.asides.count() == {("TaskQueue", Reason.UNREADABLE): 1}


def test_objects_that_come_and_go_are_not_remembered_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_TOLD", 3)
    told = Told()
    hear = told.asides.hear("Task", lambda change: None)
    for number in range(10):
        hear(replace(odd(number), uid=f"uid-{number}"))
    assert len(told.events) == 10
    assert len(told.asides._told) == 3
    hear(replace(odd(11), uid="uid-9"))
    assert len(told.events) == 10, "the latest are"
