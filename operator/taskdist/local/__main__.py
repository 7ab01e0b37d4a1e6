"""`python -m taskdist.local`: prepare binaries, start and stop a control plane that stays, run a node.

Owns arguments, exit codes and what is printed; nothing is decided here.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
from pathlib import Path

from taskdist.kube import KubeError
from taskdist.local import demo
from taskdist.local.binaries import BINARIES, CONTROL_PLANE, BinaryNotFound, Finder, to_stderr
from taskdist.local.controlplane import ControlPlane, ControlPlaneError
from taskdist.local.node import NodeSettings
from taskdist.local.podrunner import PodRunner
from taskdist.local.rest import access_of

# The checkout: the demo installs its manifests and runs its samples.
ROOT = Path(__file__).resolve().parents[3]


def parser() -> argparse.ArgumentParser:
    main = argparse.ArgumentParser(prog="python -m taskdist.local", description="A real control plane on this machine.")
    commands = main.add_subparsers(dest="command", required=True)
    binaries = commands.add_parser("binaries", help="find or make the binaries, and print where they are")
    binaries.add_argument("names", nargs="*", choices=[*BINARIES, []], help=f"default: {' '.join(CONTROL_PLANE)}")
    up = commands.add_parser("up", help="start a control plane that stays until `down`")
    up.add_argument("--dir", type=Path, required=True, help="where it keeps everything")
    down = commands.add_parser("down", help="stop the control plane that `up` started")
    down.add_argument("--dir", type=Path, required=True)
    runner = commands.add_parser("podrunner", help="run the cluster's pods as processes, until it is interrupted")
    runner.add_argument("--kubeconfig", type=Path, required=True)
    runner.add_argument("--dir", type=Path, help="for volumes and logs; default: a temporary directory")
    runner.add_argument("--node", default="local", help="the node's name (default: %(default)s)")
    runner.add_argument(
        "--pods", type=int, default=NodeSettings.pods, help="at most so many pods (default: %(default)s)"
    )
    trial = commands.add_parser("demo", help="run the main job end to end, and show what happened")
    trial.add_argument("--dir", type=Path, default=ROOT / ".demo", help="where it keeps everything (default: .demo)")
    trial.add_argument("--count", type=int, default=300, help="how many Tasks (default: %(default)s)")
    trial.add_argument("--keep", action="store_true", help="leave it running")
    trial.add_argument("--stop", action="store_true", help="end what --keep left running")
    trial.add_argument(
        "--cluster", choices=("local", "current"), default="local", help="`current`: the one that kubectl speaks to now"
    )
    trial.add_argument("--image", default="", help="for --cluster current: an image that it can pull, REPOSITORY:TAG")
    return main


async def run_node(options: argparse.Namespace) -> None:
    """Serve until SIGINT or SIGTERM."""
    settings = NodeSettings(name=options.node, pods=options.pods, directory=options.dir)
    runner = PodRunner(access_of(options.kubeconfig), settings)
    serving = asyncio.create_task(runner.run())
    for stop in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(stop, serving.cancel)
    ready = asyncio.create_task(runner.ready.wait())
    await asyncio.wait({serving, ready}, return_when=asyncio.FIRST_COMPLETED)
    if ready.done():
        print(f"node {options.node} is ready; logs: {runner.log_path('NAMESPACE', 'POD', 'CONTAINER')}", flush=True)
    ready.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving


def main(arguments: list[str]) -> int:
    options = parser().parse_args(arguments)
    try:
        match options.command:
            case "binaries":
                finder = Finder(os.environ, to_stderr)
                for name in options.names or CONTROL_PLANE:
                    print(f"{name} {finder.find(name)}", flush=True)
            case "up":
                plane = ControlPlane.start(options.dir, detached=True)
                print(f"export KUBECONFIG={plane.kubeconfig}")
            case "down":
                if not ControlPlane.stop_at(options.dir):
                    print(f"nothing was started in {options.dir}", file=sys.stderr)
            case "demo" if options.stop:
                stopped = ControlPlane.stop_at(options.dir)
                print("stopped" if stopped else f"nothing was started in {options.dir}")
            case "demo":
                return demo.main(
                    options.dir,
                    count=options.count,
                    keep=options.keep,
                    cluster=options.cluster,
                    image=options.image,
                    root=ROOT,
                )
            case "podrunner":
                logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
                asyncio.run(run_node(options))
    except (BinaryNotFound, ControlPlaneError, KubeError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
