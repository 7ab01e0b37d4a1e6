"""The commands that run something: an agent, the operator, and by `dev` a control plane on this machine."""

from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

import taskdist
from taskdist.cli import dev
from taskdist.cli.options import Context, Kubeconfig, Namespace, examples
from taskdist.cli.run import FAILED, USAGE, complain, configured, extra


class _RunUnlessNamed(TyperGroup):
    """`agent` runs an agent, as it always did; only what follows it as the name of a command is another one."""

    default = "run"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = bool(args) and args[0] in self.commands
        return super().parse_args(ctx, args if named else [self.default, *args])


_HELP = {"help_option_names": ["-h", "--help"]}

AgentTarget = Annotated[
    str | None,
    typer.Argument(
        metavar="[MODULE:NAME]", help="Python agent, as package.module:name or file.py:name.", show_default=False
    ),
]


def add(app: typer.Typer, program: str) -> None:
    """Add the commands."""
    agents = typer.Typer(cls=_RunUnlessNamed, context_settings=_HELP)
    app.add_typer(agents, name="agent", rich_help_panel="Processes", help="Run an agent, or try a handler.")
    _add_agent_run(agents, program)
    _add_agent_try(agents, program)
    _add_operator(app, program)
    _add_gateway(app, program)
    _add_mcp(app, program)
    _add_version(app)
    dev.add(app, program)


def _add_agent_run(agents: typer.Typer, program: str) -> None:
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
        target: AgentTarget = None,
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
        from taskdist.agent.options import OptionError, options_from_env, overridden, split_command, split_words
        from taskdist.agent.runner import run_agent

        try:
            options = overridden(
                options_from_env(),
                module=target or "",
                command=split_command(command, "--command") if command else None,
                http=http or "",
                in_process=in_process,
                types=split_words(types) if types else None,
                address=address or None,
                slots=slots,
                health_port=health_port,
            )
            code = run_agent(options)
        except (OptionError, ValueError) as error:
            complain(f"{error}\nSee: {program} agent --help")
            code = USAGE
        raise typer.Exit(code)


def _add_agent_try(agents: typer.Typer, program: str) -> None:
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
        target: AgentTarget = None,
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


def _add_operator(app: typer.Typer, program: str) -> None:
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
        with extra("operator"):
            from taskdist.controller.main import run as run_operator
            from taskdist.controller.settings import Settings

        raise typer.Exit(run_operator(configured(Settings.from_env)))


def _add_gateway(app: typer.Typer, program: str) -> None:
    @app.command(
        rich_help_panel="Processes",
        epilog=examples(
            (
                "here, against the cluster of a kubeconfig whose user is a service account",
                f"KUBECONFIG=gateway.kubeconfig TASKDIST_GATEWAY_PORT=8443 {program} gateway",
            ),
        ),
    )
    def gateway() -> None:
        """Run the HTTP door, as the chart's Deployment does. Its settings are TASKDIST_… variables.

        Tasks in, results out, with the callers' own tokens. What it answers is described at /docs.
        """
        with extra("gateway"):
            from taskdist.gateway.main import run as run_gateway
            from taskdist.gateway.settings import Settings

        raise typer.Exit(run_gateway(configured(Settings.from_env)))


def _add_mcp(app: typer.Typer, program: str) -> None:
    @app.command(
        rich_help_panel="Processes",
        epilog=examples(
            ("what an agent's configuration starts", f"{program} mcp --namespace demo"),
            ("through the HTTP door: Tasks only", f"TASKDIST_GATEWAY=https://tasks.example.com {program} mcp"),
            ("for all, with their own tokens, as the chart's Deployment does", f"{program} mcp --http"),
        ),
    )
    def mcp(
        namespace: Namespace = None,
        context: Context = None,
        kubeconfig: Kubeconfig = None,
        http: bool = typer.Option(
            False,
            "--http",
            help="Serve over HTTP, each caller with a token of theirs; settings are TASKDIST_… variables.",
        ),
    ) -> None:
        """Serve agents that speak MCP, on standard input and output, with the rights of the kubeconfig or the pod.

        Tools: task-queue, load-balancer, scheduler and others; resources: reports of queues, pools and periods.
        """
        if http:
            if namespace or context or kubeconfig:
                complain("--http takes no other option: the namespace is in the path, and KUBECONFIG names the cluster")
                raise typer.Exit(USAGE)
            _serve_mcp_over_http()
        with extra("mcp"):
            from taskdist.mcp.main import run as serve

        if why := serve(namespace, kubeconfig, context):
            complain(why)
            raise typer.Exit(FAILED)


def _serve_mcp_over_http() -> NoReturn:
    with extra("mcp"):
        from taskdist.mcp.http import run
        from taskdist.mcp.settings import Settings

    raise typer.Exit(run(configured(Settings.from_env)))


def _add_version(app: typer.Typer) -> None:
    @app.command(rich_help_panel="Processes")
    def version() -> None:
        """Print the version."""
        print(f"taskdist {taskdist.__version__}")
