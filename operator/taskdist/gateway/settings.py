"""What the gateway is told from outside: one frozen value, read from the environment once, at the start."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from taskdist.common.environment import Environment, SettingsError
from taskdist.observability.logs import LEVELS


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one gateway process."""

    port: int = 8443
    metrics_port: int = 8080
    health_port: int = 8081
    host: str = "0.0.0.0"
    watch_namespaces: tuple[str, ...] = ()  # empty: all
    tls_cert: str = ""  # files; empty: plain HTTP, for behind something that ends TLS
    tls_key: str = ""
    root_path: str = ""  # what a proxy in front cuts off
    view: str = ""  # where the leader's view is asked, host:port; empty: nobody is
    lease: str = ""  # NAMESPACE/NAME of the operator's Lease
    most_waiting: int = 10_000  # requests that wait or stream at once
    webhook_namespaces: tuple[str, ...] = ()  # whose webhooks are served; empty: none
    log_level: str = "info"
    kubeconfig: str | None = None  # None: in-cluster, or KUBECONFIG

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> "Settings":
        """Read TASKDIST_GATEWAY_* variables.

        Raises:
            SettingsError: one is malformed, or two contradict each other.
        """
        read = Environment(env)
        ports = read.ports({"TASKDIST_GATEWAY_PORT": 8443, "TASKDIST_METRICS_PORT": 8080, "TASKDIST_HEALTH_PORT": 8081})
        cert, key = read.together("TASKDIST_GATEWAY_TLS_CERT", "TASKDIST_GATEWAY_TLS_KEY", "to serve HTTPS")
        root = env.get("TASKDIST_GATEWAY_ROOT_PATH", "").rstrip("/")
        if root and not root.startswith("/"):
            raise SettingsError(f"TASKDIST_GATEWAY_ROOT_PATH is {root!r}: let it begin with a slash")
        return cls(
            port=ports["TASKDIST_GATEWAY_PORT"],
            metrics_port=ports["TASKDIST_METRICS_PORT"],
            health_port=ports["TASKDIST_HEALTH_PORT"],
            host=env.get("TASKDIST_HOST", "0.0.0.0"),
            watch_namespaces=read.names("TASKDIST_WATCH_NAMESPACES"),
            tls_cert=cert,
            tls_key=key,
            root_path=root,
            view=read.address("TASKDIST_GATEWAY_VIEW", "") if env.get("TASKDIST_GATEWAY_VIEW") else "",
            lease=env.get("TASKDIST_OPERATOR_LEASE", ""),
            most_waiting=read.whole("TASKDIST_GATEWAY_MOST_WAITING", 10_000, 1, 1_000_000),
            webhook_namespaces=read.names_among("TASKDIST_GATEWAY_WEBHOOK_NAMESPACES", "TASKDIST_WATCH_NAMESPACES"),
            log_level=read.one_of("TASKDIST_LOG_LEVEL", "info", LEVELS),
            kubeconfig=env.get("KUBECONFIG") or None,
        )
