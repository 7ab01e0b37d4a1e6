"""The agent's composition root: builds the supervisor from options and lets it run. Nothing is decided here."""

import asyncio
import secrets
import shlex
import shutil
import signal
import sys
import time
from contextlib import AsyncExitStack, suppress
from functools import partial

from structlog.typing import FilteringBoundLogger

import taskdist
from taskdist.agent.health import HealthServer
from taskdist.agent.logs import make_logger
from taskdist.agent.options import AgentOptions, OptionError
from taskdist.agent.pool import WorkerPool
from taskdist.agent.processes import adopt_orphans
from taskdist.agent.supervisor import EXIT_CANNOT_START, EXIT_USAGE, Supervisor
from taskdist.agent.transport import Endpoint, GrpcConnector, fault
from taskdist.agent.work import Executor, Offered
from taskdist.common.environment import SettingsError
from taskdist.protocol import instances
from taskdist.protocol.agent import AgentEnd
from taskdist.protocol.messages import PROTOCOL_VERSION, Hello
from taskdist.protocol.settings import AgentSettings, Capabilities


def run_agent(options: AgentOptions) -> int:
    """Run an agent until SIGTERM or SIGINT; return the exit code of the process. Raises OptionError."""
    options.check()
    check_offer(options)
    started = time.time()
    # What a worker's descendants leave behind comes to this process, which ends it.
    adopt_orphans()
    log = make_logger(agent=options.agent)
    return asyncio.run(_run(options, started, log))


async def _run(options: AgentOptions, started: float, log: FilteringBoundLogger) -> int:
    settings = AgentSettings()
    connector = GrpcConnector(
        Endpoint(options.address, options.ca_file, options.token_file, options.server_name), log.bind(part="link")
    )
    supervisor = Supervisor(
        partial(make_end, options, started, settings), make_executor(options, log), connector, log, settings=settings
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, supervisor.stop, options.grace_seconds)
    async with AsyncExitStack() as stack:
        if options.health_port is not None:
            health = HealthServer(supervisor.not_ready, options.health_port, options.health_host)
            try:
                port = await health.start()
            except OSError as error:
                log.error("the probes' port cannot be used", port=options.health_port, error=str(error))
                return EXIT_CANNOT_START
            stack.push_async_callback(health.stop)
            log.info("probes are answered", port=port)
        return await supervisor.run()


def make_end(options: AgentOptions, started: float, settings: AgentSettings, offered: Offered) -> AgentEnd:
    """Build the protocol's end. `--types` narrows what the work can take."""
    types = offered.types
    if options.types is not None:
        types = tuple(name for name in options.types if types is None or name in types)
    offer = Capabilities(
        slots=options.slots,
        resources=options.resources,
        skills=options.skills,
        types=types,
        labels=options.labels,
        fenced=offered.fenced,
        software=f"taskdist/{taskdist.__version__} python/{sys.version_info.major}.{sys.version_info.minor}",
        started=started,
        objects=options.objects is not None,
        arrays=offered.arrays,
    )
    instance = secrets.token_hex(16)
    if options.termination_log is not None:
        # Without it the end of this process is known by its successor's hello, or when the lease ends.
        with suppress(OSError):
            options.termination_log.write_text(instances.last_words(instance), encoding="ascii")
    return AgentEnd(instance, offer, settings)


def check_offer(options: AgentOptions) -> None:
    """Raise OptionError for what the operator would refuse to hear: the agent could never open a session."""
    wrong = fault(
        Hello(
            PROTOCOL_VERSION, "x", options.slots, 0.0, options.resources, options.skills, options.types, options.labels
        )
    )
    if wrong:
        raise OptionError(f"the operator would not take this agent: {wrong}")


def make_executor(options: AgentOptions, log: FilteringBoundLogger) -> Executor:
    """Build what runs the work. Raises OptionError for a command that does not exist, or a store without its extra."""
    inner = _make_inner(options, log)
    if options.objects is None:
        return inner
    # Imported where it is used: most agents have no store.
    from taskdist.agent.by_reference import ByReference
    from taskdist.objects.transfer import connect

    foreign = bool(options.command or options.http)
    try:
        return ByReference(inner, connect(options.objects), parents=not options.command, checks=foreign)
    except SettingsError as error:
        raise OptionError(str(error)) from None


def _make_inner(options: AgentOptions, log: FilteringBoundLogger) -> Executor:
    if options.http:
        # Imported where it is used: an HTTP client is a large part of a small agent's memory.
        from taskdist.agent.http import HttpEndpoint

        return HttpEndpoint(options.http, options.types)
    if options.in_process:
        from taskdist.agent.in_process import InProcess

        return InProcess(options.module, options.slots, agent=options.agent)
    if options.command:
        if shutil.which(options.command[0]) is None:
            raise OptionError(
                f"there is no program {options.command[0]!r} (of --command {shlex.join(options.command)})"
            )
        mode, target = "command", list(options.command)
    else:
        mode, target = "module", [options.module]
    return WorkerPool(mode, target, options.slots, log, agent=options.agent, adopts_orphans=True)


def main(argv: list[str]) -> int:
    """Run `python -m taskdist.agent`."""
    from taskdist.agent.options import options_from_args

    try:
        return run_agent(options_from_args(argv))
    except OptionError as error:
        print(f"taskdist agent: {error}", file=sys.stderr)
        return EXIT_USAGE
