"""An S3 server of a test's own: SeaweedFS, which people run for production, on loopback and a temporary directory.

It checks signatures and what each key may do. It comes as a wheel with the development environment: nothing is built.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sysconfig
import tempfile
import urllib.error
import urllib.request
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

import obstore
from obstore import exceptions as told
from obstore.store import S3Store

from patience import until
from taskdist.local.controlplane import free_ports

BUCKET = "taskdist-test"
PREFIX = "tasks"
NAMESPACE = "team"
OF = f"{BUCKET}/{PREFIX}/{NAMESPACE}"

# The rights of docs/objects.md, as this server writes them. Whoever may do everything has no part in a Task's life.
RIGHTS = {
    "owner": ["Admin", "Read", "Write", "List"],
    "agents": [f"Read:{OF}/*", f"Write:{OF}/results/*"],
    "clients": [f"Write:{OF}/payloads/*", f"Read:{OF}/results/*"],
}
# By -ip and -ip.bind all of it is on loopback. A node alone needs no long election after a power cut.
OPTIONS = (
    *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-volume.max=20", "-master.volumeSizeLimitMB=64"),
    *("-master.telemetry=false", "-master.electionTimeout=200ms", "-master.heartbeatInterval=50ms"),
    *("-filer", "-s3", "-s3.iam=false", "-s3.autoCreateBucket=false", "-s3.port.iceberg=0", "-s3.port.lance=0"),
)
PORTS = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")
S3_PORTS = ("s3.port", "s3.port.grpc")


class ObjectServer:
    """`with ObjectServer() as server:`; it may be killed and started again, with what it holds."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="taskdist-s3-"))
        self._ports = dict(zip((*PORTS, *S3_PORTS), free_ports(len(PORTS) + len(S3_PORTS)), strict=True))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        return self._ports["s3.port"]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def env(self, who: str = "owner") -> dict[str, str]:
        """Variables of a process that has these rights."""
        return {
            "TASKDIST_OBJECTS_URL": f"s3://{BUCKET}/{PREFIX}",
            "TASKDIST_OBJECTS_ENDPOINT": self.endpoint,
            "AWS_ACCESS_KEY_ID": who,
            "AWS_SECRET_ACCESS_KEY": _secret(who),
            "AWS_REGION": "us-east-1",
        }

    def store(self) -> S3Store:
        """Return the bucket for whoever may do everything with it."""
        return S3Store(
            BUCKET,
            config={
                "endpoint": self.endpoint,
                "access_key_id": "owner",
                "secret_access_key": _secret("owner"),
                "region": "us-east-1",
            },
            client_options={"allow_http": True, "timeout": timedelta(seconds=5)},
            retry_config={"max_retries": 0},
        )

    def keys(self, below: str = "") -> list[str]:
        """Return the keys of all objects below."""
        return sorted(each["path"] for page in obstore.list(self.store(), below or None) for each in page)

    def __enter__(self) -> Self:
        identities = [
            {"name": who, "credentials": [{"accessKey": who, "secretKey": _secret(who)}], "actions": actions}
            for who, actions in RIGHTS.items()
        ]
        (self._directory / "data").mkdir()
        (self._directory / "s3.json").write_text(json.dumps({"identities": identities}))
        self.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)

    def start(self) -> None:
        """Start it and wait until it answers, after a crash as well."""
        ports = [f"-{name}={port}" for name, port in self._ports.items()]
        where = [f"-dir={self._directory / 'data'}", f"-s3.config={self._directory / 's3.json'}"]
        log = self._directory / "log"
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [str(program()), "server", *OPTIONS, *ports, *where],
                cwd=self._directory,
                # Credentials of a test's environment would be those of another owner.
                env={"HOME": str(self._directory)},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        process = self._process
        filer = f"http://127.0.0.1:{self._ports['filer.port']}"
        # A directory of this name is a bucket.
        bucket = urllib.request.Request(f"{filer}/buckets/{BUCKET}/", method="POST")

        def answers() -> bool:
            assert process.poll() is None, log.read_text()[-2000:]
            try:
                urllib.request.urlopen(bucket, timeout=5).close()
            except OSError as error:
                if not isinstance(error, urllib.error.HTTPError) or error.code != 409:  # 409: it is there
                    return False
            try:
                # Through all of its parts, down to the files.
                obstore.put(self.store(), "ready", b"1", use_multipart=False)
            except (OSError, told.BaseError):
                return False
            return True

        try:
            until(answers, "the S3 server answers")
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """End it as a power cut would."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
        for port in self._ports.values():  # it keeps its sockets outside of its directory
            for socket in Path("/tmp").glob(f"seaweedfs-*{port}.sock"):
                socket.unlink(missing_ok=True)


def program() -> Path:
    """Return the server's executable, which its wheel puts beside this Python's."""
    return Path(sysconfig.get_path("scripts")) / "weed"


def _secret(who: str) -> str:
    return f"of-{who}-in-this-test-only"
