"""The commands of the archive: run it, look into it, and run again what it holds."""

from datetime import datetime
from typing import Annotated, Any

import typer

from taskdist import api
from taskdist.cli import parse, rerun
from taskdist.cli.cluster import Cluster, Target
from taskdist.cli.options import Context, Kubeconfig, ListOutput, NameOutput, Namespace, examples, reader
from taskdist.cli.run import FAILED, USAGE, complain, configured, extra, run

Dsn = Annotated[
    str | None,
    typer.Option(
        "--dsn",
        metavar="ADDRESS",
        envvar="TASKDIST_ARCHIVE_DSN",
        show_envvar=False,
        help="The archive's database; else TASKDIST_ARCHIVE_DSN. An address with a password belongs there.",
        rich_help_panel="Database",
    ),
]


def _past(text: str) -> datetime:
    return datetime.fromisoformat(parse.past(text))


def add(app: typer.Typer, program: str) -> None:
    """Add the commands."""
    app.command("archive", rich_help_panel="Processes", epilog=_archive_examples(program))(archive)
    app.command("history", epilog=_history_examples(program))(history)
    app.command("rerun", epilog=_rerun_examples(program))(rerun_)


def archive() -> None:
    """Copy ended Tasks to PostgreSQL, as the chart's Deployment does. Its settings are TASKDIST_… variables."""
    with extra("archive"):
        from taskdist.archive.main import run as run_archive
        from taskdist.archive.settings import Settings

    raise typer.Exit(run_archive(configured(Settings.from_env)))


def history(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME|UID…]", help="Only these Tasks; one alone is told in full.", show_default=False),
    ] = None,
    queue: Annotated[str | None, typer.Option("--queue", "-q", metavar="QUEUE", help="Only of this queue.")] = None,
    tenant: Annotated[str | None, typer.Option("--tenant", metavar="NAME", help="Only of this tenant.")] = None,
    type_: Annotated[str | None, typer.Option("--type", "-t", metavar="TYPE", help="Only of this type.")] = None,
    outcome: Annotated[
        list[api.Phase] | None,
        typer.Option(
            "--outcome",
            case_sensitive=False,
            help="Only those that ended so: Succeeded, Failed, Cancelled, DeadLettered.",
        ),
    ] = None,
    selector: Annotated[
        Any,
        typer.Option(
            "--selector",
            "-l",
            metavar="SELECTOR",
            parser=reader(parse.selector),
            help="Only with these labels, as for kubectl.",
        ),
    ] = None,
    since: Annotated[
        Any,
        typer.Option(
            "--since",
            metavar="TIME",
            parser=reader(_past),
            help="Ended then or later: 24h ago, or 2030-01-31T12:00:00Z.",
        ),
    ] = None,
    until: Annotated[
        Any, typer.Option("--until", metavar="TIME", parser=reader(_past), help="Ended before then.")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=100_000, help="Show at most so many, the last first.")
    ] = 100,
    output: Annotated[
        ListOutput | None, typer.Option("--output", "-o", help="More columns, whole objects, or uids (name).")
    ] = None,
    dsn: Dsn = None,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", metavar="NAME", help="Only of this namespace; else of all.")
    ] = None,
) -> None:
    """Show ended Tasks out of the archive, also those that the cluster has no more."""
    with extra("archive"):
        from taskdist.archive.history import NoAnswer, Wanted
        from taskdist.cli import looking_back

    wanted = Wanted(
        namespace, queue, tenant, type_, tuple(outcome or ()), since, until, selector or {}, tuple(names or ()), limit
    )
    try:
        code = looking_back.history(_address(dsn), wanted, output)
    except NoAnswer as error:
        complain(_unanswered(error))
        code = FAILED
    raise typer.Exit(code)


def rerun_(
    ctx: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME|UID", help="The Task; of several of a name the last one.", show_default=False)
    ],
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Change a field of its spec: payload.path=a.py, slots=2; null takes it away.",
        ),
    ] = None,
    priority: Annotated[
        api.Priority | None, typer.Option("--priority", case_sensitive=False, help="Another level.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be created.")] = False,
    output: Annotated[NameOutput | None, typer.Option("--output", "-o", help="How to print the new Task.")] = None,
    dsn: Dsn = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Create a Task of the archive again, with changes. The label taskdist.dev/rerun-of says of which it is.

    Deadline, notBefore, dependencies, idempotency key and agent meant the first run and are left out.
    """
    with extra("archive"):
        from taskdist.archive.history import NoAnswer
        from taskdist.cli import looking_back

    try:
        wanted = [rerun.assignment(each) for each in changes or ()]
    except parse.Malformed as error:
        complain(str(error))
        raise typer.Exit(USAGE) from None
    if priority:
        wanted.append((("priority",), str(priority)))
    try:
        body = looking_back.again(_address(dsn), name, namespace, wanted)
    except NoAnswer as error:
        complain(_unanswered(error))
        raise typer.Exit(FAILED) from None
    if body is None:
        raise typer.Exit(FAILED)
    if dry_run:
        looking_back.shown(body, output)
        raise typer.Exit(0)

    async def create(cluster: Cluster) -> int:
        return await looking_back.create(cluster, body, output)

    run(ctx, Target(body["metadata"]["namespace"], context, kubeconfig), create)


def _address(dsn: str | None) -> str:
    if not dsn:
        complain(
            "where is the archive? Set TASKDIST_ARCHIVE_DSN=postgresql://USER:PASSWORD@HOST:5432/DATABASE, or --dsn"
        )
        raise typer.Exit(USAGE)
    return dsn


def _unanswered(error: Exception) -> str:
    return f"the archive's database gives no answer: {error}\nIt is what --dsn or TASKDIST_ARCHIVE_DSN says."


def _archive_examples(program: str) -> str:
    where = "TASKDIST_NAMESPACE=taskdist TASKDIST_ARCHIVE_DSN=postgresql://127.0.0.1/tasks"
    return examples(("here, against the cluster of the kubeconfig", f"{where} {program} archive"))


def _history_examples(program: str) -> str:
    return examples(
        ("what failed since yesterday", f"{program} history --queue reports --outcome Failed --since 24h"),
        ("one Task with all its attempts", f"{program} history analyse-x7k2p"),
        ("the uids of a batch", f"{program} history -l batch=nightly --limit 1000 -o name"),
        ("for another tool", f"{program} history --type analyse -o json | jq '.items[].status.cost'"),
    )


def _rerun_examples(program: str) -> str:
    return examples(
        ("once more, with another input", f"{program} rerun analyse-x7k2p --set payload.path=b.py --priority High"),
        ("look first", f"{program} rerun analyse-x7k2p --set slots=2 --dry-run -o yaml"),
    )
