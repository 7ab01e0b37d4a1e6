"""Leaders die, freeze, lose their Lease or their API server: no attempt is lost, and nobody has to restart anything."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from integration.controller.conftest import TIMINGS
from integration.controller.room import Object, Room, beats, metrics
from patience import Stopwatch, until
from proxy import before as proxy_before
from taskdist.local.rest import Client
from taskdist.local.stack import OPERATOR_NAMESPACE, OperatorProcess, Stack

LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{OPERATOR_NAMESPACE}/leases/taskdist"
Start = Callable[..., OperatorProcess]
# With what is shipped an agent asks its work to stop 3 s before its lease of 15 s ends, which may have been renewed a
# second before its leader was killed.
OUTLASTED = 15.0 - 3.0 - 1.0


@pytest.fixture
def start(stack: Stack) -> Iterator[Start]:
    """Starts operators in the place of the shared one, which comes back at the end."""
    plain = stack._operator_env
    for operator in stack.operators:
        operator.stop()
    stack.operators.clear()

    def start(name: str, env: dict[str, str], without: tuple[str, ...] = ()) -> OperatorProcess:
        stack._operator_env = {k: v for k, v in plain.items() if k not in without} | env
        return stack.start_operator(name)

    yield start
    stack._operator_env = plain
    for operator in stack.operators:
        operator.process.kill()
        operator.process.wait()
    stack.operators.clear()
    stack.start_operator()


def leads(operator: OperatorProcess, sessions: int = 0) -> bool:
    now = metrics(operator)
    return now["taskdist_leader"] == 1 and now["taskdist_link_sessions"] >= sessions


def heard(operator: OperatorProcess, room: Room, agents: int) -> bool:
    """Whether it leads, and so many agents of the room were heard there: with that their leases were renewed."""
    there, here = ('state="idle"', 'state="busy"'), f'namespace="{room.namespace}"'
    return leads(operator) and agents == sum(
        count
        for name, count in metrics(operator).items()
        if name.startswith("taskdist_agents{") and here in name and any(each in name for each in there)
    )


def in_time(nobody: Stopwatch) -> bool:
    """Whether the agents were heard again before any had to stop its work; if not, the machine has to be to blame.

    An agent that waited for a CPU may have been renewed so much earlier.
    """
    assert nobody.seconds - nobody.held_up < OUTLASTED, f"nobody led for {nobody.seconds:.1f} s"
    return nobody.seconds + nobody.held_up < OUTLASTED


class Work:
    """Tasks that run until they are let go."""

    def __init__(self, room: Room, directory: Path, count: int) -> None:
        self._room, self._file, self._done = room, directory / "beats", directory / "done"
        self.names = [f"t{i}" for i in range(count)]
        payload = {"file": str(self._file), "until": str(self._done), "polite": True}
        for name in self.names:
            room.task(name, "trace", payload)
        until(lambda: self._file.exists() and len(beats(self._file)) == count, "all of them run")

    def end(self, kept: bool = True) -> None:
        """Let them go, and check that each went on as it had begun; not if nobody led for too long."""
        self._done.touch()
        statuses = self._room.ended(*self.names)
        if not kept:
            assert {s["phase"] for s in statuses} == {"Succeeded"}
            return
        assert [(s["phase"], s["attempt"], s["failures"]) for s in statuses] == [("Succeeded", 1, 0)] * len(statuses)
        assert {attempt for _, attempt in beats(self._file)} == {1}


def test_a_killed_leader_costs_no_attempt_with_what_is_shipped(
    room: Room, start: Start, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    # As in two pods: neither can see that the other's process is dead.
    first = start("operator-1", {"TASKDIST_POD_UID": "pod-1"}, without=tuple(TIMINGS))
    second = start("operator-2", {"TASKDIST_POD_UID": "pod-2"}, without=tuple(TIMINGS))
    # Its own leases would be over by then: they are made long enough, and it says so.
    room.queue(leaseSeconds=3)
    room.pool(replicas=2, ready=2)
    raised = until(lambda: room.condition("taskqueues", "q", "LeaseRaised"), "the queue says so")
    assert "spec.leaseSeconds is 3 and counts as 15" in raised["message"]
    work = Work(room, tmp_path, 4)
    first.process.kill()
    killed = Stopwatch()
    first.process.wait()
    room.stack.operators.remove(first)
    until(lambda: heard(second, room, 2), "the other one leads, and the agents are there")
    kept = in_time(killed)
    record_property("leader_killed_s", round(killed.seconds, 2))
    # The only one now: it is killed, and comes back in its pod. It need not wait for its former self.
    second.process.kill()
    killed = Stopwatch()
    second.process.wait()
    room.stack.operators.remove(second)
    second = start("operator-2", {"TASKDIST_POD_UID": "pod-2"}, without=tuple(TIMINGS))
    listed = Stopwatch()
    until(lambda: leads(second), "it leads again")
    assert listed.seconds - listed.held_up < 5, "it waited for its former self"
    record_property("single_operator_killed_s", round(killed.seconds, 2))
    until(lambda: heard(second, room, 2), "the agents are there")
    kept = in_time(killed) and kept
    record_property("attempts_kept", kept)
    work.end(kept)


def test_a_leadership_that_is_over_before_it_knows_leaves_nothing_behind(
    room: Room, cluster: Client, tmp_path: Path
) -> None:
    (operator,) = room.stack.operators
    # Up to four pauses of four seconds and a Lease's time after the last: with 15 s the work might rightly be lost.
    room.queue(leaseSeconds=60)
    room.pool(replicas=2, ready=2)
    work = Work(room, tmp_path, 2)

    def leads_anew(after: float) -> bool:
        now = metrics(operator)
        return now["taskdist_leader"] == 1 and now["taskdist_leader_epoch"] > after

    def freeze() -> None:
        operator.process.send_signal(signal.SIGSTOP)
        stopped = time.monotonic()
        until(lambda: time.monotonic() > stopped + float(TIMINGS["TASKDIST_LEASE_SECONDS"]) + 1, "its Lease is over")

    def goes_on() -> bool:
        """Whether the first that becomes of its Lease after a pause is that it is renewed late: nobody else led."""
        freeze()
        held = cluster.get(LEASE)["spec"]
        operator.process.send_signal(signal.SIGCONT)

        def changed() -> Object | None:
            now: Object = cluster.get(LEASE)["spec"]
            return now if now["renewTime"] != held["renewTime"] else None

        now = until(changed, "it writes its Lease", timeout=20)
        until(lambda: leads(operator, sessions=2), "it leads, with its agents", timeout=20)
        return all(now[key] == held[key] for key in ("holderIdentity", "leaseTransitions"))

    # One try is all that it has, and the machine may be too busy for that: hardly each time.
    assert any(goes_on() for _ in range(3)), "nobody else led, and yet its leadership did not outlast a pause"
    epoch = metrics(operator)["taskdist_leader_epoch"]
    freeze()
    cluster.delete(LEASE)
    operator.process.send_signal(signal.SIGCONT)
    until(lambda: leads_anew(epoch), "the same process leads again", timeout=20)
    until(lambda: leads(operator, sessions=2), "all agents are there")
    room.task("after")
    room.ended("after")
    work.end()
    assert operator.process.poll() is None


def test_an_operator_outlives_its_api_server(
    room: Room, start: Start, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    proxy = proxy_before(Path(room.stack._operator_env["KUBECONFIG"]), tmp_path / "kubeconfig")
    operator = start("operator-p", {"KUBECONFIG": str(tmp_path / "kubeconfig")})
    room.queue()
    room.pool(replicas=2, ready=2)
    work = Work(room, tmp_path, 2)

    def silent(seconds: float = 0.0) -> bool:
        now = metrics(operator)
        return now["taskdist_api_silent_seconds"] > seconds and now["taskdist_leader"] == 0

    def comes_back(what: str) -> None:
        proxy.open()
        opened = time.monotonic()
        until(lambda: leads(operator, sessions=2), "it leads again, with its agents", timeout=20)
        record_property(what, round(time.monotonic() - opened, 2))
        assert metrics(operator)["taskdist_api_silent_seconds"] == 0

    # Requests that hang: those of the reconciling thread too, which is to end with the leadership.
    proxy.hang()
    until(lambda: silent(5), "it says that the API server is silent", timeout=30)
    assert metrics(operator)["taskdist_link_sessions"] == 0
    assert "the API server has not answered for" in operator.unready()
    comes_back("api_back_after_silence_s")
    room.task("between")
    room.ended("between")
    proxy.refuse()
    until(silent, "it does not lead", timeout=30)
    comes_back("api_back_after_refusals_s")
    assert operator.process.poll() is None, "the same process all the time"
    work.end()
    said = [json.loads(line) for line in operator.log.read_text().splitlines()]
    # kopf calls a request that it tries again an error.
    assert not [line for line in said if line["level"] == "error" and not line["logger"].startswith("kopf")]
    assert not [line for line in said if "Traceback" in str(line)]
    assert "info" in {line["level"] for line in said}
    operator.stop()
    assert operator.process.returncode == 0


def test_an_operator_that_starts_without_an_api_server_waits_for_it(room: Room, start: Start, tmp_path: Path) -> None:
    assert room.stack._plane is not None
    log = room.stack._plane.log("operator-w")
    proxy = proxy_before(Path(room.stack._operator_env["KUBECONFIG"]), tmp_path / "kubeconfig")
    proxy.refuse()

    def open_once_it_asks_again() -> str:
        until(lambda: log.exists() and "it is asked again" in log.read_text(), "it says so")
        said = log.read_text()
        proxy.open()
        return said

    with ThreadPoolExecutor() as pool:
        said = pool.submit(open_once_it_asks_again)
        operator = start("operator-w", {"KUBECONFIG": str(tmp_path / "kubeconfig")})
        until(lambda: leads(operator), "it leads")
        assert "bind its ServiceAccount" not in said.result()
        assert "Traceback" not in said.result()
