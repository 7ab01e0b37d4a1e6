"""An agent in a process of its own, so that it can be frozen: says hello, pings, and prints what it hears.

python peer.py PORT BUNDLE-FILE TOKEN
"""

import asyncio
import sys
import time
from pathlib import Path

from taskdist.protocol.messages import Ping
from unit.link.client import dial, hello


async def main(port: int, bundle: bytes, token: str) -> None:
    async with dial(port, bundle, token) as stream:
        await stream.say(hello())
        print(await stream.hear(), flush=True)
        while True:
            await stream.say(Ping(time.clock_gettime(time.CLOCK_BOOTTIME)))
            await asyncio.sleep(1.0)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2]).read_bytes(), sys.argv[3]))
