"""A wrong scenario is refused with the path of each field and what to do; variants change what they name."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from sim_worlds import NOWHERE, scenario, stream

from taskdist.simulation import ScenarioError, load, parse
from taskdist.simulation.scenario import Policy, merged

SCENARIOS = sorted((Path(__file__).parents[3] / "manifests" / "scenarios").glob("*.yaml"))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_the_shipped_scenarios_can_be_run(path: Path) -> None:
    loaded = load(path)
    assert loaded.scenario.name
    assert loaded.scenario.description


def changed(path: str, value: Any) -> dict[str, Any]:
    """A good scenario with one field set, or removed if the value is `...`."""
    made = scenario(stream({"poisson": {"perSecond": 1}}, {"exponential": {"mean": 1}}, 10))
    here: Any = made
    *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    for step in way:
        here = here.setdefault(step, {}) if isinstance(here, dict) else here[step]
    if value is ...:
        del here[last]
    else:
        here[last] = value
    return made


STREAM = "workload.streams.0"
BAD: dict[str, tuple[str, Any, str]] = {
    "no queues": ("queues", ..., "queues: is missing"),
    "no Tasks": ("workload.streams", [], "workload.streams: "),
    "a word too many": ("colour", 1, "colour: there is no such field or name; There are: name, description"),
    "a typing error": (
        f"{STREAM}.arrivals",
        {"poison": {"perSecond": 1}},
        "workload.streams[0].arrivals.poison: there is no such field or name; did you mean poisson?",
    ),
    "a rate of nothing": (
        f"{STREAM}.arrivals.poisson.perSecond",
        0,
        "workload.streams[0].arrivals.poisson.perSecond: Input should be greater than 0",
    ),
    "two processes": (
        f"{STREAM}.arrivals.constant",
        {"perSecond": 1},
        "workload.streams[0].arrivals: give exactly one process of: poisson, constant",
    ),
    "no service": (f"{STREAM}.service", ..., "workload.streams[0]: service is missing: say how long"),
    "two distributions": (
        f"{STREAM}.service.constant",
        1,
        "workload.streams[0].service: give exactly one distribution of: constant",
    ),
    "median and mean": (
        f"{STREAM}.service",
        {"lognormal": {"median": 1, "mean": 1, "sigma": 1}},
        "workload.streams[0].service.lognormal: give either median or mean",
    ),
    "no end": (f"{STREAM}.count", ..., "workload.streams[0]: these arrivals never end: add count"),
    "no such queue": (f"{STREAM}.task.queue", "w", "workload.streams[0].task.queue: no queue w; there are: q"),
    "no queue": (f"{STREAM}.task.queue", ..., "workload.streams[0].task.queue: is missing"),
    "an array": (
        "workload.streams.0.task.array",
        {"count": 5},
        "workload.streams[0].task.array: not here: arrays are not simulated: give single Tasks",
    ),
    "no such field of a Task": (
        f"{STREAM}.task.prioritty",
        1,
        "workload.streams[0].task.prioritty: a Task has no such field; did you mean priority?",
    ),
    "no such priority": (
        f"{STREAM}.task.priority",
        "Highest",
        "workload.streams[0].task.priority: Input should be 'Emergency', 'Critical'",
    ),
    "a bad choice": (
        f"{STREAM}.task.priority",
        {"choose": [{"value": "High"}, {"value": "high"}]},
        "workload.streams[0].task.priority.choose[1].value: Input should be 'Emergency'",
    ),
    "a choice without value": (
        f"{STREAM}.task.priority",
        {"choose": [{"weight": 1}]},
        "workload.streams[0].task.priority.choose[0]: a choice is {weight: …, value: …}",
    ),
    "a choice of no weight": (
        f"{STREAM}.task.priority",
        {"choose": [{"weight": 0, "value": 1}]},
        "workload.streams[0].task.priority.choose[0].weight: 0 is no number above 0",
    ),
    "no choice": (f"{STREAM}.task.type", {"choose": []}, "workload.streams[0].task.type.choose: give a list"),
    "two deadlines": (
        f"{STREAM}.deadline",
        {"slack": 1, "within": 1},
        "workload.streams[0].deadline: give either slack or within",
    ),
    "a missing trace": (f"{STREAM}.arrivals", {"trace": "no.csv"}, "workload.streams[0].arrivals.trace: /nonexistent"),
    "a missing workload": (f"{STREAM}.arrivals", {"swf": "no.swf"}, "workload.streams[0].arrivals.swf: /nonexistent"),
    "no such pool": ("queues.0.spec.pools", ["x"], "queues[0].spec.pools[0]: there is no such field or name"),
    "a field of a queue misspelt": (
        "queues.0.spec.retry",
        {"limits": 1},
        "queues[0].spec.retry.limits: there is no such field or name; did you mean limit?",
    ),
    "a field of a queue out of range": ("queues.0.spec.retry", {"limit": -1}, "queues[0].spec.retry.limit: Input"),
    "a field of a pool unknown": ("pools.0.spec.size", 3, "pools[0].spec.size: there is no such field or name"),
    "a pool without name": ("pools.0.metadata", {}, "pools[0].metadata.name: is missing"),
    "traits of no pool": ("agents.x", {"speed": 1}, "agents.x: there is no such field or name; There are: p"),
    "no speed": ("agents.p", {"speed": 0}, "agents.p.speed: Input should be greater than 0"),
    "faults in no pool": (
        "faults.agentDeath",
        {"every": 1, "pools": ["x"]},
        "faults.agentDeath.pools[0]: there is no such field or name",
    ),
    "a zone that is nowhere": (
        "faults.zoneLoss",
        [{"zone": "a", "at": 1}],
        "faults.zoneLoss[0].zone: there is no such",
    ),
    "a sure thing and more": ("faults.attemptFailure", {"probability": 1.5}, "faults.attemptFailure.probability: "),
    "a baseline that has to scale": (
        "policy",
        "random",
        "policy: random does not size pools, and p has scaling: give it replicas instead",
    ),
    "no such policy": ("policy", "best", "policy: Input should be 'core', 'fifo', 'round-robin'"),
    "a variant of no queue": (
        "compare.a",
        {"queues": {"x": {"paused": True}}},
        "compare.a.queues.x: there is no such field or name; There are: q",
    ),
    "a variant with a bad field": (
        "compare.a",
        {"pools": {"p": {"slots": 0}}},
        "compare.a.pools.p.slots: Input should be greater than or equal to 1",
    ),
    "a variant with an unknown field": (
        "compare.a",
        {"queues": {"q": {"orders": "Best"}}},
        "compare.a.queues.q.orders: there is no such field or name",
    ),
    "a variant of traits": ("compare.a", {"agents": {"p": {"pace": 1}}}, "compare.a.agents.p.pace: there is no such"),
}


@pytest.mark.parametrize(("path", "value", "message"), BAD.values(), ids=BAD.keys())
def test_each_mistake_is_named_by_its_path(path: str, value: Any, message: str) -> None:
    given = changed(path, value)
    if value == "random":
        given["pools"][0]["spec"] = {"scaling": {"maxReplicas": 3}}
    with pytest.raises(ScenarioError) as refused:
        parse(given, NOWHERE)
    assert message in str(refused.value)
    assert "pydantic" not in str(refused.value)


def test_what_the_table_changes_is_good() -> None:
    parse(changed("name", "x"), NOWHERE)


def test_all_mistakes_are_told_at_once() -> None:
    given = changed("agents.x", {})
    given["queues"][0]["spec"]["size"] = 1
    with pytest.raises(ScenarioError) as refused:
        parse(given, NOWHERE)
    assert len(str(refused.value).splitlines()) == 2


@pytest.mark.parametrize("given", [None, [], "text", 3])
def test_what_is_no_mapping(given: Any) -> None:
    with pytest.raises(ScenarioError, match="a scenario is a mapping"):
        parse(given, NOWHERE)


def test_two_of_one_name() -> None:
    given = changed("name", "x")
    given["queues"].append(given["queues"][0])
    with pytest.raises(ScenarioError, match=r"queues\[1\].metadata.name: q is there already"):
        parse(given, NOWHERE)
    given = scenario(stream(name="a"), stream(name="a"))
    with pytest.raises(ScenarioError, match=r"streams\[1\].name: a is there already"):
        parse(given, NOWHERE)


def test_a_file_that_is_not_there_or_no_yaml(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="No such file"):
        load(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("queues: [\n")
    with pytest.raises(ScenarioError, match="is no YAML"):
        load(tmp_path / "bad.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ScenarioError):
        load(tmp_path / "bytes.yaml")


def test_a_trace_without_service_needs_one(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("time,service\n1,2\n3,\n")
    bare = scenario(stream({"trace": "t.csv"}))
    del bare["workload"]["streams"][0]["service"]
    with pytest.raises(ScenarioError, match=r"streams\[0\].service: not all lines of the trace have a service"):
        parse(bare, tmp_path)


def test_variants() -> None:
    given = scenario(
        stream(),
        pools={"p": {"scaling": {"maxReplicas": 3}}},
        agents={"p": {"speed": 2, "watts": 9}},
        compare={
            "same": None,
            "paused": {"queues": {"q": {"paused": True}}},
            "fixed": {"pools": {"p": {"scaling": None, "replicas": 5}}, "policy": "fifo"},
            "slower": {"agents": {"p": {"speed": 1}}},
            "frail": {"faults": {"attemptFailure": {"probability": 0.5}}},
        },
    )
    found = parse(given, NOWHERE).variants
    assert list(found) == ["same", "paused", "fixed", "slower", "frail"]
    assert found["same"].queues[0].spec.paused is False
    assert found["paused"].queues[0].spec.paused is True
    fixed = found["fixed"]
    assert (fixed.pools[0].spec.scaling, fixed.pools[0].spec.replicas, fixed.policy) == (None, 5, Policy.FIFO)
    assert (found["slower"].traits("p").speed, found["slower"].traits("p").watts) == (1, 9)
    assert found["frail"].faults.attempt_failure is not None
    assert found["same"].faults.attempt_failure is None


@pytest.mark.parametrize(
    ("base", "change", "expected"),
    [
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}, {"a": {"b": 3, "c": 2}}),
        ({"a": {"b": 1}}, {"a": None}, {}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": 1}, {"a": {"b": 2}}, {"a": {"b": 2}}),
    ],
)
def test_changes_merge_as_a_merge_patch_does(base: Any, change: Any, expected: Any) -> None:
    assert merged(base, change) == expected


def test_manifests_are_taken_as_they_are_applied() -> None:
    """A file of a cluster may be pasted: apiVersion, kind, a template."""
    root = Path(__file__).parents[3] / "manifests" / "samples"
    given = scenario(stream(task={"queue": "analysis"}))
    given["queues"] = [yaml.safe_load((root / "queue.yaml").read_text())]
    given["pools"] = [yaml.safe_load((root / "pool.yaml").read_text())]
    loaded = parse(given, NOWHERE)
    assert loaded.scenario.pools[0].spec.skills == ["python"]
