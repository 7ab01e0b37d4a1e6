"""The API room against a real API server: what the unit tests' script assumes of it is true."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from taskdist.kube import (
    CONFIGMAPS,
    LEASES,
    SERVICEACCOUNTS,
    TASKS,
    TOKENREVIEWS,
    Added,
    ApiError,
    Client,
    Conflict,
    Deleted,
    Event,
    Gone,
    Informer,
    InformerSettings,
    KubeError,
    LeaderElector,
    Obj,
    PatchType,
    Refused,
    Resource,
    StatusWriter,
    Timing,
    Unreachable,
    Updated,
    Write,
    Written,
    catch_up,
    name_of,
    namespace_of,
    uid_of,
    version_of,
)
from taskdist.kube.streamed import streamed

pytestmark = pytest.mark.usefixtures("crds")


@pytest.fixture
async def client(kubeconfig: Path) -> AsyncIterator[Client]:
    async with Client.connect(kubeconfig) as connected:
        yield connected


def task(name: str, **spec: Any) -> Obj:
    return {
        "apiVersion": TASKS.api_version,
        "kind": "Task",
        "metadata": {"name": name},
        "spec": {"queue": "q", "type": "t", **spec},
    }


async def until(condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
    """Let the loop run until it is so; a time-out names what never was."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - the condition is the server's, which sets no event
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"never happened: {what}")


class TestVerbs:
    async def test_the_life_of_an_object(self, client: Client, namespace: str) -> None:
        made = await client.create(TASKS, task("a"), namespace)
        assert (name_of(made), namespace_of(made)) == ("a", namespace)
        assert uid_of(await client.get(TASKS, "a", namespace)) == uid_of(made)
        patched = await client.patch(TASKS, "a", {"metadata": {"labels": {"x": "y"}}}, namespace)
        patched["metadata"]["labels"]["x"] = "z"
        put = await client.put(TASKS, "a", patched, namespace)
        assert (await client.list(TASKS, namespace, label_selector="x=z")).items[0]["metadata"]["name"] == "a"
        with pytest.raises(ApiError) as stale:
            await client.put(TASKS, "a", patched, namespace)
        assert stale.value.is_conflict
        with pytest.raises(ApiError) as other:
            await client.delete(TASKS, "a", namespace, uid="00000000-0000-0000-0000-000000000000")
        assert other.value.is_conflict
        await client.delete(TASKS, "a", namespace, uid=uid_of(put), resource_version=version_of(put))
        with pytest.raises(ApiError) as gone:
            await client.get(TASKS, "a", namespace)
        assert gone.value.is_not_found

    async def test_errors_are_of_their_kind(self, client: Client, namespace: str) -> None:
        await client.create(TASKS, task("a"), namespace)
        with pytest.raises(ApiError) as exists:
            await client.create(TASKS, task("a"), namespace)
        assert exists.value.is_already_exists
        with pytest.raises(ApiError) as invalid:
            await client.create(TASKS, task("b", priority="high"), namespace)
        assert invalid.value.is_invalid
        with pytest.raises(ApiError) as unserved:
            await client.get(Resource("taskdist.dev", "v1alpha1", "nothings"), "a", namespace)
        assert unserved.value.is_unserved
        assert not unserved.value.is_not_found

    async def test_a_dry_run_changes_nothing(self, client: Client, namespace: str) -> None:
        await client.create(TASKS, task("a"), namespace, dry_run=True)
        assert (await client.list(TASKS, namespace)).items == []

    async def test_server_side_apply(self, client: Client, namespace: str) -> None:
        body: Obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "1"}}
        for value in ("1", "2"):
            body["data"] = {"a": value}
            applied = await client.patch(
                CONFIGMAPS, "c", body, namespace, content_type=PatchType.APPLY, field_manager="test"
            )
            assert applied["data"] == {"a": value}

    async def test_pages_are_consistent_and_metadata_may_come_alone(self, client: Client, namespace: str) -> None:
        for number in range(5):
            await client.create(TASKS, task(f"t{number}", payload={"n": number}), namespace)
        pages = [page async for page in client.pages(TASKS, namespace, page_size=2)]
        assert [len(page.items) for page in pages] == [2, 2, 1]
        assert len({page.resource_version for page in pages}) == 1
        bare = [page async for page in client.pages(TASKS, namespace, metadata_only=True)]
        assert [sorted(obj) for obj in bare[0].items] == [["apiVersion", "kind", "metadata"]] * 5

    async def test_a_list_may_come_as_a_stream_as_new_as_the_last_write(self, client: Client, namespace: str) -> None:
        for number in range(5):
            made = await client.create(TASKS, task(f"t{number}", payload={"n": number}), namespace)
        parts = [page async for page in streamed(client, TASKS, namespace, part=2)]
        assert [len(page.items) for page in parts] == [2, 2, 1, 0]
        assert [name_of(obj) for page in parts for obj in page.items] == [f"t{n}" for n in range(5)]
        assert int(parts[-1].resource_version) >= int(version_of(made))
        bare = [page async for page in streamed(client, TASKS, namespace, metadata_only=True)]
        assert [sorted(obj) for obj in bare[0].items] == [["apiVersion", "kind", "metadata"]] * 5

    async def test_a_view_catches_up_with_what_its_watch_has_not_told(self, client: Client, namespace: str) -> None:
        for name in ("assigned", "same", "gone"):
            await client.create(TASKS, task(name), namespace)
        view = View(client, [namespace]).informer  # it does not run: its watch never tells anything
        await catch_up(client, view, namespace, by_name=True)
        # The last that a leader writes before it is killed.
        await client.create(TASKS, task("created"), namespace)
        await client.delete(TASKS, "gone", namespace)
        written = {"status": {"phase": "Assigned", "attempt": 1, "epoch": 1, "agent": "a", "agentUid": "u"}}
        await client.patch(TASKS, "assigned", written, namespace, subresource="status")
        await catch_up(client, view, namespace, by_name=True)
        found = {each["name"]: (each["status"] or {}).get("phase") for each in view.store}
        assert found == {"assigned": "Assigned", "same": "Pending", "created": "Pending"}

    async def test_a_token_and_its_review(self, client: Client, namespace: str) -> None:
        request = {"spec": {"audiences": ["taskdist"], "expirationSeconds": 600}}
        made = await client.create(SERVICEACCOUNTS, request, namespace, name="default", subresource="token")
        review = {"spec": {"token": made["status"]["token"], "audiences": ["taskdist"]}}
        answer = await client.create(
            TOKENREVIEWS, {"apiVersion": TOKENREVIEWS.api_version, "kind": "TokenReview", **review}
        )
        assert answer["status"]["authenticated"] is True
        assert answer["status"]["user"]["username"] == f"system:serviceaccount:{namespace}:default"

    async def test_requests_are_light(self, client: Client, namespace: str) -> None:
        """Not a benchmark: a guard against a request that suddenly costs ten times what it did."""
        await client.create(TASKS, task("a"), namespace)
        await client.get(TASKS, "a", namespace)
        started = time.process_time()
        for _ in range(100):
            await client.get(TASKS, "a", namespace)
        assert (time.process_time() - started) / 100 < 0.005


class View:
    """An informer on one namespace, running, and what it told."""

    def __init__(self, client: Client, namespaces: list[str], **rest: Any) -> None:
        self.told: list[str] = []
        self.informer: Informer[Obj] = Informer(
            client,
            TASKS,
            transform=lambda obj: {"name": name_of(obj), "version": version_of(obj), "status": obj.get("status")},
            on_event=self.tell,
            namespaces=namespaces,
            settings=rest.pop("settings", InformerSettings(check=0, settle=0.3)),
            rng=random.Random(1),
            **rest,
        )

    def tell(self, event: Event[Obj]) -> None:
        match event:
            case Added(new):
                self.told.append(f"+{new['name']}")
            case Updated(_, new):
                self.told.append(f"~{new['name']}")
            case Deleted(old, seen):
                self.told.append(f"-{old['name']}" if seen else f"?{old['name']}")

    @property
    def names(self) -> set[str]:
        return {obj["name"] for obj in self.informer.store}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[View]:
        runner = asyncio.create_task(self.informer.run())
        try:
            async with asyncio.timeout(20):
                await self.informer.synced()
            yield self
        finally:
            runner.cancel()
            await asyncio.gather(runner, return_exceptions=True)


class TestInformer:
    async def test_follows_the_server(self, client: Client, namespace: str) -> None:
        await client.create(TASKS, task("before"), namespace)
        async with View(client, [namespace]).running() as view:
            assert view.names == {"before"}
            await client.create(TASKS, task("a"), namespace)
            await until(lambda: "a" in view.names, "the new Task is seen")
            await client.patch(TASKS, "a", {"status": {"message": "m"}}, namespace, subresource="status")
            await until(lambda: "~a" in view.told, "the change is seen")
            await client.delete(TASKS, "before", namespace)
            await until(lambda: view.names == {"a"}, "the deletion is seen")
            assert view.told == ["+before", "+a", "~a", "-before"]

    async def test_an_expired_version_leads_to_a_new_list(
        self, client: Client, namespace: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As after a long pause: the first watch asks for a version that is long gone; what was missed is mended."""
        goes = await client.create(TASKS, task("goes"), namespace)
        await client.create(TASKS, task("stays"), namespace)
        versions: list[str] = []
        plain = client.watch

        @asynccontextmanager
        async def watch(resource: Resource, scope: str | None = None, **rest: Any) -> AsyncIterator[Any]:
            if not rest.get("initial"):  # else it is a list
                versions.append(rest["resource_version"])
            if len(versions) == 1 and not rest.get("initial"):
                await client.delete(TASKS, "goes", namespace, uid=uid_of(goes))
                await client.create(TASKS, task("new"), namespace)
                rest["resource_version"] = "1"
            async with plain(resource, scope, **rest) as events:
                yield events

        monkeypatch.setattr(client, "watch", watch)
        async with View(client, [namespace]).running() as view:
            await until(lambda: view.names == {"stays", "new"}, "the view is right again")
            assert view.told == ["+goes", "+stays", "+new", "?goes"]
            assert (view.informer.counts.expired, view.informer.counts.lists) == (1, 2)

    async def test_the_server_does_say_410(self, client: Client, namespace: str) -> None:
        """What the test before depends on: a version from before the server's memory is refused as gone."""
        with pytest.raises(ApiError) as caught:
            await _drain(client, namespace, "1")
        assert caught.value.is_gone

    async def test_an_own_answer_is_not_taken_back(self, client: Client, namespace: str) -> None:
        async with View(client, [namespace]).running() as view:
            made = await client.create(TASKS, task("a"), namespace)
            for number in range(20):
                made = await client.patch(
                    TASKS, "a", {"status": {"message": str(number)}}, namespace, subresource="status"
                )
                view.informer.apply_own(made)
                value = view.informer.store.get(uid_of(made))
                assert value is not None
                assert value["status"]["message"] == str(number)
            await asyncio.sleep(0)
            value = view.informer.store.get(uid_of(made))
            assert value is not None
            assert value["version"] == version_of(made)

    async def test_two_namespaces(self, client: Client, namespace: str) -> None:
        async with View(client, [namespace, "default"]).running() as view:
            await client.create(TASKS, task("a"), namespace)
            await until(lambda: view.names == {"a"}, "it is seen once")
            assert view.told == ["+a"]

    async def test_a_wrong_view_is_found_and_mended(self, client: Client, namespace: str) -> None:
        for name in ("lost", "old", "fine"):
            await client.create(TASKS, task(name), namespace)
        async with View(client, [namespace]).running() as view:
            store = view.informer.store
            lost = next(entry for entry in store.entries() if entry.name == "lost")
            del store._by_uid[lost.uid], store._by_key[namespace, "lost"]
            ghost = {"metadata": {"name": "ghost", "namespace": namespace, "uid": "ghost", "resourceVersion": "1"}}
            store.put(ghost)
            found = await view.informer.check()
            assert sorted((each.kind, each.name) for each in found) == [("extra", "ghost"), ("missing", "lost")]
            assert view.names == {"lost", "old", "fine"}
            assert await view.informer.check() == []

    async def test_survives_writes_while_it_lists_in_pages(self, client: Client, namespace: str) -> None:
        for number in range(30):
            await client.create(TASKS, task(f"t{number:02}"), namespace)
        view = View(client, [namespace], settings=InformerSettings(check=0, settle=0.3, page_size=3, streamed=False))

        async def churn() -> None:
            for number in range(0, 30, 2):
                await client.delete(TASKS, f"t{number:02}", namespace)
                await client.create(TASKS, task(f"n{number:02}"), namespace)

        churning = asyncio.create_task(churn())
        async with view.running():
            await churning
            truth = {name_of(obj) for obj in (await client.list(TASKS, namespace)).items}
            await until(lambda: view.names == truth, "the view equals the server")
            assert await view.informer.check() == []


async def _drain(client: Client, namespace: str, version: str) -> None:
    async with client.watch(TASKS, namespace, resource_version=version, seconds=2) as events:
        async for _ in events:
            pass


class TestWriter:
    @staticmethod
    def assign(obj: Obj, epoch: int = 1, **status: Any) -> Write:
        wanted = {"phase": "Assigned", "attempt": 1, "epoch": epoch, "agent": "p-0", **status}
        return Write(uid_of(obj), namespace_of(obj), name_of(obj), version_of(obj), wanted)

    async def test_written_once_then_a_conflict(self, client: Client, namespace: str) -> None:
        made = await client.create(TASKS, task("a"), namespace)
        writer = StatusWriter(client, TASKS)
        outcome = await writer.write(self.assign(made))
        assert isinstance(outcome, Written)
        assert outcome.obj["status"]["phase"] == "Assigned"
        again = await writer.write(self.assign(made, epoch=2))
        assert isinstance(again, Conflict)
        assert again.current is not None
        assert again.current["status"]["epoch"] == 1

    async def test_a_result_with_its_other_fields_then_a_conflict(self, client: Client, namespace: str) -> None:
        """The patch that keeps nulls holds at one version only, removes what is there or not, and needs no status."""
        made = await client.create(TASKS, task("a"), namespace)
        writer = StatusWriter(client, TASKS)
        write = replace(self.assign(made, agentUid=None, message="m"), exact={"result": {"x": None}})
        outcome = await writer.write(write)
        assert isinstance(outcome, Written)
        assert outcome.obj["status"].items() >= {"phase": "Assigned", "message": "m", "result": {"x": None}}.items()
        stale = await writer.write(replace(write, status={"message": "of old"}))
        assert isinstance(stale, Conflict)
        cleared = replace(self.assign(outcome.obj, message=None), exact={"result": {}})
        outcome = await writer.write(cleared)
        assert isinstance(outcome, Written)
        assert outcome.obj["status"]["result"] == {}
        assert "message" not in outcome.obj["status"]

    async def test_of_many_at_once_exactly_one_wins(self, client: Client, namespace: str) -> None:
        made = await client.create(TASKS, task("a"), namespace)
        writer = StatusWriter(client, TASKS)
        outcomes = await asyncio.gather(*(writer.write(self.assign(made, epoch=n)) for n in range(1, 21)))
        assert sum(isinstance(outcome, Written) for outcome in outcomes) == 1
        assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 19

    async def test_gone(self, client: Client, namespace: str) -> None:
        made = await client.create(TASKS, task("a"), namespace)
        await client.delete(TASKS, "a", namespace)
        assert await StatusWriter(client, TASKS).write(self.assign(made)) == Gone()

    async def test_a_successor_is_not_written(self, client: Client, namespace: str) -> None:
        made = await client.create(TASKS, task("a"), namespace)
        await client.delete(TASKS, "a", namespace)
        successor = await client.create(TASKS, task("a"), namespace)
        assert await StatusWriter(client, TASKS).write(self.assign(made)) == Gone()
        assert version_of(await client.get(TASKS, "a", namespace)) == version_of(successor)

    async def test_the_version_is_what_binds_a_write(self, client: Client, namespace: str) -> None:
        """The server does not look at the uid of a status patch: should it begin to, this tells."""
        made = await client.create(TASKS, task("a"), namespace)
        body = {"metadata": {"uid": "another", "resourceVersion": version_of(made)}, "status": {"message": "m"}}
        assert uid_of(await client.patch(TASKS, "a", body, namespace, subresource="status")) == uid_of(made)
        with pytest.raises(ApiError) as caught:
            await client.patch(TASKS, "a", body, namespace, subresource="status")
        assert caught.value.is_conflict

    async def test_what_the_rules_refuse_is_final(self, client: Client, namespace: str) -> None:
        made = await client.create(TASKS, task("a"), namespace)
        writer = StatusWriter(client, TASKS)
        outcome = await writer.write(self.assign(made, epoch=5))
        assert isinstance(outcome, Written)
        back = await writer.write(self.assign(outcome.obj, epoch=4))
        assert isinstance(back, Refused)
        assert back.final
        assert "epoch" in back.message

    @pytest.mark.parametrize("size", [1_700_000, 3_500_000], ids=["for etcd", "for the API server"])
    async def test_what_is_too_large_is_final(self, client: Client, namespace: str, size: int) -> None:
        with pytest.raises(ApiError) as caught:
            await client.create(TASKS, task("a", payload={"x": "x" * size}), namespace)
        assert caught.value.is_too_large, caught.value


TIMING = Timing(lease=3, renew_deadline=2, retry=0.2)


class Candidate:
    """An elector, running, that keeps a diary. `client` may be cut to play a lost network."""

    diary: list[tuple[str, str, float]]

    def __init__(self, client: Client, namespace: str, name: str, diary: list[tuple[str, str, float]]) -> None:
        self.name, self.diary = name, diary
        self.epochs: list[int] = []
        self.holding = asyncio.Event()
        self.elector = LeaderElector(
            client,
            namespace=namespace,
            name="operator",
            timing=TIMING,
            on_started=self.started,
            on_stopping=self.stopping,
            on_stopped=self.stopped,
        )

    def started(self, epoch: int) -> None:
        self.epochs.append(epoch)
        self.diary.append((self.name, "started", epoch))

    async def stopping(self, deadline: float) -> None:
        assert self.elector.leading() is None
        self.diary.append((self.name, "stopping", deadline))

    def stopped(self) -> None:
        self.diary.append((self.name, "stopped", 0))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Candidate]:
        runner = asyncio.create_task(self.elector.run())
        try:
            yield self
        finally:
            self.elector.resign()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait_for(runner, 10)


class Cut(Client):
    """A client whose network can be taken away."""

    def cut(self) -> None:
        async def refuse(*_: Any, **__: Any) -> Obj:
            raise Unreachable("the network is cut")

        for verb in ("get", "put", "create"):
            setattr(self, verb, refuse)

    def mend(self) -> None:
        for verb in ("get", "put", "create"):
            delattr(self, verb)


class TestLeader:
    async def test_one_leads_and_a_release_hands_over_at_once(self, client: Client, namespace: str) -> None:
        diary: list[tuple[str, str, float]] = []
        async with Candidate(client, namespace, "b", diary).running() as second:
            await until(lambda: second.epochs == [1], "the only one leads")
            async with Candidate(client, namespace, "c", diary).running() as third:
                await until(lambda: third.elector.holder == second.elector.identity, "the other sees who leads")
                second.elector.resign()
                await until(lambda: third.epochs == [2], "the other leads", 2.5)
                assert [entry[:2] for entry in diary] == [
                    ("b", "started"),
                    ("b", "stopping"),
                    ("b", "stopped"),
                    ("c", "started"),
                ]
        lease = await client.get(LEASES, "operator", namespace)
        assert lease["spec"]["holderIdentity"] == ""
        assert lease["spec"]["leaseTransitions"] == 2

    async def test_a_cut_leader_stops_before_another_starts_and_comes_back_under_a_new_epoch(
        self, kubeconfig: Path, client: Client, namespace: str
    ) -> None:
        diary: list[tuple[str, str, float]] = []
        async with Cut.connect(kubeconfig) as cut, Candidate(cut, namespace, "a", diary).running() as first:
            await until(lambda: first.epochs == [1], "the first leads")
            async with Candidate(client, namespace, "b", diary).running() as second:
                await until(lambda: second.elector.holder == first.elector.identity, "the other sees who leads")
                cut.cut()
                await until(lambda: second.epochs == [2], "the other takes over")
                assert [entry[:2] for entry in diary] == [
                    ("a", "started"),
                    ("a", "stopping"),
                    ("a", "stopped"),
                    ("b", "started"),
                ]
                assert first.elector.leading() is None
                cut.mend()
                second.elector.resign()
                await until(lambda: first.epochs == [1, 3], "the first leads again")

    async def test_the_same_candidate_alone_comes_back_under_a_new_epoch(
        self, kubeconfig: Path, namespace: str
    ) -> None:
        diary: list[tuple[str, str, float]] = []
        async with Cut.connect(kubeconfig) as cut, Candidate(cut, namespace, "a", diary).running() as only:
            await until(lambda: only.epochs == [1], "it leads")
            cut.cut()
            await until(lambda: len(diary) == 3, "it has stopped")
            cut.mend()
            await until(lambda: only.epochs == [1, 2], "it leads again")

    async def test_a_lease_taken_by_hand_ends_it_at_once(self, client: Client, namespace: str) -> None:
        diary: list[tuple[str, str, float]] = []
        async with Candidate(client, namespace, "a", diary).running() as only:
            await until(lambda: only.epochs == [1], "it leads")
            while True:
                with contextlib.suppress(KubeError):
                    await client.patch(LEASES, "operator", {"spec": {"holderIdentity": "someone"}}, namespace)
                    break
            await until(lambda: len(diary) >= 3, "it has stopped", 2)
            assert only.elector.leading() is None
            assert diary[2][1] == "stopped"

    async def test_labels_that_others_put_on_the_lease_stay(self, client: Client, namespace: str) -> None:
        diary: list[tuple[str, str, float]] = []
        async with Candidate(client, namespace, "a", diary).running() as only:
            await until(lambda: only.epochs == [1], "it leads")
            touched = await client.patch(LEASES, "operator", {"metadata": {"labels": {"team": "x"}}}, namespace)
            renewed = touched
            async with asyncio.timeout(5):
                while version_of(renewed) == version_of(touched):
                    await asyncio.sleep(0.05)
                    renewed = await client.get(LEASES, "operator", namespace)
            assert renewed["metadata"]["labels"] == {"team": "x"}
            assert only.epochs == [1]
            assert only.elector.leading() == 1
