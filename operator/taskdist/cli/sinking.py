"""The command that runs the sinks."""

import typer

from taskdist.cli.options import examples
from taskdist.cli.run import configured, extra


def add(app: typer.Typer, program: str) -> None:
    """Add the command."""
    where = "TASKDIST_NAMESPACE=taskdist"
    app.command(
        "sinks",
        rich_help_panel="Processes",
        epilog=examples(("here, against the cluster of the kubeconfig", f"{where} {program} sinks")),
    )(sinks)


def sinks() -> None:
    """Tell the ends of Tasks to receivers, as the chart's Deployment does. Its settings are TASKDIST_… variables.

    It runs the TaskSinks: see kubectl get tn. Of several such processes one works, the others stand by.
    """
    with extra("sinks"):
        from taskdist.sinks.main import run as run_sinks
        from taskdist.sinks.settings import Settings

    raise typer.Exit(run_sinks(configured(Settings.from_env)))
