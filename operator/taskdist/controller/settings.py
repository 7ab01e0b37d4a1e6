"""The operator's settings: one frozen value, read from the environment once, at the start."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from taskdist.common.environment import Environment, SettingsError
from taskdist.controller.succession import DEFAULT_LEASE_SECONDS, Succession
from taskdist.kube import Timing
from taskdist.observability.logs import LEVELS

# Of the leader election: below, renewals would fill the API server; above, nobody would wait for a successor.
LEAST_SECONDS: Final = 0.05
MOST_SECONDS: Final = 3600.0
MOST_WRITES: Final = 1000
_PORTS: Final = {
    "TASKDIST_LINK_PORT": 7443,
    "TASKDIST_METRICS_PORT": 8080,
    "TASKDIST_HEALTH_PORT": 8081,
    "TASKDIST_VIEW_PORT": 9446,
}


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one operator process. Times in seconds."""

    namespace: str  # where the operator's own Lease, Secret and Service live
    pod_name: str
    pod_uid: str  # of the pod that this process runs in; empty outside of one
    link_address: str  # what agents dial, host:port
    audience: str  # of the agents' tokens; unique to the installation
    view_address: str = "localhost:9446"  # where the leader's view is asked, host:port
    watch_namespaces: tuple[str, ...] = ()  # empty: all
    link_port: int = 7443
    metrics_port: int = 8080
    health_port: int = 8081
    view_port: int = 9446
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
    def served_names(self) -> tuple[str, ...]:
        """The names that the certificate is made for, which the link and the view serve."""
        view_host = self.view_address.rsplit(":", 1)[0]
        return tuple(dict.fromkeys((self.link_host, view_host, "localhost", "127.0.0.1")))

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> "Settings":
        """Read TASKDIST_* variables.

        Raises:
            SettingsError: one is missing or malformed, or two contradict each other.
        """
        read = Environment(env)
        namespace = read.needed("TASKDIST_NAMESPACE", "set it to the namespace the operator runs in")
        lease_name = env.get("TASKDIST_LEASE", "taskdist")
        ports = read.ports(_PORTS)
        link_port, view_port = ports["TASKDIST_LINK_PORT"], ports["TASKDIST_VIEW_PORT"]
        allow_short_leases = read.flag("TASKDIST_ALLOW_SHORT_LEASES")
        return cls(
            namespace=namespace,
            pod_name=env.get("TASKDIST_POD_NAME") or socket.gethostname(),
            pod_uid=env.get("TASKDIST_POD_UID", ""),
            link_address=read.address("TASKDIST_LINK_ADDRESS", f"taskdist.{namespace}.svc:{link_port}"),
            audience=env.get("TASKDIST_AUDIENCE") or f"taskdist.dev/{namespace}/{lease_name}",
            view_address=read.address("TASKDIST_VIEW_ADDRESS", f"taskdist-view.{namespace}.svc:{view_port}"),
            watch_namespaces=read.names("TASKDIST_WATCH_NAMESPACES"),
            link_port=link_port,
            metrics_port=ports["TASKDIST_METRICS_PORT"],
            health_port=ports["TASKDIST_HEALTH_PORT"],
            view_port=view_port,
            host=env.get("TASKDIST_HOST", "0.0.0.0"),
            ca_secret=env.get("TASKDIST_CA_SECRET", "taskdist-ca"),
            lease_name=lease_name,
            log_level=read.one_of("TASKDIST_LOG_LEVEL", "info", LEVELS),
            kubeconfig=env.get("KUBECONFIG") or None,
            write_concurrency=read.whole("TASKDIST_WRITE_CONCURRENCY", 32, 1, MOST_WRITES),
            timing=_timing(read, allow_short_leases),
            allow_short_leases=allow_short_leases,
        )


def _seconds(read: Environment, name: str, default: float) -> float:
    return read.seconds(name, default, LEAST_SECONDS, MOST_SECONDS)


def _timing(read: Environment, allow_short_leases: bool) -> Timing:
    """Return the leader election's times, if they fit together and queues' leases outlast a change of leader."""
    shipped = Timing()
    lease = _seconds(read, "TASKDIST_LEASE_SECONDS", shipped.lease)
    renew = _seconds(read, "TASKDIST_RENEW_SECONDS", shipped.renew_deadline)
    retry = _seconds(read, "TASKDIST_RETRY_SECONDS", shipped.retry)
    try:
        timing = Timing(lease, renew, retry)
    except ValueError:
        raise SettingsError(
            "the leader's times must satisfy TASKDIST_RETRY_SECONDS < TASKDIST_RENEW_SECONDS < 0.98 of "
            f"TASKDIST_LEASE_SECONDS; they are {retry:g}, {renew:g} and {lease:g}. Set what was set by hand so, or "
            f"leave all three unset: {shipped.retry:g}, {shipped.renew_deadline:g} and {shipped.lease:g}"
        ) from None
    succession = Succession(timing)
    if not allow_short_leases and not succession.outlasted_by(DEFAULT_LEASE_SECONDS):
        most = succession.longest_leadership
        if retry < most * (1 - shipped.drift):
            mend = f"Set TASKDIST_LEASE_SECONDS to {most} or less, with TASKDIST_RENEW_SECONDS below 0.98 of it"
        else:
            # No lease goes with so long a pause between renewals.
            mend = (
                "Leave TASKDIST_LEASE_SECONDS, TASKDIST_RENEW_SECONDS and TASKDIST_RETRY_SECONDS unset "
                f"({shipped.lease:g}, {shipped.renew_deadline:g} and {shipped.retry:g})"
            )
        raise SettingsError(
            f"TASKDIST_LEASE_SECONDS is {lease:g} and TASKDIST_RETRY_SECONDS is {retry:g}: after the death of a "
            f"leader agents could be without one for {succession.longest:.3g} s, and with a queue's leaseSeconds of "
            f"{DEFAULT_LEASE_SECONDS} (the default) they would have stopped their work by then. {mend}; or set "
            "TASKDIST_ALLOW_SHORT_LEASES=true to accept that a killed leader costs attempts"
        )
    return timing
