"""The options of `submit`: how each is written, and what its help says."""

from typing import Annotated, Any

import typer

from taskdist import api
from taskdist.cli import parse
from taskdist.cli.options import NameOutput, reader

# Panels of the help: there are too many options for one.
ORDER = "When it runs"
NEEDS = "What it needs of an agent"
LIFE = "How long it may take"

Queue = Annotated[
    str | None, typer.Argument(metavar="QUEUE", help="TaskQueue that the Task waits in.", show_default=False)
]
File = Annotated[
    str | None,
    typer.Option(
        "--file",
        "-f",
        metavar="PATH|-",
        help="Many Tasks: a JSON object a line, each a manifest or the fields of its spec (queue, type, payload, …) "
        "with name and labels. QUEUE, --type and --label hold for lines that do not say them.",
        show_default=False,
    ),
]
Type = Annotated[
    str | None,
    typer.Option("--type", "-t", metavar="TYPE", help="Kind of work: picks the agent's handler.", show_default=False),
]
Payload = Annotated[
    Any,
    typer.Option(
        "--payload",
        "-p",
        metavar="JSON|@FILE|-",
        parser=reader(parse.payload),
        help="The handler's input, a JSON object. More than 64 KiB go by an object store (TASKDIST_OBJECTS_URL).",
    ),
]
Name = Annotated[str | None, typer.Option("--name", metavar="NAME", help="Name of the Task.")]
GenerateName = Annotated[
    str | None,
    typer.Option("--generate-name", metavar="PREFIX", help="Start of a name that is made up; else the type."),
]
Priority = Annotated[
    api.Priority | None,
    typer.Option(
        "--priority",
        case_sensitive=False,
        help="Its level: higher goes first; else Normal. Emergency is for tenants that the queue names.",
        rich_help_panel=ORDER,
    ),
]
Tenant = Annotated[
    str | None,
    typer.Option(
        "--tenant",
        metavar="NAME",
        help="On whose account; tenants share by weight. Else the namespace.",
        rich_help_panel=ORDER,
    ),
]
Deadline = Annotated[
    str | None,
    typer.Option(
        "--deadline",
        metavar="TIME",
        parser=reader(parse.moment),
        help="When it should have succeeded: 2030-01-31T12:00:00Z, or 10m from now.",
        rich_help_panel=ORDER,
    ),
]
NotBefore = Annotated[
    str | None,
    typer.Option(
        "--not-before",
        metavar="TIME",
        parser=reader(parse.moment),
        help="It is not started before this time, said in the same way.",
        rich_help_panel=ORDER,
    ),
]
DependsOn = Annotated[
    list[str] | None,
    typer.Option(
        "--depends-on",
        metavar="TASK",
        help="Task that has to end first; the handler gets its result. May be repeated.",
        rich_help_panel=ORDER,
    ),
]
OnDependencyFailure = Annotated[
    api.OnDependencyFailure | None,
    typer.Option(
        "--on-dependency-failure",
        case_sensitive=False,
        help="If one of them does not succeed: Fail, Skip (it is Cancelled) or Run all the same; else Fail.",
        rich_help_panel=ORDER,
    ),
]
ConcurrencyKey = Annotated[
    str | None,
    typer.Option(
        "--concurrency-key",
        metavar="KEY",
        help="Of the queue's Tasks with this key, only so many run at once as the queue says.",
        rich_help_panel=ORDER,
    ),
]
OrderingKey = Annotated[
    str | None,
    typer.Option(
        "--ordering-key",
        metavar="KEY",
        help="Of the queue's Tasks with this key, one runs after the other, oldest first.",
        rich_help_panel=ORDER,
    ),
]
WaitingTimeout = Annotated[
    float | None,
    typer.Option(
        "--waiting-timeout",
        metavar="TIME",
        parser=reader(parse.duration),
        help="Longest time until its first start (30s, 5m); then it is Failed.",
        rich_help_panel=LIFE,
    ),
]
ExecutionTimeout = Annotated[
    float | None,
    typer.Option(
        "--execution-timeout",
        metavar="TIME",
        parser=reader(parse.duration),
        help="Longest time that one attempt may run; then it has failed.",
        rich_help_panel=LIFE,
    ),
]
ProgressTimeout = Annotated[
    float | None,
    typer.Option(
        "--progress-timeout",
        metavar="TIME",
        parser=reader(parse.duration),
        help="Longest time that an attempt may go without reporting progress; then it has failed.",
        rich_help_panel=LIFE,
    ),
]
Ttl = Annotated[
    float | None,
    typer.Option(
        "--ttl",
        metavar="TIME",
        parser=reader(parse.duration),
        help="How long it is kept after its end; else as the queue says.",
        rich_help_panel=LIFE,
    ),
]
Skill = Annotated[
    list[str] | None,
    typer.Option("--skill", metavar="SKILL", help="The agent must have it. May be repeated.", rich_help_panel=NEEDS),
]
Slots = Annotated[
    int | None,
    typer.Option(
        "--slots", min=1, max=1000, help="Slots of one agent that it occupies; else 1.", rich_help_panel=NEEDS
    ),
]
IdempotencyKey = Annotated[
    str | None,
    typer.Option(
        "--idempotency-key",
        metavar="KEY",
        help="Submit it once: if the queue has a Task with this key, that one is meant. Makes the Task's name.",
        rich_help_panel=ORDER,
    ),
]
Resource = Annotated[
    list[str] | None,
    typer.Option(
        "--resource",
        metavar="NAME=NUMBER",
        help="Named resource of the agent that it occupies. May be repeated.",
        rich_help_panel=NEEDS,
    ),
]
Selector = Annotated[
    Any,
    typer.Option(
        "--selector",
        "-l",
        metavar="SELECTOR",
        parser=reader(parse.selector),
        help="Labels of the agent, as kubectl writes them.",
        rich_help_panel=NEEDS,
    ),
]
Label = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="KEY=VALUE", help="Label of the Task, for get -l. May be repeated."),
]
Pool = Annotated[
    str | None,
    typer.Option("--pool", metavar="POOL", help="Run on this AgentPool, not on the queue's.", rich_help_panel=NEEDS),
]
WaitForResult = Annotated[bool, typer.Option("--wait", "-w", help="Stay until it has ended, and print its result.")]
Created = Annotated[NameOutput | None, typer.Option("--output", "-o", help="Print the Task, or its name.")]
