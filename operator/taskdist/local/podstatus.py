"""What a pod's status says, from what its containers are.

Pure: container states and times in, the status subresource out. It does not decide when a container runs or stops.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from taskdist.kube import Obj


@dataclass
class Container:
    """One container as its status shows it. `state` and `last_state` are in the API's own form."""

    name: str
    image: str
    restarts: int = 0
    identity: str = ""
    started: bool = False
    ready: bool = False
    state: Obj = field(default_factory=lambda: {"waiting": {"reason": "PodInitializing"}})
    last_state: Obj = field(default_factory=dict)

    @property
    def terminated(self) -> Obj | None:
        ended: Obj | None = self.state.get("terminated")
        return ended

    @property
    def running(self) -> bool:
        return "running" in self.state

    def wait(self, reason: str, message: str = "") -> None:
        """Not running (yet, or again): what it did last moves to `last_state`."""
        if self.terminated is not None:
            self.last_state = self.state
        self.state = {"waiting": {"reason": reason, **({"message": message} if message else {})}}
        self.started = self.ready = False

    def run(self, identity: str, now: str) -> None:
        if self.terminated is not None:
            self.last_state = self.state
        self.identity = identity
        self.state = {"running": {"startedAt": now}}

    def end(self, code: int, now: str, reason: str = "", message: str = "") -> None:
        """`code` as subprocess gives it: a negative one is a signal."""
        began = (self.state.get("running") or {}).get("startedAt", now)
        signal = -code if code < 0 else 0
        self.state = {
            "terminated": {
                "exitCode": 128 + signal if signal else code,
                "reason": reason or ("Completed" if code == 0 else "Error"),
                "startedAt": began,
                "finishedAt": now,
                "containerID": self.identity,
                **({"signal": signal} if signal else {}),
                **({"message": message} if message else {}),
            }
        }
        self.started = self.ready = False

    def status(self) -> Obj:
        return {
            "name": self.name,
            "image": self.image,
            "imageID": "",
            "containerID": self.identity,
            "restartCount": self.restarts,
            "started": self.started,
            "ready": self.ready,
            "state": self.state,
            "lastState": self.last_state,
        }


def resumed(name: str, image: str, earlier: Sequence[Obj], restart: Callable[[int], bool]) -> Container:
    """A container as it is before this node starts it. If an earlier run of the node had it, that run is over: its
    process died with the node. Where the policy restarts it, that is a restart; otherwise it stays ended."""
    for status in earlier:
        if status["name"] == name and status.get("containerID"):
            over = _over(status)
            container = Container(name, image, restarts=int(status.get("restartCount") or 0))
            container.identity = status["containerID"]
            if restart(int(over["terminated"]["exitCode"])):
                container.restarts += 1
                container.last_state = over
            else:
                container.state = over
            return container
    return Container(name, image)


def _over(status: Obj) -> Obj:
    state = status.get("state") or {}
    if "terminated" in state:
        return dict(state)
    ended = {"exitCode": 137, "reason": "ContainerStatusUnknown", "containerID": status["containerID"]}
    return {"terminated": {**ended, "message": "the node that ran it has ended"}}


def phase(policy: str, inits: Sequence[Container], containers: Sequence[Container], stopping: bool) -> str:
    """The pod's phase. A stopping pod whose containers have all ended is over whatever its restart policy."""
    ended = [container.terminated for container in containers]
    if all(ended):
        failed = any(state and state["exitCode"] for state in ended)
        if policy == "Never" or stopping or (policy == "OnFailure" and not failed):
            return "Failed" if failed else "Succeeded"
        return "Running"
    if any(state and state["exitCode"] for state in (each.terminated for each in inits)) and (
        policy == "Never" or stopping
    ):
        return "Failed"
    started = any(container.identity or container.restarts for container in containers)
    if stopping and not started:
        return "Failed"  # Told to stop before anything of it ran.
    return "Running" if started else "Pending"


def compose(
    pod: Obj,
    inits: Sequence[Container],
    containers: Sequence[Container],
    *,
    address: str,
    started_at: str,
    stopping: bool,
    earlier: Sequence[Obj],
    now: str,
) -> Obj:
    """The whole status. `earlier` are the conditions as last written: their times stay while their status does."""
    spec = pod["spec"]
    policy = spec.get("restartPolicy") or "Always"
    current = phase(policy, inits, containers, stopping)
    over = current in ("Succeeded", "Failed")
    initialized = all(each.terminated and each.terminated["exitCode"] == 0 for each in inits)
    unready = [container.name for container in containers if not container.ready]
    ready = not unready and not over
    reason, message = "PodCompleted", ""
    if ready:
        reason = ""
    elif not over:
        reason, message = "ContainersNotReady", f"containers with unready status: {unready}"
    conditions = [
        condition("PodScheduled", True, "", "", earlier, now),
        condition("Initialized", initialized, "" if initialized else "ContainersNotInitialized", "", earlier, now),
        condition("ContainersReady", ready, reason, message, earlier, now),
        condition("Ready", ready, reason, message, earlier, now),
    ]
    return {
        "phase": current,
        "conditions": conditions,
        "hostIP": "127.0.0.1",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "startTime": started_at,
        "initContainerStatuses": [each.status() for each in inits],
        "containerStatuses": [each.status() for each in containers],
    }


def condition(kind: str, true: bool, reason: str, message: str, earlier: Sequence[Obj], now: str) -> Obj:
    """A condition; its transition time is the earlier one's unless the status changed."""
    status = "True" if true else "False"
    since = now
    for each in earlier:
        if each["type"] == kind and each["status"] == status:
            since = each.get("lastTransitionTime") or now
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since}


def timestamp() -> str:
    """Now, as the API writes it."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
