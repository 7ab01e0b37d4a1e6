"""Extras of the package: loading the libraries of one, and what to install where they are missing."""

from collections.abc import Iterator
from contextlib import contextmanager


class Missing(Exception):
    """A library of an extra is not installed: `library` is its name, `install` the command that mends it."""

    def __init__(self, library: str, extra: str) -> None:
        self.library = library
        self.install = f"pip install 'taskdist[{extra}]'"
        super().__init__(f"{library} is not installed: {self.install}")


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Import within this block what needs libraries of the extra. Raises `Missing`."""
    try:
        yield
    except ModuleNotFoundError as error:
        # A module of the package itself is no matter of what is installed.
        if (error.name or "taskdist").partition(".")[0] == "taskdist":
            raise
        raise Missing(str(error.name), name) from None
