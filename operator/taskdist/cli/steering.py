"""The commands that change Tasks: options and help. What they do is imported when they are called."""

from typing import Annotated

import typer

from taskdist.api import Reason
from taskdist.cli import parse
from taskdist.cli.cluster import Target
from taskdist.cli.options import Context, Kubeconfig, Namespace, Timeout, examples
from taskdist.cli.run import USAGE, complain, run

Names = Annotated[
    list[str], typer.Argument(metavar="NAME…", help="Names of Tasks.", show_default=False, parser=parse.name)
]


def add(app: typer.Typer, program: str) -> None:
    """Add the commands. `program` is what users type to get here; examples are written with it."""
    app.command(epilog=_cancel_examples(program))(cancel)
    app.command(epilog=_suspend_examples(program))(suspend)
    app.command(epilog=_resume_examples(program))(resume)
    app.command(epilog=_redrive_examples(program))(redrive)


def cancel(
    ctx: typer.Context,
    names: Names,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Stay until they have ended.")] = False,
    timeout: Timeout = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Cancel Tasks, waiting or running. This cannot be taken back.

    A running handler is asked to stop, and killed if it does not. A result that is already in hand still counts.
    """
    from taskdist.cli import changing

    run(
        ctx,
        Target(namespace, context, kubeconfig),
        lambda cluster: changing.change(
            cluster, names, "cancel", True, "cancelled", wait=wait or timeout is not None, timeout=timeout
        ),
    )


def suspend(
    ctx: typer.Context,
    names: Names,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Hold Tasks back. A waiting one keeps its place; a running one is stopped and waits again."""
    from taskdist.cli import changing

    run(
        ctx,
        Target(namespace, context, kubeconfig),
        lambda cluster: changing.change(cluster, names, "suspend", True, "suspended"),
    )


def resume(
    ctx: typer.Context,
    names: Names,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Let suspended Tasks go on."""
    from taskdist.cli import changing

    run(
        ctx,
        Target(namespace, context, kubeconfig),
        lambda cluster: changing.change(cluster, names, "suspend", False, "resumed"),
    )


def redrive(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME…]", help="Names of dead letters.", show_default=False, parser=parse.name),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All dead letters; instead of names.")] = False,
    queue: Annotated[
        str | None, typer.Option("--queue", "-q", metavar="QUEUE", help="With --all: only those of this queue.")
    ] = None,
    reason: Annotated[
        Reason | None,
        typer.Option(
            "--reason",
            metavar="REASON",
            case_sensitive=False,
            help="With --all: only those that ended, or whose last attempt failed, for this reason.",
        ),
    ] = None,
    failed: Annotated[
        bool,
        typer.Option(
            "--failed",
            help="Of arrays: try their failed items again; of one that has ended by a new array of them.",
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which.")] = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Let dead letters wait again, with their failures forgotten.

    A dead letter is a Task that failed for good in a queue that keeps such Tasks (DeadLettered). This raises its
    spec.redrive by one; the history of its attempts stays. Of an array the failed items alone are tried again. List
    them with get --phase DeadLettered.
    """
    from taskdist.cli import changing

    if bool(names) == everything:
        complain("say which: names of dead letters, or --all (perhaps with --queue)")
        raise typer.Exit(USAGE)
    if names and (queue or reason):
        complain("--queue and --reason narrow --all down: leave them out, or the names")
        raise typer.Exit(USAGE)
    if failed:
        if not names:
            complain("--failed is of arrays by name: name them")
            raise typer.Exit(USAGE)
        run(
            ctx,
            Target(namespace, context, kubeconfig),
            lambda cluster: changing.redrive_failed(cluster, names, dry_run=dry_run),
        )
    run(
        ctx,
        Target(namespace, context, kubeconfig),
        lambda cluster: changing.redrive(
            cluster, names or (), queue=queue, reason=reason.value if reason else None, dry_run=dry_run
        ),
    )


def _cancel_examples(program: str) -> str:
    return examples(
        ("end it, wherever it stands", f"{program} cancel analyse-x7k2p"),
        ("and wait until nothing of it runs", f"{program} cancel analyse-x7k2p --wait"),
    )


def _suspend_examples(program: str) -> str:
    return examples(("hold it back for now", f"{program} suspend analyse-x7k2p"))


def _resume_examples(program: str) -> str:
    return examples(("let it go on", f"{program} resume analyse-x7k2p"))


def _redrive_examples(program: str) -> str:
    return examples(
        ("try one again, from its first attempt", f"{program} redrive analyse-x7k2p"),
        ("the failed items of an array alone", f"{program} redrive thumbnails --failed"),
        ("what would be tried again?", f"{program} redrive --all --queue code --dry-run"),
        (
            "all whose handler raised an error, once that is mended",
            f"{program} redrive --all --queue code --reason HandlerError",
        ),
    )
