"""What the API server says of a namespace that is being deleted is told from other refusals."""

from typing import Any

import pytest

from taskdist.kube import ApiError


@pytest.mark.parametrize(
    ("code", "details", "ending"),
    [
        pytest.param(
            403, {"causes": [{"reason": "NamespaceTerminating", "field": "metadata.namespace"}]}, True, id="ending"
        ),
        pytest.param(403, {"causes": [{"reason": "FieldValueForbidden"}]}, False, id="another-cause"),
        pytest.param(403, {}, False, id="a-quota"),
        pytest.param(404, {"causes": [{"reason": "NamespaceTerminating"}]}, False, id="another-status"),
    ],
)
def test_an_ending_namespace(code: int, details: dict[str, Any], ending: bool) -> None:
    error = ApiError.from_status({"code": code, "reason": "x", "message": "m", "details": details})
    assert error.is_of_ending_namespace is ending
