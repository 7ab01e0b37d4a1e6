"""Traces are read as their formats say, and what is not in them is named by line."""

from pathlib import Path

import pytest
from sim_worlds import scenario, stream

from taskdist.simulation import parse
from taskdist.simulation.arrivals import Swf, Trace
from taskdist.simulation.runs import play
from taskdist.simulation.traces import Row, TraceError, read_swf, read_trace
from taskdist.simulation.workload import jobs


def trace(folder: Path, text: str, **more: object) -> list[Row]:
    (folder / "t.csv").write_text(text)
    return read_trace(Trace.model_validate({"file": "t.csv", **more}), folder)


def swf(folder: Path, text: str, **more: object) -> list[Row]:
    (folder / "t.swf").write_text(text)
    return read_swf(Swf.model_validate({"file": "t.swf", **more}), folder)


def test_times_alone_in_any_order(tmp_path: Path) -> None:
    assert trace(tmp_path, "time\n2\n1.5\n") == [Row(1.5, None, None, {}), Row(2.0, None, None, {})]


def test_all_columns(tmp_path: Path) -> None:
    text = "time,service,deadline,queue,type,priority,slots,pool,tenant,other\n1,2,3,q,t,High,2,p,red,x\n5,,,,,,,,,\n"
    fields: dict[str, str | int] = {
        "queue": "q",
        "type": "t",
        "priority": "High",
        "slots": 2,
        "pool": "p",
        "tenant": "red",
    }
    assert trace(tmp_path, text) == [Row(1, 2, 3, fields), Row(5, None, None, {})]


def test_columns_of_other_names_and_stretched_time(tmp_path: Path) -> None:
    rows = trace(tmp_path, "at,ms,time\n10,3,99\n", columns={"time": "at", "service": "ms"}, stretch=0.5)
    assert rows == [Row(5, 3, None, {})]


JOB = "{number} {submit} 0 {run} {got} -1 -1 {asked} 60 -1 1 7 3 -1 1 -1 -1 -1\n"


def job(submit: float, run: float, got: int = 4, asked: int = 8) -> str:
    return JOB.format(number=1, submit=submit, run=run, got=got, asked=asked)


def test_a_standard_workload(tmp_path: Path) -> None:
    text = "; Version: 2.2\n;\n" + job(130, 5) + job(100, 3) + job(110, -1) + "\n"
    assert swf(tmp_path, text) == [Row(0, 3, None, {}), Row(30, 5, None, {})]


def test_processors_are_slots_if_wanted(tmp_path: Path) -> None:
    text = job(0, 1) + job(1, 1, asked=-1) + job(2, 1, got=-1, asked=-1)
    assert [row.task["slots"] for row in swf(tmp_path, text, processorsAsSlots=True)] == [8, 4, 1]


def test_a_workload_without_jobs(tmp_path: Path) -> None:
    assert swf(tmp_path, "; nothing\n") == []


BAD_CSV = {
    "no time": ("service\n1\n", "no column time in its first line (service)"),
    "empty": ("", "no column time in its first line (empty)"),
    "a word": ("time\n1\nsoon\n", "t.csv, line 3, time: 'soon' is no number"),
    "negative": ("time\n-1\n", "t.csv, line 2, time: -1 is out of range"),
    "not a number": ("time\nnan\n", "t.csv, line 2, time: nan is out of range"),
    "endless": ("time,service\n1,inf\n", "t.csv, line 2, service: inf is out of range"),
    "half a slot": ("time,slots\n1,1.5\n", "t.csv, line 2, slots: 1.5 is no whole number"),
    "no time in a line": ("time,service\n,3\n", "t.csv, line 2: the time is empty"),
}


@pytest.mark.parametrize(("text", "message"), BAD_CSV.values(), ids=BAD_CSV.keys())
def test_a_bad_line_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TraceError) as refused:
        trace(tmp_path, text)
    assert message in str(refused.value)


def test_a_column_that_is_named_and_missing(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="no column seconds in its first line"):
        trace(tmp_path, "time\n1\n", columns={"service": "seconds"})
    with pytest.raises(TraceError, match="colour is no field"):
        trace(tmp_path, "time\n1\n", columns={"colour": "seconds"})


def test_a_bad_job_is_named(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"t\.swf, line 2: 3 fields"):
        swf(tmp_path, job(0, 1) + "1 2 3\n")
    with pytest.raises(TraceError, match="line 1, field 4: 'x' is no number"):
        swf(tmp_path, "1 0 0 x 1 -1 -1 1 60 -1 1 7 3 -1 1 -1 -1 -1\n")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="No such file"):
        read_trace(Trace(file="none.csv"), tmp_path)
    with pytest.raises(TraceError, match="No such file"):
        read_swf(Swf(file="none.swf"), tmp_path)


def test_a_trace_is_played(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("time,service,priority,tenant,deadline\n0,3,,red,\n1,1,,,\n1,2,High,,9\n")
    given = scenario(stream({"trace": "t.csv"}, 7, task={"tenant": "blue"}))
    loaded = parse(given, tmp_path)
    record = play(loaded.scenario, jobs(loaded.scenario.workload.streams, loaded.rows, 1), 1)
    lives = [(life.job.tenant, life.job.service, life.started, life.job.deadline) for life in record.tasks]
    begun = record.begun
    assert lives == [
        ("red", 3, begun, None),
        ("blue", 1, begun + 5, None),
        ("blue", 2, begun + 3, begun + 10),
    ]
