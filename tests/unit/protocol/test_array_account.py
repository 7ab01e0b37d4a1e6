"""The account of an array: items are conserved whatever happens to parts, and status says the same as the account."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from taskdist.api import Reason
from taskdist.protocol.arrays import account as accounts
from taskdist.protocol.arrays import settling
from taskdist.protocol.arrays.account import Account, Again, ArrayRules, ItemError, PartEnd, changes, read, rules_of
from taskdist.protocol.arrays.chunk_results import ChunkResult, FailedItems, decode, encode
from taskdist.protocol.arrays.indexes import EMPTY, IndexSet

COUNT = 40
RULES = ArrayRules(COUNT)
TOLD: tuple[dict[str, Any], ...] = ({"phase": "Pending", "agent": None}, {"attempt": 2}, {})


def merged(old: Any, patch: Any) -> Any:
    """Merge as RFC 7386 says."""
    if not isinstance(patch, dict):
        return patch
    new = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            new.pop(key, None)
        else:
            new[key] = merged(new.get(key), value)
    return new


def items(draw: DataObject, of: IndexSet) -> IndexSet:
    return IndexSet.of(draw.draw(st.sets(st.sampled_from(sorted(of))))) if of else EMPTY


class Model:
    """The same in plain sets, beside the account and the status that its patches make."""

    def __init__(self) -> None:
        self.account = Account(COUNT)
        self.status: dict[str, Any] = {}
        self.parts: dict[str, tuple[set[int], int]] = {}
        self.succeeded: set[int] = set()
        self.failed: set[int] = set()
        self.failures = dict.fromkeys(range(COUNT), 0)
        self.numbers = 0

    def step(self, after: Account) -> None:
        patch = changes(self.account, after, str)
        self.status = merged(self.status, json.loads(json.dumps(patch)))
        self.account = read(RULES, self.status, float_of)
        self.check(after)

    def check(self, after: Account) -> None:
        """What status says is the account, and the account is the model."""
        now = self.account
        for name in ("succeeded", "failed", "again", "parts", "errors", "result_bytes", "dropped"):
            assert getattr(now, name) == getattr(after, name), name
        assert set(now.succeeded) == self.succeeded
        assert set(now.failed) == self.failed
        in_parts = {key: (set(part.items), part.failures) for key, part in now.parts.items()}
        assert in_parts == self.parts
        waiting = {index: each.failures for each in now.again for index in each.items}
        taken = self.succeeded | self.failed | {i for part, _ in self.parts.values() for i in part}
        rest = {i: n for i, n in self.failures.items() if i not in taken}
        untried = dict.fromkeys(now.untried, 0)
        assert waiting | untried == rest
        assert not waiting.keys() & untried.keys()


def float_of(text: str | None) -> float:
    return float(text or 0.0)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_items_are_conserved(draw: DataObject) -> None:
    model, now = Model(), 0.0
    for _ in range(draw.draw(st.integers(1, 14))):
        now += draw.draw(st.sampled_from((0.0, 1.0, 30.0)))
        old = model.account
        what = draw.draw(st.sampled_from(("hand", "hand", "end", "end", "tell", "halve", "redrive")))
        if what == "hand":
            failures, from_ = draw.draw(
                st.sampled_from([(0, old.untried), *((a.failures, a.items) for a in old.again)])
            )
            if not from_:
                continue
            model.numbers += 1
            key, some = f"1-{model.numbers}", from_.take(draw.draw(st.integers(1, 9)))
            model.parts[key] = (set(some), failures)
            model.step(old.handed(key, some, failures, {"phase": "Assigned", "attempt": 1, "message": "left out"}))
        elif what == "redrive":
            for index in model.failed:
                model.failures[index] = 0
            model.failed = set()
            model.step(old.redriven())
        elif old.parts:
            key = draw.draw(st.sampled_from(sorted(old.parts)))
            part = old.parts[key]
            if what == "tell":
                model.step(old.told(key, draw.draw(st.sampled_from(TOLD))))
                continue
            if what == "halve":
                del model.parts[key]
                model.step(old.ended(key, settling.halved(part, now + 10.0), now))
                continue
            # An agent may say anything, of items that are not its own and of the same item twice.
            anything = IndexSet.span(0, COUNT - 1)
            good, bad, again = items(draw, anything), items(draw, anything), items(draw, anything)
            end = PartEnd(good, bad, (Again(part.failures + 1, now + 10.0, again),), results={1: "{}"})
            good, mine = good & part.items, set(part.items)
            del model.parts[key]
            model.succeeded |= set(good)
            bad = (bad & part.items) - good
            model.failed |= set(bad)
            for index in mine - set(good) - set(bad):
                if index in again:
                    model.failures[index] = part.failures + 1
            model.step(old.ended(key, end, now))


def test_groups_of_one_time_are_one_and_none_is_put_off() -> None:
    account, now = Account(100).handed("a", IndexSet.span(0, 99), 0, {}), 0.0
    for index in range(50):
        account = account.handed(f"p{index}", IndexSet.of([index]), 0, {})
        now = index * 1.0
        wait = Again(1, now + 100.0, IndexSet.of([index]))
        account = account.ended(f"p{index}", PartEnd(again=(wait,)), now)
    assert [each.not_before for each in account.again] == [100.0, 126.0]
    assert len(account.waiting_again) == 50


def test_items_of_a_chunk_that_was_halved_are_a_group_of_their_own_which_says_how_many_fit() -> None:
    account = Account(20).handed("1-1", IndexSet.span(0, 8), 0, {}).handed("1-2", IndexSet.span(9, 9), 0, {})
    account = account.ended("1-1", settling.halved(account.parts["1-1"], 5.0), 1.0)
    account = account.ended("1-2", PartEnd(again=(Again(0, 5.0, IndexSet.of([9])),)), 1.0)
    assert account.again == (Again(0, 5.0, IndexSet.span(0, 8), 4), Again(0, 5.0, IndexSet.of([9])))
    told = merged({}, changes(Account(20), account, str))
    assert told["retrying"][0]["chunkItems"] == 4
    assert "chunkItems" not in told["retrying"][1]
    assert read(ArrayRules(20), told, float_of).again == account.again


def test_results_stay_within_their_bound_and_the_others_are_counted() -> None:
    account = Account(2000)
    for n in range(4):
        part = IndexSet.span(n * 500, n * 500 + 499)
        account = account.handed(f"p{n}", part, 0, {})
        account = account.ended(f"p{n}", PartEnd(part, results=dict.fromkeys(part, '"' + "x" * 100 + '"')), 0.0)
    assert account.result_bytes <= accounts.MAX_RESULT_BYTES
    assert len(account.results) + account.dropped == 2000
    assert len(account.results) > 500


def test_an_item_that_failed_and_was_not_tried_keeps_its_failures() -> None:
    account = Account(10).handed("p", IndexSet.span(0, 3), 2, {}).ended("p", PartEnd(IndexSet.of([0])), 5.0)
    assert account.again == (Again(2, 0.0, IndexSet.span(1, 3)),)
    assert account.untried == IndexSet.span(4, 9)


def test_what_a_part_keeps_of_its_attempts_is_the_last_in_short() -> None:
    patch = {"attempts": [{"attempt": 1}, {"attempt": 2, "message": "x" * 5000}], "message": "m", "route": {}}
    status = Account(10).handed("p", IndexSet.of([1]), 0, patch).parts["p"].status
    assert status == {"attempts": [{"attempt": 2, "message": "x" * 200}]}


@pytest.mark.parametrize(
    "told",
    [
        pytest.param({"succeeded": "0-5", "failed": "5"}, id="an item in two places"),
        pytest.param({"succeeded": "38-40"}, id="an item that the array does not have"),
        pytest.param({"succeeded": "x"}, id="no set"),
        pytest.param({"parts": {"a": {"items": "1"}, "b": {"items": "1"}}}, id="an item in two parts"),
        pytest.param({"parts": {"a": {}}}, id="a part without items"),
        pytest.param({"retrying": [{"items": "3"}]}, id="a group without its failures"),
    ],
)
def test_a_status_that_is_no_account_is_refused(told: dict[str, Any]) -> None:
    with pytest.raises((ValueError, KeyError)):
        read(RULES, told, float_of)


@pytest.mark.parametrize("spec", [{}, {"count": 0}, {"count": 1_000_001}, {"count": 5, "completions": 6}])
def test_a_spec_that_makes_no_array_is_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="items"):
        rules_of(spec)


def test_a_spec_is_read() -> None:
    assert rules_of({"count": 7}) == ArrayRules(7)
    chunk = {"maxItems": 10, "targetSeconds": 1}
    read_ = rules_of({"items": [1, None, {}], "chunk": chunk, "parallelism": 2, "completions": 1})
    assert read_ == ArrayRules(3, True, 10, 1.0, 2, 1)
    assert read_.needed == 1
    assert ArrayRules(7).needed == 7


def test_a_chunk_s_result_is_read_as_it_was_written() -> None:
    failed = (FailedItems(IndexSet.span(7, 8), Reason.HANDLER_ERROR, "no", retryable=False),)
    result = ChunkResult({5: '{"x":null}'}, failed, IndexSet.span(9, 20), 3)
    assert decode(encode(result)) == result
    assert encode(ChunkResult()) == b"{}"


@pytest.mark.parametrize(
    "body",
    [
        *(
            b"",
            b"[]",
            b"1",
            b"null",
            b"\xff",
            b'{"left": 7}',
            b'{"left": "3-1"}',
            b'{"failed": [1]}',
            b'{"failed": [{}]}',
        ),
        *(b'{"results": [1]}', b'{"results": {"x": 1}}', b'{"results": {"": 1}}', b'{"results": {"1-2": 1}}'),
        *(b'{"dropped": "x"}', b'{"dropped": [1]}', b"[" * 100_000),
    ],
)
def test_any_other_body_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of many kinds
        decode(body)


def test_the_first_failures_are_told_once_for_each_reason() -> None:
    errors = [ItemError(1, "HandlerError", "boom"), ItemError(2, "HandlerError", "bang"), ItemError(3, "Poisoned", "")]
    assert accounts.spread(errors) == "item 1: boom; item 3: Poisoned"
