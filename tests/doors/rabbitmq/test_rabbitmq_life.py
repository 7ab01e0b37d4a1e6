"""A RabbitMQ source with the real broker, API server and operator, any of them killed at any moment."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import secrets
import ssl
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiormq
import pytest
import yaml
from aiormq.abc import AbstractChannel
from pamqp.commands import Basic

from outages import Outages
from patience import until
from rabbitmq import RabbitMQ
from taskdist.intake.consuming import PARALLEL
from taskdist.kube import TASKS, KubeError
from taskdist.kube import Client as KubeClient
from taskdist.local.binaries import find
from taskdist.local.certificates import LocalAuthority
from taskdist.local.controlplane import free_ports
from taskdist.local.rest import Client
from taskdist.local.stack import OPERATOR_NAMESPACE, Stack

ROOT = Path(__file__).parents[3]
GROUP = "/apis/taskdist.dev/v1alpha1"
KEYS = 20
RATE_MESSAGES = 1000
# How often each is chosen to be killed. The broker takes seconds to come back.
WEIGHTS = {"sources": 8, "kube-apiserver": 3, "operator": 3, "broker": 2}
# Messages of which no Task can be made, by what is said of them.
POISON = {
    b"odd": "NotJson",
    b"": "NotJson",
    b"[" * 50_000: "NotJson",
    b"\xff\xfe": "NotText",
    b"[]": "NothingThere",
    b'{"key": {}}': "WrongType",
    b'{"key": 1, "much": "' + b"x" * 200_000 + b'"}': "TooLarge",
    b'{"key": 1, "much": "' + b"x" * 3_000_000 + b'"}': "TooLarge",
}

pytestmark = pytest.mark.timeout(3600)


def reason(number: int) -> str | None:
    """What is said of this message; None: it becomes a Task."""
    return None if number % 50 != 49 else list(POISON.values())[number // 50 % len(POISON)]


def message(number: int) -> bytes:
    if reason(number) is None:
        return json.dumps({"number": number, "key": number % KEYS}).encode()
    return list(POISON)[number // 50 % len(POISON)]


class Room:
    """One namespace with a source of one queue, and the parts around it."""

    def __init__(self, stack: Stack, broker: RabbitMQ, namespace: str) -> None:
        self.stack = stack
        self.broker = broker
        self.namespace = namespace
        self.client: Client = stack.plane.client
        self.sources: subprocess.Popen[bytes] | None = None
        self.outages = Outages(stack)
        self.outages.add("sources", self.kill_sources, self.start_sources)
        self.outages.add("broker", broker.kill, broker.start)
        self._kubeconfig = stack.plane.kubeconfig_for(OPERATOR_NAMESPACE, "taskdist-sources")
        self._etcd = self._etcd_request()

    def path(self, plural: str) -> str:
        return f"{GROUP}/namespaces/{self.namespace}/{plural}"

    def create(self, kind: str, name: str, spec: Any) -> None:
        body = {"apiVersion": "taskdist.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        self.client.create(self.path(f"{kind.lower()}s"), body)

    def make_source(self, **task: Any) -> None:
        """Create the source, its queue here and there, its dead letters and its Secret."""
        self.create("TaskQueue", "q", {"pools": ["nobody"], "maxWaiting": 1_000_000})
        data = {name: base64.b64encode(b"guest").decode() for name in ("username", "password")}
        self.client.create(
            f"/api/v1/namespaces/{self.namespace}/secrets", {"metadata": {"name": "login"}, "data": data}
        )
        rabbitmq = {
            "host": "127.0.0.1",
            "port": self.broker.port,
            "tls": False,
            "queue": self.namespace,
            "secretName": "login",
            "deadLetterExchange": f"{self.namespace}-dead",
        }
        self.ask(self._declare)
        self.create("TaskSource", "s", {"rabbitmq": rabbitmq, "task": {"queue": "q", "type": "t", **task}})

    async def _declare(self, channel: AbstractChannel) -> None:
        await channel.exchange_declare(f"{self.namespace}-dead", durable=True)
        for name in (self.namespace, f"{self.namespace}-dead"):
            await channel.queue_declare(name, durable=True)
        await channel.queue_bind(f"{self.namespace}-dead", f"{self.namespace}-dead", self.namespace)

    def ask(self, what: Callable[[AbstractChannel], Awaitable[Any]]) -> Any:
        async def asked() -> Any:
            async with aiormq.connect(self.broker.url) as connection:
                return await what(await connection.channel())

        return asyncio.run(asked())

    def publish(self, numbers: range) -> None:
        """Publish these in their order; the broker has confirmed them on return."""

        async def published(channel: AbstractChannel) -> None:
            confirmed = []
            for number in numbers:
                properties = Basic.Properties(message_id=str(number), delivery_mode=2, priority=number % 256)
                sent = channel.basic_publish(message(number), routing_key=self.namespace, properties=properties)
                confirmed.append(asyncio.ensure_future(sent))
                if len(confirmed) == 100 or number == numbers[-1]:
                    await asyncio.gather(*confirmed)
                    confirmed.clear()

        self.ask(published)

    def dead_letters(self) -> list[tuple[int, str]]:
        """Their numbers, and why."""

        async def got(channel: AbstractChannel) -> list[tuple[int, str]]:
            found = []
            name = f"{self.namespace}-dead"
            while (letter := await channel.basic_get(name, no_ack=True)).message_count is not None:
                properties = letter.header.properties
                number = int(properties.message_id or "")
                assert letter.body == message(number)
                found.append((number, str((properties.headers or {})["x-taskdist-reason"])))
            return found

        letters: list[tuple[int, str]] = self.ask(got)
        return letters

    def start_sources(self) -> None:
        metrics, health = free_ports(2)
        env = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ},
            "KUBECONFIG": str(self._kubeconfig),
            "TASKDIST_NAMESPACE": OPERATOR_NAMESPACE,
            "TASKDIST_SOURCES_METRICS_PORT": str(metrics),
            "TASKDIST_SOURCES_HEALTH_PORT": str(health),
            "TASKDIST_SOURCES_HOST": "127.0.0.1",
        }
        command = [str(Path(sys.executable).parent / "taskdist"), "sources"]
        self.sources = self.stack.plane.start_process("sources", command, env)

    def kill_sources(self) -> None:
        assert self.sources is not None
        assert self.sources.poll() is None, self.stack.plane.log("sources").read_text()[-3000:]
        self.sources.kill()
        self.sources.wait()

    def backlog(self) -> int | None:
        """What the source says that waits."""
        try:
            status = self.client.get(self.path("tasksources/s")).get("status") or {}
        except (KubeError, OSError):
            return None
        messages: int | None = (status.get("backlog") or {}).get("messages")
        return messages

    def tasks(self) -> dict[str, int]:
        """The numbers of the Tasks' messages by the Tasks' names."""
        found: dict[str, int] = {}
        query = {"limit": "1000"}
        while True:
            page = self.client.get(self.path("tasks"), **query)
            found |= {each["metadata"]["name"]: each["spec"]["payload"]["number"] for each in page["items"]}
            if not (more := page["metadata"].get("continue")):
                return found
            query["continue"] = more

    # -- what only the store behind the API server can say -------------------------------------------------------------

    def count(self) -> int:
        """How many Tasks there are, at no cost for the API server."""
        return int(self._range({"count_only": True}).get("count", 0))

    def created(self) -> list[str]:
        """The names of the Tasks in the order in which they were created."""
        answer = self._range({"keys_only": True, "sort_target": "CREATE", "sort_order": "ASCEND"})
        return [base64.b64decode(each["key"]).decode().rpartition("/")[2] for each in answer["kvs"]]

    def rate(self, wanted: int) -> float:
        """How many Tasks a second are created until so many are there: from a tenth on, so that all runs."""
        first = until(lambda: (count := self.count()) >= wanted // 10 and count, "Tasks are made")
        begun = time.monotonic()
        until(lambda: self.count() >= wanted, f"{wanted} Tasks are there", 300)
        return (wanted - first) / (time.monotonic() - begun)

    def plain_rate(self, spec: Any) -> float:
        """The same for this Task created by a client that does nothing else."""

        async def create_all(name: str) -> None:
            numbers = iter(range(RATE_MESSAGES))

            async def create_some(client: KubeClient) -> None:
                for number in numbers:
                    metadata = {"name": f"{name}-{number}", "namespace": self.namespace}
                    body = {"apiVersion": "taskdist.dev/v1alpha1", "kind": "Task", "metadata": metadata, "spec": spec}
                    await client.create(TASKS, body, self.namespace)

            async with KubeClient.connect(str(self.stack.plane.kubeconfig)) as client:
                await asyncio.gather(*(create_some(client) for _ in range(PARALLEL)))

        before = self.count()
        with ThreadPoolExecutor(1) as thread:
            creating = thread.submit(asyncio.run, create_all("plain"))
            first = until(lambda: (count := self.count()) >= before + RATE_MESSAGES // 10 and count, "Tasks are made")
            begun = time.monotonic()
            creating.result()
        return (before + RATE_MESSAGES - first) / (time.monotonic() - begun)

    def _range(self, how: dict[str, Any]) -> Any:
        url, context = self._etcd
        first = f"/registry/taskdist.dev/tasks/{self.namespace}/".encode()
        last = first[:-1] + bytes([first[-1] + 1])
        body = {"key": base64.b64encode(first).decode(), "range_end": base64.b64encode(last).decode(), **how}
        with urllib.request.urlopen(f"{url}/v3/kv/range", json.dumps(body).encode(), 60, context=context) as answer:
            return json.load(answer)

    def _etcd_request(self) -> tuple[str, ssl.SSLContext]:
        plane = self.stack.plane
        arguments = plane.processes["etcd"].args
        assert isinstance(arguments, list)
        url = next(str(each).partition("=")[2] for each in arguments if str(each).startswith("--listen-client-urls"))
        authority = LocalAuthority(plane.directory / "pki" / "etcd")
        pair = authority.client("test")
        context = ssl.create_default_context(cafile=str(authority.certificate))
        context.load_cert_chain(pair.certificate, pair.key)
        return url, context


@pytest.fixture(scope="module")
def rights(stack: Stack) -> None:
    """The process's ServiceAccount, with the rights that the chart gives it and no others."""
    command = [str(find("helm")), "template", "taskdist", str(ROOT / "charts" / "taskdist"), "-n", OPERATOR_NAMESPACE]
    command += ["--kube-version", "1.34.0", "--set", "sources.enabled=true", "-s", "templates/sources.yaml"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    wanted = [each for each in yaml.safe_load_all(done.stdout) if each and each["kind"] != "Deployment"]
    assert len(wanted) >= 5
    stack.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(wanted))


@pytest.fixture
def room(stack: Stack, rabbitmq: RabbitMQ, rights: None) -> Iterator[Room]:
    name = f"rabbitmq-{secrets.token_hex(4)}"
    stack.plane.client.create("/api/v1/namespaces", {"metadata": {"name": name}})
    account = {"kind": "ServiceAccount", "name": "taskdist-sources", "namespace": OPERATOR_NAMESPACE}
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{name}"
    rules = [{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["login"], "verbs": ["get"]}]
    stack.plane.client.create(f"{rbac}/roles", {"metadata": {"name": "login"}, "rules": rules})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "login"}
    binding = {"metadata": {"name": "login"}, "roleRef": role, "subjects": [account]}
    stack.plane.client.create(f"{rbac}/rolebindings", binding)
    room = Room(stack, rabbitmq, name)
    yield room
    if room.sources is not None and room.sources.poll() is None:
        room.sources.kill()
        room.sources.wait()
    stack.plane.client.delete(f"/api/v1/namespaces/{name}")


@pytest.mark.parametrize(
    ("messages", "kills"),
    [pytest.param(1000, 5, id="some"), pytest.param(100_000, 100, id="many", marks=pytest.mark.long)],
)
def test_each_message_is_one_task_whatever_is_killed(
    room: Room, messages: int, kills: int, capsys: pytest.CaptureFixture[str]
) -> None:
    messages = int(os.environ.get("TASKDIST_MESSAGES", messages))
    kills = int(os.environ.get("TASKDIST_KILLS", kills))
    seed, begun = random.randrange(10**6), time.monotonic()
    rng, counts = random.Random(seed), Counter[str]()
    room.make_source(orderingKey="{$.key}")
    room.start_sources()
    share = messages // kills
    # Each part once, then by chance.
    order = rng.sample(list(WEIGHTS), k=len(WEIGHTS))
    order += rng.choices(list(WEIGHTS), list(WEIGHTS.values()), k=kills - len(order))
    for number, part in enumerate(order):
        room.publish(range(number * share, messages if number == kills - 1 else (number + 1) * share))
        time.sleep(rng.random() * 2)
        room.outages.fail(part)
        time.sleep(rng.random() * 0.5)
        room.outages.mend(part)
        counts[part] += 1
    sound = [number for number in range(messages) if reason(number) is None]
    until(lambda: room.count() >= len(sound), f"all Tasks are there (seed {seed})", 60 + messages / 50)
    until(lambda: room.backlog() == 0, f"nothing is left (seed {seed})", 90)
    tasks = room.tasks()
    assert sorted(tasks.values()) == sound, f"seed {seed}"
    created = [tasks[name] for name in room.created()]
    for key in range(KEYS):
        of_key = [number for number in created if number % KEYS == key]
        assert of_key == sorted(of_key), f"key {key}, seed {seed}"
    # Of these one may lie there twice.
    poison = {(number, said) for number in range(messages) if (said := reason(number)) is not None}
    assert set(room.dead_letters()) == poison, f"seed {seed}"
    with capsys.disabled():
        took = time.monotonic() - begun
        print(f"\n{messages} messages, each one Task; killed {dict(counts)} in {took:.0f} s (seed {seed})")


def test_large_messages_take_no_more_memory_than_the_chart_gives(room: Room) -> None:
    room.make_source()
    body, count = b"x" * 8 * 2**20, 24

    async def published(channel: AbstractChannel) -> None:
        for number in range(count):
            properties = Basic.Properties(message_id=str(number), delivery_mode=2)
            await channel.basic_publish(body, routing_key=room.namespace, properties=properties)

    async def got(channel: AbstractChannel) -> int:
        letter = await channel.basic_get(f"{room.namespace}-dead", no_ack=True)
        assert letter.body == body
        return int(letter.message_count or 0) + 1

    room.ask(published)
    room.publish(range(49))
    room.start_sources()
    until(lambda: room.count() == 49, "what is behind them becomes Tasks", 120)
    until(lambda: room.backlog() == 0, "nothing is left")
    assert room.ask(got) == count
    assert room.sources is not None
    status = Path(f"/proc/{room.sources.pid}/status").read_text()
    peak = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
    values = yaml.safe_load((ROOT / "charts" / "taskdist" / "values.yaml").read_text())
    assert peak / 1024 < int(values["sources"]["resources"]["limits"]["memory"].removesuffix("Mi"))


def test_it_creates_tasks_as_fast_as_the_api_server_takes_them(room: Room, capsys: pytest.CaptureFixture[str]) -> None:
    """Beside plain creates by as many at a time, of the same Tasks. The bar is 0.9; a busy machine gets some room."""
    room.make_source()
    room.publish(range(RATE_MESSAGES))
    room.start_sources()
    source = room.rate(sum(reason(number) is None for number in range(RATE_MESSAGES)))
    room.kill_sources()
    model = room.client.get(room.path("tasks"), limit="1")["items"][0]
    plain = room.plain_rate(model["spec"])
    with capsys.disabled():
        print(f"\nthe source made {source:.0f} Tasks/s, plain creates {plain:.0f} Tasks/s: {source / plain:.0%}")
    assert source >= 0.75 * plain
