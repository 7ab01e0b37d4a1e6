"""`explain`: prints why a Task waits and what would change it. What it prints is found out by the client."""

import re
import time

from taskdist.api import Priority
from taskdist.cli import parse, show
from taskdist.cli.cluster import Cluster
from taskdist.cli.run import OK, USAGE, Problem, note
from taskdist.cli.show_explanation import print_queue, print_story
from taskdist.client import explaining, explaining_queues
from taskdist.client.backend import Source, Told
from taskdist.simulation.what_if import Change

_NUMBER = re.compile(r"[+-]?\d{1,6}")


async def explain(
    cluster: Cluster,
    name: str,
    output: str | None,
    change: Change | None = None,
    agents: int = 0,
    source: Source | None = None,
) -> int:
    """Say where the Task stands, why, and what would change it. `agents` are more of the first pool it may use."""
    if source is Source.LEADER and change is not None:
        raise Problem("--what-if is played on the cluster's objects: leave --from out", code=USAGE)
    told = await explaining.explain(cluster, name, change, agents, cluster.view, source)
    _say(told)
    if output:
        show.document(told.story, output)
    else:
        print_story(told.story, time.time())
    return OK


async def explain_queue(cluster: Cluster, name: str, output: str | None, source: Source | None = None) -> int:
    """Say how the queue stands, what waits for it outside, and what holds it up."""
    told = await explaining_queues.explain_queue(cluster, name, cluster.view, source)
    _say(told)
    if output:
        show.document(told.story, output)
    else:
        print_queue(told.story)
    return OK


def _say(told: Told) -> None:
    """What goes beside the answer, to standard error."""
    if told.not_asked:
        note(told.not_asked)
    for line in told.warnings:
        note(f"warning: {line}")


def changed(words: list[str]) -> tuple[Change, int]:
    """`priority=High`, `pool=NAME`, `agents=+3`, `agents.POOL=+3` → a change, and agents more of the Task's first pool.

    Raises parse.Malformed.
    """
    priority, pool, agents, more = None, None, {}, 0
    for word in words:
        name, separator, value = word.partition("=")
        if name == "priority" and value in [each.value for each in Priority]:
            priority = Priority(value).level
        elif name == "pool" and value:
            pool = value
        elif name.partition(".")[0] == "agents" and separator and _NUMBER.fullmatch(value):
            if name == "agents":
                more = int(value)
            else:
                agents[name.partition(".")[2]] = int(value)
        else:
            levels = ", ".join(each.value for each in Priority)
            raise parse.Malformed(
                f"{word!r} is no change: write priority=LEVEL ({levels}), pool=NAME, agents=+3 or agents.POOL=+3"
            )
    return Change(priority, pool, agents), more
