"""`taskdist mcp` as agents start it, with no more rights than its page names, beside an operator that leads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from integration.controller.conftest import ROOT, TIMINGS, make_room
from integration.mcp.desk import RULES, Desk
from taskdist.local.controlplane import ControlPlane
from taskdist.local.rest import Client
from taskdist.local.stack import Stack


@pytest.fixture(scope="package")
def stack(control_plane: ControlPlane) -> Iterator[Stack]:
    """One operator that leads, and a node."""
    stack = Stack.on(control_plane, ROOT, TIMINGS)
    try:
        stack.up(lambda text: None)
        yield stack
    finally:
        stack.down()


@pytest.fixture(scope="package")
def desk(stack: Stack, cluster: Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    rooms = make_room(stack, cluster)
    room = next(rooms)
    desk = Desk(room, tmp_path_factory.mktemp("mcp"))
    desk.account("caller", RULES)
    desk.account("reader", [{**RULES[0], "verbs": ["get"]}])
    room.queue()
    room.pool(replicas=2, ready=2)
    yield desk
    next(rooms, None)
