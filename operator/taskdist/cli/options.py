"""Options that several commands share, and how their values are read."""

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, TypeVar

import typer

from taskdist.cli import parse

Written = TypeVar("Written")
Value = TypeVar("Value")


class Output(StrEnum):
    JSON = "json"
    YAML = "yaml"


class ListOutput(StrEnum):
    JSON = "json"
    YAML = "yaml"
    WIDE = "wide"
    NAME = "name"


class NameOutput(StrEnum):
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace", "-n", metavar="NAME", help="Namespace; else the kubeconfig context's.", rich_help_panel="Cluster"
    ),
]
Context = Annotated[
    str | None, typer.Option("--context", metavar="NAME", help="Context of the kubeconfig.", rich_help_panel="Cluster")
]
Kubeconfig = Annotated[
    str | None,
    typer.Option(
        "--kubeconfig",
        metavar="PATH",
        help="Kubeconfig; else KUBECONFIG, the pod's own, or ~/.kube/config.",
        rich_help_panel="Cluster",
    ),
]


def reader(read: Callable[[Written], Value]) -> Callable[[Written], Value]:
    """`read` as an option's parser: what it refuses becomes a usage error."""

    def parser(text: Written) -> Value:
        try:
            return read(text)
        except parse.Malformed as error:
            raise typer.BadParameter(str(error)) from None

    return parser


Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout", metavar="TIME", parser=reader(parse.duration), help="Wait no longer (30s, 5m); exit code 3 then."
    ),
]


def examples(*pairs: tuple[str, str]) -> str:
    """The end of a command's help: what one may want, and how to say it."""
    lines = ["[bold]Examples[/bold]"]
    for what, how in pairs:
        # Rich reads brackets as markup.
        lines += [f"  [dim]# {what}[/dim]", f"  {how.replace('[', chr(92) + '[')}"]
    return "\n".join(lines)
