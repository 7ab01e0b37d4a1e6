"""The page on the simulator is right: its scenario runs, and all words of files and figures are on it."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from sim_worlds import NOWHERE, played, playing

from taskdist.simulation import parse
from taskdist.simulation.arrivals import Arrivals
from taskdist.simulation.distributions import OneOf
from taskdist.simulation.faults import Faults
from taskdist.simulation.figures import figures
from taskdist.simulation.scenario import Policy, Scenario, Stream, Traits

PAGE = (Path(__file__).parents[3] / "docs" / "simulator.md").read_text()
WORDS = set(re.findall(r"`([^`\n]+)`", PAGE))


def scenarios() -> list[Any]:
    return [yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)]


@pytest.mark.parametrize("given", scenarios(), ids=lambda given: given["name"])
def test_its_scenario_runs(given: dict[str, Any]) -> None:
    parse(given, NOWHERE)
    assert figures(played(given))["completed"] == 1000


def words(*models: Any) -> list[str]:
    return [field.alias or name for model in models for name, field in model.model_fields.items()]


@pytest.mark.parametrize("word", words(Scenario, Traits, Faults, Arrivals))
def test_each_word_of_a_scenario_is_explained(word: str) -> None:
    streams = {"workload": "workload.streams", "name": "name", "description": "description"}
    assert streams.get(word, word) in WORDS | {"name", "description"}


@pytest.mark.parametrize("word", [*Policy, *(name for name in words(OneOf) if name != "constant")])
def test_each_policy_and_distribution_is_named(word: str) -> None:
    assert word in WORDS


@pytest.mark.parametrize("word", [word for word in words(Stream) if word not in ("name", "arrivals")])
def test_each_field_of_a_stream_is_named(word: str) -> None:
    assert word in WORDS or f"`{word}`" in PAGE or f"deadline's `{word}`" in PAGE or word == "deadline"


@pytest.mark.parametrize("key", [*figures(playing()), "spread", "seeds", "variants", "paired"])
def test_each_figure_is_explained(key: str) -> None:
    assert key in WORDS
