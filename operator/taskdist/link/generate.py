"""Makes the Python modules of `link.proto`, or checks that those at hand match it.

    python -m taskdist.link.generate [--check]

Needs grpcio-tools, which only development has. Exit status 1 with `--check` if a file differs.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

PROTO = Path("taskdist/link/proto/link.proto")
ROOT = Path(__file__).resolve().parents[2]  # the source root, so that generated imports are absolute
GENERATED = ("link_pb2.py", "link_pb2.pyi", "link_pb2_grpc.py")


def generate(target: Path) -> None:
    """Write the modules below `target`, laid out like the source root."""
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={ROOT}"),
            *(f"--python_out={target}", f"--pyi_out={target}", f"--grpc_python_out={target}"),
            str(PROTO),
        ],
        check=True,
    )


def stale() -> list[str]:
    """Return the names of the checked-in modules that differ from what protoc makes of the proto."""
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        fresh = Path(scratch) / PROTO.parent
        here = ROOT / PROTO.parent
        return [
            name
            for name in GENERATED
            if not (here / name).exists() or (here / name).read_bytes() != (fresh / name).read_bytes()
        ]


def main(arguments: list[str]) -> int:
    if arguments == ["--check"]:
        differing = stale()
        for name in differing:
            print(f"{PROTO.parent / name} does not match link.proto: run python -m taskdist.link.generate")
        return 1 if differing else 0
    if arguments:
        print("usage: python -m taskdist.link.generate [--check]")
        return 2
    generate(ROOT)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
