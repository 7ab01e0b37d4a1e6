"""What the code can say, the documentation explains; what the documentation names, the code has."""

import re
from pathlib import Path

import pytest
from pages import DOCS, ROOT, SOURCE, pages, rows, words
from prometheus_client import CollectorRegistry

from taskdist.api import Reason, reference
from taskdist.api.crd import kinds
from taskdist.api.tasksink import SinkReason
from taskdist.api.tasksource import SourceReason
from taskdist.archive.metrics import ArchiveMetrics
from taskdist.gateway import measures
from taskdist.intake.message import PoisonReason
from taskdist.link.session import End
from taskdist.mcp.measures import Measures as McpMeasures
from taskdist.observability.metrics import Metrics
from taskdist.sinks.metrics import SinkMetrics
from taskdist.sources.metrics import SourceMetrics

_VARIABLE = re.compile(r"\bTASKDIST_[A-Z_]+[A-Z]\b")
# Said by the Makefile and the tests, not by a process that users run.
_NOT_SETTINGS = {"TASKDIST_HISTORIES", "TASKDIST_COMPILE"}
# Read by the command, and documented with it.
_OF_THE_COMMAND = {"TASKDIST_OPERATOR_LEASE", "TASKDIST_GATEWAY", "TASKDIST_TOKEN"}
# Set for a command by the agent, and documented there.
_FOR_COMMANDS = {f"TASKDIST_{name}" for name in ("TASK", "NAMESPACE", "UID", "ATTEMPT", "TYPE", "PARENTS")}


@pytest.mark.parametrize("reason", list(Reason))
def test_each_reason_has_a_row_that_says_what_it_means_and_what_to_do(reason: Reason) -> None:
    mine = [row for row in rows("troubleshooting.md") if f"`{reason}`" in row[0]]
    if reason is Reason.ASSIGNED:
        assert f"`{reason}`" in (DOCS / "troubleshooting.md").read_text()
        return
    assert mine, f"docs/troubleshooting.md has no row for {reason}"
    assert all(len(row) == 3 and row[1] and row[2] for row in mine)


@pytest.mark.parametrize("reason", list(SourceReason))
def test_each_reason_of_a_source_has_a_row(reason: SourceReason) -> None:
    assert [row for row in rows("sources.md") if row[0] == f"`{reason}`" and row[1]]


@pytest.mark.parametrize("reason", list(SinkReason))
def test_each_reason_of_a_sink_has_a_row(reason: SinkReason) -> None:
    assert [row for row in rows("sinks.md") if row[0] == f"`{reason}`" and row[1]]


@pytest.mark.parametrize("reason", list(PoisonReason))
def test_each_reason_of_a_rejected_message_is_told(reason: PoisonReason) -> None:
    assert f"`{reason}`" in (DOCS / "sources.md").read_text()


def refusals() -> set[str]:
    """The words for why an agent is turned away, as the link's sources write them."""
    link = "".join((SOURCE / "link" / name).read_text() for name in ("auth.py", "server.py"))
    words = set(re.findall(r'NotAdmitted\(\s*Refusal\.\w+,\s*"(\w+)"', link))
    assert len(words) > 10
    everywhere = "".join(
        (SOURCE / room).read_text()
        for room in ("link/server.py", "protocol/operator/sessions.py", "controller/dispatch.py")
    )
    return words | set(re.findall(r'\bRefused\(\s*"(\w+)"', everywhere))


@pytest.mark.parametrize("word", sorted(refusals()))
def test_each_refusal_of_the_link_is_explained(word: str) -> None:
    assert word in words("troubleshooting.md")


# A session that is replaced or ends with its operator is no refusal, and is not counted as one.
@pytest.mark.parametrize("end", [end.name for end in End if end not in (End.REPLACED, End.STOPPING)])
def test_each_counted_end_of_a_session_is_explained(end: str) -> None:
    assert end in words("troubleshooting.md")


def metric_names(registry: CollectorRegistry) -> dict[str, str]:
    """Name as a query writes it → type."""
    found = {}
    for metric in registry.collect():
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        found[name] = metric.type
    return found


def of_the_gateway() -> CollectorRegistry:
    found = measures.Measures()
    found.show(lambda: dict.fromkeys(measures.GAUGES, 0.0))
    return found.registry


@pytest.mark.parametrize(
    ("page", "registry"),
    [
        ("observability.md", Metrics().registry),
        ("archive.md", ArchiveMetrics().registry),
        ("gateway.md", of_the_gateway()),
        ("mcp.md", McpMeasures().registry),
        ("sources.md", SourceMetrics().registry),
        ("sinks.md", SinkMetrics().registry),
    ],
)
def test_each_metric_has_a_row_and_each_row_a_metric(page: str, registry: CollectorRegistry) -> None:
    table = {row[0].strip("`"): row[1] for row in rows(page) if row[0].startswith("`taskdist_")}
    assert table == metric_names(registry)


def test_queries_name_metrics_that_exist() -> None:
    named = set(re.findall(r"\btaskdist_[a-z_]+", (DOCS / "observability.md").read_text()))
    assert {name.removesuffix("_bucket") for name in named} == set(metric_names(Metrics().registry))


SETTINGS = (
    "controller/settings.py",
    "agent/options.py",
    "archive/settings.py",
    "sources/settings.py",
    "sinks/settings.py",
    "gateway/settings.py",
    "mcp/settings.py",
    "objects/settings.py",
)


def variables(*files: str) -> set[str]:
    found = {name for file in files for name in _VARIABLE.findall((SOURCE / file).read_text())}
    assert len(found) > 20
    return found


def test_each_setting_has_a_row_and_each_row_a_setting() -> None:
    documented = {name for row in rows("reference/settings.md") for name in _VARIABLE.findall(row[0])}
    assert documented == variables(*SETTINGS)


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_no_page_names_a_setting_that_nobody_reads(page: Path) -> None:
    named = set(_VARIABLE.findall(page.read_text()))
    read = variables(*SETTINGS)
    assert named <= read | _NOT_SETTINGS | _OF_THE_COMMAND | _FOR_COMMANDS


def test_tables_of_fields_are_what_the_models_say() -> None:
    assert reference.stale(DOCS / "reference") == []


@pytest.mark.parametrize("kind", [kind.kind for kind in kinds()])
def test_each_field_is_in_the_table(kind: str) -> None:
    found = next(each for each in kinds() if each.kind == kind)
    page = reference.page(found)
    for part in ("spec", "status"):
        model = found.model.model_fields[part].annotation
        assert model is not None
        for field in model.model_json_schema(by_alias=True)["properties"]:
            assert f"| `{field}` |" in page


def test_check_finds_a_page_that_is_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reference.main([str(tmp_path)]) == 0
    assert reference.main(["--check", str(tmp_path)]) == 0
    (tmp_path / "task.md").write_text("old")
    assert reference.main(["--check", str(tmp_path)]) == 1
    assert "task.md is not what the models say" in capsys.readouterr().err
    assert (tmp_path / "task.md").read_text() == "old"


def test_each_room_is_on_the_map() -> None:
    rooms = {path.name for path in SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    mapped = set(re.findall(r"^\| `(\w+)/` \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE))
    assert mapped == rooms
