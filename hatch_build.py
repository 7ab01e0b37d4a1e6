"""Compiles the core with mypyc when a wheel is built with TASKDIST_COMPILE=1; without, the wheel is plain Python.

The core is the one room whose speed limits the operator, and it is typed strictly and imports nothing but the standard
library and the API's models: compiled, it decides about three times as fast, by the same source. `make compiled` puts
such a wheel where the tests and benchmarks find it.
"""

import os
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = "operator"
# Left as they are: positions are counted over generators of nested tuples, at which mypyc is four times slower.
PLAIN = ("taskdist/core/forecasting/position.py",)


def translate(root: Path, target: Path) -> list[Any]:
    """Write the core as C into `target`; return what a C compiler makes modules of. Exits where mypyc refuses it."""
    # Needed for this only.
    from mypyc.build import mypycify

    source = root / ROOT
    found = (path.relative_to(source) for path in source.glob("taskdist/core/**/[a-z]*.py"))
    files = sorted(path for path in found if path.as_posix() not in PLAIN)
    # mypy goes by the settings of the checkout, modules are named as seen from the source root.
    os.environ["MYPYPATH"], os.environ["MYPY_CACHE_DIR"] = str(source), str(target / "types")
    former = Path.cwd()
    os.chdir(source)
    try:
        modules: list[Any] = mypycify(
            ["--config-file", str(root / "pyproject.toml"), *map(str, files)],
            target_dir=str(target),
            group_name="taskdist_core",
            opt_level="2",
            debug_level="0",
        )
    finally:
        os.chdir(former)
    return modules


class CompileCore(BuildHookInterface[Any]):
    """Adds the compiled modules beside their sources."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if os.environ.get("TASKDIST_COMPILE") != "1" or version == "editable":
            return
        from setuptools import Distribution
        from setuptools.command.build_ext import build_ext

        target = Path(self.root, "build", "core")
        modules = translate(Path(self.root), target)
        command = build_ext(Distribution({"name": "taskdist", "ext_modules": modules}))
        command.build_lib, command.build_temp = str(target / "lib"), str(target / "objects")
        command.ensure_finalized()
        former = Path.cwd()
        os.chdir(Path(self.root, ROOT))
        try:
            command.run()
        finally:
            os.chdir(former)
        suffix = sysconfig.get_config_var("EXT_SUFFIX")
        for path in (target / "lib").rglob(f"*{suffix}"):
            build_data["force_include"][str(path)] = str(path.relative_to(target / "lib"))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True


if __name__ == "__main__":
    # As far as it goes without a C compiler: what mypyc refuses, it refuses here.
    here = Path(__file__).resolve().parent
    translate(here, here / "build" / "translated")
