"""Structured logs: one JSON object a line, or colours where a person looks on.

Owns the format and the way of the standard library's loggers into it (kopf, grpc and aiohttp use those). Configures
nothing at import; the process that wants logs calls `configure` once.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import FilteringBoundLogger, Processor

Format = Literal["auto", "json", "console"]

LEVELS = ("debug", "info", "warning", "error")
# These say at INFO what ours say better, or what nobody asked: two lines for each status of a pool, say.
NOISY = (
    *("kopf.activities", "kopf.objects", "kopf._core.engines.activities", "kopf._core.engines.posting"),
    *("kopf._core.reactor.running", "aiohttp.access", "asyncio"),
)
# True of every takeover, and meant to be: signals are the main thread's, which tells kopf.
EXPECTED = {"kopf._core.reactor.running": "OS signals are ignored: running not in the main thread."}


def configure(level: str = "info", *, stream: TextIO | None = None, format: Format = "auto") -> None:
    """Send all logs of this process to `stream` (standard error) from `level` on. Replaces what was configured before.

    `auto` is colours on a terminal and JSON elsewhere. Raises ValueError for an unknown level.
    """
    if level.lower() not in LEVELS:
        raise ValueError(f"unknown log level {level!r}: use one of {', '.join(LEVELS)}")
    stream = stream if stream is not None else sys.stderr
    console = format == "console" or (format == "auto" and stream.isatty())
    number = logging.getLevelName(level.upper())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.StackInfoRenderer(),
    ]
    final: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if console:
        final.append(structlog.dev.ConsoleRenderer(colors=stream.isatty(), event_key="event", timestamp_key="time"))
    else:
        final += [
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("message"),
            _order,
            structlog.processors.JSONRenderer(default=str),
        ]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=[*shared, _kopf_object], processors=final)
    )
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(number)
    for name in NOISY:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
    for name in EXPECTED:
        logger = logging.getLogger(name)
        logger.removeFilter(_unexpected)
        logger.addFilter(_unexpected)
    logging.captureWarnings(True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(number),
        # Not cached: a logger that was made before this call must follow it.
        cache_logger_on_first_use=False,
    )


def _unexpected(record: logging.LogRecord) -> bool:
    return record.getMessage() != EXPECTED.get(record.name)


def get(name: str) -> FilteringBoundLogger:
    """A logger of this name. What it writes goes where `configure` says, even if that is called later."""
    logger: FilteringBoundLogger = structlog.get_logger(name)
    return logger


def bind_task(
    namespace: str,
    name: str,
    uid: str,
    attempt: int | None = None,
    agent: str | None = None,
    *,
    logger: FilteringBoundLogger | None = None,
) -> FilteringBoundLogger:
    """A logger that says in each line which Task, attempt and agent it speaks of."""
    fields: dict[str, Any] = {"task": f"{namespace}/{name}", "uid": uid}
    if attempt is not None:
        fields["attempt"] = attempt
    if agent is not None:
        fields["agent"] = agent
    return (logger if logger is not None else get("taskdist")).bind(**fields)


def _order(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """What one looks for first stands first."""
    first = ("time", "level", "logger", "message", "task", "attempt", "agent")
    return {key: event[key] for key in first if key in event} | {k: v for k, v in event.items() if k not in first}


def _kopf_object(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """kopf hangs the object it speaks of on the record."""
    reference = getattr(event.get("_record"), "k8s_ref", None)
    if isinstance(reference, dict):
        parts = (reference.get("namespace"), reference.get("name"))
        event["object"] = f"{reference.get('kind')} {'/'.join(part for part in parts if part)}"
    return event
