"""`python -m taskdist.local`: prepare binaries, start and stop a control plane that stays, run a node.

Owns arguments, exit codes and what is printed; nothing is decided here.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from taskdist.local.binaries import BINARIES, CONTROL_PLANE, BinaryNotFound, Finder, to_stderr
from taskdist.local.controlplane import ControlPlane, ControlPlaneError


def parser() -> argparse.ArgumentParser:
    main = argparse.ArgumentParser(prog="python -m taskdist.local", description="A real control plane on this machine.")
    commands = main.add_subparsers(dest="command", required=True)
    binaries = commands.add_parser("binaries", help="find or make the binaries, and print where they are")
    binaries.add_argument("names", nargs="*", choices=[*BINARIES, []], help=f"default: {' '.join(CONTROL_PLANE)}")
    up = commands.add_parser("up", help="start a control plane that stays until `down`")
    up.add_argument("--dir", type=Path, required=True, help="where it keeps everything")
    down = commands.add_parser("down", help="stop the control plane that `up` started")
    down.add_argument("--dir", type=Path, required=True)
    return main


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
    except (BinaryNotFound, ControlPlaneError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
