"""Several seeds and several variants: means with their spread, and paired differences between variants.

Variants of one seed see the same arrivals, services and failures, so the difference of two within a seed is far less
noisy than either: intervals are those of the mean of such differences, and of such ratios, over the seeds (Law,
Simulation Modeling and Analysis, on common random numbers). Refuses to say what is good.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import sqrt
from statistics import NormalDist, stdev
from typing import Any

from taskdist.simulation.figures import Figures

# What is compared, and where it stands in the figures.
METRICS: dict[str, tuple[str, ...]] = {
    "wait.mean": ("wait", "mean"),
    "wait.p50": ("wait", "p50"),
    "wait.p95": ("wait", "p95"),
    "wait.p99": ("wait", "p99"),
    "wait.max": ("wait", "max"),
    "turnaround.mean": ("turnaround", "mean"),
    "deadline_success": ("deadline_success",),
    "utilization": ("utilization",),
    "load_variance": ("load_variance",),
    "fairness_jain": ("fairness_jain",),
    "priority_inversions": ("priority_inversions",),
    "completed": ("completed",),
    "cost": ("cost",),
    "energy_wh": ("energy_wh",),
}
MISSES = "deadline_misses"
"""Compared beside them: 1 − deadline success, whose ratio says more where nearly all succeed."""

# Two-sided 95% quantiles of Student's t, by degrees of freedom from 1.
_T = (
    *(12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281),
    *(2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860),
    *(2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423),
)


def student(freedom: int) -> float:
    """Return the two-sided 95% quantile of Student's t."""
    if freedom <= len(_T):
        return _T[freedom - 1]
    z = NormalDist().inv_cdf(0.975)
    # Cornish–Fisher expansion (Abramowitz and Stegun 26.7.5): exact to four digits from here on.
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the 95% confidence interval of the mean; None with fewer than two values."""
    if len(values) < 2:
        return None
    mean = sum(values) / len(values)
    half = student(len(values) - 1) * stdev(values) / sqrt(len(values))
    return mean - half, mean + half


def metric(figures: Figures, name: str) -> float | None:
    """Return a compared figure; None where it is not defined."""
    if name == MISSES:
        success = figures["deadline_success"]
        return None if success is None else 1 - success
    found: Any = figures
    for step in METRICS[name]:
        found = found[step]
    return None if found is None else float(found)


def over_seeds(by_seed: Mapping[int, Figures]) -> Figures:
    """Return the figures of one seed as they are; of several, their means, with `spread` and `seeds` beside them.

    A figure that some seed does not define is the mean over those that do.
    """
    runs = list(by_seed.values())
    if len(runs) == 1:
        return runs[0]
    made: Figures = _mean(runs)
    made["spread"] = {}
    for name in (*METRICS, MISSES):
        values = [value for run in runs if (value := metric(run, name)) is not None]
        if values:
            made["spread"][name] = {
                "mean": sum(values) / len(values),
                "interval_95": _listed(interval(values)),
                "min": min(values),
                "max": max(values),
            }
    made["seeds"] = {str(seed): run for seed, run in by_seed.items()}
    return made


def _mean(values: Sequence[Any]) -> Any:
    known = [value for value in values if value is not None]
    if not known:
        return None
    if isinstance(known[0], dict):
        keys = list(dict.fromkeys(key for each in known for key in each))
        return {key: _mean([each.get(key) for each in known]) for key in keys}
    mean = sum(known) / len(known)
    # Counts that are the same everywhere stay counts.
    return known[0] if all(value == known[0] for value in known) else mean


def paired(variants: Mapping[str, Mapping[int, Figures]]) -> Figures:
    """Return for each two variants, `A vs B`, how A differs from B: mean difference and ratio with 95% intervals.

    Only seeds in which both define a figure count; a ratio needs B's to be above 0 in all of them.
    """
    made: Figures = {}
    for first, second in combinations(variants, 2):
        compared: Figures = {}
        for name in (*METRICS, MISSES):
            pairs = [
                (ours, theirs)
                for seed in variants[first]
                if (ours := metric(variants[first][seed], name)) is not None
                and (theirs := metric(variants[second][seed], name)) is not None
            ]
            if pairs:
                compared[name] = _pair(pairs)
        made[f"{first} vs {second}"] = compared
    return made


def _pair(pairs: Sequence[tuple[float, float]]) -> Figures:
    differences = [ours - theirs for ours, theirs in pairs]
    ratios = [ours / theirs for ours, theirs in pairs] if all(theirs > 0 for _, theirs in pairs) else []
    return {
        "difference": sum(differences) / len(differences),
        "difference_95": _listed(interval(differences)),
        "ratio": sum(ratios) / len(ratios) if ratios else None,
        "ratio_95": _listed(interval(ratios)) if ratios else None,
        "pairs": len(pairs),
    }


def _listed(found: tuple[float, float] | None) -> list[float] | None:
    return None if found is None else list(found)


def result(variants: Mapping[str, Mapping[int, Figures]]) -> Figures:
    """Return all there is to say: the figures of the one variant, or those of each and how they differ."""
    if list(variants) == [""]:
        return over_seeds(variants[""])
    return {
        "variants": {name: over_seeds(by_seed) for name, by_seed in variants.items()},
        "paired": paired(variants),
    }
