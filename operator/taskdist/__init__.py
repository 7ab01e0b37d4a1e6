"""Task Distributor: a Kubernetes operator that hands Tasks to long-running agent pods."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from taskdist.client import AsyncClient, Client

__version__ = "0.1.0"

__all__ = ["AsyncClient", "Client", "__version__"]


def __getattr__(name: str) -> Any:
    # Resolved on first use: everything imports this package, and most of it has no use for a client.
    if name not in ("AsyncClient", "Client"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from taskdist import client

    return getattr(client, name)
