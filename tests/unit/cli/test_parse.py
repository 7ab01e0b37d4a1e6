"""What users write, and what they hear if it cannot be read."""

import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskdist.api import LabelSelector
from taskdist.cli import parse


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1.5", 1.5), ("90s", 90), ("5m", 300), ("1h30m", 5400), ("500ms", 0.5), ("1d", 86400)],
)
def test_duration(text: str, seconds: float) -> None:
    assert parse.duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "5 m", "m", "-1", "1h30", "5w"])
def test_no_duration(text: str) -> None:
    with pytest.raises(parse.Malformed, match="write 30s, 5m or 1h30m"):
        parse.duration(text)


NOON = datetime(2030, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2030-01-31T12:00:00Z", "2030-01-31T12:00:00Z"),
        ("2030-01-31T12:00:00+02:00", "2030-01-31T10:00:00Z"),
        ("2030-01-31T12:00:00.5Z", "2030-01-31T12:00:00.500Z"),
        ("10m", "2030-01-31T12:10:00Z"),
        ("1h30m", "2030-01-31T13:30:00Z"),
        ("90", "2030-01-31T12:01:30Z"),
        ("500ms", "2030-01-31T12:00:00.500Z"),
        ("365d", "2031-01-31T12:00:00Z"),
    ],
)
def test_moment(text: str, moment: str) -> None:
    assert parse.moment(text, NOON) == moment


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tomorrow", "is no time: write 2030-01-31T12:00:00Z, or a duration from now, such as 10m"),
        ("2030-01-31", "is no time"),
        ("", "is no time"),
        ("-5m", "is no time"),
        ("2030-01-31T25:00:00Z", "is no time"),
        ("2030-01-31T12:00:00", "does not say in which zone: add Z"),
        ("99999999d", "beyond all calendars"),
        ("99999999999999d", "beyond all calendars"),
    ],
)
def test_no_moment(text: str, message: str) -> None:
    with pytest.raises(parse.Malformed, match=message):
        parse.moment(text, NOON)


@given(st.dictionaries(st.text(), st.integers(-(2**63), 2**63 - 1) | st.text() | st.none(), max_size=5))
def test_payload_is_taken_as_it_is(value: dict[str, Any]) -> None:
    assert parse.payload(json.dumps(value)) == value


def test_a_payload_that_would_be_changed_is_refused_with_its_field() -> None:
    with pytest.raises(parse.Malformed, match=r"ids\[1\]: the whole number needs more than 64 bits"):
        parse.payload('{"ids": [1, 18446744073709551615]}')


def test_payload_from_a_file_and_from_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "job.json"
    path.write_text('{"name": "Ünï"}', encoding="utf-8")
    assert parse.payload(f"@{path}") == {"name": "Ünï"}
    monkeypatch.setattr("sys.stdin", io.StringIO('{"a": 1}'))
    assert parse.payload("-") == {"a": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "the payload is a list: a payload is a JSON object"),
        ('"a"', "is a string"),
        ("3", "is a number"),
        ("null", "is null"),
        ("true", "is a boolean"),
        ("{path: 1}", "is not JSON .*line 1 column 2.*write an object"),
        ("@/does/not/exist", "cannot read /does/not/exist: No such file"),
        ('{"a": "%s"}' % ("x" * 65536), "65544 bytes of JSON, and a payload has at most 65536.*pass a reference"),
    ],
)
def test_no_payload(text: str, message: str) -> None:
    with pytest.raises(parse.Malformed, match=message):
        parse.payload(text)


@pytest.mark.parametrize(
    ("env", "size", "refusal"),
    [
        pytest.param({}, 65_537, "at most 65536 here: set TASKDIST_OBJECTS_URL", id="without a store: 64 KiB"),
        pytest.param({"URL": "s3://tasks"}, 65_537, "", id="with a store more"),
        pytest.param({"URL": "s3://tasks"}, 2**24 + 1, "raise TASKDIST_OBJECTS_MAX_BYTES", id="with a store its bound"),
        pytest.param({"URL": "tasks"}, 65_537, "TASKDIST_OBJECTS_URL is 'tasks'", id="a store that is none"),
    ],
)
def test_how_large_a_payload_may_be(
    env: dict[str, str], size: int, refusal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(f"TASKDIST_OBJECTS_{name}", value)
    text = json.dumps({"a": "x" * (size - len('{"a":""}'))})
    if refusal:
        with pytest.raises(parse.Malformed, match=refusal):
            parse.payload(text)
    else:
        assert parse.payload(text) == json.loads(text)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "job"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(parse.Malformed, match="job is not UTF-8 text"):
        parse.payload(f"@{path}")


def test_amounts() -> None:
    assert parse.amounts(["gpu=1", "disk=20"]) == {"gpu": 1, "disk": 20}


@pytest.mark.parametrize("item", ["gpu", "gpu=", "gpu=0", "gpu=1.5", "=1", "gpu=-1"])
def test_no_amount(item: str) -> None:
    with pytest.raises(parse.Malformed, match="write NAME=NUMBER"):
        parse.amounts([item])


def need(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"key": key, "operator": operator} | ({"values": list(values)} if values else {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("zone=a", {"matchLabels": {"zone": "a"}}),
        ("zone == a", {"matchLabels": {"zone": "a"}}),
        ("zone=a,arch=arm", {"matchLabels": {"zone": "a", "arch": "arm"}}),
        ("zone!=a", {"matchExpressions": [need("zone", "NotIn", "a")]}),
        ("zone in (b, a)", {"matchExpressions": [need("zone", "In", "a", "b")]}),
        ("zone notin (a)", {"matchExpressions": [need("zone", "NotIn", "a")]}),
        ("gpu", {"matchExpressions": [need("gpu", "Exists")]}),
        ("!spot", {"matchExpressions": [need("spot", "DoesNotExist")]}),
        ("example.com/zone=a", {"matchLabels": {"example.com/zone": "a"}}),
        (
            "a=1, b in (x,y) ,!c",
            {"matchLabels": {"a": "1"}, "matchExpressions": [need("b", "In", "x", "y"), need("c", "DoesNotExist")]},
        ),
        # Both must hold, so that nothing matches: not silently only the last.
        ("a=1,a=2", {"matchLabels": {"a": "1"}, "matchExpressions": [need("a", "In", "2")]}),
    ],
)
def test_selector(text: str, expected: dict[str, Any]) -> None:
    assert parse.selector(text) == expected
    LabelSelector.model_validate(expected)


@pytest.mark.parametrize("text", ["", "a=1,", "a=b=c", "in (a)", "a in a,b", "a >1", "-a=1"])
def test_no_selector(text: str) -> None:
    with pytest.raises(parse.Malformed, match="is no label requirement: write zone=a"):
        parse.selector(text)
