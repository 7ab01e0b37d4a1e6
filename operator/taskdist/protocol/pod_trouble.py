"""Trouble of pods that do not come up: not scheduled, no image, no configuration, a container that crashes.

Pure. A pod that is merely on its way has no trouble; neither has one that was restarted once, or after it ran for long.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from taskdist.core.model import Trouble

Obj = Mapping[str, Any]
_NOTHING: Final[Obj] = {}

# What the kubelet calls a container that is on its way.
STARTING: Final = frozenset({"ContainerCreating", "PodInitializing"})
CRASHES: Final = "CrashLoopBackOff"
# The kubelet takes a container that ran for this long for a sound one, and counts its back-off anew.
SOUND_SECONDS: Final = 600.0
# Registries and runtimes may tell whole pages.
MOST_SAID: Final = 300


def trouble_of(status: Obj, seconds: Callable[[Any], float]) -> Trouble | None:
    """Return what keeps the pod with this status from coming up; None if nothing is known to.

    Args:
        seconds: reads a time as Kubernetes writes it.
    """
    if status.get("phase") in ("Succeeded", "Failed"):
        return None
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return Trouble(condition.get("reason") or "Unschedulable", _short(condition.get("message") or ""))
    return next(_of_containers(status, seconds), None)


def _of_containers(status: Obj, seconds: Callable[[Any], float]) -> Iterator[Trouble]:
    for of in ("initContainerStatuses", "containerStatuses"):
        for container in status.get(of) or ():
            if not container.get("ready"):
                found = _of_container(container, seconds)
                if found is not None:
                    yield found


def _of_container(container: Obj, seconds: Callable[[Any], float]) -> Trouble | None:
    name, state = container["name"], container.get("state") or _NOTHING
    waiting, last = state.get("waiting") or _NOTHING, container.get("lastState") or _NOTHING
    ended = state.get("terminated") or last.get("terminated")
    cause = waiting.get("reason") or ""
    # Between two restarts it runs for a moment: it is the same trouble all along.
    again = (container.get("restartCount") or 0) >= 2 and ended and _lived(ended, seconds) < SOUND_SECONDS
    if ended and (cause == CRASHES or (again and (not cause or cause in STARTING))):
        why = ended.get("reason") or ""
        said = f"container {name} ends again and again, last with exit code {ended.get('exitCode')}"
        said += f" ({why})" if why and why not in ("Error", "Completed") else ""
        told = (ended.get("message") or "").strip()
        return Trouble(CRASHES, _short(f"{said}: {told}" if told else said), name)
    told = (waiting.get("message") or "").strip()
    # The kubelet says nothing of one that is on its way; who does says what it waits for.
    if not waiting or (cause in STARTING and not told):
        return None
    return Trouble(cause or "Waiting", _short(f"container {name}: {told}" if told else f"container {name} waits"))


def _lived(ended: Obj, seconds: Callable[[Any], float]) -> float:
    return seconds(ended.get("finishedAt")) - seconds(ended.get("startedAt"))


def _short(text: str) -> str:
    line = " ".join(text.split()).removesuffix(".")
    return line if len(line) <= MOST_SAID else f"{line[: MOST_SAID - 1]}…"
