"""The account of an array's items: which succeeded, which failed, which wait for another try, which are in parts.

Whatever is in none of these waits for its first try: that is most of a large array, and takes no room. Each index is in
one place at any time; each step takes items from one place to another and returns a new account. Between two accounts
lies a merge patch of `status.array`, which is how the account is kept.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from taskdist.api import Phase
from taskdist.protocol.arrays.indexes import EMPTY, MOST_ITEMS, IndexSet

Status = dict[str, Any]

# What status keeps of failed items: the first ones, and so much of what was said of each.
MOST_ERRORS = 10
MAX_ERROR_MESSAGE = 200
# Bytes of results that stand in status, their indexes included.
MAX_RESULT_BYTES = 60 * 1024
# Runs of failed and retried items that status keeps. An array with more of them ends: so many items fail here and there
# that its status would outgrow what the API server takes.
MOST_RUNS = 2000
# Items that are to be tried again at about the same time are one group: within this share of their wait.
SAME_TIME = 0.25
# What of a Task's status a part keeps: what its lease needs, and what the retry rule asks.
KEPT = frozenset(
    (
        "phase",
        "reason",
        "attempt",
        "epoch",
        "agent",
        "agentUid",
        "pool",
        "lease",
        "failures",
        "retryAfter",
        "lostAgents",
        "throttledSeconds",
        "spilledTo",
        "cost",
        "energyWh",
        "assignedAt",
        "attempts",
        "progress",
    )
)


@dataclass(frozen=True, slots=True)
class ArrayRules:
    """An array's spec, without its items."""

    count: int
    inline: bool = False  # each item is a value of its own in the spec; else all get the Task's payload
    most_items: int = 100_000  # of one chunk
    target_seconds: float = 5.0  # that a chunk should take
    parallelism: int = 200  # parts at once
    completions: int = 0  # items that must succeed; 0: all

    @property
    def needed(self) -> int:
        """How many items must succeed for the array to succeed."""
        return self.completions or self.count


class Again(NamedTuple):
    """Items that have failed so often by themselves, and are tried again from this time on (Unix seconds)."""

    failures: int
    not_before: float
    items: IndexSet
    most: int = 0  # of them are handed out in one part, for they were in one that failed as a whole; 0: as many as fit


@dataclass(frozen=True, slots=True)
class ItemError:
    """What was said of the first items that failed for good."""

    index: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class StoredPart:
    """A part as status shows it. `failures`: how often each of its items has failed by itself before."""

    items: IndexSet
    failures: int = 0
    status: Mapping[str, Any] = field(default_factory=dict)  # the fields of a Task's status that a part keeps


@dataclass(frozen=True, slots=True)
class PartEnd:
    """How the items of a part ended. Those that are not named were not tried, and wait as before."""

    succeeded: IndexSet = EMPTY
    failed: IndexSet = EMPTY
    again: tuple[Again, ...] = ()
    errors: tuple[ItemError, ...] = ()
    results: Mapping[int, str] = field(default_factory=dict)  # JSON text by index
    dropped: int = 0  # results that the agent had no room for


@dataclass(frozen=True, slots=True)
class Account:
    """Where each item of one array stands."""

    count: int
    succeeded: IndexSet = EMPTY
    failed: IndexSet = EMPTY
    again: tuple[Again, ...] = ()
    parts: Mapping[str, StoredPart] = field(default_factory=dict)
    errors: tuple[ItemError, ...] = ()
    result_bytes: int = 0
    results: Mapping[int, str] = field(default_factory=dict)  # those that the last steps brought; status has the others
    dropped: int = 0
    commit: str = ""  # names the write that brought it

    # --- what it says ---

    @property
    def waiting_again(self) -> IndexSet:
        """The items that failed and are to be tried again."""
        return IndexSet.union(each.items for each in self.again)

    @property
    def in_parts(self) -> IndexSet:
        """The items that status shows in parts."""
        return IndexSet.union(part.items for part in self.parts.values())

    @property
    def untried(self) -> IndexSet:
        """The items that no part has had, or none that has got to them."""
        gone = IndexSet.union((self.succeeded, self.failed, self.waiting_again, self.in_parts))
        return IndexSet.span(0, self.count - 1) - gone

    @property
    def runs(self) -> int:
        """Return how many runs of failed and retried items status has to keep."""
        return len(self.failed.spans) + sum(len(each.items.spans) for each in self.again)

    # --- its steps ---

    def handed(self, key: str, items: IndexSet, failures: int, patch: Status) -> "Account":
        """A new part is given these items, which wait."""
        again = tuple(each._replace(items=left) for each in self.again if (left := each.items - items))
        return replace(self, again=again, parts={**self.parts, key: StoredPart(items, failures, _merged({}, patch))})

    def told(self, key: str, patch: Status) -> "Account":
        """Status is to say this of a part: it is assigned again, waits again, or has got on."""
        if (part := self.parts.get(key)) is None:
            return self
        return replace(self, parts={**self.parts, key: replace(part, status=_merged(part.status, patch))})

    def ended(self, key: str, end: PartEnd, now: float) -> "Account":
        """A part is over. Of what it says only its own items count; each counts once."""
        if (part := self.parts.get(key)) is None:
            return self
        parts = {name: each for name, each in self.parts.items() if name != key}
        succeeded = end.succeeded & part.items
        failed = (end.failed & part.items) - succeeded
        left, again = part.items - succeeded - failed, self.again
        for each in end.again:
            items = each.items & left
            left, again = left - items, _joined(again, each._replace(items=items), now)
        if part.failures:  # they were not tried this time
            again = _joined(again, Again(part.failures, 0.0, left), now)
        results, size, dropped = dict(self.results), self.result_bytes, self.dropped + end.dropped
        for index, text in end.results.items():
            more = len(text.encode()) + len(str(index)) + 6
            if index not in succeeded or index in results:
                continue
            if size + more > MAX_RESULT_BYTES:
                dropped += 1
                continue
            results[index] = text
            size += more
        return replace(
            self,
            parts=parts,
            succeeded=self.succeeded | succeeded,
            failed=self.failed | failed,
            again=again,
            errors=(*self.errors, *end.errors)[:MOST_ERRORS],
            results=results,
            result_bytes=size,
            dropped=dropped,
        )

    def redriven(self) -> "Account":
        """What has failed waits as if it had never been tried."""
        return replace(self, failed=EMPTY, errors=())


def _joined(again: tuple[Again, ...], more: Again, now: float) -> tuple[Again, ...]:
    """Add items that are to be tried again. Groups stay few: those of about the same time are one.

    The group's own time stands, so that what comes later never puts it off.
    """
    if not more.items:
        return again
    earliest = more.not_before - SAME_TIME * max(0.0, more.not_before - now)
    for n, each in enumerate(again):
        same = (each.failures, each.most) == (more.failures, more.most)
        if same and (earliest <= each.not_before <= more.not_before or max(each.not_before, more.not_before) <= now):
            return (*again[:n], each._replace(items=each.items | more.items), *again[n + 1 :])
    return (*again, more)


def _merged(status: Mapping[str, Any], patch: Status) -> Status:
    """Merge what a part keeps of a Task's status."""
    merged = {**status, **{name: value for name, value in patch.items() if name in KEPT}}
    attempts = merged.get("attempts")
    if attempts:  # of its attempts only the last, in short: there are many parts
        last = attempts[-1]
        merged["attempts"] = [{**last, "message": str(last.get("message", ""))[:MAX_ERROR_MESSAGE]}]
    if merged.get("phase") == Phase.ASSIGNED:
        merged.pop("reason", None)  # it would say the same once more, for each part
    return {name: value for name, value in merged.items() if value is not None}


# --- as status keeps it ---


def rules_of(spec: Mapping[str, Any]) -> ArrayRules:
    """Read `spec.array`. Raises ValueError for what makes no array."""
    items = spec.get("items")
    count = len(items) if items else spec.get("count") or 0
    chunk = spec.get("chunk") or {}
    completions = spec.get("completions") or 0
    if not 1 <= count <= MOST_ITEMS or not 0 <= completions <= count:
        raise ValueError(f"an array has 1 to {MOST_ITEMS} items, and at most as many completions: not {count}")
    return ArrayRules(
        count,
        bool(items),
        max(1, int(chunk.get("maxItems") or 100_000)),
        max(0.001, float(chunk.get("targetSeconds") or 5.0)),
        min(1000, max(1, int(spec.get("parallelism") or 200))),
        completions,
    )


def read(rules: ArrayRules, told: Mapping[str, Any], seconds: Any) -> Account:
    """Read `status.array`; `seconds` reads a time. Raises ValueError where it is no account of this array's items."""
    again = tuple(
        Again(
            int(each["failures"]),
            seconds(each.get("notBefore")),
            IndexSet.parse(each["items"]),
            max(0, int(each.get("chunkItems") or 0)),
        )
        for each in told.get("retrying") or ()
    )
    parts = {
        str(key): StoredPart(
            IndexSet.parse(part["items"]),
            int(part.get("itemFailures") or 0),
            {name: value for name, value in part.items() if name in KEPT},
        )
        for key, part in (told.get("parts") or {}).items()
    }
    errors = tuple(
        ItemError(int(each["index"]), str(each.get("reason")), str(each.get("message")))
        for each in (told.get("errors") or ())[:MOST_ERRORS]
    )
    account = Account(
        rules.count,
        IndexSet.parse(told.get("succeeded") or ""),
        IndexSet.parse(told.get("failed") or ""),
        again,
        parts,
        errors,
        int(told.get("resultBytes") or 0),
        dropped=int(told.get("resultsDropped") or 0),
        commit=str(told.get("commit") or ""),
    )
    sets = [account.succeeded, account.failed, *(each.items for each in again), *(p.items for p in parts.values())]
    held = IndexSet.union(sets)
    if len(held) != sum(map(len, sets)):
        raise ValueError("an item is in two places")
    if held and held.spans[-1].last >= rules.count:
        raise ValueError(f"item {held.spans[-1].last} of an array of {rules.count}")
    return account


def changes(before: Account, after: Account, timestamp: Any) -> Status:
    """Return the merge patch of `status.array` that leads from one account to the other."""
    patch: Status = {}
    for name, old, new in (("succeeded", before.succeeded, after.succeeded), ("failed", before.failed, after.failed)):
        if old != new:
            patch[name] = str(new)
    if before.again != after.again:
        patch["retrying"] = [
            {"failures": each.failures, "items": str(each.items)}
            | ({"notBefore": timestamp(each.not_before)} if each.not_before else {})
            | ({"chunkItems": each.most} if each.most else {})
            for each in after.again
        ] or None
    if before.errors != after.errors:
        patch["errors"] = [asdict(each) for each in after.errors] or None
    if before.result_bytes != after.result_bytes:
        patch["resultBytes"] = after.result_bytes
        patch["results"] = {str(index): text for index, text in after.results.items()}
    if before.dropped != after.dropped:
        patch["resultsDropped"] = after.dropped
    if parts := _part_changes(before.parts, after.parts):
        patch["parts"] = parts
    if before.succeeded != after.succeeded or not before.commit:
        patch["done"] = f"{len(after.succeeded)}/{after.count}"
    return patch


def _part_changes(before: Mapping[str, StoredPart], after: Mapping[str, StoredPart]) -> Status:
    changed: Status = {key: None for key in before if key not in after}
    for key, part in after.items():
        old = before.get(key)
        if old is None:
            failed = {"itemFailures": part.failures} if part.failures else {}
            changed[key] = {"items": str(part.items), **failed, **part.status}
        elif old.status != part.status:
            gone = dict.fromkeys(old.status.keys() - part.status.keys())
            changed[key] = gone | {name: value for name, value in part.status.items() if old.status.get(name) != value}
    return changed


def spread(errors: Iterable[ItemError]) -> str:
    """Return the first failures in a sentence, each reason once."""
    seen: dict[str, str] = {}
    for each in errors:
        seen.setdefault(each.reason, f"item {each.index}: {each.message or each.reason}")
    return "; ".join(list(seen.values())[:3])
