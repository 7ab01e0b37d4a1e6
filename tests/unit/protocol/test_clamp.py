"""What an agent may offer, cut to its pool."""

from dataclasses import replace
from typing import Any

import pytest

from taskdist.core.model import Pool
from taskdist.protocol.messages import PROTOCOL_VERSION, AgentIdentity, Hello
from taskdist.protocol.operator.clamp import clamp

POOL = Pool(
    "ns",
    "p",
    slots=4,
    resources=(("gpu", 2),),
    skills=frozenset({"cpu", "io"}),
    labels=(("zone", "a"),),
    reported_labels=frozenset({"model", "zone"}),
)
WHO = AgentIdentity("uid", "p-1", "ns", "p")
HELLO = Hello(PROTOCOL_VERSION, "i", 2, 0.0)


@pytest.mark.parametrize(
    ("wish", "field", "granted"),
    [
        pytest.param({"slots": 3}, "slots", 3, id="fewer slots than the pool's"),
        pytest.param({"slots": 9}, "slots", 4, id="more slots than the pool's"),
        pytest.param({"slots": -1}, "slots", 0, id="nonsense slots"),
        pytest.param({}, "resources", (("gpu", 2),), id="no resources named: the pool's"),
        pytest.param({"resources": (("gpu", 1),)}, "resources", (("gpu", 1),), id="fewer resources"),
        pytest.param({"resources": (("gpu", 8), ("tpu", 1))}, "resources", (("gpu", 2),), id="more, and foreign ones"),
        pytest.param({}, "skills", frozenset({"cpu", "io"}), id="no skills named: all"),
        pytest.param({"skills": ("cpu", "root")}, "skills", frozenset({"cpu"}), id="only the pool's skills"),
        pytest.param({}, "types", None, id="any type"),
        pytest.param({"types": ("x",)}, "types", frozenset({"x"}), id="its types"),
        pytest.param({}, "labels", (("zone", "a"),), id="the pods' labels"),
        pytest.param({"labels": (("model", "m"),)}, "labels", (("model", "m"), ("zone", "a")), id="a reported label"),
        pytest.param({"labels": (("zone", "b"), ("team", "x"))}, "labels", (("zone", "a"),), id="no forged labels"),
        pytest.param({"fenced": False}, "fenced", False, id="unfenced"),
    ],
)
def test_clamp(wish: dict[str, Any], field: str, granted: object) -> None:
    assert getattr(clamp(replace(HELLO, **wish), WHO, POOL), field) == granted


def test_a_pod_s_own_zone_goes_before_what_its_template_says_or_its_agent_reports() -> None:
    zone = "topology.kubernetes.io/zone"
    pool = replace(POOL, labels=((zone, "template"),), reported_labels=frozenset({zone}))
    hello = replace(HELLO, labels=((zone, "reported"),))
    assert clamp(hello, WHO, pool, ((zone, "node"),)).labels == ((zone, "node"),)
    assert clamp(hello, WHO, pool).labels == ((zone, "template"),)
    assert clamp(hello, WHO, replace(pool, labels=())).labels == ((zone, "reported"),)
