"""A process that supervises, for tests that kill or stop it: `host.py MARK LEASE_SECONDS TYPE`.

It grants itself one lease, never renews it, and prints the pids of its warden and workers, and the
boot time at which the lease ends, once the work runs.
"""

import asyncio
import json
import sys
from pathlib import Path

from agents.peer import Peer, until
from taskdist.agent.logs import make_logger
from taskdist.agent.pool import WorkerPool
from taskdist.agent.processes import adopt_orphans
from taskdist.agent.supervisor import Supervisor
from taskdist.agent.work import Offered
from taskdist.common.boottime import boottime
from taskdist.protocol.agent import AgentEnd
from taskdist.protocol.messages import Hello, Ping
from taskdist.protocol.settings import Capabilities

SAMPLE = Path(__file__).parent / "sample.py"


async def main(mark: Path, lease_seconds: float, type_: str) -> None:
    adopt_orphans()
    log = make_logger(agent="host")
    pool = WorkerPool("module", [str(SAMPLE)], 1, log, adopts_orphans=True)
    peer = Peer()
    peer.renewing = False

    def make_end(offered: Offered) -> AgentEnd:
        return AgentEnd("host", Capabilities(slots=1, types=offered.types, fenced=offered.fenced))

    supervisor = Supervisor(make_end, pool, peer, log)
    running = asyncio.create_task(supervisor.run())
    await peer.wait_for(Hello)
    await peer.wait_for(Ping)
    end = boottime() + lease_seconds
    peer.grant(type_, json.dumps({"file": str(mark)}).encode(), seconds=lease_seconds)
    await until(mark.exists, "the work runs")
    print(json.dumps({"warden": pool.warden_pid, "workers": pool.worker_pids, "end": end}), flush=True)
    await running


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3]))
