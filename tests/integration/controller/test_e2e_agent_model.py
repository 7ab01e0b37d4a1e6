"""What the operator makes of how agents do: breakers that open and close, what pools tell of types."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from integration.controller.room import Object, Room, metrics
from patience import until

BREAKER = {
    "failureRatio": 0.7,
    "minAttempts": 3,
    "windowSeconds": 300,
    "openSeconds": 1,
    "maxOpenSeconds": 2,
    "probes": 2,
    "maxOpenPercent": 50,
}


class Bench:
    """A pool of four agents of one slot; those whose address is in the file fail."""

    def __init__(self, room: Room, directory: Path, **spec: Any) -> None:
        self.room, self.file, self.made = room, directory / "bad", 0
        self.file.write_text("")
        room.queue(retry={"initialSeconds": 0.05, "maxSeconds": 0.05, "limit": 50})
        room.pool(slots=1, replicas=4, ready=4, **spec)

    def work(self, tasks: int) -> list[Object]:
        """Let so many Tasks run to their end."""
        names = [f"w{self.made + n}" for n in range(tasks)]
        self.made += tasks
        for name in names:
            self.room.task(name, "fail-here", {"file": str(self.file), "seconds": 0.02})
        return self.room.ended(*names)

    def spoil(self) -> str:
        """Let one of the agents fail from now on; its name."""
        pod = min(self.room.pods(), key=lambda each: str(each["metadata"]["name"]))
        self.file.write_text(pod["status"]["podIP"])
        return str(pod["metadata"]["name"])

    def status(self) -> Object:
        return self.room.status("agentpools", "p")

    def gauge(self, state: str) -> float:
        labels = f'{{namespace="{self.room.namespace}",pool="p",state="{state}"}}'
        return metrics(self.room.stack.operators[0])[f"taskdist_breakers{labels}"]


def test_an_agent_that_fails_is_held_back_and_comes_back(room: Room, tmp_path: Path) -> None:
    bench = Bench(room, tmp_path, breaker=BREAKER)
    assert room.condition("agentpools", "p", "Healthy")["status"] == "True"
    bench.work(8)
    bad = bench.spoil()

    def opened() -> bool:
        assert {each["phase"] for each in bench.work(8)} == {"Succeeded"}, "what fails there is done elsewhere"
        return bool(bench.status()["openBreakers"] == 1)

    until(opened, "the breaker opens")
    told = bench.status()["breakers"]
    assert [each["agent"] for each in told] == [bad]
    said = room.condition("agentpools", "p", "Healthy")
    assert (said["status"], said["reason"]) == ("False", "BreakerOpen")
    assert bad in said["message"]
    assert bench.gauge("Open") + bench.gauge("HalfOpen") == 1
    assert room.event("AgentPool", "p", "BreakerOpen")["type"] == "Warning"
    lost = [each for each in bench.work(40) if any(one["agent"] == bad for one in each.get("attempts") or ())]
    assert len(lost) < 10, "but for probes it gets nothing; without the breaker a quarter of all attempts"

    bench.file.write_text("")

    def closed() -> bool:
        bench.work(4)
        return bool(bench.status()["openBreakers"] == 0)

    until(closed, "probes that succeed close it")
    assert room.condition("agentpools", "p", "Healthy")["status"] == "True"
    assert bench.status()["breakers"] == []
    assert room.event("AgentPool", "p", "BreakerClosed")["type"] == "Normal"
    assert bench.gauge("Open") + bench.gauge("HalfOpen") == 0


def test_what_is_known_of_types_survives_the_operator(room: Room, tmp_path: Path) -> None:
    bench = Bench(room, tmp_path)
    bench.work(12)
    known = until(lambda: bench.status().get("performance"), "the pool tells of the type")
    assert [each["type"] for each in known] == ["fail-here"]
    assert known[0]["count"] > 0
    assert known[0]["successRate"] == 1.0
    assert 0.02 <= known[0]["meanSeconds"] < 5
    assert bench.status()["efficiency"] > 0

    stack = room.stack
    victim = stack.operators.pop(0)
    victim.process.kill()
    victim.process.wait()
    stack.start_operator()
    until(lambda: metrics(stack.operators[0])["taskdist_leader"] == 1, "another leads")
    room.patch("agentpools", "p", replicas=3)
    until(lambda: bench.status()["replicas"] == 3, "it has written the status anew")
    assert bench.status()["performance"] == known
