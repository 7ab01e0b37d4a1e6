"""A real etcd, kube-apiserver and kube-controller-manager on loopback, for one demo or test session.

Owns their processes, certificates, ports and data, all below one directory, and ends all of it: with the owner
(guarded, even if it is killed), or by `stop_at` where it was started to stay. RBAC is on; pods get ServiceAccounts;
no scheduler and no kubelet run, since a pod runner binds pods and gives them life.

It refuses to be more: etcd does not sync to disk, certificates last 30 days, Services have no proxy behind them and
names do not resolve. Data in it is for throwing away.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

from taskdist.kube import Access, KubeError
from taskdist.local import guard, processes
from taskdist.local.binaries import find
from taskdist.local.certificates import KeyPair, LocalAuthority, signing_key
from taskdist.local.rest import Client, access_of, write_kubeconfig

ISSUER = "https://kubernetes.default.svc.cluster.local"

CONTROLLERS = (
    "serviceaccount-controller",
    "root-ca-certificate-publisher-controller",
    "garbage-collector-controller",
    "namespace-controller",
    "disruption-controller",
    "resourcequota-controller",
    "clusterrole-aggregation-controller",  # The chart's roles aggregate into edit and admin.
    "replicaset-controller",
    "deployment-controller",
    "job-controller",
)

_STATE = "state.json"
_ATTEMPTS = 3
_STOP_SECONDS = 10.0
_MINUTES_READY = 2.0


class ControlPlaneError(Exception):
    """It did not start, or is not there. The message carries the end of the log of the part that failed."""


@dataclass(frozen=True)
class _Ports:
    etcd: int
    etcd_peer: int
    apiserver: int
    controller_manager: int


class ControlPlane:
    """A running control plane. Made by `start`, `load` or `attach`; as a context manager it stops at the end."""

    def __init__(self, directory: Path, kubeconfig: Path, mark: str | None) -> None:
        self.directory = directory
        self.kubeconfig = kubeconfig
        """Of an administrator."""
        self._mark = mark
        self._processes: list[tuple[str, subprocess.Popen[bytes]]] = []
        self._guard: processes.Guard | None = None
        # What `start_process` starts carries this mark.
        self._mark_of_started = mark
        self._temporary = False

    @classmethod
    def start(
        cls,
        directory: Path | None = None,
        *,
        detached: bool = False,
        binaries: Callable[[str], Path] = find,
    ) -> ControlPlane:
        """Start one, and wait until it serves and the default ServiceAccount stands.

        Without a directory it lives in a temporary one that goes with it. Detached, it outlives this process until
        `stop_at(directory)`; otherwise it ends with this process in any case. Raises ControlPlaneError, or
        BinaryNotFound.
        """
        found = {name: binaries(name) for name in ("etcd", "kube-apiserver", "kube-controller-manager")}
        temporary = directory is None
        if directory is None:
            directory = Path(tempfile.mkdtemp(prefix="taskdist-"))
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        directory = directory.resolve()
        if (directory / _STATE).exists():
            raise ControlPlaneError(f"a control plane was started in {directory} already; stop that one first")
        for attempt in range(1, _ATTEMPTS + 1):
            plane = cls(directory, directory / "admin.kubeconfig", processes.new_mark())
            plane._temporary = temporary
            try:
                plane._start(found, detached)
                return plane
            except BaseException as error:
                plane.stop()
                # Between choosing a port and using it, somebody else may have taken it.
                if attempt == _ATTEMPTS or "address already in use" not in str(error):
                    raise
        raise AssertionError("unreachable")

    @classmethod
    def load(cls, directory: Path) -> ControlPlane:
        """The one that was started in `directory` and runs. Leaving it as a context stops it."""
        directory = directory.resolve()
        try:
            state = json.loads((directory / _STATE).read_text())
        except FileNotFoundError:
            raise ControlPlaneError(f"no control plane was started in {directory}") from None
        plane = cls(directory, directory / "admin.kubeconfig", state["mark"])
        if not guard.marked(state["mark"]):
            raise ControlPlaneError(f"the control plane of {directory} does not run any more")
        return plane

    @classmethod
    def stop_at(cls, directory: Path) -> bool:
        """Stop what was started in `directory` by another process. True if anything was there. Safe to repeat."""
        directory = directory.resolve()
        try:
            state = json.loads((directory / _STATE).read_text())
        except FileNotFoundError:
            return False
        cls(directory, directory / "admin.kubeconfig", state["mark"]).stop()
        return True

    @classmethod
    def attach(cls, kubeconfig: Path) -> ControlPlane:
        """An existing cluster in place of one of our own: the same offers, but stopping leaves it alone."""
        directory = Path(tempfile.mkdtemp(prefix="taskdist-"))
        plane = cls(directory, kubeconfig.resolve(), None)
        plane._temporary = True
        return plane

    def __enter__(self) -> ControlPlane:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @cached_property
    def access(self) -> Access:
        """As administrator."""
        return access_of(self.kubeconfig)

    @property
    def client(self) -> Client:
        """As administrator."""
        return Client(self.access)

    @property
    def server(self) -> str:
        """The API server's address, `https://127.0.0.1:PORT`."""
        return self.access.server

    @property
    def authority(self) -> Path:
        """The certificate of the authority behind the API server, PEM."""
        return self.directory / "pki" / "ca.crt"

    def log(self, name: str) -> Path:
        """The log of `etcd`, `kube-apiserver`, `kube-controller-manager`, or of a process started by that name."""
        return self.directory / "log" / f"{name}.log"

    @property
    def processes(self) -> dict[str, subprocess.Popen[bytes]]:
        """Those that this process has started, by the names of their logs."""
        return dict(self._processes)

    def client_certificate(self, user: str, groups: Sequence[str] = ()) -> KeyPair:
        """A certificate that makes its holder this user; not for an attached cluster."""
        if self._mark is None:
            raise ControlPlaneError("an attached cluster's authority is not ours to sign with")
        return LocalAuthority(self.directory / "pki").client(user, tuple(groups))

    def kubeconfig_for_user(self, user: str, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig for a user with just what RBAC gives it."""
        pair = self.client_certificate(user, groups)
        path = self.directory / f"user-{pair.key.stem}.kubeconfig"
        return self._write_kubeconfig(path, self.server, pair)

    def kubeconfig_for(self, namespace: str, service_account: str, *, seconds: int = 86_400) -> Path:
        """A kubeconfig with a token of a ServiceAccount, so that its holder has that account's rights and no others.

        The token is not renewed; it lasts `seconds`.
        """
        answer = self.client.create(
            f"/api/v1/namespaces/{namespace}/serviceaccounts/{service_account}/token",
            {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": seconds}},
        )
        authority = self.client.get(f"/api/v1/namespaces/{namespace}/configmaps/kube-root-ca.crt")["data"]["ca.crt"]
        path = self.directory / f"{namespace}-{service_account}-{secrets.token_hex(3)}.kubeconfig"
        token = answer["status"]["token"]
        return write_kubeconfig(path, self.server, authority.encode(), {"token": token}, namespace)

    def start_process(self, name: str, command: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start a process that belongs to the control plane: it ends with it at the latest, and so does whatever it
        starts. It has exactly `env`; its output goes to `log(name)`."""
        if self._mark is None:
            raise ControlPlaneError("an attached cluster has no end that a process could share")
        process = self._spawn(name, command, env, self._mark_of_started)
        # Whoever stops the control plane, perhaps from another process, ends this one in good order first.
        state = {"mark": self._mark, "started": [*self._started(), process.pid]}
        (self.directory / _STATE).write_text(json.dumps(state))
        return process

    def bind_started(self) -> None:
        """What `start_process` starts from now on ends with this process at the latest, however this one ends."""
        if self._mark is not None:
            self._mark_of_started = f"{self._mark}/{secrets.token_hex(8)}"
            self._guard = processes.Guard(self._mark_of_started)

    def _started(self) -> list[int]:
        """The processes beside the control plane's own, in the order of their start."""
        try:
            state = json.loads((self.directory / _STATE).read_text())
        except FileNotFoundError:
            return []
        return [int(pid) for pid in state["started"]]

    def stop(self) -> None:
        """End every process and remove the data. Logs stay where a directory was given. Safe to repeat."""
        if self._mark is not None:
            for pid in reversed(self._started()):
                processes.end(self._mark, pid, _STOP_SECONDS)
        # What is left keeps nothing but data that is about to be thrown away.
        for _, process in reversed(self._processes):
            process.kill()
            process.wait()
        self._processes.clear()
        if self._guard is not None:
            self._guard.close()
            self._guard = None
        if self._mark is not None:
            left = guard.kill_marked(self._mark)
            if left:
                raise ControlPlaneError(f"processes {left} do not end")
        for path in ("etcd", "pki", "work"):
            if self._mark is not None:
                shutil.rmtree(self.directory / path, ignore_errors=True)
        if self._temporary:
            shutil.rmtree(self.directory, ignore_errors=True)
        else:
            for file in self.directory.glob("*.kubeconfig"):
                file.unlink()
            (self.directory / _STATE).unlink(missing_ok=True)

    def _start(self, found: Mapping[str, Path], detached: bool) -> None:
        assert self._mark is not None
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not detached:
            self._guard = processes.Guard(self._mark)
        # Written first: whoever dies from here on leaves something that stop_at can find.
        (self.directory / _STATE).write_text(json.dumps({"mark": self._mark, "started": []}))
        ports = _Ports(*free_ports(4))
        pki = self.directory / "pki"
        authority = LocalAuthority(pki)
        server = authority.server("kube-apiserver")
        tokens = signing_key(pki)
        url = f"https://127.0.0.1:{ports.apiserver}"
        self._write_kubeconfig(self.kubeconfig, url, authority.client("taskdist-admin", ("system:masters",)))
        manager = self._write_kubeconfig(
            self.directory / "controller-manager.kubeconfig", url, authority.client("system:kube-controller-manager")
        )
        etcd = LocalAuthority(pki / "etcd")
        self._run(found["etcd"], etcd_arguments(self.directory / "etcd", ports, etcd, etcd.server("etcd")))
        apiserver = self._run(
            found["kube-apiserver"],
            apiserver_arguments(ports, authority, server, tokens, etcd, etcd.client("kube-apiserver")),
        )
        self._await("kube-apiserver", lambda: self.client.request("GET", "/readyz") == "ok")
        assert apiserver.poll() is None
        self._run(
            found["kube-controller-manager"],
            manager_arguments(self.directory / "work", ports, authority, tokens, manager),
        )
        namespace = "/api/v1/namespaces/default"
        self._await(
            "kube-controller-manager",
            lambda: (
                self.client.get(f"{namespace}/serviceaccounts/default")
                and self.client.get(f"{namespace}/configmaps/kube-root-ca.crt")
            ),
        )

    def _write_kubeconfig(self, path: Path, url: str, pair: KeyPair) -> Path:
        user = {"client-certificate": str(pair.certificate), "client-key": str(pair.key)}
        return write_kubeconfig(path, url, self.authority.read_bytes(), user)

    def _run(self, binary: Path, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        env = {name: os.environ[name] for name in ("PATH", "HOME", "GOMAXPROCS") if name in os.environ}
        return self._spawn(binary.name, [str(binary), *arguments], env, self._mark)

    def _spawn(
        self, name: str, command: Sequence[str], env: Mapping[str, str], mark: str | None
    ) -> subprocess.Popen[bytes]:
        assert mark is not None
        work = self.directory / "work"
        work.mkdir(exist_ok=True)
        process = processes.start(command, env=env, mark=mark, log=self.log(name), cwd=work)
        self._processes.append((name, process))
        return process

    def _await(self, name: str, ready: Callable[[], Any]) -> None:
        deadline = time.monotonic() + _MINUTES_READY * 60
        why: Exception | None = None
        while time.monotonic() < deadline:
            for failed, process in self._processes:
                if process.poll() is not None:
                    raise ControlPlaneError(f"{failed} ended with {process.returncode}:\n{self._tail(failed)}")
            try:
                if ready():
                    return
            except KubeError as error:
                why = error
            time.sleep(0.05)
        raise ControlPlaneError(f"{name} is not ready after {_MINUTES_READY} min ({why}):\n{self._tail(name)}")

    def _tail(self, name: str) -> str:
        with contextlib.suppress(OSError):
            lines = self.log(name).read_text(errors="replace").splitlines()
            return "\n".join(lines[-15:])
        return "(no log)"


def etcd_arguments(data: Path, ports: _Ports, authority: LocalAuthority, server: KeyPair) -> list[str]:
    client, peer = f"https://127.0.0.1:{ports.etcd}", f"https://127.0.0.1:{ports.etcd_peer}"
    arguments = [
        f"--data-dir={data}",
        "--name=local",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=local={peer}",
        "--unsafe-no-fsync",
        "--auto-compaction-retention=5m",
        "--quota-backend-bytes=4294967296",
        "--log-level=warn",
    ]
    # Loopback is shared with every user of the machine; Secrets are in here.
    for prefix in ("", "peer-"):
        arguments += [
            f"--{prefix}cert-file={server.certificate}",
            f"--{prefix}key-file={server.key}",
            f"--{prefix}trusted-ca-file={authority.certificate}",
            f"--{prefix}client-cert-auth",
        ]
    return arguments


def apiserver_arguments(
    ports: _Ports,
    authority: LocalAuthority,
    server: KeyPair,
    tokens: KeyPair,
    etcd: LocalAuthority,
    etcd_client: KeyPair,
) -> list[str]:
    return [
        f"--etcd-servers=https://127.0.0.1:{ports.etcd}",
        f"--etcd-cafile={etcd.certificate}",
        f"--etcd-certfile={etcd_client.certificate}",
        f"--etcd-keyfile={etcd_client.key}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        "--endpoint-reconciler-type=none",  # Endpoints refuse loopback addresses.
        f"--secure-port={ports.apiserver}",
        f"--tls-cert-file={server.certificate}",
        f"--tls-private-key-file={server.key}",
        f"--client-ca-file={authority.certificate}",
        f"--service-account-issuer={ISSUER}",
        f"--service-account-key-file={tokens.certificate}",
        f"--service-account-signing-key-file={tokens.key}",
        # Otherwise tokens for the API server's own audience would outlive what was asked for.
        "--service-account-extend-token-expiration=false",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--authorization-mode=RBAC",
        "--profiling=false",
        "--event-ttl=1h",
        "--shutdown-delay-duration=0s",
    ]


def manager_arguments(
    work: Path, ports: _Ports, authority: LocalAuthority, tokens: KeyPair, kubeconfig: Path
) -> list[str]:
    return [
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--bind-address=127.0.0.1",
        f"--secure-port={ports.controller_manager}",
        f"--cert-dir={work / 'controller-manager'}",
        f"--controllers={','.join(CONTROLLERS)}",
        "--leader-elect=false",
        "--use-service-account-credentials=true",
        f"--service-account-private-key-file={tokens.key}",
        f"--root-ca-file={authority.certificate}",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
        "--concurrent-gc-syncs=5",
    ]


def free_ports(count: int) -> list[int]:
    """Loopback ports nobody listens on, from below the range that the system gives to outgoing connections."""
    chosen: dict[int, socket.socket] = {}
    try:
        for _ in range(1000):
            port = 20_000 + secrets.randbelow(12_000)
            candidate = socket.socket()
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                candidate.close()
                continue
            chosen[port] = candidate
            if len(chosen) == count:
                return list(chosen)
    finally:
        for each in chosen.values():
            each.close()
    raise ControlPlaneError("no free loopback ports")
