"""Tokens as an API server would make them, and what its TokenReview says of them, without an API server."""

import base64
import itertools
import json
from typing import Any

_numbers = itertools.count()


def token_of(pod: str, ends: float, audience: str = "here") -> str:
    """A token with these claims and no signature: nothing on our side checks it. No two are equal."""
    claims = {"aud": [audience], "exp": ends, "sub": pod, "jti": next(_numbers)}
    return f"e30.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.c2ln"


def status_of(pod: str, audience: str = "here", namespace: str = "ns") -> dict[str, Any]:
    """The status of a TokenReview that says yes."""
    return {
        "authenticated": True,
        "audiences": [audience],
        "user": {
            "username": f"system:serviceaccount:{namespace}:default",
            "extra": {
                "authentication.kubernetes.io/pod-name": [pod],
                "authentication.kubernetes.io/pod-uid": [f"uid-{pod}"],
            },
        },
    }
