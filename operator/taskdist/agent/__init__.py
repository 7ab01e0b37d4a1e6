"""The agent's side: the SDK for handlers, and the runner that puts any program behind the link.

Three kinds of process. The *supervisor* owns the link and the fence and runs no user code. *Workers*, each in a
process group of its own, run handlers or commands, one attempt at a time. The *warden* holds nothing but a list of
process groups with the time by which each must be dead, and outlives the supervisor just long enough to kill them.

Names are resolved on first use: the warden and the workers of commands start without the SDK's dependencies.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from taskdist.agent.options import AgentOptions
    from taskdist.agent.parents import ParentResult
    from taskdist.agent.runner import run_agent
    from taskdist.agent.sdk import Agent, Context, Permanent, Throttled

__all__ = ["Agent", "AgentOptions", "Context", "ParentResult", "Permanent", "Throttled", "run_agent"]

_HOMES = {
    "Agent": "taskdist.agent.sdk",
    "AgentOptions": "taskdist.agent.options",
    "Context": "taskdist.agent.sdk",
    "ParentResult": "taskdist.agent.parents",
    "Permanent": "taskdist.agent.sdk",
    "Throttled": "taskdist.agent.sdk",
    "run_agent": "taskdist.agent.runner",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
