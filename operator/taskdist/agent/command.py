"""Attempts as runs of a command: payload on its stdin, result on its stdout, failure by its exit status.

What the attempt used of budgets may stand in the output as `$budgets`; it is not part of the result. A line
`$progress 0.4 words` on its stderr reports progress; with exit status 75 a last line `$throttled 30` there asks for
another try after so many seconds, which is no failure.

The command is a child of the worker, in the worker's process group: who kills the group kills both. Its stderr goes on
to the pod's log; the end of it becomes the failure's message.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from typing import IO, TYPE_CHECKING, Any

from taskdist.agent import usage
from taskdist.agent.attempt import Attempt, Reports, least
from taskdist.agent.processes import describe_exit, die_with_parent, kill_orphans
from taskdist.agent.results import limit, too_large
from taskdist.protocol.values import parse_object

if TYPE_CHECKING:
    from collections.abc import Callable

# Exit status of "the input data was incorrect" in sysexits.h: trying again would fail the same way.
EX_DATAERR = os.EX_DATAERR
# And of "temporary failure; the user is invited to retry".
EX_TEMPFAIL = os.EX_TEMPFAIL
# More than any result may have without an object store; what a command writes beyond is not kept in memory.
MAX_OUTPUT = 1024 * 1024
MAX_TAIL = 2048
# How long, in seconds, the last output is waited for once nothing that could write it runs any more.
PIPE_SECONDS = 1.0
# With one of these begins a line of stderr that is meant for the worker.
SIGNS = ("$progress ", "$throttled ")


class _Drain(threading.Thread):
    """Reads a pipe to its end and keeps its beginning or its end; optionally copies it on."""

    def __init__(
        self,
        pipe: IO[bytes],
        *,
        head: int = 0,
        tail: int = 0,
        copy: IO[bytes] | None = None,
        lines: "Callable[[str], None] | None" = None,
    ) -> None:
        super().__init__(daemon=True)
        self._lines = lines
        self._line = bytearray()
        self._pipe = pipe
        self._head = head
        self._tail: deque[int] = deque(maxlen=tail)
        self._copy = copy
        self.kept = bytearray()
        self.total = 0
        self.start()

    def run(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            while part := os.read(self._pipe.fileno(), 65536):
                self.total += len(part)
                self.kept += part[: max(0, self._head - len(self.kept))]
                self._tail.extend(part[-MAX_TAIL:])
                if self._copy is not None:
                    self._copy.write(part)
                    self._copy.flush()
                if self._lines is not None:
                    self._split(part, self._lines)
        if self._lines is not None and self._line:
            self._lines(self._line.decode("utf-8", errors="replace"))

    def _split(self, part: bytes, lines: "Callable[[str], None]") -> None:
        *whole, rest = (self._line + part).split(b"\n")
        for line in whole:
            lines(line[:MAX_TAIL].decode("utf-8", errors="replace"))
        # Of a line that never ends only the beginning matters.
        self._line = rest[:MAX_TAIL]

    @property
    def tail(self) -> str:
        return bytes(self._tail).decode("utf-8", errors="replace").strip()


class Command:
    """Runs attempts with a command."""

    types: list[str] | None = None
    loop = None

    def __init__(self, argv: list[str]) -> None:
        if not argv:
            raise ValueError("the command is empty")
        self._argv = argv
        self._reports = Reports()

    def run(self, attempt: Attempt) -> tuple[dict[str, Any], bytes]:
        environment = os.environ | {
            "TASKDIST_TASK": attempt.task,
            "TASKDIST_NAMESPACE": attempt.namespace,
            "TASKDIST_ATTEMPT": str(attempt.attempt),
            "TASKDIST_TYPE": attempt.type,
            "TASKDIST_UID": attempt.uid,
        }
        if attempt.parents:
            environment["TASKDIST_PARENTS"] = attempt.parents
        worker = os.getpid()
        try:
            process = subprocess.Popen(
                self._argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                # This process has threads, but none that holds a lock while the main one forks.
                preexec_fn=lambda: die_with_parent(worker),
            )
        except OSError as error:
            return _failed(f"{self._argv[0]} cannot be started: {error}"), b""
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        told = threading.Event()

        def terminate(_: str) -> None:
            told.set()
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)

        attempt.on_cancel(terminate)
        attempt.started()
        output = _Drain(process.stdout, head=max(MAX_OUTPUT, limit()))
        heard = _Heard(lambda fraction, message: self._reports.put(attempt, fraction, message))
        errors = _Drain(process.stderr, tail=MAX_TAIL, copy=sys.stderr.buffer, lines=heard.line)
        feeder = threading.Thread(target=_feed, args=(process.stdin, attempt.payload), daemon=True)
        feeder.start()
        code = process.wait()
        # What the command left running holds its pipes open, and has no right to run on.
        kill_orphans(keep=set())
        for thread in (output, errors, feeder):
            thread.join(PIPE_SECONDS)
        self._reports.drop()
        if told.is_set():
            return {"outcome": "cancelled", "message": f"the command ended with {code} after SIGTERM"}, b""
        if code != 0:
            used = {"used": usage.of_failure(bytes(output.kept))}
            said = "\n".join(line for line in errors.tail.splitlines() if _said(line) is None)
            if code == EX_TEMPFAIL and heard.throttled is not None:
                message = said or "the command is throttled"
                return _failed(message, reason="Throttled") | used | {"retryAfter": heard.throttled}, b""
            return _failed(_say_exit(code, said), retryable=code != EX_DATAERR) | used, b""
        return _result(bytes(output.kept), output.total)


class _Heard:
    """Reads what a command says to its worker in lines of stderr. A line that is not as it should be is only a line."""

    def __init__(self, report: "Callable[[float, str], None]") -> None:
        self._report = report
        self.throttled: float | None = None  # what the last line asks for, in seconds

    def line(self, text: str) -> None:
        if not text.strip():
            return
        self.throttled = None
        said = _said(text)
        if said is None:
            return
        word, value, message = said
        if word == "$throttled":
            self.throttled = least(value)
        else:
            self._report(min(1.0, max(0.0, value)), message)


def _said(line: str) -> tuple[str, float, str] | None:
    """Return the sign, number and words of a line that is meant for the worker; None if it is only a line."""
    if not line.startswith(SIGNS):
        return None
    sign, _, rest = line.strip().partition(" ")
    number, _, message = rest.strip().partition(" ")
    try:
        value = float(number)
    except ValueError:
        return None
    if value != value or (sign == "$throttled" and value < 0):
        return None
    return sign, value, message.strip()[:1024]


def _feed(pipe: IO[bytes], payload: bytes) -> None:
    # A command that does not read its input is free to do so.
    with contextlib.suppress(BrokenPipeError), pipe:
        pipe.write(payload)


def _failed(message: str, retryable: bool = True, reason: str = "HandlerError") -> dict[str, Any]:
    return {"outcome": "failed", "reason": reason, "message": message, "retryable": retryable}


def _say_exit(code: int, tail: str) -> str:
    how = describe_exit(code)
    return f"the command {how}" + (f": {tail}" if tail else "; it wrote nothing to stderr")


def _result(output: bytes, total: int) -> tuple[dict[str, Any], bytes]:
    if total > len(output):
        _, message = too_large(f"the command wrote {total} bytes to stdout")
        return _failed(message, retryable=False, reason="ResultTooLarge"), b""
    if not output.strip():
        return {"outcome": "returned"}, b"{}"
    try:
        value = parse_object(output)
        used = usage.split(value)
        body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except ValueError as error:
        message = (
            f"stdout is not a JSON object that can be kept as it is: {error}; "
            "print the result there and everything else to stderr"
        )
        return _failed(message, retryable=False, reason="ResultRefused"), b""
    return {"outcome": "returned", "used": used}, body
