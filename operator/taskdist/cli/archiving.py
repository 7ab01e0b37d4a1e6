"""The commands of the archive: run it, look into it, and run again what it holds."""

import typer

from taskdist.cli.options import examples
from taskdist.cli.run import USAGE, complain, extra


def add(app: typer.Typer, program: str) -> None:
    """Add the commands."""

    @app.command(
        "archive",
        rich_help_panel="Processes",
        epilog=examples(
            (
                "here, against the cluster of the kubeconfig",
                f"TASKDIST_NAMESPACE=taskdist TASKDIST_ARCHIVE_DSN=postgresql://127.0.0.1/tasks {program} archive",
            ),
        ),
    )
    def archive() -> None:
        """Copy ended Tasks to PostgreSQL, as the chart's Deployment does. Its settings are TASKDIST_… variables."""
        from taskdist.common.environment import SettingsError

        with extra("archive"):
            from taskdist.archive.main import run as run_archive
            from taskdist.archive.settings import Settings

        try:
            settings = Settings.from_env()
        except SettingsError as error:
            complain(str(error))
            raise typer.Exit(USAGE) from None
        raise typer.Exit(run_archive(settings))
