"""Examples are right: manifests fit the models, commands exist with these options, code runs, links lead somewhere."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from pages import ROOT, Block, blocks, pages

from taskdist.agent import Agent, Context
from taskdist.api import AgentPool, Task, TaskQueue, TaskSink
from taskdist.cli.main import PLUGIN, PROGRAM, build

MODELS = {"Task": Task, "TaskQueue": TaskQueue, "AgentPool": AgentPool, "TaskSink": TaskSink}


def manifests() -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{block.page.name}: {document['kind']} {document['metadata']['name']}", document)
        for block in blocks("yaml")
        for document in yaml.safe_load_all(block.text)
        # Scenarios of the simulator are tried with its own tests; the API server's own kinds are not ours to judge.
        if "workload" not in document and document["kind"] in MODELS
    ]


@pytest.mark.parametrize("document", [pytest.param(doc, id=name) for name, doc in manifests()])
def test_manifests_say_what_the_models_know(document: dict[str, Any]) -> None:
    parsed = MODELS[document["kind"]].model_validate(document)
    written = parsed.model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert written["spec"] == document["spec"]


def commands() -> list[tuple[str, list[str]]]:
    """Each line of a shell block that calls a program, as its words."""
    found = []
    for language in ("sh", "console"):
        for block in blocks(language):
            for line in block.text.replace("\\\n", " ").splitlines():
                words = shlex.split(line.partition(" | ")[0], comments=True)
                if words:
                    found.append((f"{block.page.name}: {line[:60]}", words))
    return found


def ours() -> list[Any]:
    return [
        pytest.param(PROGRAM, words[1:], id=name) for name, words in commands() if words[0].endswith("taskdist")
    ] + [pytest.param(PLUGIN, words[2:], id=name) for name, words in commands() if words[:2] == ["kubectl", "task"]]


@pytest.mark.parametrize(("program", "arguments"), ours())
def test_our_commands_exist_with_these_options(program: str, arguments: list[str]) -> None:
    command: Any = typer.main.get_command(build(program))
    rest = arguments
    while inner := getattr(command, "commands", None):
        assert rest, f"{program} needs a command"
        if rest[0] not in inner and (default := getattr(command, "default", "")):
            rest = [default, *rest]
        assert rest[0] in inner, f"{program} has no command {rest[0]!r}"
        command, rest = inner[rest[0]], rest[1:]
    # Parses, and calls nothing.
    command.make_context(command.name, list(rest))


WRONG = {
    "no such option": ["submit", "--queue", "analysis", "--type", "analyse"],
    "an option before the command": ["-n", "demo", "submit", "analysis", "--type", "analyse"],
    "no such command": ["await", "hello"],
    "an argument is missing": ["explain"],
}


@pytest.mark.parametrize("arguments", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_command_would_be_found(arguments: list[str]) -> None:
    # typer's base of all errors of usage, whichever click it brings.
    usage = typer.BadParameter.__mro__[1]
    with pytest.raises((AssertionError, usage)):
        test_our_commands_exist_with_these_options(PROGRAM, arguments)


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def made(page: Path) -> set[str]:
    """The targets of make that the page names."""
    return set(re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.MULTILINE))


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_make_targets_exist(page: Path) -> None:
    assert made(page) <= targets()


NAMED_FILES = [
    pytest.param(word, id=f"{word} in {name}")
    for name, words in commands()
    if words[0] in ("helm", "kubectl")
    for word in words
    if word.startswith(("charts/", "manifests/", "crds/"))
]


@pytest.mark.parametrize("word", NAMED_FILES)
def test_files_that_commands_name_exist(word: str) -> None:
    assert (ROOT / word).exists()


# Those of clients are run by test_docs_client.py.
AGENTS = [block for block in blocks("python") if "Client" not in block.text and "fake_client" not in block.text]


@pytest.mark.parametrize("block", AGENTS, ids=lambda block: block.id)
def test_python_examples_make_an_agent(block: Block) -> None:
    # As a worker imports it: not as the main program.
    scope: dict[str, Any] = {"__name__": "example"}
    exec(compile(block.text, block.id, "exec"), scope)
    agent = scope["agent"]
    assert isinstance(agent, Agent)
    assert agent.handlers


def test_the_readme_s_agent_answers() -> None:
    block = next(block for block in AGENTS if block.page.name == "README.md")
    scope: dict[str, Any] = {"__name__": "example"}
    exec(compile(block.text, block.id, "exec"), scope)
    told: list[tuple[float, str]] = []
    ctx = Context("hello", "try", "u", 1, "greet", lambda fraction, message: told.append((fraction, message)))
    assert scope["greet"]({"name": "you"}, ctx) == {"greeting": "Hello, you!"}
    assert told == [(0.5, "thinking of words")]


def links(page: Path) -> list[str]:
    """Where the page's links to files of this repository lead."""
    found = re.findall(r"\]\(([^)]+)\)", page.read_text())
    return [target.partition("#")[0] for target in found if "://" not in target and not target.startswith("#")]


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    assert [target for target in links(page) if not (page.parent / target).exists()] == []


def test_pages_have_what_these_tests_look_for() -> None:
    every = pages()
    assert {"verify", "test", "demo"} <= {target for page in every for target in made(page)}
    assert sum(len(links(page)) for page in every) > 50


def test_the_navigation_has_each_page() -> None:
    text = (ROOT / "mkdocs.yml").read_text()
    every = list((ROOT / "docs").rglob("*.md"))
    assert len(every) > 10
    for page in every:
        assert str(page.relative_to(ROOT / "docs")) in text
