"""Each field of the specs that the operator reads has a case that shows that the running operator honours it.

The fields come from the models: one that is added without a case fails here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

CASES = (
    "fields_order",
    "fields_limits",
    "fields_life",
    "fields_routes",
    "fields_place",
    "fields_pool",
    "fields_arrays",
)
pytest.register_assert_rewrite(*(f"integration.controller.{name}" for name in CASES))

from integration.controller import (  # noqa: E402
    fields_arrays,
    fields_life,
    fields_limits,
    fields_order,
    fields_place,
    fields_pool,
    fields_routes,
)
from integration.controller.conftest import make_room  # noqa: E402
from integration.controller.lab import PLAIN, SOLO, Case, Lab, fields  # noqa: E402
from integration.controller.room import Room  # noqa: E402
from taskdist.local.rest import Client  # noqa: E402
from taskdist.local.stack import Stack  # noqa: E402

ALL = [
    *fields_order.case.cases,
    *fields_limits.case.cases,
    *fields_life.case.cases,
    *fields_routes.case.cases,
    *fields_place.case.cases,
    *fields_pool.case.cases,
    *fields_arrays.case.cases,
]


def test_each_field_has_one_case() -> None:
    shown = Counter(field for case in ALL for field in case.fields)
    assert set(shown) == fields()
    assert [field for field, count in shown.items() if count > 1] == []


@pytest.fixture(scope="module")
def lab_room(stack: Stack, cluster: Client) -> Iterator[Room]:
    """A namespace for all cases, as their Tasks need not end."""
    rooms = make_room(stack, cluster)
    room = next(rooms)
    room.queue(PLAIN)
    room.pool(replicas=2)
    room.pool(SOLO, slots=1, replicas=1, ready=1)
    room.ready(2)
    yield room
    next(rooms, None)


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_the_operator_honours(case: Case, lab_room: Room, tmp_path: Path) -> None:
    lab = Lab(lab_room, case.name, tmp_path)
    try:
        case.show(lab)
    finally:
        lab.clear()
