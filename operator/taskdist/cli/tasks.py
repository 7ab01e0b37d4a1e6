"""The commands that make Tasks and look at them: options and help. What they do is imported when they are called."""

import math
from typing import Annotated, Any

import typer

from taskdist.api import OnDependencyFailure, Phase, Priority
from taskdist.cli import parse
from taskdist.cli.cluster import Target
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
from taskdist.cli.run import USAGE, complain, run

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of the Task, or task/NAME.", show_default=False, parser=parse.name)
]
# Panels of the help: there are too many options for one.
ORDER = "When it runs"
NEEDS = "What it needs of an agent"
LIFE = "How long it may take"
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
                f"{program} submit code --type analyse --payload @job.json --priority High",
            ),
            (
                "by a time, or not at all: see the queue's spec.deadlines",
                f"{program} submit code --type analyse --deadline 10m",
            ),
            (
                "after two others, with their results",
                f"{program} submit code --type report --depends-on parse --depends-on lint",
            ),
            (
                "one after the other for each customer",
                f"{program} submit mail --type send --ordering-key customer-7 --tenant acme",
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
            Priority | None,
            typer.Option(
                "--priority",
                case_sensitive=False,
                help="Its level: higher goes first; else Normal. Emergency is for tenants that the queue names.",
                rich_help_panel=ORDER,
            ),
        ] = None,
        tenant: Annotated[
            str | None,
            typer.Option(
                "--tenant",
                metavar="NAME",
                help="On whose account; tenants share by weight. Else the namespace.",
                rich_help_panel=ORDER,
            ),
        ] = None,
        deadline: Annotated[
            str | None,
            typer.Option(
                "--deadline",
                metavar="TIME",
                parser=reader(parse.moment),
                help="When it should have succeeded: 2030-01-31T12:00:00Z, or 10m from now.",
                rich_help_panel=ORDER,
            ),
        ] = None,
        not_before: Annotated[
            str | None,
            typer.Option(
                "--not-before",
                metavar="TIME",
                parser=reader(parse.moment),
                help="It is not started before this time, said in the same way.",
                rich_help_panel=ORDER,
            ),
        ] = None,
        depends_on: Annotated[
            list[str] | None,
            typer.Option(
                "--depends-on",
                metavar="TASK",
                help="Task that has to end first; the handler gets its result. May be repeated.",
                rich_help_panel=ORDER,
            ),
        ] = None,
        on_dependency_failure: Annotated[
            OnDependencyFailure | None,
            typer.Option(
                "--on-dependency-failure",
                case_sensitive=False,
                help="If one of them does not succeed: Fail, Skip (it is Cancelled) or Run all the same; else Fail.",
                rich_help_panel=ORDER,
            ),
        ] = None,
        concurrency_key: Annotated[
            str | None,
            typer.Option(
                "--concurrency-key",
                metavar="KEY",
                help="Of the queue's Tasks with this key, only so many run at once as the queue says.",
                rich_help_panel=ORDER,
            ),
        ] = None,
        ordering_key: Annotated[
            str | None,
            typer.Option(
                "--ordering-key",
                metavar="KEY",
                help="Of the queue's Tasks with this key, one runs after the other, oldest first.",
                rich_help_panel=ORDER,
            ),
        ] = None,
        waiting_timeout: Annotated[
            float | None,
            typer.Option(
                "--waiting-timeout",
                metavar="TIME",
                parser=reader(parse.duration),
                help="Longest time until its first start (30s, 5m); then it is Failed.",
                rich_help_panel=LIFE,
            ),
        ] = None,
        execution_timeout: Annotated[
            float | None,
            typer.Option(
                "--execution-timeout",
                metavar="TIME",
                parser=reader(parse.duration),
                help="Longest time that one attempt may run; then it has failed.",
                rich_help_panel=LIFE,
            ),
        ] = None,
        progress_timeout: Annotated[
            float | None,
            typer.Option(
                "--progress-timeout",
                metavar="TIME",
                parser=reader(parse.duration),
                help="Longest time that an attempt may go without reporting progress; then it has failed.",
                rich_help_panel=LIFE,
            ),
        ] = None,
        ttl: Annotated[
            float | None,
            typer.Option(
                "--ttl",
                metavar="TIME",
                parser=reader(parse.duration),
                help="How long it is kept after its end; else as the queue says.",
                rich_help_panel=LIFE,
            ),
        ] = None,
        skill: Annotated[
            list[str] | None,
            typer.Option(
                "--skill", metavar="SKILL", help="The agent must have it. May be repeated.", rich_help_panel=NEEDS
            ),
        ] = None,
        slots: Annotated[
            int | None,
            typer.Option(
                "--slots", min=1, max=1000, help="Slots of one agent that it occupies; else 1.", rich_help_panel=NEEDS
            ),
        ] = None,
        idempotency_key: Annotated[
            str | None,
            typer.Option(
                "--idempotency-key",
                metavar="KEY",
                help="Submit it once: if the queue has a Task with this key, that one is meant. Makes the Task's name.",
                rich_help_panel=ORDER,
            ),
        ] = None,
        resource: Annotated[
            list[str] | None,
            typer.Option(
                "--resource",
                metavar="NAME=NUMBER",
                help="Named resource of the agent that it occupies. May be repeated.",
                rich_help_panel=NEEDS,
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
                rich_help_panel=NEEDS,
            ),
        ] = None,
        label: Annotated[
            list[str] | None,
            typer.Option("--label", metavar="KEY=VALUE", help="Label of the Task, for get -l. May be repeated."),
        ] = None,
        pool: Annotated[
            str | None,
            typer.Option(
                "--pool", metavar="POOL", help="Run on this AgentPool, not on the queue's.", rich_help_panel=NEEDS
            ),
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
        Exit codes: 0 it succeeded (or was created), 1 it failed, was cancelled or became a dead letter, 2 wrong usage,
        3 the time was up.
        """
        from taskdist.cli import submit as action

        if name and generate_name:
            complain("--name and --generate-name exclude each other")
            raise typer.Exit(USAGE)
        if idempotency_key and (name or generate_name):
            complain("--idempotency-key makes the name: leave out --name and --generate-name")
            raise typer.Exit(USAGE)
        if timeout is not None and not wait:
            complain("--timeout says how long to wait: add --wait. How long it may run says --execution-timeout")
            raise typer.Exit(USAGE)
        submission = action.Submission(
            queue=queue,
            type=type_,
            payload=payload or {},
            name=name,
            generate_name=generate_name,
            priority=priority.value if priority else None,
            tenant=tenant,
            deadline=deadline,
            not_before=not_before,
            waiting_timeout=waiting_timeout,
            execution_timeout=execution_timeout,
            progress_timeout=progress_timeout,
            # Whole seconds on the API: rounded up, as 0 deletes it at its end.
            ttl=math.ceil(ttl) if ttl is not None else None,
            depends_on=tuple(depends_on or ()),
            on_dependency_failure=on_dependency_failure.value if on_dependency_failure else None,
            concurrency_key=concurrency_key,
            ordering_key=ordering_key,
            idempotency_key=idempotency_key,
            skills=tuple(skill or ()),
            slots=slots,
            resources=reader(parse.amounts)(resource or []),
            selector=selector or {},
            labels=reader(parse.labels)(label or []),
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
            ("those with a label", f"{program} get -l batch=nightly"),
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
            list[str] | None,
            typer.Argument(metavar="[NAME…]", help="Only these Tasks.", show_default=False, parser=parse.name),
        ] = None,
        queue: Annotated[
            str | None, typer.Option("--queue", "-q", metavar="QUEUE", help="Only Tasks of this queue.")
        ] = None,
        phase: Annotated[
            Phase | None, typer.Option("--phase", help="Only Tasks in this phase.", case_sensitive=False)
        ] = None,
        selector: Annotated[
            str | None,
            typer.Option("--selector", "-l", metavar="SELECTOR", help="Only Tasks with these labels, as for kubectl."),
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

        if names and (queue or phase or selector or everywhere):
            complain("names are looked up as they are: leave out --queue, --phase, --selector and --all-namespaces")
            raise typer.Exit(USAGE)
        if watch and output in (ListOutput.JSON, ListOutput.YAML, ListOutput.NAME):
            complain("--watch prints lines: use it with the table or -o wide")
            raise typer.Exit(USAGE)
        run(
            ctx,
            Target(namespace, context, kubeconfig),
            lambda cluster: reading.get(
                cluster,
                names or (),
                queue=queue,
                phase=phase,
                labels=selector or "",
                everywhere=everywhere,
                output=output,
                watch=watch,
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
        what_if: Annotated[
            list[str] | None,
            typer.Option(
                "--what-if",
                metavar="CHANGE",
                help="When it would start with another priority=LEVEL or pool=NAME, or with agents=+3 more (of the "
                "first pool that it may use; agents.POOL=+3). May be repeated: all at once.",
            ),
        ] = None,
        as_json: Annotated[bool, typer.Option("--json", help="The same as -o json.")] = False,
        output: Annotated[Output | None, typer.Option("--output", "-o", help="For a script.")] = None,
        namespace: Namespace = None,
        context: Context = None,
        kubeconfig: Kubeconfig = None,
    ) -> None:
        """Say why a Task waits, its position, when it is expected to start, and what would unblock it.

        The answer comes from the operator's own engine, run here over what the cluster holds now.
        """
        from taskdist.cli import explaining

        change, agents = reader(explaining.changed)(what_if) if what_if else (None, 0)
        run(
            ctx,
            Target(namespace, context, kubeconfig),
            lambda cluster: explaining.explain(
                cluster, name, output or (Output.JSON if as_json else None), change, agents
            ),
        )

    shown = examples(
        ("why does it not start?", f"{program} explain task/analyse-x7k2p"),
        ("would it help?", f"{program} explain analyse-x7k2p --what-if priority=High --what-if agents=+2"),
        ("only the reason, for a script", f"{program} explain analyse-x7k2p -o json | jq -r .reason"),
    )
    app.command("explain", epilog=shown)(explain)
    app.command("why", epilog=shown, help="The same as explain.")(explain)
