"""Arrays on the real API server: items end one by one, writes are bounded, and failed items alone are tried again."""

from __future__ import annotations

import json
import time

import pytest

from integration.controller.room import Room
from patience import until

MILLION = 1_000_000


def array(room: Room, name: str, spec: dict[str, object], payload: dict[str, object] | None = None) -> None:
    room.task(name, "item", payload, array=spec, queue="once-more")


@pytest.fixture(scope="module")
def pool(apart: Room) -> Room:
    """Two agents of two slots; an item that fails is tried once more, then its array is a dead letter."""
    apart.queue("once-more", retry={"initialSeconds": 0.2, "limit": 1, "onExhausted": "DeadLetter"})
    return apart


def test_each_item_is_run_once_and_its_result_is_kept(pool: Room) -> None:
    array(pool, "forty", {"count": 40})
    (status,) = pool.ended("forty")
    assert (status["phase"], status["reason"]) == ("Succeeded", "Completed")
    assert (status["array"]["done"], status["array"]["succeeded"]) == ("40/40", "0-39")
    results = {int(index): json.loads(text) for index, text in status["array"]["results"].items()}
    assert results == {index: {"index": index, "count": 40} for index in range(40)}
    assert not status["array"].get("parts")
    assert "40/40" in pool.kubectl("get", "tk", "forty")


def test_items_of_its_own_reach_the_handler(pool: Room) -> None:
    array(pool, "own", {"items": [{"say": "a"}, {"say": "b"}]})
    (status,) = pool.ended("own")
    results = {index: json.loads(text)["say"] for index, text in status["array"]["results"].items()}
    assert results == {"0": "a", "1": "b"}


def test_failed_items_alone_are_tried_again(pool: Room) -> None:
    array(pool, "odd", {"count": 20}, {"fail": [3, 4, 17]})
    status = pool.in_phase("odd", "DeadLettered")
    assert (status["array"]["failed"], status["array"]["done"]) == ("3-4,17", "17/20")
    assert "item 3: ValueError: item 3 fails" in status["message"]
    pool.patch("tasks", "odd", redrive=1)
    status = until(lambda: _again(pool), "it is a dead letter again")
    assert status["array"]["failed"] == "3-4,17"


def _again(room: Room) -> dict[str, object] | None:
    status = room.status("tasks", "odd")
    return status if status.get("redrives") == 1 and status["phase"] == "DeadLettered" else None


def test_a_million_items_on_one_task(pool: Room) -> None:
    begun = time.monotonic()
    pool.task("million", "noop", array={"count": MILLION})
    (status,) = pool.ended("million", timeout=240)
    took = time.monotonic() - begun
    assert status["array"]["done"] == f"{MILLION}/{MILLION}"
    assert status["array"]["succeeded"] == f"0-{MILLION - 1}"
    number = int(status["array"]["commit"].partition("-")[2])
    print(f"{MILLION / took:.0f} items a second, {took:.1f} s, {status['attempt']} chunks, {number} keys")
    assert len(json.dumps(status)) < 8192
    assert status["attempt"] < 400
