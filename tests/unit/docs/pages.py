"""What the tests of the documentation read: pages, fenced blocks, words in backticks."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
SOURCE = ROOT / "operator" / "taskdist"

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True)
class Block:
    """A fenced block and where it stands."""

    page: Path
    language: str
    text: str

    @property
    def id(self) -> str:
        first = next(iter(self.text.strip().splitlines()), "")
        return f"{self.page.name}: {first[:40]}"


def pages() -> list[Path]:
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]


def blocks(language: str) -> list[Block]:
    return [
        Block(page, found[1], found[2])
        for page in pages()
        for found in _FENCE.finditer(page.read_text())
        if found[1] == language
    ]


def words(page: str) -> set[str]:
    """All that stands in backticks on a page of `docs`, outside fenced blocks."""
    return set(_CODE.findall(_FENCE.sub("", (DOCS / page).read_text())))


def rows(page: str) -> list[list[str]]:
    """Cells of all rows of all tables of a page, headings left out."""
    lines = [line for line in (DOCS / page).read_text().splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [row for row, line in zip(cells, lines, strict=True) if not line.startswith("| ---")]
