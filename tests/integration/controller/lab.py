"""For the suite of fields: all fields of the models, the register of their cases, and what the cases work with."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from integration.controller.room import Object, Room, beats, metrics
from patience import until
from taskdist.api import AgentPool, Task, TaskQueue, rules
from taskdist.api.schema import Schema, structural
from taskdist.kube import ApiError

PLAIN = "plain"
SOLO = "solo"


def _leaves(schema: Schema, path: str) -> Iterator[str]:
    for name, inner in schema.get("properties", {}).items():
        items = inner.get("items")
        if "properties" in inner:
            yield from _leaves(inner, f"{path}.{name}")
        elif isinstance(items, dict) and "properties" in items:
            yield from _leaves(items, f"{path}.{name}[]")
        else:
            yield f"{path}.{name}"


def fields() -> set[str]:
    """Each field of a spec that the operator reads and a user may set, as `Task.timeouts.waitingSeconds`."""
    return {
        leaf
        for model in (AgentPool, TaskQueue, Task)
        for leaf in _leaves(structural(model, rules.NESTED)["properties"]["spec"], model.kind)
    }


@dataclass(frozen=True)
class Case:
    """Shows that the running operator honours these fields."""

    name: str
    fields: tuple[str, ...]
    show: Callable[[Lab], None]


class Register:
    """The cases of one module, in their order."""

    def __init__(self) -> None:
        self.cases: list[Case] = []

    def __call__(self, *fields: str) -> Callable[[Callable[[Lab], None]], Callable[[Lab], None]]:
        def note(show: Callable[[Lab], None]) -> Callable[[Lab], None]:
            self.cases.append(Case(show.__name__.replace("_", "-"), fields, show))
            return show

        return note


class Lab:
    """What one case works with.

    Pools: `p` of two agents of two slots, `solo` of one agent of one slot, which makes order visible. Queues and Tasks
    are named after the case, so that cases do not meet but for the agents they use one after the other.
    """

    def __init__(self, room: Room, case: str, directory: Path) -> None:
        self.room = room
        self.name = case[:30].strip("-")
        self.directory = directory
        self.file = directory / "beats"
        self._made: list[str] = []

    def queue(self, suffix: str = "q", **spec: Any) -> str:
        name = f"{self.name}-{suffix}"
        self.room.queue(name, **spec)
        return name

    def task(self, suffix: str, queue: str, type: str = "echo", payload: Object | None = None, **spec: Any) -> str:
        name = f"{self.name}-{suffix}"
        self.room.task(name, type, payload, queue=queue, **spec)
        self._made.append(name)
        return name

    def work(self, suffix: str, queue: str, seconds: float = 0.0, until: Path | None = None, **spec: Any) -> str:
        """A Task that shows in the file when it ran: for so long, or until that other file is there."""
        payload: Object = {"file": str(self.file), "seconds": seconds}
        if until is not None:
            payload |= {"until": str(until), "polite": True}
        return self.task(suffix, queue, "trace", payload, **spec)

    def busy(self, suffix: str, queue: str, **spec: Any) -> tuple[str, Path]:
        """A Task that runs until the file is touched. Returns once it runs."""
        own, done = self.directory / f"{suffix}.beats", self.directory / f"{suffix}.done"
        name = self.task(suffix, queue, "trace", {"file": str(own), "until": str(done), "polite": True}, **spec)
        until(lambda: own.exists() and own.read_text().count("\n") > 2, f"{name} runs")
        return name, done

    def end(self, name: str) -> Object:
        return self.room.ended(name)[0]

    def spans(self) -> dict[str, tuple[float, float]]:
        """When each Task that showed itself ran."""
        if not self.file.exists():
            return {}
        return {task: span for (task, _), span in beats(self.file).items()}

    def sequence(self) -> list[str]:
        """The Tasks that showed themselves, in the order of their starts, without the case's name."""
        spans = self.spans()
        return [name.removeprefix(f"{self.name}-") for name in sorted(spans, key=lambda each: spans[each])]

    def overlap(self, one: str, other: str) -> bool:
        spans = self.spans()
        return spans[one][1] >= spans[other][0] and spans[other][1] >= spans[one][0]

    @contextmanager
    def solo_taken(self) -> Iterator[None]:
        """Within, the one slot of the pool `solo` is taken. At the end the operator has seen all that was made within,
        the slot becomes free, and all have ended."""
        gate = f"gate-{len(self._made)}"
        _, done = self.busy(gate, self.queue(gate, pools=[SOLO]))
        before = len(self._made)
        yield
        made = self._made[before:]
        self.seen()
        done.touch()
        self.room.ended(*made)

    def seen(self) -> None:
        """Wait until the operator knows all Tasks that wait."""

        def known() -> bool:
            now = metrics(self.room.stack.operators[0])
            mine = [value for sample, value in now.items() if _is_of(sample, self.room.namespace)]
            tasks = [each.get("status", {}).get("phase") for each in self.room.items("tasks")]
            return sum(mine) == sum(phase in ("Pending", "Assigned") for phase in tasks)

        until(known, "the operator has seen all Tasks")

    def passed_over(self, *names: str) -> None:
        """Assert that these still wait, though the operator has decided since and has room: others run."""
        self.seen()
        witness = self.task(f"witness-{len(self._made)}", PLAIN)
        assert self.end(witness)["phase"] == "Succeeded"
        assert {name: self.room.phase(name) for name in names} == dict.fromkeys(names, "Pending")

    def accepting(self, queue: str, value: bool) -> None:
        def said() -> bool:
            return bool(self.room.status("taskqueues", queue).get("accepting") is value)

        until(said, f"queue {queue} says that it {'takes' if value else 'takes no'} new Tasks")

    def refused(self, queue: str) -> str:
        """Wait until the API server refuses new Tasks of the queue, which it hears of a moment later; its words."""

        def words() -> str:
            body = {
                "apiVersion": "taskdist.dev/v1alpha1",
                "kind": "Task",
                "metadata": {"name": f"{self.name}-one-more"},
                "spec": {"queue": queue, "type": "echo"},
            }
            try:
                self.room.client.request("POST", self.room.path("tasks"), body, query={"dryRun": "All"})
            except ApiError as error:
                return str(error)
            return ""

        return until(words, f"the API server refuses Tasks of queue {queue}", timeout=15)

    def gone(self, name: str, timeout: float = 20.0) -> None:
        def deleted() -> bool:
            try:
                self.room.get("tasks", name)
            except ApiError as error:
                return error.status == 404
            return False

        until(deleted, f"Task {name} is removed", timeout)

    def clear(self) -> None:
        """Take away what may still hold slots."""
        for name in self._made:
            with suppress(ApiError):
                self.room.delete("tasks", name)

    def next_second(self) -> None:
        """Tasks that are created from now on are younger: the API server stamps whole seconds."""
        now = int(time.time())
        until(lambda: int(time.time()) > now, "the next second")


def _is_of(sample: str, namespace: str) -> bool:
    live = ("taskdist_tasks_waiting{", "taskdist_tasks_leased{")
    return sample.startswith(live) and f'namespace="{namespace}"' in sample
