"""What the operator is told from outside: one frozen value, read from the environment once, at the start."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

from taskdist.controller.succession import DEFAULT_LEASE_SECONDS, Succession
from taskdist.kube import Timing


class SettingsError(Exception):
    """A setting is missing or makes no sense; the message names it and says what to set."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one operator process. Times in seconds."""

    namespace: str  # where the operator's own Lease, Secret and Service live
    pod_name: str
    pod_uid: str  # of the pod that this process runs in; empty outside of one
    link_address: str  # what agents dial, host:port
    audience: str  # of the agents' tokens; unique to the installation
    watch_namespaces: tuple[str, ...] = ()  # empty: all
    link_port: int = 7443
    metrics_port: int = 8080
    health_port: int = 8081
    host: str = "0.0.0.0"
    ca_secret: str = "taskdist-ca"
    lease_name: str = "taskdist"
    timing: Timing = field(default_factory=Timing)
    allow_short_leases: bool = False
    log_level: str = "info"
    kubeconfig: str | None = None  # None: in-cluster, or KUBECONFIG
    write_concurrency: int = 32

    @property
    def least_lease(self) -> int:
        """The shortest `leaseSeconds` that queues may have; a shorter one counts as this. 0: any."""
        return 0 if self.allow_short_leases else Succession(self.timing).least_lease

    @property
    def link_host(self) -> str:
        """The name that agents expect in the link's certificate."""
        return self.link_address.rsplit(":", 1)[0]

    @property
    def link_names(self) -> tuple[str, ...]:
        """The names that the link's certificate is made for."""
        return tuple(dict.fromkeys((self.link_host, "localhost", "127.0.0.1")))

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> "Settings":
        """Read TASKDIST_* variables.

        Raises:
            SettingsError: one is missing or malformed.
        """

        def need(name: str, hint: str) -> str:
            value = env.get(name, "")
            if not value:
                raise SettingsError(f"{name} is not set: {hint}")
            return value

        def number(name: str, default: float) -> float:
            value = env.get(name, "")
            if not value:
                return default
            try:
                parsed = float(value)
            except ValueError:
                raise SettingsError(f"{name} is {value!r}: set it to a number") from None
            if parsed < 0:
                raise SettingsError(f"{name} is {value!r}: it must not be negative")
            return parsed

        def flag(name: str) -> bool:
            value = env.get(name, "").lower()
            if value not in ("", "true", "false"):
                raise SettingsError(f"{name} is {value!r}: set it to true or false")
            return value == "true"

        namespace = need("TASKDIST_NAMESPACE", "set it to the namespace the operator runs in")
        lease_name = env.get("TASKDIST_LEASE", "taskdist")
        link_port = int(number("TASKDIST_LINK_PORT", 7443))
        address = env.get("TASKDIST_LINK_ADDRESS") or f"taskdist.{namespace}.svc:{link_port}"
        if not address.rsplit(":", 1)[-1].isdigit():
            raise SettingsError(f"TASKDIST_LINK_ADDRESS is {address!r}: set it to host:port, as agents dial it")
        allow_short_leases = flag("TASKDIST_ALLOW_SHORT_LEASES")
        shipped = Timing()
        timing = _timing(
            number("TASKDIST_LEASE_SECONDS", shipped.lease),
            number("TASKDIST_RENEW_SECONDS", shipped.renew_deadline),
            number("TASKDIST_RETRY_SECONDS", shipped.retry),
            allow_short_leases,
        )
        return cls(
            namespace=namespace,
            pod_name=env.get("TASKDIST_POD_NAME") or socket.gethostname(),
            pod_uid=env.get("TASKDIST_POD_UID", ""),
            link_address=address,
            audience=env.get("TASKDIST_AUDIENCE") or f"taskdist.dev/{namespace}/{lease_name}",
            watch_namespaces=tuple(n.strip() for n in env.get("TASKDIST_WATCH_NAMESPACES", "").split(",") if n.strip()),
            link_port=link_port,
            metrics_port=int(number("TASKDIST_METRICS_PORT", 8080)),
            health_port=int(number("TASKDIST_HEALTH_PORT", 8081)),
            host=env.get("TASKDIST_HOST", "0.0.0.0"),
            ca_secret=env.get("TASKDIST_CA_SECRET", "taskdist-ca"),
            lease_name=lease_name,
            log_level=env.get("TASKDIST_LOG_LEVEL", "info"),
            kubeconfig=env.get("KUBECONFIG") or None,
            write_concurrency=int(number("TASKDIST_WRITE_CONCURRENCY", 32)) or 32,
            timing=timing,
            allow_short_leases=allow_short_leases,
        )


def _timing(lease: float, renew: float, retry: float, allow_short_leases: bool) -> Timing:
    """The leader election's times, if they fit together and queues' leases outlast a change of leader."""
    try:
        timing = Timing(lease, renew, retry)
    except ValueError:
        raise SettingsError(
            "the leader's times must satisfy 0 < TASKDIST_RETRY_SECONDS < TASKDIST_RENEW_SECONDS < 0.98 of "
            f"TASKDIST_LEASE_SECONDS; they are {retry:g}, {renew:g} and {lease:g}"
        ) from None
    succession = Succession(timing)
    if not allow_short_leases and not succession.outlasted_by(DEFAULT_LEASE_SECONDS):
        raise SettingsError(
            f"TASKDIST_LEASE_SECONDS is {lease:g}: after the death of a leader agents could be without one for "
            f"{succession.longest:.3g} s, and with a queue's leaseSeconds of {DEFAULT_LEASE_SECONDS} (the default) "
            f"they would have stopped their work by then. Set it to {succession.longest_leadership} or less, with "
            "TASKDIST_RENEW_SECONDS below it; or set TASKDIST_ALLOW_SHORT_LEASES=true to accept that a killed leader "
            "costs attempts"
        )
    return timing
