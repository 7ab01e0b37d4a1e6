"""How kopf is set in every process that uses it: quiet, without peering, patient, and able to read any object.

Apart from the rest of this room, which knows no kopf: agents and clients have it without.
"""

from types import SimpleNamespace
from typing import Any

import kopf
from kopf._cogs.clients import api as kopf_api

from taskdist.api import GROUP, nesting


def build_settings() -> kopf.OperatorSettings:
    """Return kopf's settings: quiet, without peering, and patient with a slow API server."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.peering.standalone = True
    # The kinds are installed with the operator: watching for new ones would need rights on all definitions.
    settings.scanning.disabled = True
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.connect_timeout = 10
    settings.networking.request_timeout = 10
    settings.persistence.finalizer = f"{GROUP}/unused"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=GROUP)
    return settings


async def _get(url: str, **how: Any) -> Any:
    response = await kopf_api.request("get", url, **how)
    async with response:
        return nesting.loads_cut(await response.read())


def bound_depth() -> None:
    """Let kopf read lists and events of any depth: its own parser gives up on one pool, and with it on all.

    kopf has no port for this, so that what its client module reads with is replaced. A test fails where that changes.
    """
    kopf_api.get = _get
    kopf_api.json = SimpleNamespace(loads=nesting.loads_cut)  # type: ignore[assignment, attr-defined]
