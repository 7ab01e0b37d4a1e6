"""The process that an agent starts: a client of the cluster, and the server on standard input and output."""

import asyncio

from taskdist.client import AsyncClient
from taskdist.client.errors import TaskdistError
from taskdist.mcp.notices import Notices
from taskdist.mcp.server import build
from taskdist.observability.logs import configure


def run(namespace: str | None, kubeconfig: str | None, context: str | None) -> str:
    """Serve until standard input ends. Return why it could not begin; empty if it did.

    Standard output is the protocol's: logs go to standard error.
    """
    configure("warning")
    try:
        asyncio.run(_serve(namespace, kubeconfig, context))
    except TaskdistError as error:
        return str(error)
    except KeyboardInterrupt:
        pass
    return ""


async def _serve(namespace: str | None, kubeconfig: str | None, context: str | None) -> None:
    notices = Notices()
    client = AsyncClient(namespace=namespace, kubeconfig=kubeconfig, context=context, on_warning=notices.hear)
    async with client:
        await build(lambda: client, notices).run_stdio_async()
