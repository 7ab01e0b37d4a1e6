"""Two releases in one installation: no promise breaks, and no attempt is lost, while agents and operators are mixed."""

from collections.abc import Callable
from typing import Any

import pytest

from faults.plan import make_plan
from faults.releases import EndsWhenRefused, OldAgent, OldLeader, saying
from faults.violation import Violation
from faults.world import World
from taskdist.protocol.agent import AgentEnd
from taskdist.protocol.agent.work import AgentAction
from taskdist.protocol.messages import PROTOCOL_VERSION
from taskdist.protocol.operator import Leader

SEEDS = 25


def rolling(core: Any, epoch: int, settings: Any, **more: Any) -> Leader:
    """An upgrade and a rollback: each leadership is of the other release."""
    return (OldLeader if epoch % 2 else Leader)(core, epoch, settings, **more)


def mixed(instance: str, *args: Any, **more: Any) -> AgentEnd:
    return (OldAgent if instance < "pod2" else AgentEnd)(instance, *args, **more)


class Stubborn(AgentEnd):
    """It says its own version only."""

    def connected(self, boot: float) -> list[AgentAction]:
        return saying(super().connected(boot), protocol_version=PROTOCOL_VERSION)


def play(seed: int, leader: Any, agent: Any, **plan: Any) -> str:
    """Return which promise broke."""
    try:
        World(seed, make_plan(seed, **plan), leader=leader, agent=agent).run()
    except Violation as violation:
        return violation.kind
    return ""


@pytest.mark.parametrize(
    ("leader", "agent"),
    [
        pytest.param(Leader, OldAgent, id="old agents, new operator"),
        pytest.param(OldLeader, AgentEnd, id="new agents, old operator"),
        pytest.param(rolling, AgentEnd, id="new agents, operators of both"),
        pytest.param(Leader, mixed, id="agents of both, new operator"),
    ],
)
@pytest.mark.parametrize("gentle", [False, True], ids=["faults", "changes of leader only"])
def test_releases_side_by_side_break_no_promise(leader: Callable[..., Leader], agent: Any, gentle: bool) -> None:
    kinds = {"kinds": ("step_down", "slow_watch"), "gentle": True} if gentle else {}
    assert {play(seed, leader, agent, **kinds) for seed in range(SEEDS)} == {""}


@pytest.mark.parametrize(
    "agent", [pytest.param(Stubborn, id="one version only"), pytest.param(EndsWhenRefused, id="ends when refused")]
)
def test_an_agent_that_does_not_come_again_as_the_operator_speaks_is_lost(agent: type[AgentEnd]) -> None:
    kinds = {play(seed, OldLeader, agent, pods=1, elastic=False, long_work=0.0) for seed in range(20)}
    assert "liveness" in kinds
