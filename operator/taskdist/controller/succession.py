"""The time that agents are without a leader when one dies, and the leases that outlast it.

    ping + retry + patience + takeover + redial < leaseSeconds - fence

Left: an agent was renewed by its last ping before the death; a successor saw the leader's last renewal of its own Lease
as late as at its next look, respects it for its patience, takes over, and the agent dials again. Right: when the agent
asks its work to stop. Where it holds, a killed leader costs no attempt.
"""

import itertools
import math
from dataclasses import dataclass, field

from taskdist.api.taskqueue import TaskQueueSpec
from taskdist.kube import Timing
from taskdist.protocol.settings import AgentSettings, LeaderSettings

DEFAULT_LEASE_SECONDS: int = TaskQueueSpec.model_fields["lease_seconds"].default
# From the Lease in hand until agents are answered: the lists of a cluster of some thousand Tasks.
TAKEOVER_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Succession:
    """A change of leader, with the settings of all who take part. Times in seconds."""

    timing: Timing
    takeover: float = TAKEOVER_SECONDS
    leader: LeaderSettings = field(default_factory=LeaderSettings)
    agent: AgentSettings = field(default_factory=AgentSettings)

    @property
    def beside_the_lease(self) -> float:
        """What comes on top of the patience with the dead leader's Lease."""
        return self.leader.ping_seconds + self.timing.retry + self.takeover + self.agent.redial_seconds

    @property
    def longest(self) -> float:
        """The longest that an agent may be without a renewal."""
        return self.beside_the_lease + self.timing.patience

    def outlasted_by(self, lease_seconds: float) -> bool:
        """Whether work with this lease goes on through the death of a leader."""
        return self.longest < lease_seconds - self.agent.fence(lease_seconds)

    @property
    def least_lease(self) -> int:
        """The shortest `leaseSeconds` with which a killed leader costs no attempt."""
        return next(seconds for seconds in itertools.count(1) if self.outlasted_by(seconds))

    @property
    def longest_leadership(self) -> int:
        """The longest election lease that queues of the default `leaseSeconds` outlast; a Lease has whole seconds."""
        left = DEFAULT_LEASE_SECONDS - self.agent.fence(DEFAULT_LEASE_SECONDS) - self.beside_the_lease
        return max(0, math.ceil(left / (1 + self.timing.drift)) - 1)
