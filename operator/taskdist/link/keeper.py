"""The keeper of the certificate authority: loads, makes and replaces it, publishes its bundle, serves its certificate.

What has to change and when is the authority's own rule; here is the order of the effects. The Secret is written before
anything is served or published from it, and by compare-and-swap, so that two leaders end up with one authority. The
bundle is published again on each round: who deletes it gets it back.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

import structlog

from taskdist.link.ca import Authority, AuthoritySettings, Pair, from_secret, next_change, published, rotate, to_secret

CONFLICT_ATTEMPTS = 5
_log = structlog.get_logger("taskdist.link")


class SecretChanged(Exception):
    """The Secret is not in the version that was read (or exists, where it was to be created)."""


class StoredSecret(NamedTuple):
    """A Secret's data, and its opaque version."""

    data: Mapping[str, bytes]
    version: str


class SecretPort(Protocol):
    """The store of the authority. Versions are opaque."""

    async def read(self) -> StoredSecret | None:
        """Return what is stored, never from a cache; None if there is no Secret."""

    async def write(self, data: Mapping[str, bytes], version: str | None) -> str:
        """Replace the data if the version still stands (None: create it) and return the new one, or raise Conflict."""


class BundlePort(Protocol):
    """The places where agents read the bundle: a ConfigMap in each namespace that has a pool."""

    async def publish(self, bundle: bytes) -> bool:
        """Write it wherever it is not there yet; return whether it now stands everywhere."""


class CertificateSource(Protocol):
    """The server's view of the keeper: asked on each connection, from any thread."""

    def serving(self) -> Pair:
        """Return the present serving certificate and key."""


class CertificateKeeper:
    """The authority of this installation. Only the leader refreshes it; other replicas load it, and serve it as it is.

    Args:
        names: DNS names and IP addresses that agents dial.
        clock: seconds since the Unix epoch.
    """

    def __init__(
        self,
        secret: SecretPort,
        bundles: BundlePort,
        names: Sequence[str],
        settings: AuthoritySettings | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._secret = secret
        self._bundles = bundles
        self._names = tuple(names)
        self._settings = settings or AuthoritySettings()
        self._clock = clock
        self._state: Authority | None = None

    @property
    def present(self) -> bool:
        """Whether there is a certificate to serve."""
        return self._state is not None

    def serving(self) -> Pair:
        """Return the present serving certificate and key. Safe from any thread."""
        return self._present().serving

    def bundle(self) -> bytes:
        """Return the PEM of all authorities to trust: what a new namespace gets at once. Safe from any thread."""
        return self._present().bundle

    def _present(self) -> Authority:
        state = self._state
        if state is None:
            raise RuntimeError("refresh() has not succeeded yet: there is no certificate")
        return state

    async def refresh(self) -> float:
        """Do what is due, and return in how many seconds something is due next.

        Raises whatever the ports raise, and DamagedAuthority; what stood before goes on standing.
        """
        state = await self._agree(lambda stored: rotate(stored, self._names, self._clock(), self._settings))
        if await self._bundles.publish(state.bundle):
            now = self._clock()
            state = await self._agree(lambda stored: published(stored, now) if stored == state else stored or state)
        return max(0.0, next_change(state, self._clock(), self._settings) - self._clock())

    async def load(self) -> bool:
        """Serve what is stored, as it is; False if nothing is.

        Raises whatever the ports raise, and DamagedAuthority; what stood before goes on standing.
        """
        found = await self._secret.read()
        stored = from_secret(found.data) if found else None
        if stored is not None:
            self._serve(stored)
        return stored is not None

    async def run(self, every: float = 60.0, retry: float = 5.0) -> None:
        """Refresh for ever, at least every `every` seconds; after a failure in `retry` seconds."""
        while True:
            try:
                pause = min(every, await self.refresh())
            except Exception as error:  # whatever the ports raise: the certificate at hand goes on serving meanwhile
                _log.warning("keeping the certificate authority failed and is tried again", error=str(error))
                pause = retry
            await asyncio.sleep(max(1.0, pause))

    async def _agree(self, change: Callable[[Authority | None], Authority]) -> Authority:
        """Apply the change to what is stored; serve what came of it only once it is stored."""
        for _ in range(CONFLICT_ATTEMPTS):
            found = await self._secret.read()
            stored = from_secret(found.data) if found else None
            state = change(stored)
            if state != stored:
                try:
                    await self._secret.write(to_secret(state), found.version if found else None)
                except SecretChanged:
                    continue
            self._serve(state)
            return state
        raise SecretChanged("the Secret of the certificate authority keeps changing: does another operator use it?")

    def _serve(self, state: Authority) -> None:
        if self._state is None or state.serving != self._state.serving:
            ends, authority_ends = _date(state.serving.ends), _date(state.current.ends)
            _log.info("serving a new certificate", ends=ends, authority_ends=authority_ends)
        self._state = state


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
