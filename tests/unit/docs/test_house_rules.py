"""CONTRIBUTING's rules of form that no linter knows."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[3] / "operator" / "taskdist"


def sources() -> list[Path]:
    known = [path for path in sorted(PACKAGE.rglob("*.py")) if "_pb2" not in path.name]
    assert len(known) > 200
    return known


def test_files_stay_below_500_lines() -> None:
    lines = {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in sources()}
    assert {path: count for path, count in lines.items() if count >= 500} == {}


def named(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Classes, aliases and constants of a module, each with what it is."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield node.name, f"class {node.name} at line {node.lineno}"
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            yield node.target.id, ast.unparse(node.value)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, ast.unparse(node.value)


def meanings(root: Path) -> dict[str, set[str]]:
    """What the public names below a folder stand for; the same value in two modules is one meaning."""
    found: dict[str, set[str]] = {}
    for path in sorted(root.rglob("*.py")):
        for name, what in named(ast.parse(path.read_text())):
            if not name.startswith("_"):
                found.setdefault(name, set()).add(f"{path.name}: {what}" if what.startswith("class ") else what)
    return found


def test_a_name_of_the_core_has_one_meaning() -> None:
    found = meanings(PACKAGE / "core")
    assert len(found) > 200
    assert {name: what for name, what in found.items() if len(what) > 1} == {}


def assigned(function: ast.AST) -> dict[str, int]:
    """Attributes of self that are assigned there, with their lines."""
    return {
        node.attr: node.lineno
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }


def late_attributes(tree: ast.AST) -> Iterator[str]:
    """Attributes that a method makes, and neither `__init__` nor the class's body."""
    for cls in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
        methods = [node for node in cls.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        known = {name for method in methods if method.name in ("__init__", "__new__") for name in assigned(method)}
        for node in cls.body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            known |= {target.id for target in targets if isinstance(target, ast.Name)}
        for method in methods:
            for name, line in assigned(method).items():
                if name not in known:
                    yield f"{cls.name}.{name}, line {line}"


def test_attributes_are_born_in_init() -> None:
    found = {
        str(path.relative_to(PACKAGE)): late
        for path in sources()
        if (late := list(late_attributes(ast.parse(path.read_text()))))
    }
    assert found == {}


@pytest.mark.parametrize(
    ("body", "late"),
    [
        pytest.param("def __init__(self): self.a = 1\n def f(self): self.a = 2", [], id="born in __init__"),
        pytest.param("a: int\n def f(self): self.a = 2", [], id="declared in the body"),
        pytest.param("def __init__(self): pass\n async def f(self): self.a = 2", ["C.a, line 3"], id="born later"),
        pytest.param("def f(self):\n  with x() as self.a: pass", ["C.a, line 3"], id="by a with"),
    ],
)
def test_the_finder_of_late_attributes_finds_them(body: str, late: list[str]) -> None:
    assert list(late_attributes(ast.parse(f"class C:\n {body}"))) == late
