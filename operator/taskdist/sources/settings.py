"""The settings of the process: one frozen value, read from the environment once, at the start."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from taskdist.common.environment import Environment
from taskdist.observability.logs import LEVELS


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one process."""

    namespace: str  # where its Lease lives
    pod_name: str
    pod_uid: str = ""  # of the pod that it runs in; empty outside of one
    lease_name: str = "taskdist-sources"
    watch_namespaces: tuple[str, ...] = ()  # empty: all
    identity_namespaces: tuple[str, ...] = ()  # whose sources may act as this process at AWS; "*": all
    metrics_port: int = 8080
    health_port: int = 8081
    host: str = "0.0.0.0"
    log_level: str = "info"
    kubeconfig: str | None = None  # None: in-cluster, or KUBECONFIG

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> "Settings":
        """Read TASKDIST_SOURCES_* variables, and those that all processes have.

        Raises:
            SettingsError: one is missing or malformed, or two contradict each other.
        """
        read = Environment(env)
        ports = read.ports({"TASKDIST_SOURCES_METRICS_PORT": 8080, "TASKDIST_SOURCES_HEALTH_PORT": 8081})
        return cls(
            namespace=read.needed("TASKDIST_NAMESPACE", "set it to the namespace that this process runs in"),
            pod_name=env.get("TASKDIST_POD_NAME") or socket.gethostname(),
            pod_uid=env.get("TASKDIST_POD_UID", ""),
            lease_name=env.get("TASKDIST_SOURCES_LEASE") or "taskdist-sources",
            watch_namespaces=read.names("TASKDIST_SOURCES_NAMESPACES"),
            identity_namespaces=read.names_among(
                "TASKDIST_SOURCES_IDENTITY_NAMESPACES", "TASKDIST_SOURCES_NAMESPACES", beside=("*",)
            ),
            metrics_port=ports["TASKDIST_SOURCES_METRICS_PORT"],
            health_port=ports["TASKDIST_SOURCES_HEALTH_PORT"],
            host=env.get("TASKDIST_SOURCES_HOST") or "0.0.0.0",
            log_level=read.one_of("TASKDIST_LOG_LEVEL", "info", LEVELS),
            kubeconfig=env.get("KUBECONFIG") or None,
        )
