"""The commands that run something: an agent, the operator, a control plane on this machine."""

import os
import shlex
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import taskdist
from taskdist.cli.options import examples
from taskdist.cli.run import FAILED, USAGE, complain, extra, note


class _RunUnlessNamed(TyperGroup):
    """`agent` runs an agent, as it always did; only what follows it as the name of a command is another one."""

    default = "run"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = bool(args) and args[0] in self.commands
        return super().parse_args(ctx, args if named else [self.default, *args])


def add(app: typer.Typer, program: str) -> None:
    """Add the commands."""

    agents = typer.Typer(cls=_RunUnlessNamed, context_settings={"help_option_names": ["-h", "--help"]})
    app.add_typer(agents, name="agent", rich_help_panel="Processes", help="Run an agent, or try a handler.")

    @agents.command(
        "run",
        epilog=examples(
            (
                "a Python agent: the object `agent` of a module, or of a file",
                f"{program} agent my_agents.analyse:agent --slots 4",
            ),
            (
                "a program: payload on stdin, result on stdout",
                f"{program} agent --command './analyse --json' --types analyse",
            ),
            ("a server that runs beside it", f"{program} agent --http http://127.0.0.1:8000/run"),
            (
                "one handler, once, without an operator",
                f'{program} agent try my_agent.py:agent --type count --payload \'{{"path": "README.md"}}\'',
            ),
        ),
    )
    def agent(
        target: Annotated[
            str | None,
            typer.Argument(
                metavar="[MODULE:NAME]",
                help="Python agent, as package.module:name or file.py:name.",
                show_default=False,
            ),
        ] = None,
        command: Annotated[
            str | None,
            typer.Option("--command", metavar="'PROGRAM ARG…'", help="Program that is started for each Task."),
        ] = None,
        http: Annotated[
            str | None,
            typer.Option(
                "--http", metavar="URL", help="Local endpoint that each Task is POSTed to. It cannot be fenced."
            ),
        ] = None,
        in_process: Annotated[
            bool, typer.Option("--in-process", help="Run Python handlers in this process. They cannot be fenced.")
        ] = False,
        types: Annotated[
            str | None,
            typer.Option("--types", metavar="A,B", help="Types of Tasks to take; else all that can be handled."),
        ] = None,
        address: Annotated[
            str | None,
            typer.Option("--address", metavar="HOST:PORT", help="The operator's link; else TASKDIST_ADDRESS."),
        ] = None,
        slots: Annotated[
            int | None,
            typer.Option(
                "--slots", min=1, max=1000, help="How many Tasks of one slot run at once; else TASKDIST_SLOTS."
            ),
        ] = None,
        health_port: Annotated[
            int | None,
            typer.Option(
                "--health-port", min=0, max=65535, help="Port of /readyz and /healthz; else TASKDIST_HEALTH_PORT."
            ),
        ] = None,
    ) -> None:
        """Run an agent: connect to the operator, take Tasks, run them.

        In a pod of an AgentPool, address, certificate authority and token are there already; options go before
        TASKDIST_… variables.
        """
        from taskdist.agent.options import OptionError, options_from_env, split_command, split_words
        from taskdist.agent.runner import run_agent

        try:
            options = options_from_env()
            if target or command or http:
                # What is said here to run replaces what the environment says.
                options = replace(
                    options,
                    module=target or "",
                    command=split_command(command or "", "--command"),
                    http=http or "",
                )
            if in_process:
                options = replace(options, in_process=True)
            if types:
                options = replace(options, types=split_words(types))
            if address:
                options = replace(options, address=address)
            if slots is not None:
                options = replace(options, slots=slots)
            if health_port is not None:
                options = replace(options, health_port=health_port)
            code = run_agent(options)
        except (OptionError, ValueError) as error:
            complain(f"{error}\nSee: {program} agent --help")
            code = USAGE
        raise typer.Exit(code)

    @agents.command(
        "try",
        epilog=examples(
            (
                "a handler of a file",
                f'{program} agent try my_agent.py:agent --type count --payload \'{{"path": "README.md"}}\'',
            ),
            ("a program", f"{program} agent try --command './analyse --json' --type analyse --payload @job.json"),
        ),
    )
    def try_(
        target: Annotated[
            str | None,
            typer.Argument(
                metavar="[MODULE:NAME]",
                help="Python agent, as package.module:name or file.py:name.",
                show_default=False,
            ),
        ] = None,
        type: Annotated[str, typer.Option("--type", metavar="TYPE", help="Type of the Task: which handler.")] = "",
        payload: Annotated[
            str, typer.Option("--payload", metavar="JSON", help="A JSON object; @file or - for standard input.")
        ] = "{}",
        command: Annotated[
            str | None, typer.Option("--command", metavar="'PROGRAM ARG…'", help="Program to try instead.")
        ] = None,
        http: Annotated[str | None, typer.Option("--http", metavar="URL", help="Endpoint to try instead.")] = None,
    ) -> None:
        """Run one attempt here: no control plane, no pool, no operator.

        Progress goes to stderr, the result to stdout. Exit status 0: there is a result.
        """
        from taskdist.agent.options import AgentOptions, OptionError, split_command
        from taskdist.cli import parse, trying

        try:
            if not type:
                raise OptionError("say which type of Task it is: --type TYPE")
            options = AgentOptions(
                module=target or "",
                command=split_command(command or "", "--command"),
                http=http or "",
                address="none:0",
            )
            value = parse.payload(payload)
        except ValueError as error:
            complain(f"{error}\nSee: {program} agent try --help")
            raise typer.Exit(USAGE) from None
        raise typer.Exit(trying.run(options, type, value))

    @app.command(
        "operator",
        rich_help_panel="Processes",
        epilog=examples(
            (
                "here, against the cluster of the kubeconfig",
                f"TASKDIST_NAMESPACE=taskdist TASKDIST_LINK_ADDRESS=127.0.0.1:7443 {program} operator",
            ),
        ),
    )
    def operator_() -> None:
        """Run the operator, as the chart's Deployment does. Its settings are TASKDIST_… variables."""
        from taskdist.common.environment import SettingsError

        with extra("operator"):
            from taskdist.controller.main import run as run_operator
            from taskdist.controller.settings import Settings

        try:
            settings = Settings.from_env()
        except SettingsError as error:
            complain(str(error))
            raise typer.Exit(USAGE) from None
        raise typer.Exit(run_operator(settings))

    @app.command(rich_help_panel="Processes")
    def version() -> None:
        """Print the version."""
        print(f"taskdist {taskdist.__version__}")

    dev = typer.Typer(
        no_args_is_help=True,
        help="A real control plane on this machine: etcd and kube-apiserver on loopback, no cluster, no containers.\n\n"
        f"[bold]{program} dev run[/bold] brings it up with the operator and a node, ready for kubectl apply.",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.add_typer(dev, name="dev", rich_help_panel="Processes")
    _add_dev(dev, program)


Directory = Annotated[
    Path | None,
    typer.Option("--dir", metavar="DIR", help="Where it keeps everything; else in the user's state directory."),
]


def _directory(given: Path | None) -> Path:
    if given is not None:
        return given
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "taskdist" / "dev"


def _add_dev(dev: typer.Typer, program: str) -> None:
    @dev.callback()
    def there() -> None:
        # A wheel of its own: images of the operator and of agents are without it.
        if find_spec("taskdist.local") is None:
            complain(f"{program} dev is not installed here: pip install 'taskdist[local]'")
            raise typer.Exit(FAILED)

    @dev.command(
        epilog=examples(
            ("the fastest way to a running Task: start it, and follow what it prints", f"{program} dev run"),
        )
    )
    def run(directory: Directory = None) -> None:
        """Run a control plane, the operator and a node in the foreground, until Ctrl-C takes them down.

        On a control plane that `up` has started it adds the operator and the node, and leaves it running.
        """
        from taskdist.local.binaries import BinaryNotFound
        from taskdist.local.controlplane import ControlPlaneError
        from taskdist.local.dev import run as run_all
        from taskdist.local.stack import StackError

        try:
            code = run_all(_directory(directory), lambda text: print(text, flush=True))
        except (BinaryNotFound, ControlPlaneError, StackError, OSError) as error:
            complain(str(error))
            code = FAILED
        raise typer.Exit(code)

    @dev.command(
        epilog=examples(
            ("start it and use it", f"eval $({program} dev up); kubectl get tq,ap,tk"),
            ("give its pods life, in a second terminal", f"{program} dev node"),
        )
    )
    def up(directory: Directory = None) -> None:
        """Start a control plane that stays, with taskdist's kinds installed. Prints the variable to set."""
        from taskdist.api.crd import definition, kinds
        from taskdist.kube import KubeError
        from taskdist.local.binaries import BinaryNotFound
        from taskdist.local.controlplane import ControlPlane, ControlPlaneError

        where = _directory(directory)
        try:
            try:
                plane = ControlPlane.load(where)
                note(f"it runs already in {where}")
            except ControlPlaneError:
                # What a crash or a restart of the machine left behind.
                ControlPlane.stop_at(where)
                plane = ControlPlane.start(where, detached=True)
            for kind in kinds():
                made = definition(kind)
                path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{made['metadata']['name']}"
                plane.client.apply(path, made)
        except (BinaryNotFound, ControlPlaneError, KubeError, OSError) as error:
            complain(str(error))
            raise typer.Exit(FAILED) from None
        print(f"export KUBECONFIG={shlex.quote(str(plane.kubeconfig))}")
        note(f"Stop it with: {program} dev down" + (f" --dir {shlex.quote(str(directory))}" if directory else ""))

    @dev.command()
    def down(directory: Directory = None) -> None:
        """Stop the control plane and remove its data."""
        from taskdist.local.controlplane import ControlPlane, ControlPlaneError

        where = _directory(directory)
        try:
            if ControlPlane.stop_at(where):
                print("stopped")
            else:
                note(f"nothing was started in {where}")
        except ControlPlaneError as error:
            complain(str(error))
            raise typer.Exit(FAILED) from None

    @dev.command()
    def status(directory: Directory = None) -> None:
        """Say whether the control plane runs, and how to reach it. Exit code 1 if it does not run."""
        from taskdist.local.controlplane import ControlPlane, ControlPlaneError

        try:
            plane = ControlPlane.load(_directory(directory))
        except ControlPlaneError as error:
            complain(f"{error}\nStart it with: {program} dev up")
            raise typer.Exit(FAILED) from None
        note(f"it runs at {plane.server}; logs in {plane.log('kube-apiserver').parent}")
        print(f"export KUBECONFIG={shlex.quote(str(plane.kubeconfig))}")

    @dev.command()
    def node(directory: Directory = None) -> None:
        """Run the control plane's pods as processes of this machine, until interrupted."""
        from taskdist.local.__main__ import main as local
        from taskdist.local.controlplane import ControlPlane, ControlPlaneError

        try:
            plane = ControlPlane.load(_directory(directory))
        except ControlPlaneError as error:
            complain(f"{error}\nStart it with: {program} dev up")
            raise typer.Exit(FAILED) from None
        raise typer.Exit(local(["podrunner", "--kubeconfig", str(plane.kubeconfig)]))
