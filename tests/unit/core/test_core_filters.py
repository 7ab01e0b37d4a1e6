"""Which agents may run a Task: each filter by itself, and which of them is reached first."""

from dataclasses import replace

import pytest

from builders import AgentBuilder, TaskBuilder, make_agent, make_pool, make_task
from taskdist.api import Reason
from taskdist.core.agents.filters import (
    FILTERS,
    Offer,
    covers,
    fulfils,
    need_of,
    offer_of,
    prospective,
    refusal,
    tasks_at_once,
)
from taskdist.core.model import Pool, Requirement


def offered(builder: AgentBuilder, pool: Pool | None = None) -> Offer:
    return offer_of(builder.build(), pool)


@pytest.mark.parametrize(
    ("requirement", "labels", "expected"),
    [
        pytest.param(("In", "a", "b"), {"zone": "a"}, True, id="in-one-of"),
        pytest.param(("In", "a"), {"zone": "c"}, False, id="in-another"),
        pytest.param(("In", "a"), {}, False, id="in-absent"),
        pytest.param(("NotIn", "a"), {"zone": "c"}, True, id="not-in-another"),
        pytest.param(("NotIn", "a"), {"zone": "a"}, False, id="not-in-named"),
        pytest.param(("NotIn", "a"), {}, True, id="not-in-absent-holds-as-kubernetes-says"),
        pytest.param(("Exists",), {"zone": ""}, True, id="exists-even-empty"),
        pytest.param(("Exists",), {"other": "a"}, False, id="exists-absent"),
        pytest.param(("DoesNotExist",), {}, True, id="does-not-exist-absent"),
        pytest.param(("DoesNotExist",), {"zone": "a"}, False, id="does-not-exist-present"),
        pytest.param(("Unheard",), {"zone": "a"}, False, id="an-unknown-operator-never-holds"),
    ],
)
def test_requirements(requirement: tuple[str, ...], labels: dict[str, str], expected: bool) -> None:
    operator, *values = requirement
    assert fulfils(Requirement("zone", operator, frozenset(values)), labels) is expected


@pytest.mark.parametrize(
    ("task", "agent", "expected"),
    [
        pytest.param(make_task("t"), make_agent("a"), None, id="plain"),
        pytest.param(make_task("t").type("x"), make_agent("a").types(["x", "y"]), None, id="type-handled"),
        pytest.param(make_task("t").type("z"), make_agent("a").types(["x"]), Reason.NO_HANDLER, id="type-not-handled"),
        pytest.param(make_task("t"), make_agent("a").types([]), Reason.NO_HANDLER, id="no-types-at-all"),
        pytest.param(make_task("t").skills("gpu"), make_agent("a").skills("gpu", "io"), None, id="skilled"),
        pytest.param(
            make_task("t").skills("gpu", "io"),
            make_agent("a").skills("gpu"),
            Reason.SKILL_MISSING,
            id="one-skill-short",
        ),
        pytest.param(
            make_task("t").selector("zone", "In", "a").selector("disk", "Exists"),
            make_agent("a").labels(zone="a", disk="ssd"),
            None,
            id="all-requirements-hold",
        ),
        pytest.param(
            make_task("t").selector("zone", "In", "a").selector("disk", "Exists"),
            make_agent("a").labels(zone="a"),
            Reason.LABELS_MISMATCH,
            id="one-requirement-does-not",
        ),
        pytest.param(make_task("t"), make_agent("a").fenced(False), Reason.UNFENCED, id="unfenced"),
        pytest.param(make_task("t").stored(), make_agent("a").stores(), None, id="a-stored-payload-and-a-store"),
        pytest.param(
            make_task("t").stored(), make_agent("a"), Reason.OBJECT_STORE_MISSING, id="a-stored-payload-and-no-store"
        ),
        pytest.param(make_task("t"), make_agent("a").stores(), None, id="a-store-that-nobody-needs"),
        pytest.param(make_task("t").slots(2), make_agent("a").slots(2), None, id="just-large-enough"),
        pytest.param(make_task("t").slots(3), make_agent("a").slots(2), Reason.TOO_LARGE, id="too-few-slots"),
        pytest.param(make_task("t").resources(mem=2), make_agent("a").resources(mem=2), None, id="just-enough"),
        pytest.param(
            make_task("t").resources(mem=3), make_agent("a").resources(mem=2), Reason.TOO_LARGE, id="too-little"
        ),
        pytest.param(make_task("t").resources(mem=1), make_agent("a"), Reason.TOO_LARGE, id="no-such-resource"),
        pytest.param(
            make_task("t").skills("gpu").slots(9), make_agent("a"), Reason.SKILL_MISSING, id="the-first-that-refuses"
        ),
    ],
)
def test_refusals(task: TaskBuilder, agent: AgentBuilder, expected: Reason | None) -> None:
    number = refusal(need_of(task.build(), allows_unfenced=False), offered(agent))
    assert (None if number is None else FILTERS[number].reason) == expected


ZONED = make_task("t").placed(zones=("z1", "z2"))


@pytest.mark.parametrize(
    ("task", "agent", "pool", "expected"),
    [
        pytest.param(ZONED, make_agent("a").zone("z2"), {}, None, id="in-a-zone"),
        pytest.param(ZONED, make_agent("a").zone("z3"), {}, Reason.ZONE_MISMATCH, id="in-another"),
        pytest.param(ZONED, make_agent("a"), {}, Reason.ZONE_MISMATCH, id="in-none"),
        pytest.param(make_task("t").placed(regions=("r",)), make_agent("a").zone("z"), {}, None, id="in-a-region"),
        pytest.param(
            ZONED.placed(regions=("r2",)), make_agent("a").zone("z1"), {}, Reason.REGION_MISMATCH, id="another-region"
        ),
        pytest.param(
            make_task("t").placed(max_cost=2.0), make_agent("a"), {"cost_per_hour": 2.0}, None, id="just-affordable"
        ),
        pytest.param(
            make_task("t").placed(max_cost=2.0),
            make_agent("a"),
            {"cost_per_hour": 2.1},
            Reason.TOO_EXPENSIVE,
            id="too-dear",
        ),
        pytest.param(make_task("t").placed(max_cost=0.0), make_agent("a"), {}, None, id="what-costs-nothing"),
        pytest.param(make_task("t").placed(min_quality=0.5), make_agent("a"), {}, None, id="as-good-as-can-be"),
        pytest.param(
            make_task("t").placed(min_quality=0.5),
            make_agent("a"),
            {"quality": 0.4},
            Reason.QUALITY_TOO_LOW,
            id="not-good-enough",
        ),
    ],
)
def test_refusals_by_place_and_worth(
    task: TaskBuilder, agent: AgentBuilder, pool: dict[str, float], expected: Reason | None
) -> None:
    offer = offered(agent, make_pool().worth(**pool).build())
    number = refusal(need_of(task.build(), allows_unfenced=False), offer)
    assert (None if number is None else FILTERS[number].reason) == expected


@pytest.mark.parametrize(
    ("patient", "labels", "expected"),
    [
        pytest.param(True, {"disk": "ssd"}, None, id="met"),
        pytest.param(True, {"disk": "hdd", "gpu": "yes"}, None, id="one-of-them"),
        pytest.param(True, {"disk": "hdd"}, Reason.AFFINITY_WAIT, id="none-yet"),
        pytest.param(False, {"disk": "hdd"}, None, id="none-and-not-patient"),
    ],
)
def test_only_a_patient_task_insists_on_what_it_prefers(
    patient: bool, labels: dict[str, str], expected: Reason | None
) -> None:
    task = make_task("t").prefers("disk", "ssd").prefers("gpu", "yes")
    number = refusal(need_of(task.build(), True, patient), offered(make_agent("a").labels(**labels)))
    assert (None if number is None else FILTERS[number].reason) == expected


def test_an_agent_that_is_yet_to_come_may_be_anywhere_unless_its_template_says_where() -> None:
    need, pool = need_of(ZONED.build(), False), make_pool().build()
    assert refusal(need, prospective(pool)) is None
    elsewhere = replace(pool, labels=(("topology.kubernetes.io/zone", "z3"),))
    number = refusal(need, prospective(elsewhere))
    assert number is not None
    assert FILTERS[number].reason is Reason.ZONE_MISMATCH


def test_a_queue_may_allow_unfenced_agents() -> None:
    assert (
        refusal(need_of(make_task("t").build(), allows_unfenced=True), offered(make_agent("a").fenced(False))) is None
    )


@pytest.mark.parametrize(
    ("task", "agent", "expected"),
    [
        pytest.param(make_task("t"), make_agent("a").slots(4), 4, id="one-slot-each"),
        pytest.param(make_task("t").slots(3), make_agent("a").slots(4), 1, id="the-rest-is-no-use"),
        pytest.param(make_task("t").slots(5), make_agent("a").slots(4), 0, id="not-even-one"),
        pytest.param(
            make_task("t").resources(gpu=1), make_agent("a").slots(8).resources(gpu=2), 2, id="a-resource-is-short"
        ),
        pytest.param(make_task("t").resources(gpu=1), make_agent("a").slots(8), 0, id="a-resource-is-missing"),
        pytest.param(
            make_task("t").resources(gpu=0), make_agent("a").slots(8), 8, id="asking-for-none-of-it-costs-none-of-it"
        ),
    ],
)
def test_tasks_at_once(task: TaskBuilder, agent: AgentBuilder, expected: int) -> None:
    built = agent.build()
    assert tasks_at_once(built.slots, built.resources, need_of(task.build(), False)) == expected


def test_covers() -> None:
    assert covers([("a", 2), ("b", 1)], [("a", 2)])
    assert not covers([("a", 2)], [("a", 1), ("b", 1)])
