"""Actions of the agent's end: values between it, the link and the processes that do the work."""

from dataclasses import dataclass

from taskdist.api import Reason
from taskdist.protocol.messages import FromAgent, Grant, LeaseName


@dataclass(frozen=True, slots=True)
class SendUp:
    """Send to the operator, on the present session."""

    message: FromAgent


@dataclass(frozen=True, slots=True)
class StartWork:
    """Start a child process for this lease. Answered by `started`, then `finished`, `failed` or `stopped`."""

    grant: Grant


@dataclass(frozen=True, slots=True)
class CancelWork:
    """Ask the work to stop (the handler's `cancelled` turns true); `KillWork` follows if it does not."""

    lease: LeaseName
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class KillWork:
    """Kill the work's whole process group now. Answered by `stopped` once nothing of it runs."""

    lease: LeaseName


@dataclass(frozen=True, slots=True)
class Disconnect:
    """End the session and connect again, with back-off."""

    reason: str


@dataclass(frozen=True, slots=True)
class Exit:
    """End the process: it was told to go, holds no work, and has nothing left to deliver.

    `refused`: the operator does not take this agent as it is."""

    message: str
    refused: bool = False


AgentAction = SendUp | StartWork | CancelWork | KillWork | Disconnect | Exit
