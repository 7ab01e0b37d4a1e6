"""Pods of a pool that do not come up: which of them is told of, in which words, and how far the pool may grow then.

Owns the one rule for growth and the one wording for status, Events and explanations. What ails a pod is read elsewhere.
"""

from collections import Counter
from collections.abc import Iterable

from taskdist.core import commands
from taskdist.core.agents.roster import AgentRecord
from taskdist.core.model import Key, Pool, Trouble
from taskdist.core.views import FailingPods


def told_of(failing: Iterable[AgentRecord]) -> FailingPods | None:
    """Return how many pods fail, and the one to name: the first by name with the most common cause."""
    pods = [(agent.name, agent.trouble) for agent in failing if agent.trouble is not None]
    if not pods:
        return None
    causes = Counter([trouble.cause for _, trouble in pods])

    def rank(pod: tuple[str, Trouble]) -> tuple[int, str]:
        name, trouble = pod
        return -causes[trouble.cause], name

    name, trouble = min(pods, key=rank)
    return FailingPods(len(pods), name, trouble)


def words(found: FailingPods) -> str:
    """Say in one sentence or two what fails."""
    many = f"{found.pods} pods do not come up, such as {found.name}" if found.pods > 1 else f"{found.name} fails"
    return f"{many}: {found.trouble.cause}, {found.trouble.message}."


def command(pool: Key, found: FailingPods) -> str:
    """The command that shows more of the failing pod."""
    namespace, _ = pool
    return commands.pod_tells(namespace, found.name, found.trouble.container)


def allowed(pool: Pool, desired: int, ready: int, failing: int) -> int:
    """Return how many agents the pool may be told to have at most.

    While pods of it fail, more of the same would fail too: it may have twice as many as are ready, so that a single bad
    node holds up nobody, and a pool of which nothing comes up stays as it is. The pods that are there are tried again
    by the kubelet or the scheduler, which back off; the first that comes up lets it grow on.

    Args:
        desired: what it was told to have so far; it is never told to have less for this reason.
    """
    if not failing:
        return pool.maximum
    return min(pool.maximum, max(desired, pool.minimum, 2 * ready))
