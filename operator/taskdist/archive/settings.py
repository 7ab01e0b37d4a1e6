"""What the archive is told from outside: one frozen value, read from the environment once, at the start."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from taskdist.common.environment import Environment
from taskdist.observability.logs import LEVELS

MOST_MONTHS = 1200


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one archive process."""

    dsn: str  # how PostgreSQL is reached, as libpq takes it; holds a password: never shown
    namespace: str  # of the operator whose Tasks these are
    installation: str = "taskdist"  # name of that operator's Lease
    cluster: str = ""  # told apart in the tables where several clusters share a database
    watch_namespaces: tuple[str, ...] = ()  # empty: all
    keep_months: int = 0  # whole months of ended Tasks that are kept beside the present one; 0: all
    metrics_port: int = 8080
    health_port: int = 8081
    host: str = "0.0.0.0"
    log_level: str = "info"
    kubeconfig: str | None = None  # None: in-cluster, or KUBECONFIG

    @property
    def lock(self) -> str:
        """Whose archive this is: of those with one word, one at a time writes."""
        return f"{self.cluster}/{self.namespace}/{self.installation}"

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> "Settings":
        """Read TASKDIST_ARCHIVE_* variables, and those that say which operator's Tasks these are.

        Raises:
            SettingsError: one is missing or malformed, or two contradict each other.
        """
        read = Environment(env)
        ports = read.ports({"TASKDIST_ARCHIVE_METRICS_PORT": 8080, "TASKDIST_ARCHIVE_HEALTH_PORT": 8081})
        return cls(
            dsn=read.needed("TASKDIST_ARCHIVE_DSN", "set it to postgresql://USER:PASSWORD@HOST:5432/DATABASE"),
            namespace=read.needed("TASKDIST_NAMESPACE", "set it to the namespace that the operator runs in"),
            installation=env.get("TASKDIST_LEASE") or "taskdist",
            cluster=env.get("TASKDIST_ARCHIVE_CLUSTER", ""),
            watch_namespaces=read.names("TASKDIST_ARCHIVE_NAMESPACES"),
            keep_months=read.whole("TASKDIST_ARCHIVE_KEEP_MONTHS", 0, 0, MOST_MONTHS),
            metrics_port=ports["TASKDIST_ARCHIVE_METRICS_PORT"],
            health_port=ports["TASKDIST_ARCHIVE_HEALTH_PORT"],
            host=env.get("TASKDIST_ARCHIVE_HOST") or "0.0.0.0",
            log_level=read.one_of("TASKDIST_LOG_LEVEL", "info", LEVELS),
            kubeconfig=env.get("KUBECONFIG") or None,
        )
