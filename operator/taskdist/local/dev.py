"""The local loop: a control plane, the operator and a node in one command, up until it is interrupted.

Owns the order of things, a first agent to play with, and what is printed. The parts are those of the demo. Unless a
control plane runs already (then that one is used, and stays), everything ends with this process, however it ends.
"""

from __future__ import annotations

import contextlib
import shlex
import shutil
import signal
import socket
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

from taskdist.kube import KubeError
from taskdist.local.controlplane import ControlPlane, ControlPlaneError
from taskdist.local.stack import Stack, StackError

NODE_SECONDS = 30.0
LOOK_SECONDS = 0.5
LINK_PORT = "link-port"
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

AGENT = '''"""A first agent. Change it, then have it started anew: kubectl delete pod -l taskdist.dev/pool=hello"""

from taskdist.agent import Agent, Context

agent = Agent()


@agent.task("hello")
def hello(payload: dict, ctx: Context) -> dict:
    return {"greeting": f"Hello, {payload['name']}!"}
'''

OBJECTS = """\
# A queue, and a pool whose agents run {agent}. Pods are processes of this machine here: the image is not used.
apiVersion: taskdist.dev/v1alpha1
kind: TaskQueue
metadata: {{name: hello}}
spec:
  pools: [hello]
---
apiVersion: taskdist.dev/v1alpha1
kind: AgentPool
metadata: {{name: hello}}
spec:
  slots: 2
  replicas: 1
  template:
    spec:
      terminationGracePeriodSeconds: 5
      containers:
        - name: agent
          image: taskdist
          command: [taskdist, agent, "{agent}:agent"]
"""

Say = Callable[[str], None]


def run(directory: Path, say: Say) -> int:
    """Bring everything up, say what to do next, and wait; returns the exit code.

    Interrupted, it takes down what it brought and returns 0; if a part does not come up or ends, 1.
    """
    began = time.monotonic()
    stack = _stack(directory)
    former = [signal.signal(each, _interrupt) for each in STOPS]
    try:
        stack.up(say)
        (directory / LINK_PORT).write_text(str(stack.link_port))
        _await_node(stack)
        say(next_steps(stack, directory.resolve(), time.monotonic() - began))
        while not (ended := stack.ended()):
            time.sleep(LOOK_SECONDS)
        say(f"{ended}\nall parts are stopped")
    except KeyboardInterrupt:
        say("stopping")
        return 0
    except StackError as error:
        say(str(error))
    finally:
        # Asked again it goes on stopping: half a stop would leave processes behind.
        for each in STOPS:
            signal.signal(each, signal.SIG_IGN)
        stack.down()
        for each, handler in zip(STOPS, former, strict=True):
            signal.signal(each, handler)
    return 1


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _stack(directory: Path) -> Stack:
    try:
        plane = ControlPlane.load(directory)
    except ControlPlaneError:
        ControlPlane.stop_at(directory)  # What a crash or a restart of the machine left behind.
        return Stack.local(directory, root(), stays=False, link_port=former_port(directory))
    plane.bind_started()
    return Stack.on(plane, root(), {}, former_port(directory))


def former_port(directory: Path) -> int:
    """Where agents that are there already dial the operator, as their pods say; 0 if that is not known or not free."""
    with contextlib.suppress(OSError, ValueError, OverflowError), socket.socket() as probe:
        port = int((directory / LINK_PORT).read_text())
        # As the operator does: what just ended keeps nobody out.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        return port
    return 0


def root() -> Path:
    """Where `manifests/install.yaml` is: in the checkout, or in the package where that was installed from a wheel."""
    here = Path(__file__).resolve().parent
    for candidate in (here, *here.parents):
        if (candidate / "manifests" / "install.yaml").exists():
            return candidate
    raise StackError(
        "manifests/install.yaml is neither in the package nor in a checkout around it: install taskdist[local] anew"
    )


def _await_node(stack: Stack) -> None:
    deadline = time.monotonic() + NODE_SECONDS
    while time.monotonic() < deadline and not stack.ended():
        try:
            node = stack.plane.client.get("/api/v1/nodes/local")
            if any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions") or ()):
                return
        except KubeError:
            pass
        time.sleep(0.1)
    raise StackError(stack.ended() or f"the node is not ready after {NODE_SECONDS:.0f} s: see {stack.logs}")


def next_steps(stack: Stack, directory: Path, seconds: float) -> str:
    """What to do now, to be pasted into a second terminal. Writes a first agent, unless one is there."""
    agent, objects = directory / "hello.py", directory / "hello.yaml"
    for path, text in ((agent, AGENT), (objects, OBJECTS.format(agent=agent))):
        if not path.exists():
            path.write_text(text)
    lines = [f"export KUBECONFIG={shlex.quote(str(stack.kubeconfig))}"]
    if shutil.which("kubectl") is None:
        lines.append(f"alias kubectl={shlex.quote(str(stack.kubectl_binary))}")
    if shutil.which("taskdist") is None:
        lines.append(f"alias taskdist={shlex.quote(str(Path(sys.executable).parent / 'taskdist'))}")
    lines += [
        f"kubectl apply -f {shlex.quote(str(objects))}",
        """taskdist submit hello --type hello --payload '{"name": "you"}' --wait""",
        "kubectl get tq,ap,tk",
    ]
    commands = textwrap.indent("\n".join(lines), "  ")
    return (
        f"ready after {seconds:.0f} s. In a second terminal:\n\n{commands}\n\n"
        f"The agent is {agent}: change it as you like.\n"
        f"Logs are in {stack.logs}, those of agents in {directory / 'pods' / 'logs'}.\n"
        f"Ctrl-C ends {'operator and node; the control plane stays' if stack.borrowed else 'all of it'}."
    )
