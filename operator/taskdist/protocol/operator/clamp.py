"""Bounds of an agent's offer: its wishes, cut down to what its pool allows."""

from collections.abc import Iterable

from taskdist.core.model import Agent, Pool
from taskdist.protocol.messages import AgentIdentity, Hello
from taskdist.protocol.task_status import ARRAYS_SKILL


def clamp(hello: Hello, identity: AgentIdentity, pool: Pool, topology: Iterable[tuple[str, str]] = ()) -> Agent:
    """Return the agent as the core may see it.

    Slots and resources are at most the pool's; skills are among the pool's (naming none offers all of them); labels
    are those of the pool's pods, zone and region as this pod bears them (`topology`), plus the agent's own under keys
    that the pool lets agents report.
    """
    return Agent(
        uid=identity.pod_uid,
        namespace=identity.namespace,
        name=identity.pod_name,
        pool=identity.pool,
        slots=max(0, min(hello.slots, pool.slots)),
        resources=_resources(hello.resources, pool),
        skills=_skills(hello, pool),
        types=None if hello.types is None else frozenset(hello.types),
        labels=_labels(hello.labels, pool, topology),
        fenced=hello.fenced,
        objects=hello.objects,
    )


def _skills(hello: Hello, pool: Pool) -> frozenset[str]:
    """Those of its pool that it names, or all; and whether it takes chunks of items, which older agents do not."""
    offered = pool.skills & frozenset(hello.skills) if hello.skills else pool.skills
    return offered | {ARRAYS_SKILL} if hello.arrays else offered


def _resources(wished: Iterable[tuple[str, int]], pool: Pool) -> tuple[tuple[str, int], ...]:
    """An agent that names no resources offers the pool's; one that names some offers no others."""
    allowed = dict(pool.resources)
    named = dict(wished)
    if not named:
        return tuple(sorted(allowed.items()))
    return tuple(sorted((key, max(0, min(amount, allowed[key]))) for key, amount in named.items() if key in allowed))


def _labels(
    reported: Iterable[tuple[str, str]], pool: Pool, topology: Iterable[tuple[str, str]]
) -> tuple[tuple[str, str], ...]:
    """The pods' own labels win: an agent cannot pass for another by reporting one."""
    own = {key: value for key, value in reported if key in pool.reported_labels}
    return tuple(sorted({**own, **dict(pool.labels), **dict(topology)}.items()))
