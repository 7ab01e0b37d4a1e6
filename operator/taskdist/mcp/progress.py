"""Progress in the form that agents tell each other, and the sentence that tells of a delivery.

    {"agent": "task-distributor", "status": "distributing", "progress": {"tasks_distributed": "45K",
     "avg_queue_time": "230ms", "load_variance": "7%", "deadline_success": "97%"}}

Beside that form stands what the figures were measured from. What was not measured has no figure, in the form as in the
sentence, and is said to be missing.
"""

from pydantic import Field

from taskdist.common import times
from taskdist.mcp import wording
from taskdist.mcp.forms import AGENT, Form
from taskdist.mcp.measuring import NO_BASELINE, Figures
from taskdist.mcp.wording import counted

PROGRESS = """\
How the distribution of work does: `progress` holds tasks_distributed, avg_queue_time, load_variance and \
deadline_success over the last period_seconds, of all Tasks of the namespace or of one queue. Each is measured from \
the Tasks and agents that the cluster holds; one that is not there was not measured, and `not_measured` says why. \
`numbers` has the same for programs. `status` is distributing while Tasks wait or run, and idle else."""

NOTIFICATION = """\
The sentence that tells of a delivery, such as "Task distribution system completed. Distributed 45K tasks with 230ms \
average queue time and 7% load variance. Achieved 97% deadline success rate with 84% resource utilization.", with the \
numbers of the last period_seconds. Pass it on as it is: each number was measured, and what was not is left out and \
named at the end. It says completed only if nothing waits or runs any more."""


class ProgressForm(Form):
    """Figures as agents tell them; each is absent where it was not measured."""

    tasks_distributed: str | None = None
    avg_queue_time: str | None = None
    load_variance: str | None = None
    deadline_success: str | None = None


class Numbers(Form):
    """Figures for programs: parts are from 0 to 1, times in seconds."""

    period_begin: str
    period_end: str
    tasks_distributed: int
    waiting: int
    running: int
    ended: dict[str, int]
    avg_queue_seconds_at_least: float | None = None
    avg_queue_seconds_at_most: float | None = None
    queue_times: int = Field(description="Of how many Tasks that is the average.")
    load_variance: float | None = None
    load_variance_pool: str | None = Field(None, description="The pool where it is largest.")
    deadlines: int
    deadlines_met: int
    utilization: float | None = None
    completion: float | None = Field(None, description="Succeeded ÷ ended, cancelled ones left out.")


class Progress(Form):
    """Progress, and what it was measured from."""

    agent: str = AGENT
    status: str
    progress: ProgressForm
    numbers: Numbers
    not_measured: dict[str, str]
    notes: list[str]


class Notification(Form):
    """A sentence to pass on, and what it was measured from."""

    agent: str = AGENT
    message: str
    numbers: Numbers
    not_measured: dict[str, str]
    notes: list[str]


def progress(figures: Figures) -> Progress:
    return Progress(
        status="distributing" if figures.busy_now else "idle",
        progress=ProgressForm(
            tasks_distributed=wording.count(figures.distributed),
            avg_queue_time=wording.queue_time(figures),
            load_variance=None if figures.load_variance is None else wording.percent(figures.load_variance),
            deadline_success=None if figures.deadline_success is None else wording.percent(figures.deadline_success),
        ),
        numbers=numbers(figures),
        not_measured=dict(figures.unknown),
        notes=list(figures.notes),
    )


def notification(figures: Figures) -> Notification:
    missing = {**figures.unknown, "wait_reduction": NO_BASELINE}
    return Notification(
        message=sentence(figures), numbers=numbers(figures), not_measured=missing, notes=list(figures.notes)
    )


def sentence(figures: Figures) -> str:
    """Say what was delivered, with what was measured and nothing else."""
    if figures.busy_now:
        state = f"{counted(figures.waiting, 'task')} waiting and {figures.running} running"
        said = [f"Task distribution system is distributing, with {state}."]
    else:
        said = ["Task distribution system completed."]
    queue_time = wording.queue_time(figures)
    parts = [
        f"{queue_time} average queue time" if queue_time else "",
        f"{wording.percent(figures.load_variance)} load variance" if figures.load_variance is not None else "",
    ]
    tasks = "task" if figures.distributed == 1 else "tasks"
    said.append(f"Distributed {wording.count(figures.distributed)} {tasks}{_with(parts)}.")
    used = "" if figures.utilization is None else f"{wording.percent(figures.utilization)} resource utilization"
    if figures.deadline_success is not None:
        rate = f"{wording.percent(figures.deadline_success)} deadline success rate"
        said.append(f"Achieved {rate}{_with([used])}.")
    elif used:
        said.append(f"Achieved {used}.")
    missing = [_NAMES[each] for each in _NAMES if each in figures.unknown]
    said.append(f"Not measured: {', '.join([*missing, 'reduction of task wait time'])}.")
    return " ".join(said)


_NAMES = {
    "avg_queue_time": "average queue time",
    "load_variance": "load variance",
    "deadline_success": "deadline success rate",
    "utilization": "resource utilization",
}


def numbers(figures: Figures) -> Numbers:
    low, high = figures.queue_seconds or (None, None)
    return Numbers(
        period_begin=times.utc(figures.begin),
        period_end=times.utc(figures.end),
        tasks_distributed=figures.distributed,
        waiting=figures.waiting,
        running=figures.running,
        ended=dict(figures.ended),
        avg_queue_seconds_at_least=low,
        avg_queue_seconds_at_most=high,
        queue_times=figures.queue_times,
        load_variance=figures.load_variance,
        load_variance_pool=figures.load_pool or None,
        deadlines=figures.deadlines,
        deadlines_met=figures.deadlines_met,
        utilization=figures.utilization,
        completion=figures.completion,
    )


def _with(parts: list[str]) -> str:
    told = " and ".join(filter(None, parts))
    return f" with {told}" if told else ""
