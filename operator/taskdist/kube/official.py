"""Kubeconfigs by the official client's loader: for logins that kubectl knows no more (`auth-provider`: oidc, gcp).

The official client is there where `taskdist[operator]` is installed, so that it is imported when it is needed.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from taskdist.kube.kubeconfig import Kubeconfig, Login, bearer


def login(path: str, context: str | None) -> Login:
    """What the official loader makes of it. Raises ValueError where it does not load, or is not installed."""
    try:
        from kubernetes.client import Configuration
        from kubernetes.config import ConfigException
        from kubernetes.config.kube_config import load_kube_config
    except ImportError:
        raise ValueError(
            "it logs in by an auth-provider, for which the official client is needed: "
            "pip install 'taskdist[operator]', or let the user log in by an exec plugin, as kubectl wants it"
        ) from None
    # The class's own call would hand out a copy of whatever default some other library has set.
    made: Configuration = type.__call__(Configuration)
    chosen, cluster, _ = Kubeconfig(path).context(context)
    # The loader writes keys that stand inside the kubeconfig to files.
    with tempfile.TemporaryDirectory(prefix="taskdist-") as scratch:
        try:
            load_kube_config(  # type: ignore[no-untyped-call]
                config_file=path,
                context=context,
                client_configuration=made,
                persist_config=False,
                temp_file_path=scratch,
            )
        except ConfigException as error:
            raise ValueError(str(error)) from error
        authority, certificate, key = (
            Path(file).read_bytes() if file else None for file in (made.ssl_ca_cert, made.cert_file, made.key_file)
        )
    token = made.api_key.get("BearerToken")
    scheme, _, value = str(token or "").strip().partition(" ")
    return Login(
        server=str(made.host).rstrip("/"),
        authorization=None if not token else bearer(value) if scheme.lower() == "bearer" else f"{scheme} {value}",
        authority=authority,
        certificate=certificate,
        key=key,
        verify=bool(made.verify_ssl),
        server_name=made.tls_server_name or None,
        # Not the loader's: its proxy comes from the environment without a look at NO_PROXY.
        proxy=cluster.text("proxy-url") or None,
        namespace=chosen.text("namespace") or "default",
    )
