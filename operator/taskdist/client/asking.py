"""Why a Task waits and what a change would do, asked where the client's backend is: the gateway, or the cluster."""

from taskdist.api.view import Changes
from taskdist.client.backend import Asks, Backend, Told
from taskdist.client.errors import TaskdistError
from taskdist.client.http import HttpBackend


async def explained(backend: Backend, name: str, changes: Changes | None, view: Asks | None) -> Told:
    """Raises TaskdistError where the changes make no sense, or cannot be asked there; KubeError."""
    if isinstance(backend, HttpBackend):
        if changes is not None:
            raise TaskdistError("the gateway plays no what-ifs: ask with a kubeconfig, or in the cluster")
        return await backend.explain(name)
    # Imported where it is asked for: it brings the engine along.
    from taskdist.client import explaining

    return await explaining.explain(backend, name, changes, view=view)
