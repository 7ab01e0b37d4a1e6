"""What the Tasks of one history share, drawn from its seed: keys, quotas, rates, budgets, resources, parents, twins.

Most histories draw nothing of it: their Tasks have nothing in common but the agents.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

from taskdist.api import OnDependencyFailure
from taskdist.core.model import Budget, Queue, Quota, TokenRate

KINDS = (
    "concurrency",
    "concurrency",
    "ordering",
    "quota",
    "tenants",
    "rate",
    "budget",
    "spending",
    "resources",
    "wide",
    "parents",
    "twins",
)
HELD, SPENT, DEVICE = "held", "spent", "gpu"
UNBOUNDED = Quota()


@dataclass(frozen=True, slots=True)
class Shared:
    """Bounds over all Tasks of the queue; None or 0: none."""

    concurrency: int = 0  # Tasks of one concurrency key at once; 0: no Task has one
    ordering: bool = False
    quota: Quota = UNBOUNDED
    tenant_quota: Quota = UNBOUNDED
    rate: TokenRate | None = None
    tenant_rate: TokenRate | None = None
    held: int = 0  # limit of a budget that is held
    spent: TokenRate | None = None  # terms of a budget that is spent
    devices: int = 0  # of each agent
    wide: bool = False  # some Tasks take two slots
    parents: bool = False
    twins: bool = False  # Tasks have idempotency keys

    def rules(self, queue: Queue) -> Queue:
        """Return the queue with these bounds."""
        budgets = [Budget(HELD, limit=self.held)] if self.held else []
        if self.spent is not None:
            budgets.append(Budget(SPENT, rate=self.spent))
        return replace(
            queue,
            concurrency_limit=max(1, self.concurrency),
            quota=self.quota if self.quota != UNBOUNDED else queue.quota,
            tenant_quota=self.tenant_quota,
            rate=self.rate,
            tenant_rate=self.tenant_rate,
            budgets=tuple(budgets),
        )

    def spec(self, n: int, rng: random.Random) -> dict[str, Any]:
        """Draw what the spec of Task number n says of all this, as fields of the core's Task."""
        spec: dict[str, Any] = {"tenant": rng.choice("ab")}
        if self.concurrency and rng.random() < 0.9:
            spec["concurrency_key"] = rng.choice("kkl")
        if self.wide:
            spec["slots"] = rng.choice((1, 1, 2))
        if self.devices and rng.random() < 0.8:
            spec["resources"] = ((DEVICE, rng.randint(1, self.devices)),)
        budgets = []
        if self.held and rng.random() < 0.9:
            budgets.append(("q", HELD, rng.randint(1, self.held)))
        if self.spent is not None and rng.random() < 0.9:
            budgets.append(("q", SPENT, rng.randint(1, self.spent.burst)))
        if budgets:
            spec["budgets"] = tuple(budgets)
        if self.parents and n and rng.random() < 0.7:
            spec["parents"] = tuple(f"task-{each}" for each in sorted(rng.sample(range(n), min(n, rng.choice((1, 2))))))
            spec["on_parent_failure"] = rng.choice(tuple(OnDependencyFailure))
        # A child would hold up its own parents if it were before them, or the one that is run for them.
        if self.ordering and "parents" not in spec and rng.random() < 0.9:
            spec["ordering_key"] = rng.choice("kkl")
        return spec

    def twin(self, spec: dict[str, Any], rng: random.Random) -> str:
        """Draw the idempotency key of a Task, "" for none."""
        return rng.choice("kkkl") if self.twins and "parents" not in spec and rng.random() < 0.9 else ""


NOTHING = Shared()


def draw(rng: random.Random) -> Shared:
    """Draw one to three kinds of bounds."""
    kinds = {rng.choice(KINDS) for _ in range(rng.choice((1, 1, 2, 3)))}
    burst = rng.choice((1, 2, 3))
    return Shared(
        concurrency=rng.choice((1, 1, 2)) if "concurrency" in kinds else 0,
        ordering="ordering" in kinds,
        quota=rng.choice((Quota(leased=1), Quota(leased=2), Quota(slots=2))) if "quota" in kinds else UNBOUNDED,
        tenant_quota=rng.choice((Quota(leased=1), Quota(slots=2))) if "tenants" in kinds else UNBOUNDED,
        rate=TokenRate(rng.choice((0.2, 1.0)), burst) if "rate" in kinds else None,
        tenant_rate=TokenRate(rng.choice((0.2, 1.0)), 1) if {"tenants", "rate"} <= kinds else None,
        held=rng.choice((1, 2, 3)) if "budget" in kinds else 0,
        spent=TokenRate(rng.choice((0.2, 1.0)), burst) if "spending" in kinds else None,
        devices=rng.choice((1, 2)) if "resources" in kinds else 0,
        wide="wide" in kinds,
        parents="parents" in kinds,
        twins="twins" in kinds,
    )
