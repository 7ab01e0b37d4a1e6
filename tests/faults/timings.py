"""How long things take in a history: quick ones, so that much happens in little time, or those that are shipped."""

from __future__ import annotations

from dataclasses import dataclass

from taskdist.core.model import Queue
from taskdist.kube import Timing
from taskdist.protocol.settings import AgentSettings, LeaderSettings


@dataclass(frozen=True, slots=True)
class Timings:
    """All in seconds."""

    lease: float
    hold: float
    election: float  # how long others respect a leadership without renewal
    renew: float  # how often it is renewed, or tried to be
    give_up: float  # without renewal for so long, the leader says that it fails
    sure: float  # without renewal for so long, a leader does nothing any more
    liveness: float  # after the last fault, by when every Task must be over
    leader: LeaderSettings
    agent: AgentSettings


QUICK = Timings(
    lease=6.0,
    hold=20.0,
    election=5.0,
    renew=1.5,
    give_up=3.0,
    sure=4.9,
    liveness=200.0,
    leader=LeaderSettings(
        ping_seconds=2.0,
        margin=0.8,
        drift=0.01,
        fast_takeover_seconds=3.0,
        delete_again_seconds=5.0,
        refused_seconds=1.0,
        timeout_margin=2.0,
    ),
    agent=AgentSettings(
        fence_seconds=2.0,
        kill_seconds=0.5,
        cancel_grace_seconds=2.0,
        silence_seconds=4.0,
        stop_cancel_seconds=1.0,
        farewell_seconds=2.0,
    ),
)


def _shipped() -> Timings:
    queue, timing = Queue("ns", "q"), Timing()
    return Timings(
        lease=queue.lease_seconds,
        hold=queue.hold_seconds,
        election=timing.patience,
        renew=timing.retry,
        give_up=timing.renew_deadline,
        sure=timing.renew_deadline,
        liveness=600.0,
        leader=LeaderSettings(),
        agent=AgentSettings(),
    )


SHIPPED = _shipped()
