"""A Kafka broker of a test's own: real, one node, on loopback, in a temporary directory, gone with the test."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete

import java
from patience import until
from taskdist.api import Sasl
from taskdist.local.certificates import LocalAuthority
from taskdist.local.controlplane import free_ports

PINNED = Path(__file__).parent / "kafka_jars"
SECONDS = 120.0
USER, PASSWORD = "taskdist", "p-w.1"
_MODULE = "org.apache.kafka.common.security"
LOGIN = {
    Sasl.PLAIN: f'{_MODULE}.plain.PlainLoginModule required user_{USER}="{PASSWORD}"',
    Sasl.SCRAM_SHA_256: f"{_MODULE}.scram.ScramLoginModule required",
    Sasl.SCRAM_SHA_512: f"{_MODULE}.scram.ScramLoginModule required",
}
CLUSTER = "4L6g3nShT-eMCtK--X86sw"


class Kafka:
    """`with Kafka() as broker:`; it may be killed and started again, and then has what it had confirmed."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="taskdist-kafka-"))
        self.port, self.secure_port, controller = free_ports(3)
        self.authority = LocalAuthority(self.directory / "pki")
        self._process: subprocess.Popen[bytes] | None = None
        settings = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},SASL_SSL://127.0.0.1:{self.secure_port},"
            f"CONTROLLER://127.0.0.1:{controller}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT",
            "sasl.enabled.mechanisms": ",".join(Sasl),
            **{f"listener.name.sasl_ssl.{each.lower()}.sasl.jaas.config": f"{LOGIN[each]};" for each in Sasl},
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": self.directory / "broker.pem",
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": self.authority.certificate,
            "log.dirs": self.directory / "data",
            "auto.create.topics.enable": "false",
            "group.initial.rebalance.delay.ms": 0,
            "offsets.topic.num.partitions": 1,
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.num.partitions": 1,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
        }
        pair = self.authority.server("kafka")
        (self.directory / "broker.pem").write_bytes(pair.key.read_bytes() + pair.certificate.read_bytes())
        text = "".join(f"{name}={value}\n" for name, value in settings.items())
        (self.directory / "server.properties").write_text(text)

    def __enter__(self) -> Self:
        scram = [f"{each}=[name={USER},password={PASSWORD}]" for each in Sasl if each is not Sasl.PLAIN]
        users = [word for each in scram for word in ("--add-scram", each)]
        self._run("kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c", "server.properties", *users).wait()
        self.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers, after a crash as well."""
        process = self._process = self._run("kafka.Kafka", "server.properties")

        def answers() -> bool:
            assert process.poll() is None, self._said()
            return self._answers()

        until(answers, self._said, SECONDS)

    def kill(self) -> None:
        """End it as a power cut of its process would."""
        process, self._process = self._process, None
        if process is not None:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait()

    async def topic(self, name: str, partitions: int = 1, largest: int = 2**20) -> None:
        """Make a topic that takes messages up to so many bytes."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.address)
        await admin.start()
        try:
            topic = NewTopic(name, partitions, 1, topic_configs={"max.message.bytes": str(largest)})
            made = await admin.create_topics([topic])
            assert not [each for each in made.topic_errors if each[1]], made
        finally:
            await admin.close()

    async def delete(self, topic: str, partition: int, before: int) -> None:
        """Delete messages as age would."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.address)
        await admin.start()
        try:
            await admin.delete_records({TopicPartition(topic, partition): RecordsToDelete(before_offset=before)})
        finally:
            await admin.close()

    def _run(self, *words: str) -> subprocess.Popen[bytes]:
        with (self.directory / "log").open("ab") as log:
            return subprocess.Popen(
                java.command(PINNED, *words),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _said(self) -> str:
        return (self.directory / "log").read_text()[-3000:]

    def _answers(self) -> bool:
        async def ask() -> None:
            async with asyncio.timeout(10):
                admin = AIOKafkaAdminClient(bootstrap_servers=self.address)
                try:
                    await admin.start()
                    await admin.list_topics()
                finally:
                    await admin.close()

        if not _open(self.port):
            return False
        try:
            asyncio.run(ask())
        except Exception:
            return False
        return True


def _open(port: int) -> bool:
    with socket.socket() as tried:
        tried.settimeout(1)
        return tried.connect_ex(("127.0.0.1", port)) == 0
