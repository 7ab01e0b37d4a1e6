"""The view: the newer state of an object stays, whatever order it is heard in."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskdist.api import Reason, Unreadable
from taskdist.kube import Added, Aside, Deleted, Difference, DifferenceKind, Event, Obj, Store, Updated
from unit.kube.fakes import make

Told = tuple[str, str | None, str | None]


def fresh() -> Store[str]:
    """A store that keeps `name@version` of each object, and cannot read those that are marked."""

    def transform(obj: Obj) -> str:
        if "odd" in obj:
            raise obj["odd"]
        return f"{obj['metadata']['name']}@{obj['metadata']['resourceVersion']}"

    return Store(transform)


def told(events: list[Event[str]]) -> list[Told]:
    said: list[Told] = []
    for event in events:
        match event:
            case Added(new):
                said.append(("added", None, new))
            case Updated(old, new):
                said.append(("updated", old, new))
            case Deleted(old, seen):
                said.append(("deleted" if seen else "missed", old, None))
            case Aside():
                said.append(("aside", None, f"{event.name}@{event.version} {event.reason}: {event.message}"))
    return said


@dataclass
class Case:
    name: str
    steps: list[tuple[str, Obj]]
    events: list[Told]
    left: set[str]


A1, A2, A3 = (make("a", version) for version in (1, 2, 3))
A9 = make("a", 9, uid="second")
A8 = make("a", 8, uid="second")

ODD = Unreadable(Reason.UNKNOWN_VALUE, "spec.x 'y' is not known")
ODD_1, ODD_2, ODD_3 = (make("a", version, odd=ODD) for version in (1, 2, 3))
SAYS_1, SAYS_2 = (("aside", None, f"a@{version} UnknownValue: spec.x 'y' is not known") for version in (1, 2))

CASES = [
    Case("what cannot be read is set aside, and known", [("put", ODD_1)], [SAYS_1], set()),
    Case(
        "what was read of it before holds",
        [("put", A1), ("put", ODD_2)],
        [("added", None, "a@1"), SAYS_2],
        {"a@1"},
    ),
    Case(
        "it is read again when it changes",
        [("put", ODD_1), ("put", A2)],
        [SAYS_1, ("added", None, "a@2")],
        {"a@2"},
    ),
    Case(
        "what changed meanwhile is told as one change",
        [("put", A1), ("put", ODD_2), ("put", A3)],
        [("added", None, "a@1"), SAYS_2, ("updated", "a@1", "a@3")],
        {"a@3"},
    ),
    Case(
        "its deletion is told with what was read last",
        [("put", A1), ("put", ODD_2), ("remove", ODD_3)],
        [("added", None, "a@1"), SAYS_2, ("deleted", "a@1", None)],
        set(),
    ),
    Case("of what could never be read no deletion is told", [("put", ODD_1), ("remove", ODD_2)], [SAYS_1], set()),
    Case(
        "a state that cannot be read makes older ones late",
        [("put", ODD_2), ("put", A1)],
        [SAYS_2],
        set(),
    ),
    Case("a new object is added", [("put", A1)], [("added", None, "a@1")], {"a@1"}),
    Case(
        "a later state updates",
        [("put", A1), ("put", A2)],
        [("added", None, "a@1"), ("updated", "a@1", "a@2")],
        {"a@2"},
    ),
    Case("the same state says nothing", [("put", A1), ("put", A1)], [("added", None, "a@1")], {"a@1"}),
    Case("an older state is ignored", [("put", A2), ("put", A1)], [("added", None, "a@2")], {"a@2"}),
    Case(
        "versions compare as numbers",
        [("put", make("a", 9)), ("put", make("a", 10))],
        [("added", None, "a@9"), ("updated", "a@9", "a@10")],
        {"a@10"},
    ),
    Case(
        "a deletion tells the final state",
        [("put", A1), ("remove", A2)],
        [("added", None, "a@1"), ("deleted", "a@2", None)],
        set(),
    ),
    Case("deleting the unknown says nothing", [("remove", A2)], [], set()),
    Case("an answer after the deletion does not revive", [("remove", A2), ("put", A1)], [], set()),
    Case(
        "a deletion older than what is known is ignored",
        [("put", A3), ("remove", A2)],
        [("added", None, "a@3")],
        {"a@3"},
    ),
    Case(
        "what left the selector may come back",
        [("put", A1), ("remove", A2), ("put", A3)],
        [("added", None, "a@1"), ("deleted", "a@2", None), ("added", None, "a@3")],
        {"a@3"},
    ),
    Case(
        "a successor under the same name ends the predecessor",
        [("put", A1), ("put", A9)],
        [("added", None, "a@1"), ("missed", "a@1", None), ("added", None, "a@9")],
        {"a@9"},
    ),
    Case(
        "a late word of a predecessor is ignored",
        [("put", A9), ("put", A1), ("remove", A2)],
        [("added", None, "a@9")],
        {"a@9"},
    ),
    Case(
        "a predecessor never comes back",
        [("put", A1), ("put", A8), ("remove", A9), ("put", make("a", 99))],
        [("added", None, "a@1"), ("missed", "a@1", None), ("added", None, "a@8"), ("deleted", "a@9", None)],
        set(),
    ),
    Case(
        "names of different namespaces are different",
        [("put", A1), ("put", make("a", 1, uid="elsewhere", namespace="other"))],
        [("added", None, "a@1"), ("added", None, "a@1")],
        {"a@1"},
    ),
    Case(
        "versions that are no numbers: what differs and comes last counts",
        [("put", make("a", "x")), ("put", make("a", "b")), ("put", make("a", "b"))],
        [("added", None, "a@x"), ("updated", "a@x", "a@b")],
        {"a@b"},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_a_step_does(case: Case) -> None:
    store = fresh()
    events: list[Event[str]] = []
    for step, obj in case.steps:
        events += store.put(obj) if step == "put" else store.remove(obj)
    assert told(events) == case.events
    assert set(store) == case.left


@pytest.mark.parametrize(
    "error",
    [ValueError("x"), KeyError("spec"), RecursionError(), TypeError(), AssertionError(), OverflowError()],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_transform_raises_is_bound_to_its_object(error: Exception) -> None:
    store = fresh()
    store.put(make("b", 1))
    (told,) = store.put(make("a", 2, odd=error))
    assert isinstance(told, Aside)
    assert told.reason is Reason.UNREADABLE
    assert type(error).__name__ in told.message
    assert [each.name for each in store.aside()] == ["a"]
    assert (len(store), set(store), store.uid_at("ns", "a"), store.find("ns", "a")) == (2, {"b@1"}, "uid-a", None)
    assert store.sweep({"uid-a", "uid-b"}, "5") == [], "it is there: a list that holds it changes nothing"
    assert [each.name for each in store.aside()] == ["a"]
    store.sweep({"uid-b"}, "6")
    assert not list(store.aside())


def test_readable_is_what_stands_now() -> None:
    store = fresh()
    for obj in (A1, ODD_2, make("b", 1)):
        store.put(obj)
    assert (set(store), set(store.readable())) == ({"a@1", "b@1"}, {"b@1"})


def test_lookups_by_uid_and_name() -> None:
    store = fresh()
    store.put(A2)
    assert store.get("uid-a") == store.find("ns", "a") == "a@2"
    assert "uid-a" in store
    assert len(store) == 1
    assert store.get("uid-b") is store.find("ns", "b") is store.find("other", "a") is None
    entry = store.entry("uid-a")
    assert entry is not None
    assert (entry.uid, entry.namespace, entry.name, entry.version) == ("uid-a", "ns", "a", "2")


def test_only_the_transforms_result_is_kept() -> None:
    store = Store(lambda obj: obj["metadata"]["name"])
    store.put(make("a", 1, spec={"payload": {"large": "x" * 1000}}))
    assert [entry.value for entry in store.entries()] == ["a"]


class TestSweep:
    def test_drops_what_the_list_does_not_hold(self) -> None:
        store = fresh()
        store.put(A1)
        store.put(make("b", 2))
        assert told(store.sweep({"uid-b"}, "5")) == [("missed", "a@1", None)]
        assert set(store) == {"b@2"}

    def test_spares_what_is_newer_than_the_list(self) -> None:
        store = fresh()
        store.put(make("own", 7))
        assert store.sweep(set(), "5") == []
        assert set(store) == {"own@7"}

    def test_spares_other_namespaces(self) -> None:
        store = fresh()
        store.put(make("a", 1, namespace="other"))
        assert store.sweep(set(), "5", "ns") == []
        assert told(store.sweep(set(), "5", "other")) == [("missed", "a@1", None)]

    def test_what_was_swept_is_not_revived_by_a_late_event(self) -> None:
        store = fresh()
        store.put(A1)
        store.sweep(set(), "5")
        assert store.put(A3) == []


def test_an_answer_that_comes_after_a_list_without_its_object_is_late() -> None:
    store = fresh()
    store.sweep(set(), "5")
    assert store.put(A3, answer=True) == []
    assert told(store.put(make("b", 6), answer=True)) == [("added", None, "b@6")]


def test_forgotten_for_good_stays_forgotten() -> None:
    store = fresh()
    store.put(A1)
    assert told(store.forget("uid-a")) == [("missed", "a@1", None)]
    assert store.put(A3) == []
    assert store.forget("uid-a") == []


def test_so_does_what_a_read_showed_to_be_gone_before_it_was_heard_of() -> None:
    store = fresh()
    assert store.forget("uid-a") == []
    assert store.put(A1) == []
    assert list(store) == []


def test_forgotten_as_unselected_may_come_back() -> None:
    store = fresh()
    store.put(A2)
    store.forget("uid-a", for_good=False)
    assert store.put(A2) == []
    assert told(store.put(A3)) == [("added", None, "a@3")]


def test_graves_are_bounded() -> None:
    store: Store[str] = Store(lambda obj: "", graves=3)
    for number in range(10):
        store.remove(make(f"g{number}", number))
    assert len(store._graves) == 3


class TestDifferences:
    @pytest.mark.parametrize(
        ("held", "listed", "found"),
        [
            pytest.param([A1], [A1], [], id="equal"),
            pytest.param([], [A1], [("missing", "a", "1")], id="missing"),
            pytest.param([A1], [A2], [("stale", "a", "2")], id="stale"),
            pytest.param([A1], [], [("extra", "a", "5")], id="extra"),
            pytest.param([A3], [A2], [], id="the view is ahead"),
            pytest.param([make("a", 9)], [], [], id="newer than the list"),
        ],
    )
    def test_found(self, held: list[Obj], listed: list[Obj], found: list[tuple[str, str, str]]) -> None:
        store = fresh()
        for obj in held:
            store.put(obj)
        differences = store.differences(listed, "5")
        assert [(d.kind, d.name, d.listed) for d in differences] == found
        assert all(store.still(d) for d in differences)

    def test_a_deletion_since_is_no_difference(self) -> None:
        store = fresh()
        store.put(A1)
        store.remove(make("a", 7))
        assert store.differences([A1], "5") == []

    @pytest.mark.parametrize(
        ("kind", "mended"),
        [
            pytest.param(DifferenceKind.MISSING, ("put", A2), id="it came"),
            pytest.param(DifferenceKind.MISSING, ("remove", A3), id="it came and went"),
            pytest.param(DifferenceKind.STALE, ("put", A3), id="it moved on"),
            pytest.param(DifferenceKind.STALE, ("remove", A3), id="it ended"),
            pytest.param(DifferenceKind.EXTRA, ("remove", A3), id="it went"),
        ],
    )
    def test_lag_is_no_difference(self, kind: DifferenceKind, mended: tuple[str, Obj]) -> None:
        store = fresh()
        difference = Difference(kind, "uid-a", "ns", "a", "2")
        if kind is not DifferenceKind.MISSING:
            store.put(A1)
        assert store.still(difference)
        step, obj = mended
        store.put(obj) if step == "put" else store.remove(obj)
        assert not store.still(difference)


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_any_order_of_hearing_ends_at_the_truth(seed: int) -> None:
    """Objects live and die on a server; a watch tells all in order, own answers come early, late or twice.

    In the end the view equals the server's, and the events told, applied to a plain dict, give that too.
    """
    rng = random.Random(seed)
    store = fresh()
    shadow: dict[str, str] = {}
    alive: dict[str, Obj] = {}
    log: list[tuple[str, Obj]] = []
    version, born, heard = 0, 0, 0

    def follow(events: list[Event[str]]) -> None:
        for event in events:
            match event:
                case Added(new):
                    name = new.split("@")[0]
                    assert name not in shadow, "added twice"
                    shadow[name] = new
                case Updated(old, new):
                    assert shadow[new.split("@")[0]] == old, "the old state told is not the one told before"
                    shadow[new.split("@")[0]] = new
                case Deleted(old, _):
                    assert shadow.pop(old.split("@")[0], None) is not None, "deleted what was not told"

    answers: list[Obj] = []
    for _ in range(rng.randint(1, 40)):
        version += 1
        name = rng.choice("abc")
        old = alive.get(name)
        if old is None:
            born += 1
            alive[name] = make(name, version, uid=f"uid-{born}")
            log.append(("put", alive[name]))
            answers.append(alive[name])
        elif rng.random() < 0.3:
            log.append(("remove", make(name, version, uid=old["metadata"]["uid"])))
            del alive[name]
        else:
            alive[name] = make(name, version, uid=old["metadata"]["uid"])
            log.append(("put", alive[name]))
            answers.append(alive[name])
        while rng.random() < 0.6:
            if rng.random() < 0.5 and answers:
                follow(store.put(rng.choice(answers), answer=True))
            elif heard < len(log):
                step, obj = log[heard]
                follow(store.put(obj) if step == "put" else store.remove(obj))
                heard += 1
    if rng.random() < 0.5:
        # The watch broke: a list instead of the rest.
        for obj in alive.values():
            follow(store.put(obj))
        follow(store.sweep({obj["metadata"]["uid"] for obj in alive.values()}, str(version)))
    else:
        for step, obj in log[heard:]:
            follow(store.put(obj) if step == "put" else store.remove(obj))
    follow(store.put(rng.choice(answers), answer=True))
    truth = {f"{name}@{obj['metadata']['resourceVersion']}" for name, obj in alive.items()}
    assert set(store) == truth
    assert set(shadow.values()) == truth
    assert store.differences(alive.values(), str(version)) == []
