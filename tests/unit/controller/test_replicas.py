"""Pods of a pool: made where they are missing, past names that others have, and not again and again in vain."""

import asyncio
from dataclasses import replace
from typing import Any, cast

import pytest

from taskdist.api import POOL_LABEL, AgentPool, Reason
from taskdist.controller import keepers as module
from taskdist.controller.bridge import PodFact, PoolReport
from taskdist.controller.keepers import Keepers
from taskdist.controller.pods import LinkInfo, build_pod, check_template
from taskdist.controller.replicas import Creation, Replicas
from taskdist.controller.status import PoolFacts
from taskdist.core.model import Trouble
from taskdist.core.views import FailingPods
from taskdist.kube import ApiError, KubeError, Unanswered

LINK = LinkInfo("link:1", "link", "audience")
CRASH = FailingPods(1, "p-3-0", Trouble("CrashLoopBackOff", "container agent ends again and again", "agent"))
QUOTA = ApiError(403, "Forbidden", 'pods "p-3-0" is forbidden: exceeded quota: pods')
NO_WEBHOOK = ApiError(500, "InternalError", "failed calling webhook")
DENIED = ApiError(400, "BadRequest", 'admission webhook "w" denied the request: no')
UNKNOWN_FIELD = ApiError(400, "BadRequest", 'strict decoding error: unknown field "spec.containers[0].imagee"')
INVALID = ApiError(422, "Invalid", 'Pod "p-dry-run" is invalid: spec.containers[0].image: Required value')


def make_pool(generation: int = 3, **container: Any) -> AgentPool:
    return AgentPool.model_validate(
        {
            "metadata": {"name": "p", "namespace": "ns", "uid": "u-1", "generation": generation},
            "spec": {"template": {"spec": {"containers": [{"name": "agent", "image": "x", **container}]}}},
        }
    )


def exists(name: str) -> ApiError:
    return ApiError(409, "AlreadyExists", f'pods "{name}" already exists', {"name": name})


class Server:
    """Pods of one namespace by name; refuses as it is told, dry runs and pods apart."""

    def __init__(self) -> None:
        self.pods: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.refusal: KubeError | None = None
        self.room = 1000
        self.verdict: KubeError | None = None
        self.dry_runs: list[bool] = []
        self.status: dict[str, Any] = {}
        self.pool: dict[str, Any] = {}
        self.version = 0

    async def create(
        self, _: Any, body: dict[str, Any], namespace: str, *, dry_run: bool = False, strict: bool = False
    ) -> dict[str, Any]:
        assert namespace == "ns"
        if dry_run:
            self.dry_runs.append(strict)
            if self.verdict is not None:
                raise self.verdict
            return body
        name = body["metadata"]["name"]
        self.asked.append(name)
        if name in self.pods:
            raise exists(name)
        if self.refusal is not None or len(self.pods) >= self.room:
            raise self.refusal or QUOTA
        self.pods[name] = body
        return body

    async def get(self, _: Any, name: str, namespace: str) -> dict[str, Any]:
        return self.pods[name]

    async def delete(self, _: Any, name: str, namespace: str, *, uid: str, grace_seconds: int) -> None:
        self.pods.pop(name, None)

    async def patch(self, _: Any, name: str, body: dict[str, Any], *__: Any, **___: Any) -> dict[str, Any]:
        self.status = body["status"]
        return self.store({**self.pool, "status": {k: v for k, v in self.status.items() if v is not None}})

    def store(self, pool: dict[str, Any]) -> dict[str, Any]:
        """Keep the pool in its next version."""
        self.version += 1
        self.pool = {**pool, "metadata": {**pool["metadata"], "resourceVersion": str(self.version)}}
        return self.pool

    @property
    def conditions(self) -> dict[str, tuple[str, str, str]]:
        return {c["type"]: (c["status"], c["reason"], c["message"]) for c in self.status["conditions"]}


class Room:
    """Keepers over a server in memory and facts that the test gives."""

    def __init__(self) -> None:
        self.server = Server()
        self.told: list[tuple[Reason, str]] = []
        self.facts = PoolFacts()
        self.now = 1000.0
        self.replicas = Replicas(cast("Any", self.server), LINK, self.publish, self.announce, lambda: self.now)
        self.keepers = Keepers(
            cast("Any", self.server), cast("Any", self), LINK, "system", self.publish, self.announce, lambda: True
        )

    async def publish(self, namespace: str) -> None: ...

    def announce(self, _: Any, reason: Reason, message: str, action: str, warning: bool) -> None:
        assert warning
        self.told.append((reason, message))

    async def tell_pool(self, key: Any, version: Any) -> PoolReport:
        return PoolReport(self.facts, self.seen())

    def seen(self) -> tuple[PodFact, ...]:
        """What the informer shows: it selects by label."""
        labelled = [
            pod for pod in self.server.pods.values() if pod["metadata"].get("labels", {}).get(POOL_LABEL) == "p"
        ]
        return tuple(PodFact(p["metadata"]["name"], p["metadata"]["name"], False, False, False) for p in labelled)

    async def make(self, wanted: int) -> int:
        return (await self.replicas.make_missing(make_pool(), self.seen(), wanted)).created

    async def keep(self, pool: AgentPool) -> None:
        self.keepers.pool_seen(self.server.store(pool.to_wire()))
        try:
            await self.keepers._keep_pool(("ns", "p"))
        finally:
            await self.keepers.close()

    def foreign(self, name: str) -> None:
        self.server.pods[name] = {"metadata": {"name": name}}


async def test_what_is_missing_is_made_and_no_more() -> None:
    room = Room()
    assert await room.make(25) == 25
    assert sorted(room.server.asked, key=len) == [f"p-3-{n}" for n in range(25)]
    assert await room.make(25) == 0


async def test_a_name_that_a_foreign_pod_has_is_left_to_it_and_told_once() -> None:
    room = Room()
    room.foreign("p-3-0")
    room.foreign("p-3-2")
    assert await room.make(3) == 3
    assert sorted(room.server.pods) == ["p-3-0", "p-3-1", "p-3-2", "p-3-3", "p-3-4"]
    assert room.server.pods["p-3-0"] == {"metadata": {"name": "p-3-0"}}
    assert [reason for reason, _ in room.told] == [Reason.NAME_TAKEN] * 2
    assert "the name p-3-0 is that of a pod that this pool did not make" in room.told[0][1]
    room.server.asked.clear()
    assert await room.make(4) == 1
    assert room.server.asked == ["p-3-5"]
    assert len(room.told) == 2


@pytest.mark.parametrize("labels", [{}, {POOL_LABEL: "another"}], ids=["its label is gone", "its label is another"])
async def test_a_pool_that_lost_a_pod_to_its_label_gets_a_new_one(labels: dict[str, str]) -> None:
    room = Room()
    await room.make(1)
    room.server.pods["p-3-0"]["metadata"]["labels"] = labels
    assert await room.make(1) == 1
    assert sorted(room.server.pods) == ["p-3-0", "p-3-1"]
    ((reason, message),) = room.told
    assert reason is Reason.NAME_TAKEN
    assert "pod p-3-0 is not counted any more" in message
    assert "Set the label to p again" in message


async def test_a_pod_of_its_own_that_the_view_does_not_show_yet_counts() -> None:
    room = Room()
    room.server.pods["p-3-0"] = build_pod(make_pool(), "p-3-0", LINK)
    assert (await room.replicas.make_missing(make_pool(), (), 1)).created == 1
    assert room.told == []


async def test_names_without_end_are_not_tried_in_one_go() -> None:
    room = Room()
    for number in range(100):
        room.foreign(f"p-3-{number}")
    for _ in range(10):
        room.server.asked.clear()
        outcome = await room.replicas.make_missing(make_pool(), (), 1)
        if outcome.created:
            break
        assert outcome.again is not None
        assert len(room.server.asked) <= 30
    assert "p-3-100" in room.server.pods


async def test_pods_that_end_again_and_again_are_replaced_with_a_growing_pause() -> None:
    room, pauses = Room(), []
    for number in range(12):
        await room.make(1)
        (pod,) = room.seen()
        ended = (replace(pod, uid=f"u-{number}", ended=True),)
        await room.replicas.remove_ended(make_pool(), ended)
        assert room.server.pods == {}
        room.server.pods = {pod.name: {"metadata": {"name": pod.name}}}  # The view is late, and shows it again.
        await room.replicas.remove_ended(make_pool(), ended)
        again = (await room.replicas.make_missing(make_pool(), (), 1)).again or 0.0
        pauses.append(again)
        room.now += again
    assert pauses[0] == 0.0
    assert 0.5 <= pauses[1] <= 1.0
    assert 150.0 <= pauses[-1] <= 300.0
    room.replicas.settled(("ns", "p"))
    await room.replicas.remove_ended(make_pool(), (PodFact("u-last", "p-3-0", False, True, False),))
    assert (await room.replicas.make_missing(make_pool(), (), 1)).again is None


@pytest.mark.parametrize(("quiet", "pauses"), [(599.0, True), (600.0, False)])
async def test_pods_that_ended_long_ago_make_no_pause_while_agents_are_not_ready(quiet: float, pauses: bool) -> None:
    room = Room()

    async def end(uid: str) -> float | None:
        await room.replicas.remove_ended(make_pool(), (PodFact(uid, "p-3-9", False, True, False),))
        return (await room.replicas.make_missing(make_pool(), (), 1)).again

    for number in range(12):
        await end(f"u-{number}")
        room.now += 300.0
    room.now += quiet - 300.0
    assert (await end("u-last") is not None) is pauses
    assert await end("u-another") is not None, "it counts anew"


async def test_a_keeper_looks_again_when_the_pause_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    room = Room()
    room.facts = PoolFacts(desired=1)

    async def paused(*_: Any) -> Creation:
        return Creation(again=0.01)

    monkeypatch.setattr(Replicas, "make_missing", paused)
    looked = asyncio.Event()
    monkeypatch.setattr(room.keepers, "look_at_pool", lambda key: looked.set())
    await room.keep(make_pool())
    async with asyncio.timeout(10):
        await looked.wait()


async def test_what_is_refused_is_not_asked_for_fifty_times() -> None:
    room = Room()
    room.server.room = 3
    outcome = await room.replicas.make_missing(make_pool(), (), 50)
    assert outcome.created == 3
    assert outcome.refused is QUOTA
    assert len(room.server.asked) < 10
    room.server.asked.clear()
    await room.make(50)
    assert len(room.server.asked) == 1


@pytest.mark.parametrize(
    ("pool", "verdict", "said"),
    [
        pytest.param(make_pool(env=["A=B"]), None, "spec.template.spec.containers[0].env[0]", id="what we add to"),
        pytest.param(make_pool(), UNKNOWN_FIELD, 'unknown field "spec.containers[0].imagee"', id="a misspelt field"),
        pytest.param(make_pool(), INVALID, "spec.containers[0].image: Required value", id="what the server refuses"),
    ],
)
async def test_a_template_that_cannot_be_used_stalls_the_pool_with_the_field(
    pool: AgentPool, verdict: KubeError | None, said: str
) -> None:
    room = Room()
    room.server.verdict, room.facts = verdict, PoolFacts(desired=1)
    await room.keep(pool)
    for kind, status in (("Ready", "False"), ("Reconciling", "False"), ("Stalled", "True")):
        assert room.server.conditions[kind][:2] == (status, "InvalidTemplate")
        assert said in room.server.conditions[kind][2]
    assert [reason for reason, _ in room.told] == [Reason.INVALID_TEMPLATE]
    assert room.server.pods == {}


async def test_a_good_pool_that_is_edited_badly_says_so_and_keeps_its_agents() -> None:
    room = Room()
    room.facts = PoolFacts(desired=1, ready=1, slots=4, busy_slots=2)
    await room.keep(make_pool())
    room.server.pods["p-3-0"] = build_pod(make_pool(), "p-3-0", LINK)
    await room.keep(make_pool())
    assert room.server.conditions["Ready"] == ("True", "AgentsReady", "1 of 1 agents are ready")
    room.facts = PoolFacts(desired=3, ready=1, slots=4, busy_slots=2, outdated=1, surge=1)
    await room.keep(make_pool(4, env={"A": "B"}))
    assert room.server.conditions["Ready"][:2] == ("False", "InvalidTemplate")
    assert room.server.conditions["Stalled"][0] == "True"
    found = {name: room.server.status[name] for name in ("replicas", "readyReplicas", "desiredReplicas", "busySlots")}
    assert found == {"replicas": 1, "readyReplicas": 1, "desiredReplicas": 1, "busySlots": 2}
    await room.keep(make_pool(5))
    assert room.server.conditions["Stalled"][0] == "False"


async def test_each_spec_is_judged_once_and_strictly() -> None:
    room = Room()
    for generation in (3, 3, 4, 4):
        await room.keep(make_pool(generation))
    assert room.server.dry_runs == [True, True]


@pytest.mark.parametrize("seconds", [60.0, 0.0], ids=["it is fresh", "it is old"])
async def test_the_api_server_s_refusal_is_asked_for_anew_after_a_while(
    seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REFUSED_SECONDS", seconds)
    room, looked = Room(), asyncio.Event()
    monkeypatch.setattr(room.keepers, "look_at_pool", lambda key: looked.set())
    room.server.verdict = INVALID
    for _ in range(3):
        await room.keep(make_pool())
    assert len(room.server.dry_runs) == (1 if seconds else 3)
    assert [reason for reason, _ in room.told] == [Reason.INVALID_TEMPLATE], "the same is told once"
    if seconds:
        return
    async with asyncio.timeout(10):
        await looked.wait()
    room.server.verdict = Unanswered("no answer")
    with pytest.raises(KubeError):
        await room.keep(make_pool())
    assert room.server.conditions["Stalled"][:2] == ("True", "InvalidTemplate"), "no answer is no better word"
    room.server.verdict = None
    for _ in range(3):
        await room.keep(make_pool())
    assert room.server.conditions["Stalled"][0] == "False"
    assert len(room.server.dry_runs) == 5, "what is accepted stays so"


async def test_what_this_operator_itself_refuses_is_not_judged_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REFUSED_SECONDS", 0.0)
    judged: list[AgentPool] = []

    def counted(pool: AgentPool) -> None:
        judged.append(pool)
        check_template(pool)

    monkeypatch.setattr(module, "check_template", counted)
    room = Room()
    for _ in range(3):
        await room.keep(make_pool(env=["A=B"]))
    assert len(judged) == 1
    assert room.server.dry_runs == []


@pytest.mark.parametrize("answer", [QUOTA, DENIED], ids=["a quota", "a webhook that denies it"])
async def test_what_may_be_lifted_stalls_nothing_and_is_not_asked_for_all_the_time(answer: ApiError) -> None:
    room = Room()
    room.server.verdict, room.facts = answer, PoolFacts(desired=1, ready=1)
    room.server.pods["p-3-0"] = build_pod(make_pool(), "p-3-0", LINK)
    for _ in range(5):
        await room.keep(make_pool())
    assert room.server.dry_runs == [True]
    assert room.server.conditions["Ready"][0] == "True"
    room.facts = PoolFacts(desired=2, ready=1)
    room.server.refusal = answer
    with pytest.raises(ApiError):
        await room.keep(make_pool())
    assert room.server.conditions["Stalled"] == ("True", "CreateRefused", str(answer))


@pytest.mark.parametrize("answer", [NO_WEBHOOK, Unanswered("no answer")], ids=["a webhook is down", "no answer"])
async def test_an_api_server_in_trouble_is_asked_again(answer: KubeError) -> None:
    room = Room()
    room.server.verdict, room.facts = answer, PoolFacts(desired=1)
    with pytest.raises(KubeError):
        await room.keep(make_pool())
    assert room.server.conditions["Stalled"][0] == "False"
    room.server.verdict = INVALID
    await room.keep(make_pool())
    assert room.server.conditions["Stalled"][:2] == ("True", "InvalidTemplate")


async def test_pods_that_do_not_come_up_are_told_with_their_cause_once() -> None:
    room = Room()
    room.facts = PoolFacts(desired=1, failing=CRASH)
    for _ in range(3):
        await room.keep(make_pool())
    said = (
        "0 of 1 agents are ready. p-3-0 fails: CrashLoopBackOff, container agent ends again and again. "
        "See: kubectl logs p-3-0 -n ns --previous -c agent"
    )
    for kind, status in (("Ready", "False"), ("Reconciling", "False"), ("Stalled", "True")):
        assert room.server.conditions[kind] == (status, "PodsFailing", said)
    assert room.told == [(Reason.PODS_FAILING, said)]
    room.facts = PoolFacts(desired=1, ready=1)
    await room.keep(make_pool())
    assert room.server.conditions["Stalled"][0] == "False"
    room.facts = PoolFacts(desired=1, failing=CRASH)
    await room.keep(make_pool())
    assert len(room.told) == 2
