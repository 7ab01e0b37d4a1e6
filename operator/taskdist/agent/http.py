"""An executor that asks a local HTTP endpoint: for agents that are servers already, in any language.

POST {type, payload, task, namespace, uid, attempt}, and `parents` where the Task depends on others: 2xx with a JSON
object is the result, 3xx and 4xx a failure that is not worth a retry (but 408, 425 and 429, which ask for one;
redirects are not followed), anything else a failure that is. 429 and 503 with Retry-After put the Task off and are no
failure. An answer of type application/x-ndjson is read as it comes: lines {"$progress": 0.4, "message": "words"}, then
the result. What the attempt used of budgets may stand in any JSON answer as `$budgets`; it is not part of the result. A
cancel closes the request.

It cannot be fenced: whether the server stops when its client hangs up is the server's choice. So it says so, and only
queues that accept overlap or wait for the pod's end give it work.
"""

import asyncio
import json
from functools import partial
from http import HTTPStatus
from typing import Any

import aiohttp

from taskdist.agent import parents, usage
from taskdist.agent.attempt import Paced, least, retry_after
from taskdist.agent.outcomes import Failed, Returned
from taskdist.agent.results import limit, too_large
from taskdist.agent.vital import vital, vital_task
from taskdist.agent.work import Offered, WorkEvents
from taskdist.api import Reason
from taskdist.api.task import MAX_RESULT_BYTES
from taskdist.protocol.messages import Grant, LeaseName, by_value
from taskdist.protocol.status import clip as bounded
from taskdist.protocol.values import parse_object

_TRY_LATER = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)
_THROTTLED = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
STREAM = "application/x-ndjson"
PROGRESS_KEY = "$progress"
_CONNECT_SECONDS = 5.0
_MAX_ERROR_TEXT = 2048


class HttpEndpoint:
    """An executor that POSTs each attempt to one URL. `types` None: the endpoint takes any type."""

    def __init__(self, url: str, types: tuple[str, ...] | None = None) -> None:
        self._url = url
        self._types = types
        self._events: WorkEvents | None = None
        self._http: aiohttp.ClientSession | None = None
        self._requests: dict[LeaseName, asyncio.Task[None]] = {}

    async def open(self, events: WorkEvents) -> Offered:
        self._events = events
        # No time-out over all: the lease bounds the work.
        timeout = aiohttp.ClientTimeout(total=None, connect=_CONNECT_SECONDS)
        self._http = aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0))
        return Offered(types=self._types, fenced=False)

    def start(self, grant: Grant, _deadline: float) -> None:
        assert self._events is not None
        self._requests[grant.lease] = vital_task(self._events.broke, self._run(grant))

    def fence(self, lease: LeaseName, deadline: float) -> None:
        """There is nothing that could keep a fence."""

    def cancel(self, lease: LeaseName, _reason: str) -> None:
        self.kill(lease)

    def kill(self, lease: LeaseName) -> None:
        request = self._requests.get(lease)
        if request is not None:
            request.cancel()

    async def close(self) -> None:
        requests = list(self._requests.values())
        for request in requests:
            request.cancel()
        if requests:
            await asyncio.wait(requests)
        if self._http is not None:
            await self._http.close()

    async def _run(self, grant: Grant) -> None:
        lease = grant.lease
        assert self._events is not None
        try:
            self._events.started(lease)
            end, used = await self._ask(grant)
        except asyncio.CancelledError:
            self._events.stopped(lease)
            return
        except Exception as error:
            # Whatever it is, the attempt is over; a URL of user code's making can be wrong in many ways.
            message = bounded(f"POST {self._url} failed: {str(error) or type(error).__name__}")
            end, used = Failed(Reason.HANDLER_ERROR, message), None
        finally:
            self._requests.pop(lease, None)
        if isinstance(end, Failed):
            self._events.failed(lease, end, used)
        else:
            self._events.finished(lease, end.body, used)

    async def _ask(self, grant: Grant) -> tuple[Returned | Failed, Any]:
        """Return how the attempt ended, and what the endpoint says it used."""
        assert self._http is not None
        lease = grant.lease
        about = {
            "type": grant.type,
            "task": grant.name,
            "namespace": grant.namespace,
            "uid": lease.task_uid,
            "attempt": lease.attempt,
        }
        # The payload is JSON already: it is put in as it is.
        body = b'{"payload":' + (by_value(grant.payload) or b"{}") + b"," + json.dumps(about).encode()[1:]
        if grant.parents:
            body = body[:-1] + b',"parents":' + parents.encode(grant.parents) + b"}"
        async with self._http.post(
            self._url, data=body, headers={"content-type": "application/json"}, allow_redirects=False
        ) as response:
            ok = 200 <= response.status < 300
            if ok and response.content_type == STREAM:
                answer = await self._follow(response.content, lease)
                if not answer:
                    message = f"POST {self._url} answered {response.status}, and ended without a result"
                    return Failed(Reason.HANDLER_ERROR, message), None
            else:
                answer = await _read(response.content, limit() + 1)
        if not ok:
            return self._refused(response, answer)
        if len(answer) > limit():
            return Failed(*too_large(f"POST {self._url} answered more than that: {len(answer)} bytes"), False), None
        try:
            # A large one on a thread: the leases of others are renewed meanwhile.
            small = len(answer) <= MAX_RESULT_BYTES
            body, used = _result(answer) if small else await asyncio.to_thread(_result, answer)
        except ValueError as error:
            what = "but not with a JSON object that can be kept as it is"
            message = bounded(f"POST {self._url} answered {response.status}, {what}: {error}")
            return Failed(Reason.RESULT_REFUSED, message, False), None
        return Returned(body), used

    def _refused(self, response: aiohttp.ClientResponse, answer: bytes) -> tuple[Failed, Any]:
        text = answer.decode("utf-8", errors="replace").strip()[:_MAX_ERROR_TEXT]
        message = f"POST {self._url} answered {response.status}" + (f": {text}" if text else "")
        used = usage.of_failure(answer)
        after = retry_after(response.headers.get("retry-after", "")) if response.status in _THROTTLED else None
        if after is not None:
            return Failed(Reason.THROTTLED, message, True, least(after)), used
        retryable = response.status >= 500 or response.status in _TRY_LATER
        return Failed(Reason.HANDLER_ERROR, message, retryable), used

    async def _follow(self, stream: aiohttp.StreamReader, lease: LeaseName) -> bytes:
        """Pass on the progress that comes line by line; return the first line that is none, which is the result."""
        assert self._events is not None
        reports = Paced(vital(self._events.broke, partial(self._events.progress, lease)))
        rest = b""
        try:
            most = limit()
            while len(rest) <= most:
                part = await stream.readany()
                *lines, rest = (rest + part).split(b"\n") if part else (rest, b"")
                for line in lines:
                    report = _report(line)
                    if report is None and line.strip():
                        return line
                    if report is not None and (progress := _progress(report)) is not None:
                        reports.put(*progress)
                if not part:
                    break
            return rest
        finally:
            reports.drop()


def _result(answer: bytes) -> tuple[bytes, Any]:
    """The result in an answer, and what it says was used of budgets. Raises ValueError."""
    answer = answer.strip() or b"{}"
    parse_object(answer)
    return usage.of_result(answer)


def _report(line: bytes) -> dict[str, Any] | None:
    """Return the object if this line is a report, be it one that cannot be read: it is never the result."""
    if PROGRESS_KEY.encode() not in line:
        return None
    try:
        value = json.loads(line.decode("utf-8", errors="replace"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and PROGRESS_KEY in value else None


def _progress(report: dict[str, Any]) -> tuple[float, str] | None:
    """Return what a report says; None if that cannot be read."""
    try:
        fraction = float(report[PROGRESS_KEY])
    except (ValueError, TypeError, OverflowError):
        return None
    if fraction != fraction:
        return None
    message = report.get("message")
    # Half a surrogate pair is a text in Python and none on the link.
    text = "" if message is None else str(message)[:1024].encode("utf-8", errors="replace").decode()
    return min(1.0, max(0.0, fraction)), text


async def _read(stream: aiohttp.StreamReader, limit: int) -> bytes:
    data = bytearray()
    while len(data) < limit and (part := await stream.read(limit - len(data))):
        data += part
    return bytes(data)
