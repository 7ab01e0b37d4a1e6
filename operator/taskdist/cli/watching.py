"""`wait` and `watch`: many Tasks until they have ended, and changes as they happen."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing

from taskdist.api.view import TaskRow
from taskdist.cli import live
from taskdist.cli.cluster import Cluster
from taskdist.cli.run import FAILED, OK, TIMED_OUT, complain, note
from taskdist.cli.waiting import no_result, verdict
from taskdist.client import AsyncClient, TaskdistError, TaskState, TaskTimeout
from taskdist.client.changes import all_changes, changes
from taskdist.client.states import settled, story
from taskdist.common import times
from taskdist.kube import TASKS, Obj, name_of, uid_of

MOST_UNREAD = 64

# The Task, a row of the leader's, or None once the leader tells no more; an error ends the watch.
News = Obj | TaskRow | Exception | None


async def wait(cluster: Cluster, names: Sequence[str], *, labels: str, succeeded: bool, timeout: float | None) -> int:
    """Stay until all have ended, with a line for each; `succeeded`: it counts only if they have succeeded."""
    asked: list[str | TaskState] = list(names)
    if not names:
        asked = [TaskState.of(each) for each in (await cluster.list(TASKS, labels=labels)).items]
        if not asked:
            complain(f"no Tasks in namespace {cluster.namespace} match")
            return FAILED
    async with AsyncClient(backend=cluster) as client:

        async def one(task: str | TaskState) -> int:
            try:
                state = await client.wait(task, timeout=timeout)
            except TaskTimeout as error:
                complain(str(error))
                return TIMED_OUT
            except TaskdistError as error:
                complain(str(error))
                return FAILED
            print(story(state.obj), flush=True)
            return verdict(state.obj) if succeeded else OK

        codes = await asyncio.gather(*(one(each) for each in asked))
    left = codes.count(TIMED_OUT)
    if left:
        note(f"{left} of {len(codes)} have not ended")
    return TIMED_OUT if left else max(codes)


async def watch_one(cluster: Cluster, name: str) -> int:
    """A line for each change of the Task, and of its progress as its agent tells it, until nothing more comes of it."""
    news: asyncio.Queue[News] = asyncio.Queue(MOST_UNREAD)
    tasks = [asyncio.create_task(_changes(cluster, name, news))]
    last = ""
    obj: Obj | None = None
    row: TaskRow | None = None
    try:
        while True:
            match await news.get():
                case Exception() as error:
                    raise error
                case TaskRow() as told:
                    row = told
                case None:
                    # What has been told stands, and status catches up with it in some seconds.
                    row = None
                    continue
                case seen:
                    if obj is None and not settled(seen):
                        tasks.append(asyncio.create_task(_progress(cluster, name, news)))
                    obj = seen
            assert obj is not None, "it is followed once it is seen"
            line = story(live.with_progress(obj, row))
            if line != last:
                _tell(line)
            last = line
            if settled(obj):
                if verdict(obj) != OK:
                    complain(no_result(obj, cluster.options))
                return verdict(obj)
    finally:
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _changes(cluster: Cluster, name: str, news: asyncio.Queue[News]) -> None:
    try:
        async with aclosing(changes(cluster, name)) as states:
            async for obj in states:
                await news.put(obj)
    except Exception as error:
        await news.put(error)


async def _progress(cluster: Cluster, name: str, news: asyncio.Queue[News]) -> None:
    try:
        await live.follow(cluster, name, news.put)
    except Exception as error:
        await news.put(error)


async def watch_all(cluster: Cluster, *, labels: str, queue: str | None, everywhere: bool) -> int:
    """A line for each change of these Tasks, until interrupted."""
    fields = f"spec.queue={queue}" if queue else ""
    # What is there already is no change. No selector: for want of one that fits, the API server would read all Tasks.
    version = (await cluster.list(TASKS, everywhere=everywhere, most=1)).resource_version
    last: dict[str, str] = {}

    def cut() -> None:
        note("the watch was cut off; going on")

    events = all_changes(cluster, version, everywhere=everywhere, labels=labels, fields=fields, on_cut=cut)
    async with aclosing(events):
        async for event in events:
            obj = event.object
            if event.type == "DELETED":
                last.pop(uid_of(obj), None)
                if not settled(obj):
                    _tell(f"task {name_of(obj)}: deleted")
                continue
            line = story(obj)
            if last.get(uid_of(obj)) == line:
                continue
            _tell(line)
            if settled(obj):
                last.pop(uid_of(obj), None)
            else:
                last[uid_of(obj)] = line
    return OK


def _tell(line: str) -> None:
    print(f"{times.now().astimezone():%H:%M:%S}  {' '.join(line.split())}", flush=True)
