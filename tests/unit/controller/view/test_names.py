"""The order of names, against a plain sorted list."""

import random

from taskdist.controller.view.names import BUCKET, Names, NamesByNamespace


def test_it_is_a_sorted_set_whatever_comes_and_goes() -> None:
    rng, names, plain = random.Random(1), Names(), set[str]()
    for step in range(6 * BUCKET):
        name = f"t{rng.randrange(4 * BUCKET):05}"
        if rng.random() < (0.8 if step < 3 * BUCKET else 0.2):
            names.add(name)
            plain.add(name)
        else:
            names.discard(name)
            plain.discard(name)
        if step % 500 == 0:
            start = rng.choice(("", name, "t01000x", "z"))
            assert list(names.after(start)) == sorted(each for each in plain if each > start)
            assert bool(names) == bool(plain)
    assert list(names.after("")) == sorted(plain)
    for name in sorted(plain):
        names.discard(name)
    assert not names


def test_namespaces_are_apart_and_leave_nothing_behind() -> None:
    names = NamesByNamespace()
    names.add("a", "t")
    names.add("b", "t")
    names.add("b", "t")
    names.discard("a", "t")
    names.discard("a", "other")
    assert list(names.after("a", "")) == []
    assert list(names.after("b", "")) == ["t"]
