"""The commands about Tasks: their options and help. What they do is imported when they are called."""

from typing import Annotated, Any

import typer

from taskdist.api import Phase
from taskdist.cli import parse
from taskdist.cli.options import (
    Context,
    Kubeconfig,
    ListOutput,
    NameOutput,
    Namespace,
    Output,
    Timeout,
    examples,
    reader,
)
from taskdist.cli.run import USAGE, Target, complain, run

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the Task.", show_default=False)]
Names = Annotated[list[str], typer.Argument(metavar="NAME…", help="Names of Tasks.", show_default=False)]
Wait = Annotated[bool, typer.Option("--wait", "-w", help="Stay until the Task has ended.")]


def add(app: typer.Typer, program: str) -> None:
    """Add the commands. `program` is what users type to get here; examples are written with it."""

    @app.command(
        epilog=examples(
            (
                "submit, wait, use the result",
                f'{program} submit code --type analyse --payload \'{{"path": "a.py"}}\' --wait | jq .lines',
            ),
            (
                "payload from a file, ahead of others",
                f"{program} submit code --type analyse --payload @job.json --priority 10",
            ),
            ("from another program's output", f"make-job | {program} submit code --type analyse --payload -"),
            (
                "only on agents that have what it needs",
                f"{program} submit render --type frame --skill gpu --selector 'zone in (a,b)' --slots 2",
            ),
            ("the name, for a script", f"name=$({program} submit code --type analyse -o name)"),
        )
    )
    def submit(
        ctx: typer.Context,
        queue: Annotated[
            str, typer.Argument(metavar="QUEUE", help="TaskQueue that the Task waits in.", show_default=False)
        ],
        type_: Annotated[
            str,
            typer.Option(
                "--type", "-t", metavar="TYPE", help="Kind of work: picks the agent's handler.", show_default=False
            ),
        ],
        payload: Annotated[
            Any,
            typer.Option(
                "--payload",
                "-p",
                metavar="JSON|@FILE|-",
                parser=reader(parse.payload),
                help="The handler's input, a JSON object of at most 64 KiB.",
            ),
        ] = None,
        name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Name of the Task.")] = None,
        generate_name: Annotated[
            str | None,
            typer.Option("--generate-name", metavar="PREFIX", help="Start of a name that is made up; else the type."),
        ] = None,
        priority: Annotated[
            int | None, typer.Option("--priority", min=-1000, max=1000, help="Higher goes first; else 0.")
        ] = None,
        skill: Annotated[
            list[str] | None, typer.Option("--skill", metavar="SKILL", help="The agent must have it. May be repeated.")
        ] = None,
        slots: Annotated[
            int | None, typer.Option("--slots", min=1, max=1000, help="Slots of one agent that it occupies; else 1.")
        ] = None,
        resource: Annotated[
            list[str] | None,
            typer.Option(
                "--resource",
                metavar="NAME=NUMBER",
                help="Named resource of the agent that it occupies. May be repeated.",
            ),
        ] = None,
        selector: Annotated[
            Any,
            typer.Option(
                "--selector",
                "-l",
                metavar="SELECTOR",
                parser=reader(parse.selector),
                help="Labels of the agent, as kubectl writes them.",
            ),
        ] = None,
        pool: Annotated[
            str | None, typer.Option("--pool", metavar="POOL", help="Run on this AgentPool, not on the queue's.")
        ] = None,
        wait: Annotated[
            bool, typer.Option("--wait", "-w", help="Stay until it has ended, and print its result.")
        ] = False,
        timeout: Timeout = None,
        output: Annotated[
            NameOutput | None, typer.Option("--output", "-o", help="Print the Task, or its name.")
        ] = None,
        namespace: Namespace = None,
        context: Context = None,
        kubeconfig: Kubeconfig = None,
    ) -> None:
        """Submit a Task to a queue, and optionally wait for its result.

        With --wait, what happens is told on standard error, and the result is printed as JSON on standard output.
        Exit codes: 0 it succeeded (or was created), 1 it failed or was cancelled, 2 wrong usage, 3 the time was up.
        """
        from taskdist.cli import submit as action

        if name and generate_name:
            complain("--name and --generate-name exclude each other")
            raise typer.Exit(USAGE)
        if timeout is not None and not wait:
            complain("--timeout says how long to wait: add --wait")
            raise typer.Exit(USAGE)
        submission = action.Submission(
            queue=queue,
            type=type_,
            payload=payload or {},
            name=name,
            generate_name=generate_name,
            priority=priority,
            skills=tuple(skill or ()),
            slots=slots,
            resources=reader(parse.amounts)(resource or []),
            selector=selector or {},
            pool=pool,
        )
        run(
            ctx,
            Target(namespace, context, kubeconfig),
            lambda cluster: action.submit(cluster, submission, wait=wait, timeout=timeout, output=output),
        )

    @app.command(
        epilog=examples(
            ("what is there", f"{program} get"),
            ("what waits in a queue, with reasons", f"{program} get --queue code --phase Pending -o wide"),
            ("follow one", f"{program} get analyse-x7k2p --watch"),
            (
                "all failed ones of the cluster, for a script",
                f"{program} get -A --phase Failed -o json | jq -r .items[].metadata.name",
            ),
        )
    )
    def get(
        ctx: typer.Context,
        names: Annotated[
            list[str] | None, typer.Argument(metavar="[NAME…]", help="Only these Tasks.", show_default=False)
        ] = None,
        queue: Annotated[
            str | None, typer.Option("--queue", "-q", metavar="QUEUE", help="Only Tasks of this queue.")
        ] = None,
        phase: Annotated[
            Phase | None, typer.Option("--phase", help="Only Tasks in this phase.", case_sensitive=False)
        ] = None,
        everywhere: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Of all namespaces.")] = False,
        output: Annotated[
            ListOutput | None, typer.Option("--output", "-o", help="More columns, or whole objects.")
        ] = None,
        watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on, with a line for each change.")] = False,
        namespace: Namespace = None,
        context: Context = None,
        kubeconfig: Kubeconfig = None,
    ) -> None:
        """Show Tasks: where each stands, why, and on which agent."""
        from taskdist.cli import reading

        if names and (queue or phase or everywhere):
            complain("names are looked up as they are: leave out --queue, --phase and --all-namespaces")
            raise typer.Exit(USAGE)
        if watch and output in (ListOutput.JSON, ListOutput.YAML):
            complain("--watch prints lines: use it with the table or -o wide")
            raise typer.Exit(USAGE)
        run(
            ctx,
            Target(namespace, context, kubeconfig),
            lambda cluster: reading.get(
                cluster, names or (), queue=queue, phase=phase, everywhere=everywhere, output=output, watch=watch
            ),
        )

    @app.command(
        epilog=examples(
            ("the result, if it is there", f"{program} result analyse-x7k2p"),
            ("wait for it, but not for ever", f"{program} result analyse-x7k2p --wait --timeout 5m"),
        )
    )
    def result(
        ctx: typer.Context,
        name: Name,
        wait: Wait = False,
        timeout: Timeout = None,
        output: Annotated[Output | None, typer.Option("--output", "-o", help="json is the default.")] = None,
        namespace: Namespace = None,
        context: Context = None,
        kubeconfig: Kubeconfig = None,
    ) -> None:
        """Print a Task's result as JSON; if there is none, say why.

        Exit codes: 0 here it is, 1 it failed, was cancelled or has not ended, 3 the time was up.
        """
        from taskdist.cli import reading

        run(
            ctx,
            Target(namespace, context, kubeconfig),
            lambda cluster: reading.result(
                cluster, name, wait=wait or timeout is not None, timeout=timeout, output=output
            ),
        )

    @app.command(
        epilog=examples(
            ("what the handler logged", f"{program} logs analyse-x7k2p"),
            ("why the first attempt failed", f"{program} logs analyse-x7k2p --attempt 1"),
            ("as written, for another tool", f"{program} logs analyse-x7k2p --raw | jq .event"),
        )
    )
    def logs(
        ctx: typer.Context,
        name: Name,
        attempt: Annotated[int | None, typer.Option("--attempt", min=1, help="Of this attempt; else the last.")] = None,
        follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines are written.")] = False,
        raw: Annotated[bool, typer.Option("--raw", help="The JSON lines as they are.")] = False,
        namespace: Namespace = None,
        context: Context = None,
        kubeconfig: Kubeconfig = None,
    ) -> None:
        """Print what the agent logged for a Task.

        The lines come from the log of the pod that ran it; they are gone when that pod is.
        """
        from taskdist.cli import logs as action

        run(
            ctx,
            Target(namespace, context, kubeconfig),
            lambda cluster: action.logs(cluster, name, attempt=attempt, follow=follow, raw=raw),
        )

    def explain(
        ctx: typer.Context,
        name: Name,
        output: Annotated[Output | None, typer.Option("--output", "-o", help="For a script.")] = None,
        namespace: Namespace = None,
        context: Context = None,
        kubeconfig: Kubeconfig = None,
    ) -> None:
        """Say why a Task waits, its position, and what would unblock it.

        The answer comes from the operator's own engine, run here over what the cluster holds now.
        """
        from taskdist.cli import explaining

        run(
            ctx,
            Target(namespace, context, kubeconfig),
            lambda cluster: explaining.explain(cluster, name, output),
        )

    shown = examples(
        ("why does it not start?", f"{program} explain analyse-x7k2p"),
        ("only the reason, for a script", f"{program} explain analyse-x7k2p -o json | jq -r .reason"),
    )
    app.command("explain", epilog=shown)(explain)
    app.command("why", epilog=shown, help="The same as explain.")(explain)

    @app.command(
        epilog=examples(
            ("end it, wherever it stands", f"{program} cancel analyse-x7k2p"),
            ("and wait until nothing of it runs", f"{program} cancel analyse-x7k2p --wait"),
        )
    )
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

    @app.command(epilog=examples(("hold it back for now", f"{program} suspend analyse-x7k2p")))
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

    @app.command(epilog=examples(("let it go on", f"{program} resume analyse-x7k2p")))
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
