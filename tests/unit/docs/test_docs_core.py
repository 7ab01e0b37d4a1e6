"""The pages for whoever reads the code: what they name is there, and the walks are as long as they say."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = ROOT / "operator" / "taskdist"
CORE = (ROOT / "docs" / "core.md").read_text()
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text()

TERMS = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in GLOSSARY.splitlines()[6:] if line]


@pytest.mark.parametrize("term", TERMS, ids=[term[0] for term in TERMS])
def test_a_term_lives_where_the_glossary_says(term: tuple[str, ...]) -> None:
    place = term[3].strip("`")
    assert (PACKAGE / place).exists() or place == "AgentPool", place


def test_each_term_is_told_once_and_in_order() -> None:
    names = [term[0] for term in TERMS]
    assert names == sorted(set(names), key=str.lower)


def test_the_files_that_the_page_of_the_core_names_are_there() -> None:
    named = re.findall(r"`([a-z_]+/(?:[a-z_]+\.py)?)`", CORE)
    assert named
    missing = [name for name in named if not (PACKAGE / "core" / name).exists() and not (ROOT / name).exists()]
    assert not missing


def test_the_walks_are_as_long_as_the_page_says() -> None:
    """In a process of its own: compiled code is not seen."""
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT / 'tests'}"}
    command = [sys.executable, str(Path(__file__).with_name("print_walks.py"))]
    said = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    assert said
    assert said in CORE
