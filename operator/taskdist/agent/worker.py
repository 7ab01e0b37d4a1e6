"""A worker: a process that runs user code, one attempt at a time, for a supervisor at the other end of a socket.

    python -m taskdist.agent.worker FD PLACE PARENT module pkg.module:agent
    python -m taskdist.agent.worker FD PLACE PARENT command prog arg …

It imports the user's module once and is warm from then on. It decides nothing about leases: it starts what it is told
to start, passes on a cancel, and dies with its supervisor. Whatever an attempt leaves running ends with the attempt.

Frames from the supervisor: `start` (body: payload), `cancel`. To it: `ready`, `broken`, `started`, `progress`, `end`
(body: result; `left`: what of the attempt is in this process yet). Attempts are numbered by the supervisor, so that
nothing said of one is taken for another.
"""

import importlib
import importlib.util
import os
import queue
import socket
import sys
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taskdist.agent import frames
from taskdist.agent.attempt import Attempt, Program, Reports
from taskdist.agent.place import Place
from taskdist.agent.processes import adopt_orphans, die_with_parent, kill_group
from taskdist.agent.remains import Baseline

if TYPE_CHECKING:
    from taskdist.agent.outcomes import Outcome
    from taskdist.agent.sdk import Agent

DEFAULT_ATTRIBUTE = "agent"


class Handlers:
    """Runs attempts with the handlers of a Python module."""

    def __init__(self, agent: "Agent", place: Place) -> None:
        # Here and not at the first attempt, which would wait for it.
        import asyncio

        from taskdist.agent.chunk import run_chunk
        from taskdist.agent.invoke import invoke
        from taskdist.agent.outcomes import Failed, Returned
        from taskdist.agent.sdk import Context

        self._invoke, self._context, self._returned, self._failed = invoke, Context, Returned, Failed
        self._run_chunk = run_chunk
        self._agent, self._place = agent, place
        self._runner = asyncio.Runner()
        self.loop = self._runner.get_loop()
        self._reports = Reports()
        self.types: list[str] | None = sorted(agent.handlers)

    def run(self, attempt: Attempt) -> tuple[dict[str, Any], bytes]:
        if attempt.chunk is not None:
            outcome, used = self._run_chunk(self._agent, attempt, self._reports, self._runner, self._place)
            return self._said(outcome, used)
        context = self._context(
            task=attempt.task,
            namespace=attempt.namespace,
            uid=attempt.uid,
            attempt=attempt.attempt,
            type=attempt.type,
            report=lambda fraction, message: self._reports.put(attempt, fraction, message),
            agent=attempt.agent,
            parents=attempt.parents,
        )
        attempt.on_cancel(context.cancel)
        attempt.started()
        outcome = self._invoke(self._agent, attempt.payload, context, self._runner)
        self._reports.drop()
        return self._said(outcome, context.usage)

    def _said(self, outcome: "Outcome", usage: dict[str, float]) -> tuple[dict[str, Any], bytes]:
        """Return the rest of the `end` frame."""
        used = usage or None
        if isinstance(outcome, self._returned):
            return {"outcome": "returned", "used": used}, outcome.body
        if isinstance(outcome, self._failed):
            failed = {
                "reason": outcome.reason.value,
                "message": outcome.message,
                "retryable": outcome.retryable,
                "retryAfter": outcome.retry_after,
            }
            return {"outcome": "failed", "used": used} | failed, b""
        return {"outcome": "cancelled", "message": outcome.message}, b""


def load(target: str) -> "Agent":
    """Import `pkg.module:agent` or `path/to/file.py:agent`; the attribute may be left out if it is `agent`."""
    from taskdist.agent.sdk import Agent

    place, _, attribute = target.partition(":")
    attribute = attribute or DEFAULT_ATTRIBUTE
    if place.endswith(".py"):
        path = Path(place).resolve()
        # As for a script: its neighbours can be imported.
        sys.path.insert(0, str(path.parent))
        name = path.stem if path.stem not in sys.modules else f"taskdist_agent_{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} cannot be imported")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    else:
        sys.path.insert(0, os.getcwd())
        module = importlib.import_module(place)
    found = getattr(module, attribute, None)
    if not isinstance(found, Agent):
        raise ImportError(f"{place} has no taskdist.agent.Agent named {attribute!r}: say MODULE:NAME")
    if not found.handlers:
        raise ImportError(f"the agent {target} has no handler: decorate one with @{attribute}.task(TYPE)")
    return found


class Worker:
    """The loop of a worker: frames in on one thread, attempts on the main one."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sending = threading.Lock()
        self._starts: queue.SimpleQueue[Attempt] = queue.SimpleQueue()
        self._current: Attempt | None = None

    def say(self, head: dict[str, Any], body: bytes = b"") -> None:
        try:
            with self._sending:
                self._sock.sendall(frames.encode(head, body))
        except OSError:
            _end_group()

    def listen(self) -> None:
        threading.Thread(target=self._receive, name="taskdist-supervisor", daemon=True).start()

    def serve(self, program: Program) -> None:
        before = Baseline()
        self.say({"kind": "ready", "types": program.types})
        while True:
            attempt = self._starts.get()
            head, body = program.run(attempt)
            # With anything of the attempt left this process is ended, before the supervisor tells of the attempt's end.
            left = before.left(program.loop)
            self.say({"kind": "end", "serial": attempt.serial, "left": left} | head, body)

    def _receive(self) -> None:
        try:
            while True:
                frame = frames.receive(self._sock)
                match frame.head["kind"]:
                    case "start":
                        self._current = Attempt(frame.head["serial"], frame.head, frame.body, self.say)
                        self._starts.put(self._current)
                    case "cancel":
                        if self._current is not None and self._current.serial == frame.head["serial"]:
                            self._current.cancel(frame.head["reason"])
        except (OSError, EOFError):
            _end_group()
        except BaseException:
            # A worker that hears nothing could not be cancelled.
            traceback.print_exc()
            _end_group()


def _end_group() -> None:
    """The supervisor is gone, and with it the right to run: end this process and all of its group."""
    kill_group(os.getpid())
    os._exit(1)


def main(argv: list[str]) -> None:
    descriptor, items, parent, mode, *target = argv
    die_with_parent(int(parent))
    adopt_orphans()
    sock = socket.socket(fileno=int(descriptor))
    sock.set_inheritable(False)
    place = Place(int(items))
    os.close(int(items))
    worker = Worker(sock)
    worker.listen()
    try:
        program: Program
        if mode == "command":
            from taskdist.agent.command import Command

            program = Command(target)
        else:
            program = Handlers(load(target[0]), place)
    except BaseException as error:
        traceback.print_exc()
        worker.say({"kind": "broken", "message": "".join(traceback.format_exception_only(error)).strip()})
        raise SystemExit(1) from error
    worker.serve(program)


if __name__ == "__main__":
    main(sys.argv[1:])
