"""What the operator is told from outside: one frozen value, read from the environment once, at the start."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass


class SettingsError(Exception):
    """A setting is missing or makes no sense; the message names it and says what to set."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one operator process. Times in seconds."""

    namespace: str  # where the operator's own Lease, Secret and Service live
    pod_name: str
    link_address: str  # what agents dial, host:port
    audience: str  # of the agents' tokens; unique to the installation
    watch_namespaces: tuple[str, ...] = ()  # empty: all
    link_port: int = 7443
    metrics_port: int = 8080
    health_port: int = 8081
    host: str = "0.0.0.0"
    ca_secret: str = "taskdist-ca"
    lease_name: str = "taskdist"
    lease_seconds: float = 15.0
    renew_seconds: float = 10.0
    retry_seconds: float = 2.0
    log_level: str = "info"
    kubeconfig: str | None = None  # None: in-cluster, or KUBECONFIG
    write_concurrency: int = 32

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

        namespace = need("TASKDIST_NAMESPACE", "set it to the namespace the operator runs in")
        lease_name = env.get("TASKDIST_LEASE", "taskdist")
        link_port = int(number("TASKDIST_LINK_PORT", 7443))
        address = env.get("TASKDIST_LINK_ADDRESS") or f"taskdist.{namespace}.svc:{link_port}"
        if not address.rsplit(":", 1)[-1].isdigit():
            raise SettingsError(f"TASKDIST_LINK_ADDRESS is {address!r}: set it to host:port, as agents dial it")
        timings = {
            "lease_seconds": number("TASKDIST_LEASE_SECONDS", 15.0),
            "renew_seconds": number("TASKDIST_RENEW_SECONDS", 10.0),
            "retry_seconds": number("TASKDIST_RETRY_SECONDS", 2.0),
        }
        if not 0 < timings["retry_seconds"] < timings["renew_seconds"] < timings["lease_seconds"]:
            raise SettingsError(
                "the leader's times must satisfy 0 < TASKDIST_RETRY_SECONDS < TASKDIST_RENEW_SECONDS < "
                f"TASKDIST_LEASE_SECONDS; they are {timings['retry_seconds']:g}, {timings['renew_seconds']:g} and "
                f"{timings['lease_seconds']:g}"
            )
        return cls(
            namespace=namespace,
            pod_name=env.get("TASKDIST_POD_NAME") or socket.gethostname(),
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
            **timings,
        )
