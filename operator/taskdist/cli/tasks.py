"""The commands that make Tasks and look at them: options and help. What they do is imported when they are called."""

import math
from enum import StrEnum
from typing import Annotated, NoReturn

import typer

from taskdist.api import Phase
from taskdist.cli import parse
from taskdist.cli import submit_options as option
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
from taskdist.client.backend import Source

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of the Task, or task/NAME.", show_default=False, parser=parse.name)
]


class Until(StrEnum):
    """What `wait` waits for."""

    ENDED = "ended"
    SUCCEEDED = "succeeded"


Wait = Annotated[bool, typer.Option("--wait", "-w", help="Stay until the Task has ended.")]


def add(app: typer.Typer, program: str) -> None:
    """Add the commands. `program` is what users type to get here; examples are written with it."""
    app.command(epilog=_submit_examples(program))(submit)
    app.command(epilog=_get_examples(program))(get)
    app.command(epilog=_result_examples(program))(result)
    app.command(epilog=_wait_examples(program))(wait)
    app.command(epilog=_watch_examples(program))(watch)
    app.command(epilog=_logs_examples(program))(logs)
    shown = _explain_examples(program)
    app.command("explain", epilog=shown)(explain)
    app.command("why", epilog=shown, help="The same as explain.")(explain)


def submit(
    ctx: typer.Context,
    queue: option.Queue = None,
    type_: option.Type = None,
    file: option.File = None,
    payload: option.Payload = None,
    name: option.Name = None,
    generate_name: option.GenerateName = None,
    priority: option.Priority = None,
    tenant: option.Tenant = None,
    deadline: option.Deadline = None,
    not_before: option.NotBefore = None,
    depends_on: option.DependsOn = None,
    on_dependency_failure: option.OnDependencyFailure = None,
    concurrency_key: option.ConcurrencyKey = None,
    ordering_key: option.OrderingKey = None,
    waiting_timeout: option.WaitingTimeout = None,
    execution_timeout: option.ExecutionTimeout = None,
    progress_timeout: option.ProgressTimeout = None,
    ttl: option.Ttl = None,
    skill: option.Skill = None,
    slots: option.Slots = None,
    idempotency_key: option.IdempotencyKey = None,
    resource: option.Resource = None,
    selector: option.Selector = None,
    label: option.Label = None,
    pool: option.Pool = None,
    wait: option.WaitForResult = False,
    timeout: Timeout = None,
    output: option.Created = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Submit a Task to a queue, or many out of a file, and optionally wait for results.

    With --wait, what happens is told on standard error, and the result is printed as JSON on standard output.
    With --file, a line of JSON is printed for each as it ends; a summary is told on standard error.
    Exit codes: 0 it succeeded (or was created), 1 it (or one of many) was refused, failed, was cancelled or became a
    dead letter, 2 wrong usage, 3 the time was up.
    """
    from taskdist.cli import submit as action
    from taskdist.client.submission import Submission

    if file:
        _submit_file(
            ctx, file, queue, type_, label or [], wait, timeout, output, Target(namespace, context, kubeconfig)
        )
    if not queue or not type_:
        complain("a Task needs a queue and a type: submit QUEUE --type TYPE; or name a file of Tasks with --file")
        raise typer.Exit(USAGE)
    if wrong := _contradiction(name, generate_name, idempotency_key, timeout, wait):
        complain(wrong)
        raise typer.Exit(USAGE)
    submission = Submission(
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


# Beside these, options describe one Task.
_WITH_FILE = frozenset(
    ("file", "queue", "type_", "label", "wait", "timeout", "output", "namespace", "context", "kubeconfig")
)


def _submit_file(
    ctx: typer.Context,
    file: str,
    queue: str | None,
    type_: str | None,
    label: list[str],
    wait: bool,
    timeout: float | None,
    output: NameOutput | None,
    target: Target,
) -> NoReturn:
    from taskdist.cli import batch

    sources = {name: ctx.get_parameter_source(name) for name in ctx.params}
    given = [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    wrong = ""
    if others := sorted({name.replace("_", "-") for name in given if name not in _WITH_FILE}):
        wrong = f"--{others[0]} describes one Task: with --file, write it into the lines"
    elif output not in (None, NameOutput.NAME):
        wrong = "--file prints names (-o name), or with --wait a line of JSON for each"
    elif timeout is not None and not wait:
        wrong = "--timeout says how long to wait: add --wait"
    if wrong:
        complain(wrong)
        raise typer.Exit(USAGE)
    defaults = batch.Defaults(queue, type_, reader(parse.labels)(label))
    names = output is NameOutput.NAME
    run(ctx, target, lambda cluster: batch.submit(cluster, file, defaults, wait=wait, timeout=timeout, names=names))
    raise AssertionError("unreachable: run ends the command")


def _contradiction(
    name: str | None, generate_name: str | None, idempotency_key: str | None, timeout: float | None, wait: bool
) -> str:
    """Which of the options exclude each other; empty if none do."""
    if name and generate_name:
        return "--name and --generate-name exclude each other"
    if idempotency_key and (name or generate_name):
        return "--idempotency-key makes the name: leave out --name and --generate-name"
    if timeout is not None and not wait:
        return "--timeout says how long to wait: add --wait. How long it may run says --execution-timeout"
    return ""


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
    output: Annotated[ListOutput | None, typer.Option("--output", "-o", help="More columns, or whole objects.")] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on, with a line for each change.")] = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show Tasks: where each stands, why, and on which agent; of single ones their place and expected start.

    The operator that leads tells it from memory, for single Tasks and for the table of a namespace. Where it cannot be
    asked, that is said, and the cluster's objects tell.
    """
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
        lambda cluster: reading.result(cluster, name, wait=wait or timeout is not None, timeout=timeout, output=output),
    )


def wait(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME…]", help="These Tasks.", show_default=False, parser=parse.name),
    ] = None,
    selector: Annotated[
        str | None,
        typer.Option("--selector", "-l", metavar="SELECTOR", help="All Tasks with these labels; instead of names."),
    ] = None,
    until: Annotated[
        Until, typer.Option("--for", case_sensitive=False, help="Whether all have to succeed, or only to end.")
    ] = Until.ENDED,
    timeout: Timeout = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Wait until Tasks have ended, with a line for each as it does. However many they are, it is one watch a queue.

    A dead letter counts as ended. Exit codes: 0 all have (with --for succeeded: all succeeded), 1 not so, or one is
    gone, 3 the time was up.
    """
    from taskdist.cli import watching

    if bool(names) == bool(selector):
        complain("say which: names of Tasks, or a --selector")
        raise typer.Exit(USAGE)
    run(
        ctx,
        Target(namespace, context, kubeconfig),
        lambda cluster: watching.wait(
            cluster, names or (), labels=selector or "", succeeded=until is Until.SUCCEEDED, timeout=timeout
        ),
    )


def watch(
    ctx: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help="Only this Task, until it has ended.", show_default=False, parser=parse.name
        ),
    ] = None,
    queue: Annotated[
        str | None, typer.Option("--queue", "-q", metavar="QUEUE", help="Only Tasks of this queue.")
    ] = None,
    selector: Annotated[
        str | None,
        typer.Option("--selector", "-l", metavar="SELECTOR", help="Only Tasks with these labels, as for kubectl."),
    ] = None,
    everywhere: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Of all namespaces.")] = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Print a line for each change: of one Task, with its progress, until it has ended; or of all, until interrupted.

    Exit codes for one Task: 0 it succeeded, 1 it did not.
    """
    from taskdist.cli import watching

    if name and (queue or selector or everywhere):
        complain("a name is looked up as it is: leave out --queue, --selector and --all-namespaces")
        raise typer.Exit(USAGE)
    run(
        ctx,
        Target(namespace, context, kubeconfig),
        lambda cluster: (
            watching.watch_one(cluster, name)
            if name
            else watching.watch_all(cluster, labels=selector or "", queue=queue, everywhere=everywhere)
        ),
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
    source: Annotated[
        Source | None,
        typer.Option(
            "--from",
            help="Ask the operator that leads, or work it out from the cluster's objects; else the one, and then the "
            "other if it cannot be asked.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as -o json.")] = False,
    output: Annotated[Output | None, typer.Option("--output", "-o", help="For a script.")] = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Say why a Task waits, its position, when it is expected to start, and what would unblock it.

    Of a queue (queue/NAME) it says how many Tasks wait, how many messages wait at sources and for how long, what is
    left of rates and budgets, and what holds most up.

    The answer is that of the operator which leads, also of what a change would do. Where it cannot be asked, its
    engine is run here over what the cluster holds now.
    """
    from taskdist.cli import explaining

    form, target = output or (Output.JSON if as_json else None), Target(namespace, context, kubeconfig)
    if (queue := parse.queue(name)) is not None:
        if what_if:
            complain("--what-if is for Tasks that wait: name one")
            raise typer.Exit(USAGE)
        run(ctx, target, lambda cluster: explaining.explain_queue(cluster, queue, form, source))
    changes = reader(explaining.changed)(what_if) if what_if else None
    run(ctx, target, lambda cluster: explaining.explain(cluster, name, form, changes, source))


def _submit_examples(program: str) -> str:
    return examples(
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
        (
            "many, a JSON object a line, and a line of JSON for each as it ends",
            f"{program} submit code --type analyse -f tasks.jsonl --label batch=nightly --wait > results.jsonl",
        ),
        ("the name, for a script", f"name=$({program} submit code --type analyse -o name)"),
    )


def _get_examples(program: str) -> str:
    return examples(
        ("what is there", f"{program} get"),
        ("what waits in a queue, with reasons", f"{program} get --queue code --phase Pending -o wide"),
        ("those with a label", f"{program} get -l batch=nightly"),
        ("follow one", f"{program} get analyse-x7k2p --watch"),
        (
            "all failed ones of the cluster, for a script",
            f"{program} get -A --phase Failed -o json | jq -r .items[].metadata.name",
        ),
    )


def _result_examples(program: str) -> str:
    return examples(
        ("the result, if it is there", f"{program} result analyse-x7k2p"),
        ("wait for it, but not for ever", f"{program} result analyse-x7k2p --wait --timeout 5m"),
    )


def _wait_examples(program: str) -> str:
    return examples(
        ("all of a batch, and it fails if one of them does", f"{program} wait -l batch=nightly --for succeeded"),
        ("two, but not for ever", f"{program} wait analyse-x7k2p analyse-b9d4f --timeout 5m"),
    )


def _watch_examples(program: str) -> str:
    return examples(
        ("one, with its progress", f"{program} watch analyse-x7k2p"),
        ("what happens in a queue", f"{program} watch --queue code"),
    )


def _logs_examples(program: str) -> str:
    return examples(
        ("what the handler logged", f"{program} logs analyse-x7k2p"),
        ("why the first attempt failed", f"{program} logs analyse-x7k2p --attempt 1"),
        ("as written, for another tool", f"{program} logs analyse-x7k2p --raw | jq .event"),
    )


def _explain_examples(program: str) -> str:
    return examples(
        ("why does it not start?", f"{program} explain task/analyse-x7k2p"),
        ("would it help?", f"{program} explain analyse-x7k2p --what-if priority=High --what-if agents=+2"),
        ("how does a queue stand?", f"{program} explain queue/code"),
        ("only the reason, for a script", f"{program} explain analyse-x7k2p -o json | jq -r .reason"),
    )
