"""`explain`: prints why a Task waits and what would change it. What it prints is found out by the client."""

import re
import time
from typing import Any

from pydantic import ValidationError

from taskdist.api import Priority
from taskdist.api.view import Changes
from taskdist.cli import parse, show
from taskdist.cli.cluster import Cluster
from taskdist.cli.run import OK, note
from taskdist.cli.show_explanation import print_queue, print_story
from taskdist.client import explaining, explaining_queues
from taskdist.client.backend import Source, Told

_NUMBER = re.compile(r"[+-]?\d{1,6}")


async def explain(
    cluster: Cluster,
    name: str,
    output: str | None,
    changes: Changes | None = None,
    source: Source | None = None,
) -> int:
    """Say where the Task stands, why, and what would change it."""
    told = await explaining.explain(cluster, name, changes, cluster.view, source)
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
    """Write notes and warnings beside the answer, to standard error."""
    if told.not_asked:
        note(told.not_asked)
    for line in told.warnings:
        note(f"warning: {line}")


def changed(words: list[str]) -> Changes:
    """`priority=High`, `pool=NAME`, `agents=+3` (of the first pool that it may use), `agents.POOL=+3` → all at once.

    Raises parse.Malformed.
    """
    found: dict[str, Any] = {"agents": {}}
    for word in words:
        name, separator, value = word.partition("=")
        if name in ("priority", "pool") and value:
            found[name] = value
        elif name.partition(".")[0] == "agents" and separator and _NUMBER.fullmatch(value):
            if name == "agents":
                found["more_agents"] = int(value)
            else:
                found["agents"][name.partition(".")[2]] = int(value)
        else:
            raise _no_change(word)
    try:
        return Changes.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        raise _no_change(" ".join(words), f" ({first['msg']})") from None


def _no_change(word: str, why: str = "") -> parse.Malformed:
    levels = ", ".join(each.value for each in Priority)
    return parse.Malformed(
        f"{word!r} is no change{why}: write priority=LEVEL ({levels}), pool=NAME, agents=+3 or agents.POOL=+3"
    )
