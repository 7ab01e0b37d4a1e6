"""Agents and operators of two releases over TLS and gRPC: what one Task's way looks like, whoever is the older."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from faults.releases import OldAgent, OldLeader
from taskdist.agent.logs import make_logger
from taskdist.agent.supervisor import EXIT_OK, Supervisor
from taskdist.agent.transport import Endpoint, GrpcConnector
from taskdist.agent.work import Offered, WorkEvents
from taskdist.api import Phase
from taskdist.common.boottime import boottime
from taskdist.core import Core
from taskdist.core.model import Pool, Queue
from taskdist.link.auth import Authenticator, PodOwner
from taskdist.link.server import LinkServer
from taskdist.protocol.agent import AgentEnd
from taskdist.protocol.messages import AgentIdentity, FromAgent, Grant, Hello, LeaseName
from taskdist.protocol.observations import (
    Action,
    CloseSession,
    Found,
    Now,
    ObservedPod,
    ReadTask,
    Send,
    WriteStatus,
    Written,
)
from taskdist.protocol.operator import Leader
from taskdist.protocol.settings import Capabilities
from unit.link.certificates import Certificates
from unit.link.tokens import status_of, token_of
from unit.protocol.desk import EPOCH, assigned, record

WAIT = 20.0


class Operator:
    """A leadership behind a real server, with an API server that agrees to all that is written."""

    def __init__(self, kind: type[Leader]) -> None:
        self.certificates = Certificates()
        self.leader = kind(Core(), EPOCH)
        self.phases: list[str] = []
        self.hellos: list[int] = []
        self.over = asyncio.Event()
        self.server = LinkServer(
            self,
            Authenticator(self._review, "here", self._pod, self._read, lambda namespace, name: "uid-p"),
            self.certificates,
            0,
            host="127.0.0.1",
        )
        self.act(self.leader.queue_applied(Queue("ns", "q", pools=("p",)), self.now()))
        self.act(self.leader.pool_applied(Pool("ns", "p", slots=1, minimum=1, maximum=1), self.now()))
        pod = ObservedPod("uid-pod-a", "ns", "pod-a", "p", 0.0, ready=True)
        self.act(self.leader.pod_observed(pod, self.now()))
        self.act(self.leader.recover([record()], self.now()))

    @staticmethod
    def now() -> Now:
        return Now(boottime(), time.time())

    async def _review(self, token: str, audiences: Sequence[str]) -> Mapping[str, object]:
        return status_of("pod-a")

    @staticmethod
    def _pod(uid: str) -> PodOwner | None:
        return PodOwner(uid, "ns", "pod-a", "p", "uid-p")

    async def _read(self, namespace: str, name: str) -> PodOwner | None:
        return None

    def act(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Send(session, message):
                    self.server.send(session, message)
                case CloseSession(session, reason):
                    self.server.close(session, reason)
                case WriteStatus(token=token, resource_version=version, status=status):
                    self.phases.append(str(status["phase"]))
                    ended = status["phase"] != "Assigned"
                    seen = (
                        record(version + 1, phase=Phase(status["phase"]))
                        if ended
                        else assigned(version + 1, "uid-pod-a")
                    )
                    self.act(self.leader.write_done(token, Written(seen, b'{"n":1}'), self.now()))
                    if ended:
                        self.over.set()
                case ReadTask(token=token):
                    self.act(self.leader.read_done(token, Found(record(), b"{}"), self.now()))

    # --- what the server tells ---

    def connected(self, session: int, identity: AgentIdentity, hello: Hello) -> None:
        self.hellos.append(hello.protocol_version)
        self.act(self.leader.connected(session, identity, hello, self.now()))

    def received(self, session: int, message: FromAgent) -> None:
        self.act(self.leader.received(session, message, self.now()))

    def disconnected(self, session: int) -> None:
        self.act(self.leader.disconnected(session, self.now()))


class Echo:
    """Work without a process: it returns its payload."""

    async def open(self, events: WorkEvents) -> Offered:
        self.events = events
        return Offered(None, True)

    def start(self, grant: Grant, deadline: float) -> None:
        self.events.started(grant.lease)
        self.events.finished(grant.lease, grant.payload)

    def cancel(self, lease: LeaseName, reason: str) -> None: ...

    def kill(self, lease: LeaseName) -> None: ...

    def fence(self, lease: LeaseName, deadline: float) -> None: ...

    async def close(self) -> None: ...


@pytest.mark.parametrize(
    ("operator", "agent", "versions"),
    [
        pytest.param(Leader, AgentEnd, [2], id="same release"),
        pytest.param(Leader, OldAgent, [1], id="old agent"),
        pytest.param(OldLeader, AgentEnd, [2, 1], id="old operator"),
    ],
)
async def test_a_task_goes_its_way(
    operator: type[Leader], agent: type[AgentEnd], versions: list[int], tmp_path: Path
) -> None:
    made = Operator(operator)
    ca_file, token_file = tmp_path / "ca.crt", tmp_path / "token"
    ca_file.write_bytes(made.certificates.bundle())
    token_file.write_text(token_of("pod-a", time.time() + 3600))
    port = await made.server.start()
    log = make_logger(agent="test")
    supervisor = Supervisor(
        lambda offered: agent("i", Capabilities(fenced=offered.fenced)),
        Echo(),
        GrpcConnector(Endpoint(f"localhost:{port}", ca_file, token_file), log),
        log,
    )
    running = asyncio.create_task(supervisor.run())
    try:
        await asyncio.wait_for(made.over.wait(), WAIT)
        assert made.phases == ["Assigned", "Succeeded"]
        assert made.hellos == versions
        supervisor.stop(5.0)
        assert await asyncio.wait_for(running, WAIT) == EXIT_OK
    finally:
        running.cancel()
        await made.server.stop(1.0)
