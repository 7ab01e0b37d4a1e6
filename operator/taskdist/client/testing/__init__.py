"""For the tests of programs that submit Tasks: a cluster in memory, whose handlers are given by the test.

    from taskdist.client.testing import fake_client

    def test_greets() -> None:
        with fake_client() as (client, fake):
            fake.handler("greet")(lambda payload: {"greeting": f"Hello, {payload['name']}!"})
            assert greet_all(client, ["Ann"]) == ["Hello, Ann!"]

It is held to the real thing by one suite of tests that runs against both. What it leaves out: order, fairness, limits,
time-outs, dependencies and times to live; back-off takes no time.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from taskdist.client.blocking import Client
from taskdist.client.testing.fake import FakeBackend

__all__ = ["FakeBackend", "fake_client"]


@contextmanager
def fake_client(fake: FakeBackend | None = None) -> Iterator[tuple[Client, FakeBackend]]:
    """A client, and the cluster in memory behind it. For asyncio: `AsyncClient(backend=FakeBackend())`."""
    fake = fake or FakeBackend()
    try:
        with Client(backend=fake) as client:
            yield client, fake
    finally:
        fake.close()
