"""The link's port, from the first certificate to the end of the process."""

import asyncio
import time
from collections.abc import Callable

import structlog

from taskdist.kube import KubeError
from taskdist.link.ca import DamagedAuthority
from taskdist.link.keeper import CertificateKeeper
from taskdist.link.server import LinkServer

_log = structlog.get_logger("taskdist.operator")

# How long the link's port may be taken at the start, in seconds.
LISTEN_SECONDS = 10.0
# How often a replica that does not lead looks whether there is a certificate, and a new one, in seconds.
CERTIFICATE_SECONDS = (0.5, 60.0)


class LinkListener:
    """Starts the link once there is a certificate for it, and takes over new ones.

    Args:
        leads: whether this process leads; a leader renews the stored certificate itself.
    """

    def __init__(self, link: LinkServer, certificates: CertificateKeeper, leads: Callable[[], bool]) -> None:
        self._link = link
        self._certificates = certificates
        self._leads = leads
        self.listening = asyncio.Event()

    async def run(self) -> None:
        """Answer agents for as long as the process lives: who does not lead says so, and is dialled no second time."""
        first, later = CERTIFICATE_SECONDS
        while True:
            if not self._leads():
                try:
                    await self._certificates.load()
                except (KubeError, DamagedAuthority) as error:
                    _log.info("the link's certificate could not be read", why=str(error))
            if self._certificates.present and not self.listening.is_set():
                await self._listen()
                self.listening.set()
            await asyncio.sleep(later if self.listening.is_set() else first)

    async def _listen(self) -> None:
        """Start the link. Another program on this machine may be about to let go of the port."""
        deadline = time.monotonic() + LISTEN_SECONDS
        while True:
            try:
                port = await self._link.start()
            except RuntimeError:  # what grpc raises for a port that is taken
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.1)
            else:
                _log.info("listening for agents", link_port=port)
                return
