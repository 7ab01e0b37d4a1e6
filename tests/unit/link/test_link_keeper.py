"""The order of the keeper's effects, and two keepers at once."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import pytest
from structlog.testing import capture_logs

from taskdist.link.ca import AuthoritySettings, DamagedAuthority, from_secret
from taskdist.link.keeper import CertificateKeeper, SecretChanged, StoredSecret

SHORT = AuthoritySettings(authority_seconds=12_000, serving_seconds=3_000, overlap_seconds=300)


@dataclass
class World:
    """A Secret with compare-and-swap, ConfigMaps, and time."""

    now: float = 1_900_000_000.0
    data: dict[str, bytes] | None = None
    version: int = 0
    writes: int = 0
    bundles: list[bytes] = field(default_factory=list)
    reachable: bool = True
    log: list[str] = field(default_factory=list)
    interfere: list[CertificateKeeper] = field(default_factory=list)
    broken: Exception | None = None

    async def read(self) -> StoredSecret | None:
        if self.broken:
            raise self.broken
        found = None if self.data is None else StoredSecret(dict(self.data), str(self.version))
        while self.interfere:  # another operator comes between read and write
            await self.interfere.pop().refresh()
        return found

    async def write(self, data: Mapping[str, bytes], version: str | None) -> str:
        if version != (None if self.data is None else str(self.version)):
            raise SecretChanged("written by somebody else")
        self.data, self.version = dict(data), self.version + 1
        self.log.append("secret")
        return str(self.version)

    async def publish(self, bundle: bytes) -> bool:
        self.log.append("bundle")
        self.bundles.append(bundle)
        return self.reachable

    def keeper(self) -> CertificateKeeper:
        return CertificateKeeper(self, self, ["localhost"], SHORT, lambda: self.now)


async def test_it_is_stored_before_it_is_published_and_served() -> None:
    world = World()
    keeper = world.keeper()
    with pytest.raises(RuntimeError, match="refresh"):
        keeper.serving()
    wait = await keeper.refresh()
    assert world.log == ["secret", "bundle"]
    assert world.data is not None
    assert from_secret(world.data) is not None
    assert keeper.bundle() == world.bundles[0]
    assert wait == pytest.approx(2_000)


async def test_its_ends_are_logged_as_dates() -> None:
    world = World()
    with capture_logs() as lines:
        await world.keeper().refresh()
    (line,) = [line for line in lines if line["event"] == "serving a new certificate"]
    assert datetime.fromisoformat(line["ends"]).timestamp() > world.now
    assert datetime.fromisoformat(line["authority_ends"]).tzinfo is not None


async def test_what_cannot_be_stored_is_not_served() -> None:
    world = World()
    keeper = world.keeper()
    await keeper.refresh()
    before = keeper.serving()
    world.now += 2_500
    world.broken = OSError("no route")
    with pytest.raises(OSError, match="no route"):
        await keeper.refresh()
    assert keeper.serving() == before
    world.broken = None
    await keeper.refresh()
    assert keeper.serving() != before


async def test_the_bundle_is_published_again_on_each_round() -> None:
    world = World()
    keeper = world.keeper()
    await keeper.refresh()
    await keeper.refresh()
    assert len(world.bundles) == 2
    assert world.log.count("secret") == 1


async def test_a_restart_goes_on_with_what_is_stored() -> None:
    world = World()
    first, second = world.keeper(), world.keeper()
    await first.refresh()
    await second.refresh()
    assert second.serving() == first.serving()
    assert world.log.count("secret") == 1


async def test_a_replica_that_does_not_lead_serves_what_is_stored_and_writes_nothing() -> None:
    world = World()
    leader, other = world.keeper(), world.keeper()
    assert not await other.load()
    await leader.refresh()
    written = list(world.log)
    assert await other.load()
    assert other.present
    assert other.serving() == leader.serving()
    world.now += 2_500  # the leader would make a new one by now
    await other.load()
    assert other.serving() == leader.serving()
    assert world.log == written


async def test_two_that_begin_at_once_agree() -> None:
    world = World()
    first, second = world.keeper(), world.keeper()
    world.interfere.append(second)
    await first.refresh()
    assert first.serving() == second.serving()
    assert first.bundle() == second.bundle()


async def test_the_overlap_counts_from_when_the_bundle_stands_everywhere() -> None:
    world = World()
    keeper = world.keeper()
    await keeper.refresh()
    world.now += 8_001
    world.reachable = False
    await keeper.refresh()
    signer = keeper.bundle()
    assert signer.count(b"BEGIN CERTIFICATE") == 2
    world.now += 1_000
    await keeper.refresh()
    assert keeper.bundle() == signer
    world.reachable = True
    wait = await keeper.refresh()
    assert wait == pytest.approx(300)
    world.now += 299
    before = keeper.serving()
    await keeper.refresh()
    assert keeper.bundle() == signer
    world.now += 1
    wait = await keeper.refresh()
    assert keeper.serving() != before
    assert wait == pytest.approx(300)
    world.now += 300
    await keeper.refresh()
    assert keeper.bundle().count(b"BEGIN CERTIFICATE") == 1


async def test_a_damaged_secret_is_told_and_not_overwritten() -> None:
    world = World(data={"ca.crt": b"garbage"})
    with pytest.raises(DamagedAuthority):
        await world.keeper().refresh()
    assert world.data == {"ca.crt": b"garbage"}


async def test_an_empty_secret_is_filled() -> None:
    world = World(data={})
    await world.keeper().refresh()
    assert world.data
    assert "ca.key" in world.data


async def test_it_goes_on_after_a_failure() -> None:
    world = World()
    keeper = world.keeper()
    await keeper.refresh()
    world.broken = OSError("no route")
    running = asyncio.create_task(keeper.run(every=0.0, retry=0.0))
    try:
        async with asyncio.timeout(10):
            await asyncio.sleep(0)
            world.broken = None
            rounds = len(world.bundles)
            while len(world.bundles) == rounds:  # noqa: ASYNC110  # the keeper's own pace
                await asyncio.sleep(0.02)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
