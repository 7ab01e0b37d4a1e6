"""`taskdist dev`: a real control plane on this machine, and what runs on it."""

import os
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taskdist.cli.options import examples
from taskdist.cli.run import FAILED, complain, note

if TYPE_CHECKING:
    from taskdist.local.controlplane import ControlPlane

Directory = Annotated[
    Path | None,
    typer.Option("--dir", metavar="DIR", help="Where it keeps everything; else in the user's state directory."),
]


def _directory(given: Path | None) -> Path:
    if given is not None:
        return given
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "taskdist" / "dev"


def _running(directory: Path | None, program: str) -> "ControlPlane":
    """Return the control plane that `up` has started there. Exits with what to do where none runs."""
    from taskdist.local.controlplane import ControlPlane, ControlPlaneError

    try:
        return ControlPlane.load(_directory(directory))
    except ControlPlaneError as error:
        complain(f"{error}\nStart it with: {program} dev up")
        raise typer.Exit(FAILED) from None


def add(app: typer.Typer, program: str) -> None:
    """Add the commands."""
    dev = typer.Typer(
        no_args_is_help=True,
        help="A real control plane on this machine: etcd and kube-apiserver on loopback, no cluster, no containers.\n\n"
        f"[bold]{program} dev run[/bold] brings it up with the operator and a node, ready for kubectl apply.",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.add_typer(dev, name="dev", rich_help_panel="Processes")

    @dev.callback()
    def there() -> None:
        # A wheel of its own: images of the operator and of agents are without it.
        if find_spec("taskdist.local") is None:
            complain(f"{program} dev is not installed here: pip install 'taskdist[local]'")
            raise typer.Exit(FAILED)

    @dev.command(
        epilog=examples(
            ("the fastest way to a running Task: start it, and follow what it prints", f"{program} dev run"),
        )
    )
    def run(directory: Directory = None) -> None:
        """Run a control plane, the operator and a node in the foreground, until Ctrl-C takes them down.

        On a control plane that `up` has started it adds the operator and the node, and leaves it running.
        """
        from taskdist.local.binaries import BinaryNotFound
        from taskdist.local.controlplane import ControlPlaneError
        from taskdist.local.dev import run as run_all
        from taskdist.local.stack import StackError

        try:
            code = run_all(_directory(directory), lambda text: print(text, flush=True))
        except (BinaryNotFound, ControlPlaneError, StackError, OSError) as error:
            complain(str(error))
            code = FAILED
        raise typer.Exit(code)

    @dev.command(
        epilog=examples(
            ("start it and use it", f"eval $({program} dev up); kubectl get tq,ap,tk"),
            ("give its pods life, in a second terminal", f"{program} dev node"),
        )
    )
    def up(directory: Directory = None) -> None:
        """Start a control plane that stays, with taskdist's kinds installed. Prints the variable to set."""
        from taskdist.api.crd import definition, kinds
        from taskdist.kube import KubeError
        from taskdist.local.binaries import BinaryNotFound
        from taskdist.local.controlplane import ControlPlane, ControlPlaneError

        where = _directory(directory)
        try:
            try:
                plane = ControlPlane.load(where)
                note(f"it runs already in {where}")
            except ControlPlaneError:
                # What a crash or a restart of the machine left behind.
                ControlPlane.stop_at(where)
                plane = ControlPlane.start(where, detached=True)
            for kind in kinds():
                made = definition(kind)
                path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{made['metadata']['name']}"
                plane.client.apply(path, made)
        except (BinaryNotFound, ControlPlaneError, KubeError, OSError) as error:
            complain(str(error))
            raise typer.Exit(FAILED) from None
        print(f"export KUBECONFIG={shlex.quote(str(plane.kubeconfig))}")
        note(f"Stop it with: {program} dev down" + (f" --dir {shlex.quote(str(directory))}" if directory else ""))

    @dev.command()
    def down(directory: Directory = None) -> None:
        """Stop the control plane and remove its data."""
        from taskdist.local.controlplane import ControlPlane, ControlPlaneError

        where = _directory(directory)
        try:
            if ControlPlane.stop_at(where):
                print("stopped")
            else:
                note(f"nothing was started in {where}")
        except ControlPlaneError as error:
            complain(str(error))
            raise typer.Exit(FAILED) from None

    @dev.command()
    def status(directory: Directory = None) -> None:
        """Say whether the control plane runs, and how to reach it. Exit code 1 if it does not run."""
        plane = _running(directory, program)
        note(f"it runs at {plane.server}; logs in {plane.log('kube-apiserver').parent}")
        print(f"export KUBECONFIG={shlex.quote(str(plane.kubeconfig))}")

    @dev.command()
    def node(directory: Directory = None) -> None:
        """Run the control plane's pods as processes of this machine, until interrupted."""
        from taskdist.local.__main__ import main as local

        plane = _running(directory, program)
        raise typer.Exit(local(["podrunner", "--kubeconfig", str(plane.kubeconfig)]))
