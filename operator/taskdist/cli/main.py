"""The entry points: `taskdist` and `kubectl task`. One set of commands under two names."""

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import typer

from taskdist import __version__
from taskdist.cli import archiving, linting, processes, simulating, sinking, sourcing, steering, tasks
from taskdist.cli.cluster import Target

if TYPE_CHECKING:
    from taskdist.cli.cluster import Cluster

PROGRAM = "taskdist"
PLUGIN = "kubectl task"


def build(program: str) -> typer.Typer:
    """The command, as it is called by this name."""
    app = typer.Typer(
        name=program,
        no_args_is_help=True,
        rich_markup_mode="rich",
        # Values of variables may be payloads and tokens.
        pretty_exceptions_show_locals=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="Hand Tasks to agents, and see what becomes of them.\n\n"
        f"Start with [bold]{program} submit QUEUE --type TYPE --wait[/bold]. Each command has examples in its --help.",
    )

    @app.callback()
    def options(
        version: bool = typer.Option(False, "--version", is_eager=True, callback=_version, help="Say the version."),
    ) -> None:
        pass

    tasks.add(app, program)
    steering.add(app, program)
    processes.add(app, program)
    sourcing.add(app, program)
    sinking.add(app, program)
    simulating.add(app, program)
    linting.add(app, program)
    archiving.add(app, program)
    return app


def _version(wanted: bool) -> None:
    if wanted:
        from taskdist.core import COMPILED

        typer.echo(f"taskdist {__version__}, the core {'compiled' if COMPILED else 'in plain Python'}")
        raise typer.Exit


def connect(target: Target) -> "AbstractAsyncContextManager[Cluster]":
    # Imported when a command needs it: help and completion should not wait for an HTTP client.
    from taskdist.cli import cluster

    return cluster.connect(target)


def main() -> None:
    """`taskdist`."""
    build(PROGRAM)(prog_name=PROGRAM, obj=connect)


def plugin() -> None:
    """`kubectl task`: kubectl runs the program `kubectl-task` that it finds on PATH."""
    build(PLUGIN)(prog_name=PLUGIN, obj=connect)


if __name__ == "__main__":
    main()
