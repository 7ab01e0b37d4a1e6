"""`taskdist simulate`: plays a scenario, prints its figures, writes its report.

Owns what is shown where: figures on stdout, progress on stderr, and the only clock that simulations are measured by.
"""

import gc
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taskdist.cli.options import examples
from taskdist.cli.run import FAILED, USAGE, complain, note

if TYPE_CHECKING:
    from taskdist.simulation.runs import Progress

PATIENCE = 1.0
"""Seconds of silence before progress shows."""


def add(app: typer.Typer, program: str) -> None:
    """Add the command."""

    @app.command(
        rich_help_panel="Simulation",
        epilog=examples(
            (
                "a first look, and a report to open in a browser",
                f"{program} simulate quickstart.yaml --report out.html",
            ),
            ("how sure one can be: ten seeds, with intervals", f"{program} simulate headline.yaml --seeds 10"),
            ("for a script", f"{program} simulate quickstart.yaml --json | jq .wait"),
        ),
    )
    def simulate(
        scenario: Annotated[
            Path, typer.Argument(metavar="SCENARIO.yaml", help="Queues, pools and a workload.", show_default=False)
        ],
        seed: Annotated[
            int | None, typer.Option("--seed", metavar="N", help="First seed; else the scenario's.", show_default=False)
        ] = None,
        seeds: Annotated[
            int, typer.Option("--seeds", metavar="N", min=1, max=1000, help="How many seeds, one after the other.")
        ] = 1,
        as_json: Annotated[bool, typer.Option("--json", help="Print all figures as one line of JSON.")] = False,
        report: Annotated[
            Path | None,
            typer.Option("--report", metavar="FILE.html", help="Write a page with pictures.", show_default=False),
        ] = None,
    ) -> None:
        """Play a scenario with the real scheduler in virtual time: no cluster, no agents, the same decisions.

        The same scenario and seed give the same figures, but for decisions_per_second.
        """
        from taskdist.simulation.loading import ScenarioError, load

        try:
            loaded = load(scenario)
        except ScenarioError as error:
            complain(f"{scenario} cannot be run:\n{error}")
            raise typer.Exit(USAGE) from None
        first = loaded.scenario.seed if seed is None else seed
        try:
            figures, page = _played(loaded, range(first, first + seeds), pictures=report is not None)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        if report is not None:
            try:
                report.write_text(page, encoding="utf-8")
            except OSError as error:
                complain(f"{report} cannot be written: {error.strerror}")
                raise typer.Exit(FAILED) from None
            note(f"report written to {report}")
        if as_json:
            print(json.dumps(figures))
        else:
            show(figures)


def _played(loaded: Any, seeds: range, pictures: bool) -> tuple[dict[str, Any], str]:
    """All figures, and the report's page if pictures are wanted."""
    from taskdist.simulation.compare import result
    from taskdist.simulation.report import Pictures, page
    from taskdist.simulation.runs import play_all

    found: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in loaded.variants}
    seen: dict[str, Pictures] = {}
    runs = len(seeds) * len(loaded.variants)
    with _quiet_collector(), _progress(runs) as progress:
        for run in play_all(loaded, seeds, progress, time.perf_counter):
            found[run.variant][run.seed] = run.figures
            if pictures and run.variant not in seen:
                seen[run.variant] = Pictures.of(run.record)
    figures = result(found)
    return figures, page(loaded.scenario, seeds, figures, seen) if pictures else ""


@contextmanager
def _quiet_collector() -> Iterator[None]:
    """Runs make millions of objects that stay: collecting them again and again would take longer than the runs."""
    thresholds = gc.get_threshold()
    gc.set_threshold(200_000, 50, 1000)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)


@contextmanager
def _progress(runs: int) -> Iterator["Progress | None"]:
    """Progress on stderr: a bar on a terminal, else a line now and then."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    begun = last = time.monotonic()
    done: set[tuple[str, int]] = set()
    if sys.stderr.isatty():
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
        with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("", total=runs)

            def draw(variant: str, seed: int, ended: int, of: int) -> None:
                done.add((variant, seed))
                words = f"seed {seed}" + (f", {variant}" if variant else "")
                bar.update(task, completed=len(done) - 1 + (ended / of if of else 1), description=words)

            yield draw
        return

    def write(variant: str, seed: int, ended: int, of: int) -> None:
        nonlocal last
        done.add((variant, seed))
        if (now := time.monotonic()) - last >= 5 * PATIENCE:
            last = now
            part = (len(done) - 1 + (ended / of if of else 1)) / runs
            note(f"seed {seed} {variant}: {ended} of {of} Tasks; {part:.0%} of all after {now - begun:.0f} s")

    yield write


def show(figures: dict[str, Any]) -> None:
    """Figures as tables: one column a variant."""
    from rich.console import Console

    from taskdist.cli.show_figures import tables

    # A pipe has no width to fit into.
    console = Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=10_000)
    for number, table in enumerate(tables(figures)):
        if number:
            console.print()
        console.print(table)
