"""The command that runs the sources."""

import typer

from taskdist.cli.options import examples
from taskdist.cli.run import configured, extra


def add(app: typer.Typer, program: str) -> None:
    """Add the command."""
    where = "TASKDIST_NAMESPACE=taskdist"
    app.command(
        "sources",
        rich_help_panel="Processes",
        epilog=examples(("here, against the cluster of the kubeconfig", f"{where} {program} sources")),
    )(sources)


def sources() -> None:
    """Make Tasks of what comes in, as the chart's Deployment does. Its settings are TASKDIST_… variables.

    It runs the TaskSources: see kubectl get ts. Of several such processes one works, the others stand by.
    """
    with extra("sources"):
        from taskdist.sources.main import run as run_sources
        from taskdist.sources.settings import Settings

    raise typer.Exit(run_sources(configured(Settings.from_env)))
