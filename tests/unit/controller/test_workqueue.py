"""One run per key at a time; requests coalesce; failures back off."""

import asyncio

from taskdist.common.backoff import Backoff
from taskdist.controller.workqueue import WorkQueue

BRISK = Backoff(first=0.001, most=0.01)


class Work:
    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.runs: list[str] = []
        self.running = 0
        self.most = 0
        self.failures = 0
        self.seen: list[Exception] = []
        self.queue = WorkQueue[str](self.work, lambda _, error: self.seen.append(error), backoff=BRISK)

    async def work(self, key: str) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        self.runs.append(key)
        try:
            await self.gate.wait()
            if self.failures:
                self.failures -= 1
                raise RuntimeError("no")
        finally:
            self.running -= 1


async def test_requests_during_a_run_become_one_more_run() -> None:
    work = Work()
    work.queue.ask("a")
    await asyncio.sleep(0)
    for _ in range(5):
        work.queue.ask("a")
    work.gate.set()
    await work.queue.idle()
    assert work.runs == ["a", "a"]
    assert work.most == 1


async def test_keys_do_not_wait_for_each_other() -> None:
    work = Work()
    work.queue.ask("a")
    work.queue.ask("b")
    await asyncio.sleep(0)
    assert work.running == 2
    work.gate.set()
    await work.queue.idle()


async def test_a_failure_is_told_and_tried_again() -> None:
    work = Work()
    work.failures = 3
    work.gate.set()
    work.queue.ask("a")
    await work.queue.idle()
    assert work.runs == ["a"] * 4
    assert len(work.seen) == 3


async def test_closing_ends_what_runs() -> None:
    work = Work()
    work.queue.ask("a")
    await asyncio.sleep(0)
    await work.queue.close()
    assert work.running == 0
