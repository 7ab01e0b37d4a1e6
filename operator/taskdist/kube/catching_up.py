"""Bring a view up to the server's present at once, without waiting for its watch.

What was true when this began is in the view when it ends, however far the watch lags behind: by a list that no cache
of any age answered. Where objects are many, the list is of names and versions only, and what the view does not have in
that version is read: most of a list is known already, and names cost the server and us half of the time.

Why not by the watch itself: it proves nothing until it says something, and where nothing is written the server's
bookmarks come once a minute.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from taskdist.kube.client import Client
from taskdist.kube.errors import ApiError, Unanswered
from taskdist.kube.informer import Informer
from taskdist.kube.resources import Obj, name_of, namespace_of, uid_of, version_of
from taskdist.kube.store import is_newer
from taskdist.kube.streamed import streamed

# How many listed objects are taken in at one turn of the loop.
TURN_OBJECTS = 200
# How many objects are asked for at a time: so many are in memory as the API server sent them.
PAGE_OBJECTS = 500
# How many objects are read one by one; where more differ, a whole list is quicker.
MOST_READ = 50


async def catch_up(
    client: Client, view: Informer[Any], namespace: str | None, *, label_selector: str = "", by_name: bool = False
) -> None:
    """Bring the view of one namespace, or of all, up to a consistent list.

    `by_name`: by a list of names and versions, and by reading what differs. Not for views with a selector: an object
    that is read may not match it any more.
    """
    if not by_name or not await _by_name(client, view, namespace):
        listed, version = await _listed(client, view, namespace, view.apply_own, label_selector=label_selector)
        view.apply_list(listed, version, namespace)


async def _by_name(client: Client, view: Informer[Any], namespace: str | None) -> bool:
    """Return whether it is done: not where too much differs."""
    differing: dict[str, Obj] = {}

    def compare(obj: Obj) -> None:
        known = view.store.entry(uid_of(obj))
        if known is None or is_newer(version_of(obj), known.version):
            differing[uid_of(obj)] = obj
            if len(differing) > MOST_READ:
                raise _TooMany

    try:
        listed, version = await _listed(client, view, namespace, compare, metadata_only=True)
    except _TooMany:
        return False
    for uid, obj in differing.items():
        known = view.store.entry(uid)
        if known is not None and not is_newer(version_of(obj), known.version):
            continue  # the watch was quicker
        try:
            found = await client.get(view.resource, name_of(obj), namespace_of(obj))
        except ApiError as error:
            if not error.is_not_found:
                raise
            view.apply_gone(uid)
            continue
        if uid_of(found) != uid:
            view.apply_gone(uid)
        view.apply_own(found)
    view.apply_list(listed, version, namespace)
    return True


class _TooMany(Exception):
    """The view is far behind."""


async def _listed(
    client: Client,
    view: Informer[Any],
    namespace: str | None,
    take: Callable[[Obj], None],
    *,
    label_selector: str = "",
    metadata_only: bool = False,
) -> tuple[set[str], str]:
    """Give each object of a consistent list to `take`, part by part: all at once may be more than the memory holds.

    Returns the uids listed and the list's version. A stream that cannot be had is followed by pages; these start over
    when the token for the next one has expired, and the last try asks for everything at once, which needs none. What
    came before is true on its own.
    """
    for page_size, stream in ((PAGE_OBJECTS, True), (PAGE_OBJECTS, False), (PAGE_OBJECTS, False), (0, False)):
        listed: set[str] = set()
        version = ""
        if stream:
            pages = streamed(
                client,
                view.resource,
                namespace,
                label_selector=label_selector,
                part=page_size,
                metadata_only=metadata_only,
            )
        else:
            pages = client.pages(
                view.resource,
                namespace,
                label_selector=label_selector,
                page_size=page_size,
                metadata_only=metadata_only,
            )
        try:
            async with aclosing(pages):
                async for page in pages:
                    version = page.resource_version
                    for number, obj in enumerate(page.items, 1):
                        listed.add(uid_of(obj))
                        take(obj)
                        if number % TURN_OBJECTS == 0:
                            await asyncio.sleep(0)  # the Lease has to be renewed meanwhile
        except (ApiError, Unanswered) as error:
            if not stream and (page_size == 0 or not isinstance(error, ApiError) or not error.is_gone):
                raise
        else:
            return listed, version
    raise AssertionError("unreachable: the last try returns or raises")
