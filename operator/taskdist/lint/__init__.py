"""The review: a set of manifests is read as an expert would, before it is applied or as it stands in the cluster.

Rules are small pure functions over the whole set, each with a name, a severity and an explanation. They find what is
allowed and yet wrong: what cannot work, what has no effect, what will hurt later. Where the operator has a rule of its
own (who may run what, who goes first, circles of dependencies, the schema) it is asked, not written again.

It is a room of its own because it decides nothing: what it reads is the API's, the conversion's and the core's, and
none of these may know of it. It stands beside the simulator, an edge over the same rules. No clock, no files, no
cluster: who calls it brings the text and the time.
"""

from taskdist.lint.findings import Finding, Rule, Severity
from taskdist.lint.manifests import Manifest, live, read
from taskdist.lint.reading import Unreadable
from taskdist.lint.review import RULES, review, unreadable

__all__ = [
    "RULES",
    "Finding",
    "Manifest",
    "Rule",
    "Severity",
    "Unreadable",
    "live",
    "read",
    "review",
    "unreadable",
]
