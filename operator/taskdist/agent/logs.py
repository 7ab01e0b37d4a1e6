"""Log lines of an agent: one JSON object a line on stderr, so that the pod's log can be searched by Task and attempt.

A logger is built and passed on; structlog's global configuration is left to the user's code.
"""

import sys
from typing import Any

import structlog
from structlog.typing import FilteringBoundLogger


class _Stderr:
    """Writes whole lines, one write each, to whatever stderr is at that time."""

    def msg(self, message: str) -> None:
        sys.stderr.write(message + "\n")
        sys.stderr.flush()

    debug = info = warning = error = critical = exception = msg


def make_logger(**bound: Any) -> FilteringBoundLogger:
    """Return a logger with `bound` in each of its lines."""
    logger: FilteringBoundLogger = structlog.wrap_logger(
        _Stderr(),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(default=str),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(20),
        context_class=dict,
        cache_logger_on_first_use=False,
        **bound,
    )
    return logger
