"""The messages between operator and agent, and the names of leases, as plain values.

How they look on the wire is the link's business; they bear the names that the public format (`link.proto`) gives them.

Times named `boot` are seconds on the sender's CLOCK_BOOTTIME: only differences on one machine mean anything.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from taskdist.api import Reason
from taskdist.api.objects import JSON

PROTOCOL_VERSION = 2  # the newest that this release speaks
OLDEST_VERSION = PROTOCOL_VERSION - 1
# The reason of a `Refused` where both ends have no version in common. Releases that speak version 1 only say it too.
VERSION_REFUSED = "ProtocolVersion"


def spoken_version(newest: int, oldest: int) -> int | None:
    """Return the version that a session with an agent of these versions speaks; None if there is none in common.

    Args:
        newest: the newest that the agent speaks.
        oldest: the oldest that it speaks; 0: it speaks one version only.
    """
    version = min(newest, PROTOCOL_VERSION)
    return version if version >= max(oldest or newest, OLDEST_VERSION) else None


def are_two_leaderships(one: str, other: str) -> bool:
    """Return whether these names tell of two leaderships. An empty name is unknown, and tells nothing."""
    return bool(one and other and one != other)


def part_uid(array: str, key: str) -> str:
    """Return the uid of a part: that of its array, a dot, and its key. The API server's own have no dot."""
    return f"{array}.{key}"


def array_uid(uid: str) -> str:
    """Return the uid of the object that holds this Task's status: the array of a part, else the Task itself."""
    return uid.partition(".")[0]


class LeaseName(NamedTuple):
    """The name of a lease. A result under another name than the Task's latest attempt is stale."""

    task_uid: str
    attempt: int
    epoch: int


class ObjectRef(NamedTuple):
    """An object in a store, and what it must hold. The operator passes it on, and never asks the store."""

    uri: str
    size: int
    sha256: str
    content_type: str = JSON

    def to_wire(self) -> dict[str, str | int]:
        """Return it as it stands on a resource."""
        return {"uri": self.uri, "size": self.size, "sha256": self.sha256, "contentType": self.content_type}


Body = bytes | ObjectRef
"""A JSON object, by value (UTF-8) or by reference."""


def as_value(body: Body) -> bytes:
    """Return the JSON object for who knows no references to objects: they look like those to Tasks."""
    return b'{"$ref":"%s"}' % body.uri.encode() if isinstance(body, ObjectRef) else body


def by_value(body: Body) -> bytes:
    """Return the bytes of what stands here by value. A reference here is a fault of the caller."""
    if isinstance(body, ObjectRef):
        raise TypeError(f"{body.uri} was not fetched")
    return body


class Verdict(StrEnum):
    """The operator's final word on a result or failure; the agent then drops it."""

    ACCEPTED = "Accepted"
    ALREADY_FINAL = "AlreadyFinal"
    STALE = "Stale"
    GONE = "Gone"


# --- agent → operator ---


@dataclass(frozen=True, slots=True)
class HeldLease:
    """Details of a lease in a hello: with them a leader that did not grant it can count it and read its Task."""

    lease: LeaseName
    namespace: str
    name: str
    lease_seconds: float
    hold_seconds: float
    execution_seconds: float = 0.0
    progress_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Hello:
    """First message of a session. `leases` is exactly what the agent holds or keeps a result of.

    The agent sends nothing else before `Welcome`, and then a `Ping` first: so the operator acts on a hello only once
    it knows that the sender lives, has seen the epoch, and has given up its former session.
    `held` says more about each of `leases`. `started` is the Unix time at which the agent process started, on its
    node's clock: for people, and for operators that speak version 1.
    `protocol_version` is the newest that the agent speaks, `oldest_version` the oldest (0: the same). `highest_epoch`
    is the highest that a Welcome or Grant has shown it, and `leadership` the name that came with it.

    `instance_id` is random per start of the agent process. `types` None: takes any type. Slots, resources, skills
    and labels are wishes: the operator clamps them to what the pool allows. `objects`: it fetches payloads from an
    object store, and puts results there.
    """

    protocol_version: int
    instance_id: str
    slots: int
    boot: float
    resources: tuple[tuple[str, int], ...] = ()
    skills: tuple[str, ...] = ()
    types: tuple[str, ...] | None = None
    labels: tuple[tuple[str, str], ...] = ()
    fenced: bool = True
    draining: bool = False
    leases: tuple[LeaseName, ...] = ()
    software: str = ""
    held: tuple[HeldLease, ...] = ()
    started: float = 0.0
    oldest_version: int = 0
    highest_epoch: int = 0
    leadership: str = ""
    objects: bool = False
    arrays: bool = False  # it takes chunks of an array's items


@dataclass(frozen=True, slots=True)
class Ping:
    """A sign of life, sent every second or so. `boot` is the agent's time of sending; grants and renewals echo it."""

    boot: float


@dataclass(frozen=True, slots=True)
class Started:
    """The handler of this lease runs. It started `since_start` seconds before this was sent."""

    lease: LeaseName
    since_start: float = 0.0


@dataclass(frozen=True, slots=True)
class Progress:
    """A report of progress by the handler: `fraction` is from 0 to 1."""

    lease: LeaseName
    fraction: float
    message: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """The handler returned. `body` is a JSON object. `since_start` counts from its start to this sending, in
    seconds; 0: not known. `used`: what the attempt used of budgets, by their names; one not named: as much as was
    taken."""

    lease: LeaseName
    body: Body = b"{}"
    since_start: float = 0.0
    used: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """The attempt ended without a result. `retryable` False: trying again would fail the same way. `used` as in a
    result. `retry_after`: with the reason Throttled, after how many seconds another try is asked for."""

    lease: LeaseName
    reason: Reason
    message: str
    retryable: bool = True
    since_start: float = 0.0
    used: tuple[tuple[str, int], ...] = ()
    retry_after: float = 0.0


@dataclass(frozen=True, slots=True)
class Stopped:
    """The work of this lease no longer runs and left no result: cancelled, given back on drain, dead on arrival,
    refused for lack of slots. `ran` False: no user code ever ran under this lease."""

    lease: LeaseName
    message: str = ""
    ran: bool = True


@dataclass(frozen=True, slots=True)
class Draining:
    """The agent takes no new work any more, as it was told to stop."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """A change of the agent's offer: slots, and named resources in whole numbers, from now on."""

    slots: int
    resources: tuple[tuple[str, int], ...] = ()


FromAgent = Hello | Ping | Started | Progress | Result | Failure | Stopped | Draining | Capacity


# --- operator → agent ---


@dataclass(frozen=True, slots=True)
class Welcome:
    """Answer to hello: the epoch of the leadership and what the agent was clamped to.

    `draining`: no new work will come, until a `Drain` takes that back or another welcome says otherwise.
    `protocol_version` is what this session speaks. `leadership` is random for each leadership: it tells two of one
    epoch apart.
    """

    epoch: int
    slots: int
    ping_seconds: float = 1.0
    draining: bool = False
    protocol_version: int = 1
    leadership: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """Answer to hello or to a broken rule; the session ends. `retry` False: do not try again as you are."""

    reason: str
    message: str
    retry: bool = True


@dataclass(frozen=True, slots=True)
class ParentResult:
    """The end of a Task that the granted one depends on: its phase, empty if it was deleted before its end.

    `result` is a JSON object; empty if there is none.
    """

    name: str
    phase: str
    result: Body = b""


@dataclass(frozen=True, slots=True)
class Chunk:
    """The items of a grant of part of an array, which the handler gets one by one. The result is of all of them.

    `spans` are runs of indexes, both ends included; `count` is how many items the array has. `payloads` are those of
    the items in their order, JSON objects in UTF-8; empty: each gets the grant's.
    """

    spans: tuple[tuple[int, int], ...]
    count: int
    payloads: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Grant:
    """A lease. It runs until `ping_boot` (the agent's own clock) + `lease_seconds`; so a late one arrives dead.

    From its start the handler may run for `execution_seconds`, and for `progress_seconds` without a report of progress;
    0: no limit.
    """

    lease: LeaseName
    namespace: str
    name: str
    type: str
    slots: int
    ping_boot: float
    lease_seconds: float
    hold_seconds: float
    resources: tuple[tuple[str, int], ...] = ()
    payload: Body = b"{}"
    parents: tuple[ParentResult, ...] = ()
    execution_seconds: float = 0.0
    progress_seconds: float = 0.0
    chunk: Chunk | None = None


@dataclass(frozen=True, slots=True)
class Renew:
    """The answer to a ping: these leases, and no others, run until `ping_boot` + their own lease_seconds."""

    epoch: int
    ping_boot: float
    leases: tuple[LeaseName, ...] = ()


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop the work of this lease; answer with `Stopped`, or with the result if it is already there."""

    lease: LeaseName
    reason: Reason
    message: str = ""


@dataclass(frozen=True, slots=True)
class Drain:
    """The agent gets no more work, and its pod is deleted once it holds no lease. `undo` takes that back."""

    undo: bool = False


@dataclass(frozen=True, slots=True)
class Hold:
    """The leader loses its leadership. Leases of this epoch or older go on until their last renewal + hold_seconds."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Final:
    """The final reply to a result or failure."""

    lease: LeaseName
    verdict: Verdict
    message: str = ""


ToAgent = Welcome | Refused | Grant | Renew | Cancel | Drain | Hold | Final


@dataclass(frozen=True, slots=True)
class AgentIdentity:
    """The pod that an agent runs in, and its pool: vouched for by the API server, never by the agent."""

    pod_uid: str
    pod_name: str
    namespace: str
    pool: str
    pool_uid: str = field(default="")
