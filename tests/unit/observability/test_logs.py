"""One line, one JSON object, whoever logged it."""

import io
import json
import logging
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from taskdist.observability import logs


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    levels = {name: logging.getLogger(name).level for name in logs.NOISY}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, each in levels.items():
        logging.getLogger(name).setLevel(each)
    logging.captureWarnings(False)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_task_s_line_names_task_attempt_and_agent() -> None:
    stream = io.StringIO()
    logs.configure(stream=stream)
    logs.bind_task("ns", "a", "u1", 2, "p-0").info("assigned", slots=3)
    (line,) = lines(stream)
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "taskdist",
        "message": "assigned",
        "task": "ns/a",
        "uid": "u1",
        "attempt": 2,
        "agent": "p-0",
        "slots": 3,
    }


def test_what_is_not_known_is_left_out() -> None:
    stream = io.StringIO()
    logs.configure(stream=stream)
    logs.bind_task("ns", "a", "u1", logger=logs.get("taskdist.link")).warning("stale")
    (line,) = lines(stream)
    assert "attempt" not in line
    assert "agent" not in line
    assert line["logger"] == "taskdist.link"


def test_the_standard_library_s_loggers_come_out_the_same_way() -> None:
    stream = io.StringIO()
    logs.configure(stream=stream)
    reference = {"kind": "AgentPool", "namespace": "ns", "name": "p"}
    logging.getLogger("kopf.objects").warning("not %s", "good", extra={"k8s_ref": reference})
    (line,) = lines(stream)
    assert (line["level"], line["logger"], line["message"]) == ("warning", "kopf.objects", "not good")
    assert line["object"] == "AgentPool ns/p"


def test_kopf_says_what_went_wrong_and_no_more() -> None:
    stream = io.StringIO()
    logs.configure(stream=stream)
    # As kopf 1.45 says them: for each event of an object, at each start, at each takeover.
    logging.getLogger("kopf.objects").info("Handler 'pool' succeeded.")
    logging.getLogger("kopf._core.engines.activities").info("Initial authentication has been initiated.")
    running = logging.getLogger("kopf._core.reactor.running")
    running.warning("OS signals are ignored: running not in the main thread.")
    running.warning("Cleanup activity is not executed at all due to cancellation.")
    logging.getLogger("kopf.objects").error("Handler 'pool' failed")
    assert [line["message"] for line in lines(stream)] == [
        "Cleanup activity is not executed at all due to cancellation.",
        "Handler 'pool' failed",
    ]


def test_an_exception_stays_on_its_line() -> None:
    stream = io.StringIO()
    logs.configure(stream=stream)
    try:
        raise KeyError("x")
    except KeyError:
        logs.get("taskdist").exception("broken")
        logging.getLogger("grpc").exception("broken too")
    first, second = lines(stream)
    assert "KeyError: 'x'" in first["exception"]
    assert "KeyError: 'x'" in second["exception"]


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("INFO", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_level(level: str, expected: list[str]) -> None:
    stream = io.StringIO()
    logs.configure(level, stream=stream)
    for method in logs.LEVELS:
        getattr(logs.get("taskdist"), method)("x")
        getattr(logging.getLogger("aiohttp.server"), method)("x")
    assert [line["level"] for line in lines(stream)] == [each for each in expected for _ in range(2)]


def test_an_unknown_level_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'loud': use one of debug, info, warning, error"):
        logs.configure("loud")


def test_a_logger_made_before_follows_and_a_second_call_replaces_the_first() -> None:
    logger = logs.get("taskdist")
    first, second = io.StringIO(), io.StringIO()
    logs.configure(stream=first)
    logs.configure(stream=second)
    logger.info("x")
    assert first.getvalue() == ""
    assert lines(second)[0]["message"] == "x"


def test_a_person_gets_text() -> None:
    stream = io.StringIO()
    logs.configure(stream=stream, format="console")
    logs.bind_task("ns", "a", "u1").info("assigned")
    assert "assigned" in stream.getvalue()
    assert "task=ns/a" in stream.getvalue()


def test_a_terminal_is_a_person() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    logs.configure(stream=stream)
    logs.get("taskdist").info("x")
    assert "\x1b[" in stream.getvalue()


def test_text_that_is_no_utf8_and_values_that_are_no_json_are_logged() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="utf-8", write_through=True)
    logs.configure(stream=stream)
    logs.get("taskdist").info("bad \ud800", value=object(), kept=Ellipsis)
    assert json.loads(raw.getvalue())["kept"] == "Ellipsis"


def test_warnings_are_logged() -> None:
    stream = io.StringIO()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logs.configure(stream=stream)
        warnings.warn("old", stacklevel=1)
    assert "old" in lines(stream)[0]["message"]


def test_nothing_is_configured_at_import() -> None:
    assert "taskdist.observability.logs" in sys.modules
    assert not structlog.is_configured()
