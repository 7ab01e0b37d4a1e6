"""Which word may be given to the operator: pure.

Items go through in one order: read, buffered, committed. Each says up to which version its namespace (or all of them)
is complete once it and all before it are committed; an item of a list says 0, but for its end, which says the list's
version. So a word is true whatever happens after it, and a crash between commit and word costs a repetition only.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from taskdist.archive.rows import Row


@dataclass(frozen=True, slots=True)
class Item:
    """An ended Task, or none, and what is complete with it.

    `mark`: 0 says nothing, as in the midst of a list; -1 takes back what was said, as of another history.
    """

    scope: str
    mark: int
    row: Row | None = None

    @property
    def size(self) -> int:
        return 100 if self.row is None else self.row.size


class Progress:
    """The marks of what is committed, and what of them the operator was told."""

    def __init__(self) -> None:
        self._marks: dict[str, int] = {}
        self._told: dict[str, int] = {}

    def committed(self, items: Iterable[Item]) -> None:
        """These are in the database now, in this order."""
        for item in items:
            if item.mark > 0:
                self._marks[item.scope] = item.mark
            elif item.mark < 0:
                self._marks.pop(item.scope, None)

    def due(self) -> dict[str, int] | None:
        """Return the word to be given now; None where it would be the last one again.

        Only ends and finished lists bring a mark: where nothing ends nothing is written.
        """
        return dict(self._marks) if self._marks != self._told else None

    def told(self, word: dict[str, int]) -> None:
        """The operator was told so."""
        self._told = dict(word)

    def forget(self) -> None:
        """Forget all versions: they are of another history or archive, and nothing is known until all is listed."""
        self._marks.clear()
        self._told.clear()
