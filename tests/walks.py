"""How far one input goes: through how many files, and how often from one to another.

A call into the package counts the file of its code; a move is a call whose file is another than the last call's.
Whoever reads the code along with a Task makes the same moves.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import taskdist

ROOT = f"{Path(taskdist.__file__).parent}/"


@dataclass(frozen=True, slots=True)
class Walk:
    """The files that were called into, in order; those of one file that follow each other count once."""

    stops: tuple[str, ...]

    @property
    def files(self) -> int:
        return len(set(self.stops))

    @property
    def moves(self) -> int:
        return len(self.stops)

    def within(self, room: str) -> "Walk":
        """Return the part of it that one room sees: what others do in between is one step to it."""
        stops: list[str] = []
        for stop in self.stops:
            if stop.startswith(room) and stops[-1:] != [stop]:
                stops.append(stop)
        return Walk(tuple(stops))


def walk(step: Callable[[], object]) -> Walk:
    """Do this, and return which way it took."""
    stops: list[str] = []

    def look(frame: FrameType, event: str, _: object) -> None:
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(ROOT):
            file = file.removeprefix(ROOT)
            if stops[-1:] != [file]:
                stops.append(file)

    former = sys.getprofile()
    sys.setprofile(look)
    try:
        step()
    finally:
        sys.setprofile(former)
    return Walk(tuple(stops))
