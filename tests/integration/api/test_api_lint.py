"""The review and the API server agree: what the review calls refused is, and what it finds fault with otherwise is not.

Nothing is kept: all are dry runs.
"""

from typing import Any

import pytest

from lint_cases import CASES, WRITING, Case
from lint_sets import flaws
from taskdist.api.crd import kinds
from taskdist.kube import ApiError
from taskdist.local.rest import Client

pytestmark = pytest.mark.usefixtures("crds")

PLURALS = {kind.kind: kind.plural for kind in kinds()}
# It takes two objects, or a path that the API server does not have.
ELSEWHERE = {"defined-twice", "unknown-kind"}
REFUSED = [case for case in WRITING if case.rule not in ELSEWHERE]
ALLOWED = [case for case in CASES if case not in WRITING]


def dry_run(cluster: Client, namespace: str, body: dict[str, Any]) -> None:
    path = f"/apis/taskdist.dev/v1alpha1/namespaces/{namespace}/{PLURALS[body['kind']]}"
    cluster.request("POST", path, body, query={"dryRun": "All", "fieldValidation": "Strict"})


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.id)
def test_what_is_refused(cluster: Client, namespace: str, case: Case) -> None:
    flaw = flaws(case.rule, *case.bad)[0]
    with pytest.raises(ApiError) as caught:
        dry_run(cluster, namespace, flaw.at.body)
    assert caught.value.status in (400, 422)


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.id)
def test_what_is_sound(cluster: Client, namespace: str, case: Case) -> None:
    sound = [body for body in case.good if body["kind"] in PLURALS]
    assert sound
    for body in sound:
        dry_run(cluster, namespace, body)


def test_what_is_allowed_and_yet_wrong(cluster: Client, namespace: str) -> None:
    """Were one refused, its rule would belong with the others."""
    assert len(ALLOWED) > 10
    for case in ALLOWED:
        wrong = [body for body in case.bad if body["kind"] in PLURALS]
        assert wrong, case.id
        for body in wrong:
            dry_run(cluster, namespace, body)
