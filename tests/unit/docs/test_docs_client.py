"""The client's page: each example runs as it is printed, against a cluster in memory with the README's agent."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pages import blocks, rows

import taskdist.client
from taskdist.agent import Agent
from taskdist.client import AsyncClient, Client, kube
from taskdist.client.testing import FakeBackend

PAGE = "client.md"


def texts(page: str) -> list[str]:
    return [block.text for block in blocks("python") if block.page.name == page]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeBackend]:
    scope: dict[str, Any] = {"__name__": "example"}
    (agent,) = [each for each in texts("README.md") if "Agent()" in each]
    exec(compile(agent, "README.md", "exec"), scope)
    assert isinstance(scope["agent"], Agent)
    with FakeBackend() as fake:
        fake.serve(scope["agent"])

        @asynccontextmanager
        async def connect(*_: object, **__: object) -> AsyncIterator[tuple[FakeBackend, None]]:
            yield fake, None

        monkeypatch.setattr(kube, "connect", connect)
        yield fake


def test_the_examples_run_as_printed_one_after_the_other(fake: FakeBackend, capsys: pytest.CaptureFixture[str]) -> None:
    first, many, asynchronous, tested = texts(PAGE)
    scope: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(first, "first", "exec"), scope)
    assert capsys.readouterr().out == "Hello, you!\n"
    exec(compile(many, "many", "exec"), scope)
    told = capsys.readouterr().out.splitlines()
    assert sorted(told) == sorted(f"{n} Hello, guest {n}!" for n in range(100))
    exec(compile(asynchronous, "asynchronous", "exec"), scope)
    assert capsys.readouterr().out == "Hello, you!\n"
    exec(compile(tested, "tested", "exec"), scope)
    scope["test_greets_everybody"]()


def test_the_readme_s_first_screen_shows_it(fake: FakeBackend, capsys: pytest.CaptureFixture[str]) -> None:
    (text,) = [each for each in texts("README.md") if "import Client" in each]
    exec(compile(text, "README.md", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out == "{'greeting': 'Hello, you!'}\n"


def test_the_table_of_errors_has_each_of_them() -> None:
    named = {word.strip("` ") for row in rows(PAGE) for word in row[0].split(",")}
    classes = {name for name in taskdist.client.__all__ if isinstance(getattr(taskdist.client, name), type)}
    errors = {
        name
        for name in classes
        if issubclass(getattr(taskdist.client, name), taskdist.client.TaskdistError)
        and name not in ("TaskdistError", "TaskUnsuccessful")
    }
    assert errors <= named
    assert len(errors) > 8


def test_the_table_of_calls_has_each_of_them_and_both_clients_have_them() -> None:
    public = {name for name in vars(AsyncClient) if not name.startswith("_")} - {
        "open",
        "close",
        "namespace",
        "backend",
        "view",
    }
    page = " ".join(row[0] for row in rows(PAGE))
    # Those are the same for what is written down already.
    assert {name for name in public if f"`{name}" not in page} == {"submit_one", "submit_document", "map_documents"}
    assert public - set(vars(Client)) == {"submit_one", "submit_document", "map_documents"}
