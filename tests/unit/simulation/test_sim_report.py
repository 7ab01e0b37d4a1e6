"""The report is one page that needs nothing else, says what was found, and draws what happened."""

import re
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest
from sim_worlds import NOWHERE, scenario, stream

from taskdist.simulation import parse, play_all
from taskdist.simulation.charts import Marks, Series, decades, on_axis, on_log_axis, over_time, ticks
from taskdist.simulation.compare import result
from taskdist.simulation.report import Pictures, page, profile
from taskdist.simulation.words import count, percent, plain, seconds

VOID = {"meta", "br", "link"}


class Nesting(HTMLParser):
    """Finds tags that are not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def reported(given: dict[str, Any], seeds: range = range(1, 2)) -> str:
    loaded = parse(given, NOWHERE)
    found: dict[str, dict[int, Any]] = {name: {} for name in loaded.variants}
    seen: dict[str, Pictures] = {}
    for run in play_all(loaded, seeds):
        found[run.variant][run.seed] = run.figures
        seen.setdefault(run.variant, Pictures.of(run.record))
    return page(loaded.scenario, seeds, result(found), seen)


def load(**more: Any) -> dict[str, Any]:
    task = {
        "priority": {"choose": [{"value": "Low"}, {"value": "Critical"}]},
        "tenant": {"choose": [{"value": "a"}, {"value": "b"}]},
    }
    tasks = stream({"poisson": {"perSecond": 3}}, {"exponential": {"mean": 1}}, 80, task=task, deadline={"slack": 2})
    return scenario(tasks, pools={"p": {"replicas": 2}, "r": {"replicas": 2}}, **more)


PAGES = {
    "one run": (load(name="One <run> & more", description="<b>"), range(1, 2)),
    "several seeds": (load(), range(1, 4)),
    "variants": (load(compare={"x<y": {}, "fifo": {"policy": "fifo"}}), range(1, 2)),
    "variants and seeds": (load(compare={"a": {}, "b": {"policy": "random"}}), range(1, 4)),
    "nothing came": (scenario(stream({"poisson": {"perSecond": 0.001}}, duration=1)), range(1, 2)),
    "nobody could": (scenario(stream(task={"skills": ["none"]})), range(1, 2)),
}


@pytest.mark.parametrize(("given", "seeds"), PAGES.values(), ids=PAGES.keys())
def test_a_page_is_sound_and_stands_alone(given: dict[str, Any], seeds: range) -> None:
    text = reported(given, seeds)
    parser = Nesting()
    parser.feed(text)
    assert (parser.open, parser.wrong) == ([], [])
    # Nothing is loaded or run.
    assert not re.search(r"<script|src=|href=|url\(|@import|https?:", text)
    assert not re.search(r"\b(nan|inf|None)\b", text)
    for drawing in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ElementTree.fromstring(drawing)
    assert text.count("<svg") >= 4


def test_names_are_escaped() -> None:
    text = reported(PAGES["one run"][0])
    assert "<h1>One &lt;run&gt; &amp; more</h1>" in text
    assert "&lt;b&gt;" in text
    text = reported(PAGES["variants"][0])
    assert "x&lt;y" in text
    assert "x<y" not in text


def test_it_says_what_there_is() -> None:
    parser = Nesting()
    parser.feed(reported(PAGES["variants and seeds"][0], range(1, 4)))
    for words in ("Comparison", "Paired ratios", "a vs b", "Tasks waiting", "Slots busy", "Waits by level", "Agents"):
        assert words in parser.text
    for words in ("Level", "Tenant", "Pool", "3 seeds, from 1", "2 variants on the same arrivals"):
        assert words in parser.text


# What is drawn.


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([], [0, 0, 0, 0]),
        ([(0, 4, 1)], [1, 1, 1, 1]),
        ([(0.5, 3.5, 2)], [1, 2, 2, 1]),
        ([(1.25, 1.75, 4)], [0, 2, 0, 0]),
        ([(-5, 9, 1)], [1, 1, 1, 1]),
        ([(0, 1, 1), (1, 4, 3)], [1, 3, 3, 3]),
        ([(4, 9, 1), (2, 2, 1)], [0, 0, 0, 0]),
    ],
)
def test_profiles_are_means_of_bins(spans: list[tuple[float, float, float]], expected: list[float]) -> None:
    assert profile(spans, (0, 4), 4) == pytest.approx(expected)


def test_pictures_agree_with_the_run() -> None:
    loaded = parse(load(), NOWHERE)
    record = next(iter(play_all(loaded, [1]))).record
    seen = Pictures.of(record)
    length = (record.ended - record.begun) / len(seen.busy["p"])
    busy = sum(sum(values) for values in seen.busy.values()) * length
    assert busy == pytest.approx(sum(a.end - a.start for life in record.tasks for a in life.attempts if a.end))
    waited = sum(sum(values) for values in seen.depth.values()) * length
    assert waited == pytest.approx(sum(life.started - life.job.created for life in record.tasks if life.started))
    assert seen.agents["p"] == pytest.approx([2] * len(seen.agents["p"]))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 7, [0, 2, 4, 6]),
        (3, 3, [3]),
        (0.95, 1, [0.95, 0.96, 0.97, 0.98, 0.99, 1]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_decades_enclose() -> None:
    assert decades(0.002, 30) == pytest.approx([0.001, 0.01, 0.1, 1, 10, 100])
    assert decades(0.01, 100) == pytest.approx([0.01, 0.1, 1, 10, 100])


def points(drawing: str) -> list[tuple[float, float]]:
    """Coordinates of all paths."""
    return [
        (float(x), float(y))
        for path in re.findall(r' d="([^"]*)"', drawing)
        for x, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", path)
    ]


def test_charts_stay_within_their_frame() -> None:
    layers = [Series("a", "c0", [0, 5, 1e6]), Series("b", "c1", [1, 1, 1])]
    for stacked in (True, False):
        drawn = points(over_time(layers, (0, 9), "x", stacked=stacked, words=count))
        assert len(drawn) >= 6
        for x, y in drawn:
            assert 0 <= x <= 560
            assert 0 <= y <= 230


def test_rows_that_have_nothing_say_so() -> None:
    rows = [Marks("a", [], "c0"), Marks("b", [("mean", 1.0)], "c1")]
    for drawing in (on_axis(rows, "x", plain), on_log_axis(rows, "x", plain, 0.1, 1)):
        assert "not defined" in drawing


# Words.


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (seconds, None, "–"),
        (seconds, 0, "0 s"),
        (seconds, 0.01234, "12.3 ms"),
        (seconds, 0.9999, "1 s"),
        (seconds, 45.67, "45.7 s"),
        (seconds, 600, "10 min"),
        (seconds, 9000, "2.5 h"),
        (percent, None, "–"),
        (percent, 1, "100%"),
        (percent, 0, "0%"),
        (percent, 0.9912, "99.12%"),
        (percent, 0.512, "51.2%"),
        (percent, 0.01234, "1.23%"),
        (count, 45000, "45,000"),
        (count, 1.5, "1.5"),
        (count, None, "–"),
        (plain, 0.98765, "0.9877"),
        (plain, 24280.2, "24,280"),
    ],
)
def test_words(write: Any, value: float | None, text: str) -> None:
    assert write(value) == text
