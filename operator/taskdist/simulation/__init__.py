"""The simulator: a discrete-event loop around the real core, in virtual time.

A scenario holds manifests and a workload; a run gives a record of what happened; figures, comparisons and the report
are computed from records. There is no second scheduler here: the core decides, as it does in the operator. The
baselines are policies to compare it with. No clock, no logging, no I/O but scenario and trace files.
"""

from taskdist.simulation.loading import Loaded, ScenarioError, load, parse
from taskdist.simulation.runs import Run, play, play_all

__all__ = ["Loaded", "Run", "ScenarioError", "load", "parse", "play", "play_all"]
