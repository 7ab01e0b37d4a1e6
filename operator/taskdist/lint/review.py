"""All rules, and the review that asks each of them."""

from collections.abc import Collection, Iterator, Sequence

from taskdist.lint import (
    agents,
    arrays,
    delivery,
    keeping,
    kinship,
    limits,
    order,
    routing,
    serving,
    sinks,
    sources,
    templates,
    times,
    writing,
)
from taskdist.lint.findings import Finding, Flaw, Rule, Severity, rule
from taskdist.lint.manifests import Manifest
from taskdist.lint.setup import Setup


@rule(Severity.ERROR)
def not_yaml(_setup: Setup) -> Iterator[Flaw]:
    """A file that is no YAML.

    Nothing of it is reviewed, and kubectl refuses it.
    """
    yield from ()  # found while reading, before there is a set


RULES: tuple[Rule, ...] = (
    not_yaml,
    *writing.RULES,
    *arrays.WRITTEN,
    *routing.WRITTEN,
    *sources.WRITTEN,
    *sinks.WRITTEN,
    *serving.RULES,
    *routing.RULES,
    *times.RULES,
    *limits.RULES,
    *order.RULES,
    *delivery.RULES,
    *arrays.RULES,
    *kinship.RULES,
    *keeping.RULES,
    *agents.RULES,
    *templates.RULES,
    *sources.RULES,
    *sinks.RULES,
)


def review(
    manifests: Sequence[Manifest], now: float, *, whole: bool = False, disabled: Collection[str] = ()
) -> list[Finding]:
    """All findings, the worst first, then as the set is ordered.

    Args:
        manifests: the set.
        now: seconds since the Unix epoch: when what is not in the cluster yet counts as created.
        whole: nothing else is there, as in a list of a whole namespace; else a name may be found in the cluster.
        disabled: ids of rules that are not asked.
    """
    setup = Setup(manifests, now, whole=whole)
    found = [finding for each in RULES if each.id not in disabled for finding in each.review(setup)]
    places = {manifest.title: place for place, manifest in reversed(list(enumerate(manifests)))}
    return sorted(found, key=lambda each: (each.severity.rank, places[each.object]))


def unreadable(source: str, message: str, line: int) -> Finding:
    """The finding for a file that is no YAML."""
    words = "Mend the syntax; mostly it is the indentation or a missing quote."
    return Finding(not_yaml.id, not_yaml.severity, source, "", message, words, "", "", "", f"{source}:{line}")
