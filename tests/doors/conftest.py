"""A control plane with an operator for all doors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from taskdist.local.controlplane import ControlPlane
from taskdist.local.stack import Stack

ROOT = Path(__file__).parents[2]
# Short, so that an operator that was killed has a successor soon.
TIMINGS = {
    "TASKDIST_LEASE_SECONDS": "3",
    "TASKDIST_RENEW_SECONDS": "2",
    "TASKDIST_RETRY_SECONDS": "0.4",
    "TASKDIST_ALLOW_SHORT_LEASES": "true",
}


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """etcd, kube-apiserver, an operator that leads, and a node; they end with the session."""
    with ControlPlane.start() as plane:
        stack = Stack.on(plane, ROOT, TIMINGS)
        try:
            stack.up(lambda _: None)
            yield stack
        finally:
            stack.down()
