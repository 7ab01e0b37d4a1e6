"""Cases of the fields that make a Task stand for many items."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from integration.controller.lab import PLAIN, SOLO, Lab, Register
from integration.controller.room import beats

case = Register()


def results(status: dict[str, Any]) -> dict[int, Any]:
    return {int(index): json.loads(text) for index, text in status["array"]["results"].items()}


@case("Task.array.count")
def each_item_of_a_count_is_run_with_its_index(lab: Lab) -> None:
    status = lab.end(lab.task("many", PLAIN, "item", array={"count": 12}))
    assert results(status) == {index: {"index": index, "count": 12} for index in range(12)}


@case("Task.array.items")
def items_of_its_own_are_the_payloads(lab: Lab) -> None:
    status = lab.end(lab.task("own", PLAIN, "item", array={"items": [{"say": "a"}, {"say": "b"}]}))
    assert {index: told["say"] for index, told in results(status).items()} == {0: "a", 1: "b"}


@case("Task.array.completions")
def enough_items_end_the_array(lab: Lab) -> None:
    queue = lab.queue(pools=[SOLO])
    status = lab.end(lab.task("some", queue, "item", array={"count": 50, "completions": 1}))
    assert status["phase"] == "Succeeded"
    assert 1 <= len(results(status)) < 50


@case("Task.array.parallelism")
def no_more_chunks_at_once(lab: Lab) -> None:
    file = str(lab.file)
    array = {"count": 3, "parallelism": 1, "chunk": {"maxItems": 1}}
    lab.end(lab.task("one", PLAIN, "trace-item", {"file": file, "seconds": 0.3}, array=array))
    spans = sorted(beats(lab.file).values())
    assert len(spans) == 3
    assert all(one[1] < other[0] for one, other in pairwise(spans))


@case("Task.array.chunk.maxItems")
def a_chunk_has_no_more_items(lab: Lab) -> None:
    queue = lab.queue(pools=[SOLO])
    status = lab.end(lab.task("small", queue, "noop", array={"count": 30, "chunk": {"maxItems": 2}}))
    assert status["attempt"] >= 15
    status = lab.end(lab.task("large", queue, "noop", array={"count": 30}))
    assert status["attempt"] < 15


@case("Task.array.chunk.targetSeconds")
def a_chunk_takes_about_so_long(lab: Lab) -> None:
    queue = lab.queue(pools=[SOLO])
    array = {"count": 12, "chunk": {"targetSeconds": 0.05}}
    status = lab.end(lab.task("short", queue, "sleep-item", {"seconds": 0.06}, array=array))
    assert status["attempt"] == 12
