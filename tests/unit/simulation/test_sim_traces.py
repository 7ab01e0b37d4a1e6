"""Traces are read as their formats say, and what is not in them is named by line."""

from pathlib import Path

import pytest
from sim_worlds import scenario, stream

from taskdist.simulation import parse
from taskdist.simulation.arrivals import Swf, Trace
from taskdist.simulation.loading import ScenarioError
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


# What each line says of its Task, bytes that are no text, and times of another unit.


def refused(folder: Path, arrivals: dict[str, object], content: bytes, **task: object) -> str:
    (folder / "t.csv").write_bytes(content)
    (folder / "t.swf").write_bytes(content)
    with pytest.raises(ScenarioError) as caught:
        parse(scenario(stream(arrivals, 1, task=task)), folder)
    return str(caught.value)


BAD_TASKS = {
    "a level by number": (b"time,priority\n0,High\n1,9\n2,9\n", "t.csv, line 3, priority: '9': "),
    "more slots than there may be": (b"time,slots\n0,5000\n", "t.csv, line 2, slots: 5000: "),
    "no slots": (b"time,slots\n0,0\n", "t.csv, line 2, slots: 0: "),
    "a queue that is not there": (b"time,queue\n0,q\n1,qq\n", "t.csv, line 3, queue: 'qq': no queue qq; there are: q"),
    "a pool that is not there": (b"time,pool\n0,pp\n", "t.csv, line 2, pool: 'pp': no pool pp; there are: p"),
    "another encoding": (b"time,tenant\n0,a\n1,M\xfcller\n", "t.csv, line 3: it is not UTF-8 text; save the file as"),
    "another encoding in the header": (b"time,l\xe4nge\n0,a\n", "t.csv, line 1: it is not UTF-8 text"),
    "UTF-16": ("time\n0\n".encode("utf-16"), "t.csv, line 1"),
    "endless quotes": (b'time,tenant\n0,"' + b"a" * 200_000, "t.csv, line 2: field larger"),
    "microseconds": (b"time\n0\n1700000000000000\n", "t.csv, line 3, time: 1.7e+15 s is more than ten years"),
    "a service of another unit": (b"time,service\n0,1e12\n", "t.csv, line 2, service: 1e+12 s is more than ten"),
    "a deadline of another unit": (b"time,deadline\n0,1e12\n", "t.csv, line 2, deadline: 1e+12 s is more than ten"),
}


@pytest.mark.parametrize(("content", "message"), BAD_TASKS.values(), ids=BAD_TASKS.keys())
def test_a_line_that_makes_no_task_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    assert message in refused(tmp_path, {"trace": "t.csv"}, content)


def test_each_mistake_is_told_once(tmp_path: Path) -> None:
    said = refused(tmp_path, {"trace": "t.csv"}, b"time,priority,queue\n0,9,q\n1,8,q\n2,High,none\n")
    assert len(said.splitlines()) == 2


def test_a_job_of_more_processors_than_a_task_may_have_slots(tmp_path: Path) -> None:
    content = (job(0, 1) + job(1, 1, asked=2048)).encode()
    said = refused(tmp_path, {"swf": {"file": "t.swf", "processorsAsSlots": True}}, content)
    assert "t.swf, line 2, slots: 2048: " in said
    assert "leave processorsAsSlots out" in said


def test_a_job_of_another_unit(tmp_path: Path) -> None:
    content = (job(0, 1) + job(1.7e15, 1)).encode()
    assert "t.swf, line 2, field 2: 1.7e+15 s is more than ten" in refused(tmp_path, {"swf": "t.swf"}, content)
    assert "t.swf, line 1, field 4" in refused(tmp_path, {"swf": "t.swf"}, job(0, 1e12).encode())


def test_stretched_to_seconds_it_is_read(tmp_path: Path) -> None:
    assert [row.time for row in trace(tmp_path, "time\n1700000000\n", stretch=1e-6)] == [1700.0]
    late = [row.time for row in swf(tmp_path, job(5e9, 1) + job(5e9 + 1e6, 1), stretch=1e-6)]
    assert late == [0.0, 1.0]


def test_comments_of_any_encoding_and_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "t.swf").write_bytes(b"; Universit\xe4t\n" + job(0, 1).encode())
    assert len(read_swf(Swf(file="t.swf"), tmp_path)) == 1
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbftime\n1\n")
    assert [row.time for row in read_trace(Trace(file="t.csv"), tmp_path)] == [1.0]
    (tmp_path / "t.swf").write_bytes(b"\xef\xbb\xbf" + job(0, 1).encode())
    assert len(read_swf(Swf(file="t.swf"), tmp_path)) == 1


def test_a_template_for_a_pool_that_is_not_there(tmp_path: Path) -> None:
    said = refused(tmp_path, {"burst": {"count": 1}}, b"", pool="pp")
    assert said == "workload.streams[0].task.pool: no pool pp; there are: p"
