"""The API server as the operator meets it: client, informers, status writer and leader election.

- `Client`: verbs on resources, plain dicts, three kinds of failure (`ApiError`, `Unreachable`, `Unanswered`).
- `Informer`: a live view of one resource, each change told once as `Added`, `Updated` or `Deleted`,
  or as `Aside` where an object could not be read.
- `StatusWriter`: compare-and-swap writes of status, each ending in an `Outcome`.
- `LeaderElector`: one leader at a time, each leadership with an epoch that only grows.
- `Reviews`: whose a bearer token is, and what its holder may.

The judgements (what an event does to a view, when a leadership begins and ends) are pure and apart from their I/O. This
package knows the project's resources by name only; it holds no policy, models, metrics or log formats.
"""

from taskdist.common.objects import as_object
from taskdist.kube.catching_up import catch_up
from taskdist.kube.client import Client, OnRequest, Page, PatchType, WatchEvent
from taskdist.kube.credentials import Access, Credentials
from taskdist.kube.election import Election, Timing
from taskdist.kube.errors import ApiError, ConfigurationError, HistoryWentBack, KubeError, Unanswered, Unreachable
from taskdist.kube.identity import Identity
from taskdist.kube.informer import Counts, Informer, InformerSettings
from taskdist.kube.leader import LeaderElector
from taskdist.kube.resources import (
    AGENTPOOLS,
    CONFIGMAPS,
    CUSTOMRESOURCEDEFINITIONS,
    EVENTS,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    SECRETS,
    SERVICEACCOUNTS,
    SUBJECTACCESSREVIEWS,
    TASKQUEUES,
    TASKS,
    TASKSINKS,
    TASKSOURCES,
    TOKENREVIEWS,
    Obj,
    Resource,
    name_of,
    namespace_of,
    uid_of,
    version_of,
)
from taskdist.kube.reviews import (
    AccessError,
    Busy,
    Caller,
    NotAllowed,
    NotAuthenticated,
    NotReviewed,
    Reviews,
    Right,
    bearer_of,
)
from taskdist.kube.status_bodies import status_operations, status_patch
from taskdist.kube.store import (
    Added,
    Aside,
    Change,
    Deleted,
    Difference,
    DifferenceKind,
    Entry,
    Event,
    Store,
    Updated,
)
from taskdist.kube.transport import Answer, HttpTransport, OnBehalf, Request, Transport
from taskdist.kube.writer import Conflict, Gone, NotSeen, Outcome, Refused, StatusWriter, Unknown, Write, Written

__all__ = [
    "AGENTPOOLS",
    "CONFIGMAPS",
    "CUSTOMRESOURCEDEFINITIONS",
    "EVENTS",
    "LEASES",
    "NAMESPACES",
    "NODES",
    "PODS",
    "SECRETS",
    "SERVICEACCOUNTS",
    "SUBJECTACCESSREVIEWS",
    "TASKQUEUES",
    "TASKS",
    "TASKSINKS",
    "TASKSOURCES",
    "TOKENREVIEWS",
    "Access",
    "AccessError",
    "Added",
    "Answer",
    "ApiError",
    "Aside",
    "Busy",
    "Caller",
    "Change",
    "Client",
    "ConfigurationError",
    "Conflict",
    "Counts",
    "Credentials",
    "Deleted",
    "Difference",
    "DifferenceKind",
    "Election",
    "Entry",
    "Event",
    "Gone",
    "HistoryWentBack",
    "HttpTransport",
    "Identity",
    "Informer",
    "InformerSettings",
    "KubeError",
    "LeaderElector",
    "NotAllowed",
    "NotAuthenticated",
    "NotReviewed",
    "NotSeen",
    "Obj",
    "OnBehalf",
    "OnRequest",
    "Outcome",
    "Page",
    "PatchType",
    "Refused",
    "Request",
    "Resource",
    "Reviews",
    "Right",
    "StatusWriter",
    "Store",
    "Timing",
    "Transport",
    "Unanswered",
    "Unknown",
    "Unreachable",
    "Updated",
    "WatchEvent",
    "Write",
    "Written",
    "as_object",
    "bearer_of",
    "catch_up",
    "name_of",
    "namespace_of",
    "status_operations",
    "status_patch",
    "uid_of",
    "version_of",
]
