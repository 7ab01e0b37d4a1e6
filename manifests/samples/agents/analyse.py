"""A sample agent: measures a Python source file by its syntax tree.

Type `analyse`, payload `{"path": FILE}` or `{"source": TEXT}`. The result counts lines, bytes, functions and classes,
and sums up the cyclomatic complexity (McCabe 1976: one for each function, one for each place where control may branch).
"""

import ast
from pathlib import Path
from typing import Self

from pydantic import BaseModel, model_validator

from taskdist.agent import Agent, Context, Permanent

agent = Agent()

BRANCHES = (
    ast.If,
    ast.IfExp,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.ExceptHandler,
    ast.Assert,
    ast.comprehension,
    ast.match_case,
)


class Source(BaseModel):
    """What to analyse: a file that the agent can read, or the text itself."""

    path: Path | None = None
    source: str | None = None

    @model_validator(mode="after")
    def one_of_both(self) -> Self:
        if (self.path is None) == (self.source is None):
            raise ValueError("give either path or source")
        return self


class Analysis(BaseModel):
    lines: int = 0
    bytes: int = 0
    functions: int = 0
    classes: int = 0
    complexity: int = 0


def analyse_source(data: bytes) -> Analysis:
    """Measure one source. Raises SyntaxError or ValueError for what is no Python."""
    found = Analysis(lines=len(data.splitlines()), bytes=len(data))
    for node in ast.walk(ast.parse(data)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            found.functions += 1
            found.complexity += 1
        elif isinstance(node, ast.ClassDef):
            found.classes += 1
        elif isinstance(node, BRANCHES):
            found.complexity += 1
        elif isinstance(node, ast.BoolOp):
            found.complexity += len(node.values) - 1
    return found


@agent.task("analyse")
def analyse(payload: Source, ctx: Context) -> Analysis:
    try:
        data = payload.path.read_bytes() if payload.path else (payload.source or "").encode()
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise Permanent(f"cannot read {payload.path}: {error.strerror}") from error
    name = payload.path or "the source"
    try:
        found = analyse_source(data)
    except (SyntaxError, ValueError) as error:
        raise Permanent(f"{name} is not Python: {error}") from error
    ctx.log.info("analysed", source=str(name), lines=found.lines)
    return found


if __name__ == "__main__":
    agent.run()
