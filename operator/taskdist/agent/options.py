"""Options of an agent: what runs its work, where the operator is, what it offers.

They are read from TASKDIST_… variables and flags; flags go first.
"""

import argparse
import math
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from taskdist.common.environment import SettingsError
from taskdist.objects.settings import ObjectSettings

# The default terminationGracePeriodSeconds of a pod, less what closing down may take.
DEFAULT_GRACE_SECONDS = 25.0

NumberT = TypeVar("NumberT", int, float)


class OptionError(ValueError):
    """The options do not make an agent; the text says which and what to do."""


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """Exactly one of `module`, `command` and `http` is set. `types` None: those of the module, or any.

    `server_name` is the name that the operator's certificate must carry, if it is not the address's.
    """

    module: str = ""
    command: tuple[str, ...] = ()
    http: str = ""
    in_process: bool = False
    types: tuple[str, ...] | None = None
    address: str = ""
    server_name: str = ""
    ca_file: Path = Path("/var/run/taskdist/ca/ca.crt")
    token_file: Path = Path("/var/run/taskdist/token/token")
    slots: int = 1
    skills: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    resources: tuple[tuple[str, int], ...] = ()
    health_port: int | None = None
    health_host: str = "0.0.0.0"
    grace_seconds: float = DEFAULT_GRACE_SECONDS
    agent: str = field(default="")
    termination_log: Path | None = None
    objects: ObjectSettings | None = None

    def check(self) -> None:
        """Raise OptionError if this is no agent."""
        modes = [name for name in ("module", "command", "http") if getattr(self, name)]
        if len(modes) != 1:
            given = " and ".join(modes) or "nothing"
            raise OptionError(f"say what runs the work: a module, --command or --http, exactly one (given: {given})")
        if self.in_process and not self.module:
            raise OptionError("--in-process is for Python modules")
        if self.http:
            _check_url(self.http)
        if not self.address:
            raise OptionError("say where the operator is: --address HOST:PORT or TASKDIST_ADDRESS")
        if self.health_port is not None and not 0 <= self.health_port <= 65535:
            raise OptionError(f"TASKDIST_HEALTH_PORT or --health-port must be from 0 to 65535, not {self.health_port}")
        if not 1 <= self.slots <= 1000:
            raise OptionError(f"TASKDIST_SLOTS or --slots must be from 1 to 1000, not {self.slots}")
        if not 0 <= self.grace_seconds < math.inf:  # false for NaN too
            raise OptionError(
                f"the grace, TASKDIST_GRACE_SECONDS, is in seconds and not negative, not {self.grace_seconds}"
            )


def options_from_env(env: Mapping[str, str] | None = None) -> AgentOptions:
    """Read the TASKDIST_… variables. Raises OptionError for one that cannot be read."""
    env = os.environ if env is None else env
    found = AgentOptions()
    words: dict[str, object] = {
        "module": env.get("TASKDIST_MODULE", ""),
        "command": split_command(env.get("TASKDIST_COMMAND", ""), "TASKDIST_COMMAND"),
        "http": env.get("TASKDIST_HTTP", ""),
        "in_process": env.get("TASKDIST_IN_PROCESS", "").lower() in ("1", "true", "yes"),
        "types": split_words(env["TASKDIST_TYPES"]) if env.get("TASKDIST_TYPES") else None,
        "address": env.get("TASKDIST_ADDRESS", ""),
        "server_name": env.get("TASKDIST_SERVER_NAME", ""),
        "ca_file": Path(env.get("TASKDIST_CA_FILE") or found.ca_file),
        "token_file": Path(env.get("TASKDIST_TOKEN_FILE") or found.token_file),
        "slots": _number(env, "TASKDIST_SLOTS", found.slots),
        "skills": split_words(env.get("TASKDIST_SKILLS", "")),
        "labels": split_pairs(env.get("TASKDIST_LABELS", ""), "TASKDIST_LABELS"),
        "resources": split_amounts(env.get("TASKDIST_RESOURCES", ""), "TASKDIST_RESOURCES"),
        "health_port": _number(env, "TASKDIST_HEALTH_PORT", -1) if env.get("TASKDIST_HEALTH_PORT") else None,
        "health_host": env.get("TASKDIST_HEALTH_HOST") or found.health_host,
        "grace_seconds": float(_number(env, "TASKDIST_GRACE_SECONDS", DEFAULT_GRACE_SECONDS)),
        "agent": env.get("TASKDIST_AGENT") or env.get("HOSTNAME", ""),
        "termination_log": Path(env["TASKDIST_TERMINATION_LOG"]) if env.get("TASKDIST_TERMINATION_LOG") else None,
    }
    try:
        words["objects"] = ObjectSettings.from_env(env)
    except SettingsError as error:
        raise OptionError(str(error)) from None
    return replace(found, **words)  # type: ignore[arg-type]  # a dict of fields of different types


def options_from_args(argv: Sequence[str], env: Mapping[str, str] | None = None) -> AgentOptions:
    """Read flags over variables, for `python -m taskdist.agent` and the end of `my_agent.py`."""
    parser = argparse.ArgumentParser(prog="taskdist agent", description="Run an agent: it takes Tasks and runs them.")
    parser.add_argument("target", nargs="?", help="Python agent: pkg.module:agent or path/to/file.py:agent")
    parser.add_argument("--module", help="the same as TARGET")
    parser.add_argument("--command", help="program and arguments: payload on stdin, result on stdout")
    parser.add_argument("--http", help="URL of a local endpoint that each Task is POSTed to")
    parser.add_argument("--in-process", action="store_true", help="handlers in this process: cannot be fenced")
    parser.add_argument("--types", help="types of Tasks to take, comma-separated")
    parser.add_argument("--address", help="HOST:PORT of the operator's link")
    parser.add_argument("--slots", type=int, help="how many Tasks of one slot run at once")
    parser.add_argument("--health-port", type=int, help="port of /readyz and /healthz")
    given = parser.parse_args(argv)
    return overridden(
        options_from_env(env),
        module=given.target or given.module or "",
        command=split_command(given.command, "--command") if given.command else None,
        http=given.http or "",
        in_process=given.in_process,
        types=split_words(given.types) if given.types else None,
        address=given.address,
        slots=given.slots,
        health_port=given.health_port,
    )


def overridden(
    options: AgentOptions,
    *,
    module: str = "",
    command: tuple[str, ...] | None = None,
    http: str = "",
    in_process: bool = False,
    types: tuple[str, ...] | None = None,
    address: str | None = None,
    slots: int | None = None,
    health_port: int | None = None,
) -> AgentOptions:
    """Return the options with those in place of theirs that a command line gives: not empty, or not None.

    What it says to run (`module`, `command`, `http`) replaces all that the options say of that.
    """
    if module or command is not None or http:
        options = replace(options, module=module, command=command or (), http=http)
    if in_process:
        options = replace(options, in_process=True)
    if types is not None:
        options = replace(options, types=types)
    if address is not None:
        options = replace(options, address=address)
    if slots is not None:
        options = replace(options, slots=slots)
    if health_port is not None:
        options = replace(options, health_port=health_port)
    return options


def split_command(text: str, origin: str) -> tuple[str, ...]:
    """`sh -c 'a b'` → its words, as a shell reads them."""
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise OptionError(f"{origin}: {text!r} cannot be read as a shell would: {error}") from None


def _check_url(url: str) -> None:
    """Refuse what no attempt could be sent to. Whether its host can be found is not known before there is work."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise OptionError(f"--http: {url!r} is no URL: {error}; write http://127.0.0.1:8000/run") from None
    wrong = ""
    if parts.scheme not in ("http", "https"):
        wrong = "it does not begin with http:// or https://"
    elif not parts.hostname:
        wrong = "it names no host"
    elif port == 0:
        wrong = "its port is 0"
    elif not url.isprintable() or " " in url:
        wrong = "it holds spaces or control characters"
    if wrong:
        raise OptionError(f"--http: {url!r} cannot be asked: {wrong}; write http://127.0.0.1:8000/run")


def split_words(text: str) -> tuple[str, ...]:
    """`a,b` → its words."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def split_pairs(text: str, origin: str) -> tuple[tuple[str, str], ...]:
    """`a=1,b=2` → its pairs."""
    pairs = []
    for word in split_words(text):
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise OptionError(f"{origin}: {word!r} is not KEY=VALUE")
        pairs.append((key.strip(), value.strip()))
    return tuple(pairs)


def split_amounts(text: str, origin: str) -> tuple[tuple[str, int], ...]:
    """`gpu=2` → named resources in whole numbers."""
    amounts = []
    for key, value in split_pairs(text, origin):
        # Longer ones int() would refuse with an error of its own; what is too much for the link is said by its codec.
        if not value.isdecimal() or len(value) > 18 or int(value) < 1:
            raise OptionError(f"{origin}: {key}={value[:40]} is not a whole number of at least 1 (18 digits at most)")
        amounts.append((key, int(value)))
    return tuple(amounts)


def _number(env: Mapping[str, str], name: str, default: NumberT) -> NumberT:
    text = env.get(name)
    if not text:
        return default
    try:
        return type(default)(text)
    except ValueError:
        raise OptionError(f"{name}={text!r} is not a number") from None
