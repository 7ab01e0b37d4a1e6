"""`submit -f`: many Tasks out of a file, one JSON object a line."""

import asyncio
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import CancelledError
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TextIO

from taskdist.api import GROUP
from taskdist.cli.cluster import CONNECTIONS, Cluster
from taskdist.cli.run import FAILED, OK, Problem, note
from taskdist.client import AsyncClient, InvalidTask, Outcome, SubmittedTask, TaskdistError, TaskUnsuccessful
from taskdist.client.windowed import windowed

CONCURRENCY = 32
WINDOW = 2000
SHOWN = 20
"""So many lines that went wrong are told in words; of more the count is."""
SECONDS_BETWEEN = 0.2
assert CONCURRENCY < CONNECTIONS


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds for lines that do not say it themselves; labels are added to those of each."""

    queue: str | None = None
    type: str | None = None
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Tally:
    """What became of the lines so far, and what to say of it."""

    began: float = field(default_factory=time.monotonic)
    counts: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    told: float = 0.0

    def failed(self, line: int, message: str) -> None:
        self.wrong += 1
        if self.wrong <= SHOWN:
            self.clear()
            note(f"line {line}: {message}")

    def count(self, word: str) -> None:
        self.counts[word] += 1
        now = time.monotonic()
        if sys.stderr.isatty() and now - self.told > SECONDS_BETWEEN:
            self.told = now
            print(f"\r{self.words()}\x1b[K", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def words(self) -> str:
        parts = [f"{number} {word}" for word, number in self.counts.items()]
        parts += [f"{self.wrong} failed"] if self.wrong else []
        return ", ".join(parts) or "nothing submitted"

    def close(self) -> int:
        self.clear()
        if self.wrong > SHOWN:
            note(f"and {self.wrong - SHOWN} lines more that failed")
        note(f"{self.words()}, in {time.monotonic() - self.began:.1f} s")
        return FAILED if self.wrong or not self.counts else OK


async def submit(
    cluster: Cluster, path: str, defaults: Defaults, *, wait: bool, timeout: float | None, names: bool
) -> int:
    """Submit each line's Task. With `wait`, print a line of JSON for each as it ends; with `names`, its name."""
    tally = _Tally()

    def warn(message: str) -> None:
        tally.clear()
        note(f"warning: {message}")

    async with AsyncClient(backend=cluster, on_warning=warn) as client:
        with _opened(path) as file:
            lines = _lines(file, defaults, tally)
            if wait:
                await _to_their_ends(client, lines, tally, timeout, names)
            else:
                await _submitted(client, lines, tally, names)
    return tally.close()


async def _submitted(client: AsyncClient, lines: AsyncIterator[tuple[int, Any]], tally: _Tally, names: bool) -> None:
    async def one(_: int, item: tuple[int, Any]) -> tuple[int, SubmittedTask[Any] | TaskdistError]:
        try:
            return item[0], await client.submit_document(item[1])
        except TaskdistError as error:
            return item[0], error

    async with aclosing(windowed(lines, one, window=CONCURRENCY, ordered=names)) as made:
        async for line, task in made:
            if isinstance(task, TaskdistError):
                tally.failed(line, str(task))
                continue
            tally.count("submitted" if task.created else "there already")
            if names:
                print(f"task.{GROUP}/{task.name}")


async def _to_their_ends(
    client: AsyncClient,
    lines: AsyncIterator[tuple[int, Any]],
    tally: _Tally,
    timeout: float | None,
    names: bool,
) -> None:
    numbers: dict[int, int] = {}

    async def documents() -> AsyncIterator[Any]:
        index = 0
        async for line, document in lines:
            numbers[index] = line
            index += 1
            yield document

    outcomes = client.map_documents(documents(), window=WINDOW, concurrency=CONCURRENCY, timeout=timeout)
    async with aclosing(outcomes):
        async for outcome in outcomes:
            line = numbers.pop(outcome.index)
            if outcome.error is not None:
                tally.failed(line, str(outcome.error))
            else:
                tally.count("Succeeded")
            print(f"task.{GROUP}/{outcome.task}" if names and outcome.task else _json(line, outcome), flush=True)


def _json(line: int, outcome: Outcome[Any]) -> str:
    told: dict[str, Any] = {"line": line, "name": outcome.task.name if outcome.task else None}
    error = outcome.error
    if error is None:
        told |= {"phase": "Succeeded", "result": outcome.result}
    elif isinstance(error, TaskUnsuccessful):
        told |= {"phase": error.state.phase, "reason": error.reason, "message": error.message}
    else:
        told |= {"phase": None, "reason": type(error).__name__, "message": str(error)}
    return json.dumps(told, ensure_ascii=False, separators=(",", ":"))


@contextmanager
def _opened(path: str) -> Iterator[TextIO]:
    if path == "-":
        yield sys.stdin
        return
    try:
        file = open(path, encoding="utf-8")  # noqa: SIM115  # below
    except OSError as error:
        raise Problem(f"cannot read {path}: {error.strerror}") from None
    with file:
        yield file


async def _lines(file: TextIO, defaults: Defaults, tally: _Tally) -> AsyncIterator[tuple[int, Any]]:
    """Each line's number and document. Lines that are none are told and passed over. Who writes may be slow."""
    number = 0
    async for text in _read(file):
        number += 1
        if not text.strip():
            continue
        try:
            yield number, _document(text, defaults)
        except InvalidTask as error:
            tally.failed(number, str(error))


async def _read(file: TextIO) -> AsyncIterator[str]:
    """The lines, read on a thread that holds up nobody: not the others while it waits, not Ctrl-C either."""
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str | Exception | None] = asyncio.Queue(WINDOW)

    def read() -> None:
        def put(item: str | Exception | None) -> None:
            work = lines.put(item)
            try:
                asyncio.run_coroutine_threadsafe(work, loop).result()
            except RuntimeError:
                work.close()
                raise

        # Nobody is there any more to hear what goes wrong once the loop is closed.
        with suppress(RuntimeError, CancelledError):
            try:
                for line in file:
                    put(line)
                put(None)
            except (UnicodeDecodeError, OSError) as error:
                put(error)

    threading.Thread(target=read, name="taskdist-lines", daemon=True).start()
    number = 0
    while (line := await lines.get()) is not None:
        number += 1
        if isinstance(line, UnicodeDecodeError):
            raise Problem(f"the file is not UTF-8 text, at line {number} or soon after")
        if isinstance(line, Exception):
            raise Problem(f"cannot read on after line {number - 1}: {line}")
        yield line


def _document(text: str, defaults: Defaults) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidTask(f"it is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidTask("it is no JSON object")
    spec, holder = document, document
    if isinstance(document.get("spec"), dict):
        spec, holder = document["spec"], document.setdefault("metadata", {})
    for key, value in (("queue", defaults.queue), ("type", defaults.type)):
        if value:
            spec.setdefault(key, value)
    if defaults.labels and isinstance(holder, dict):
        own = holder.get("labels")
        holder["labels"] = {**(own if isinstance(own, dict) else {}), **defaults.labels}
    return document
