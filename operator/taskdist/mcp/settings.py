"""Settings of the MCP door over HTTP: one frozen value, read from the environment once, at the start."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from taskdist.common.environment import Environment
from taskdist.observability.logs import LEVELS


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one process of `taskdist mcp --http`."""

    port: int = 8443
    metrics_port: int = 8080
    health_port: int = 8081
    host: str = "0.0.0.0"
    watch_namespaces: tuple[str, ...] = ()  # empty: all
    tls_cert: str = ""  # files; empty: plain HTTP, for behind something that ends TLS
    tls_key: str = ""
    hosts: tuple[str, ...] = ()  # names under which it is called, beside those of this machine
    origins: tuple[str, ...] = ()  # of pages that may call; empty: none
    view: str = ""  # where the leader's view is asked, host:port; empty: nobody is
    lease: str = ""  # NAMESPACE/NAME of the operator's Lease
    most_calls: int = 200  # at once
    most_calls_each: int = 20  # of one caller
    log_level: str = "info"
    kubeconfig: str | None = None  # None: in-cluster, or KUBECONFIG

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> "Settings":
        """Read TASKDIST_MCP_* variables.

        Raises:
            SettingsError: one is malformed, or two contradict each other.
        """
        read = Environment(env)
        ports = read.ports({"TASKDIST_MCP_PORT": 8443, "TASKDIST_METRICS_PORT": 8080, "TASKDIST_HEALTH_PORT": 8081})
        cert, key = read.together("TASKDIST_MCP_TLS_CERT", "TASKDIST_MCP_TLS_KEY", "to serve HTTPS")
        most = read.whole("TASKDIST_MCP_MOST_CALLS", 200, 1, 100_000)
        return cls(
            port=ports["TASKDIST_MCP_PORT"],
            metrics_port=ports["TASKDIST_METRICS_PORT"],
            health_port=ports["TASKDIST_HEALTH_PORT"],
            host=env.get("TASKDIST_HOST", "0.0.0.0"),
            watch_namespaces=read.names("TASKDIST_WATCH_NAMESPACES"),
            tls_cert=cert,
            tls_key=key,
            hosts=read.names("TASKDIST_MCP_HOSTS"),
            origins=read.names("TASKDIST_MCP_ORIGINS"),
            view=read.address("TASKDIST_MCP_VIEW", "") if env.get("TASKDIST_MCP_VIEW") else "",
            lease=env.get("TASKDIST_OPERATOR_LEASE", ""),
            most_calls=most,
            most_calls_each=read.whole("TASKDIST_MCP_MOST_CALLS_EACH", min(20, most), 1, most),
            log_level=read.one_of("TASKDIST_LOG_LEVEL", "info", LEVELS),
            kubeconfig=env.get("KUBECONFIG") or None,
        )
