"""What explanations and times are called where people read them.

Owns the one form in which status, events and the command say a time, a length of time and an explanation as a whole.
"""

from datetime import UTC, datetime

from taskdist.core.decisions import Explanation


def text(explanation: Explanation) -> str:
    """The explanation in a few sentences, as status carries it: it is read later, so times are absolute."""
    said = [explanation.message, explanation.unblock]
    if explanation.position is not None:
        about = "" if explanation.position_exact else "about "
        said.append(f"Position {about}{explanation.position}.")
    if explanation.start is not None:
        start = f"Expected start {clock(explanation.start)}"
        if explanation.start_interval is not None:
            low, high = explanation.start_interval
            start += f" (80%: {clock(low)} to {clock(high)})"
        said.append(f"{start}.")
    return " ".join(filter(None, said))


def clock(seconds: float) -> str:
    """A time of the wall clock as RFC 3339 in whole seconds, UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def duration(seconds: float) -> str:
    """A length of time in its two largest units."""
    if seconds < 9.95:
        return f"{seconds:.1f}".rstrip("0").rstrip(".") + " s"
    whole = round(seconds)
    for unit, size, next_unit, next_size in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // next_size
            return f"{whole // size} {unit}" + (f" {rest} {next_unit}" if rest else "")
    return f"{whole} s"
