"""The page on the review says what the review is."""

import re
from pathlib import Path

from lint_sets import NOW
from taskdist.lint import RULES, read, review

PAGE = (Path(__file__).parents[3] / "docs" / "lint.md").read_text()
ROW = re.compile(r"^\| `([a-z-]+)` \| (error|warning|hint) \| (.+) \|$", re.MULTILINE)


def test_each_rule_has_its_row() -> None:
    written = [(rule, severity, title) for rule, severity, title in ROW.findall(PAGE)]
    known = [(rule.id, rule.severity.value, rule.title) for rule in RULES]
    assert [row[:2] for row in written] == [row[:2] for row in known]
    for row, rule in zip(written, known, strict=True):
        assert row[2].lower() == rule[2].lower()


def test_the_example_gives_what_the_page_says() -> None:
    text = next(block for block in re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
    (found,) = review(read(text, "train.yaml"), NOW)
    told = next(block for block in re.findall(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
    assert told.startswith(f"{found.source}: {found.severity} {found.rule}\n  {found.object} · {found.path}\n")
    for words in (found.message, f"mend: {found.mend} In {found.mend_on}:", *found.change.splitlines()):
        assert words in told
