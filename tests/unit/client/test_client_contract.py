"""The fake cluster is held to what users may count on; tests/integration/client holds the real one to the same."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agents.of_clients import agent
from client_contract import CASES, QUEUES, Case
from taskdist.client import AsyncClient, Client
from taskdist.client.testing import FakeBackend
from taskdist.kube import Unreachable


class FakeWorld:
    def __init__(self) -> None:
        self.fake = FakeBackend()
        self.fake.serve(agent)
        for name, spec in QUEUES.items():
            self.fake.queue(name, **spec)

    def client(self) -> AsyncClient:
        return AsyncClient(backend=self.fake)

    def blocking(self) -> Client:
        return Client(backend=self.fake)

    def stranger(self) -> AsyncClient:
        self.fake.forbid()
        return self.client()

    def nowhere(self) -> AsyncClient:
        self.fake.fail_requests(Unreachable("no route to host"))
        return self.client()

    def delete(self, name: str) -> None:
        self.fake.delete(name)


@pytest.fixture
def world() -> Iterator[FakeWorld]:
    made = FakeWorld()
    yield made
    made.fake.close()


@pytest.mark.parametrize("case", CASES, ids=[each.__name__ for each in CASES])
async def test_the_fake(world: FakeWorld, case: Case) -> None:
    await case(world)
