"""A pod's volumes as files: what each holds, and writing it so that a reader never sees half of it.

Owns which files a volume consists of, and the atomic swap by which a whole set of files changes at once, as kubelet
does it: the files lie in a directory of their own, `..data` links to it, each name links through `..data`. Tokens come
in ready made. It knows config maps, secrets, downward API, service account tokens (all of them projected too), empty
directories and host paths; every other kind is refused by name.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from taskdist.kube import Obj
from taskdist.local.environment import Lookup, Missing, data_of, field, resource


@dataclass(frozen=True)
class TokenRequest:
    """A token that a projected volume asks for. The key names it within the pod."""

    key: tuple[str, int]
    audience: str
    seconds: int


Token = Callable[[TokenRequest], str]

_PLAIN = ("emptyDir", "hostPath")
_RENDERED = ("configMap", "secret", "downwardAPI", "projected")


def refused(pod: Obj) -> list[str]:
    """What this node cannot give, a sentence each."""
    known = (*_PLAIN, *_RENDERED)
    return [
        f"volume {volume['name']} is of a kind that this node does not have ({', '.join(volume.keys() - {'name'})})"
        for volume in pod["spec"].get("volumes") or ()
        if not volume.keys() & set(known)
    ]


def place(volume: Obj, folder: Path) -> Path:
    """The directory of a volume: below `folder`, or the host's own for a host path."""
    if host := volume.get("hostPath"):
        return Path(host["path"])
    return folder / str(volume["name"])


def sources(volume: Obj) -> list[Obj]:
    """What a rendered volume is put together from; a plain one is its own single source."""
    if projected := volume.get("projected"):
        return list(projected.get("sources") or ())
    return [{kind: volume[kind]} for kind in ("configMap", "secret", "downwardAPI") if volume.get(kind) is not None]


def references(pod: Obj) -> set[tuple[str, str]]:
    """(kind, name) of each ConfigMap and Secret whose change changes a volume."""
    found = set()
    for volume in pod["spec"].get("volumes") or ():
        for source in sources(volume):
            if (content := source.get("configMap")) is not None:
                found.add(("ConfigMap", content["name"]))
            if (content := source.get("secret")) is not None:
                found.add(("Secret", content.get("secretName") or content["name"]))
    return found


def tokens(pod: Obj) -> list[TokenRequest]:
    """The tokens that the pod's volumes ask for."""
    return [
        TokenRequest(
            (volume["name"], index),
            source["serviceAccountToken"].get("audience") or "",
            int(source["serviceAccountToken"].get("expirationSeconds") or 3600),
        )
        for volume in pod["spec"].get("volumes") or ()
        for index, source in enumerate(sources(volume))
        if source.get("serviceAccountToken")
    ]


def render(pod: Obj, volume: Obj, lookup: Lookup, token: Token) -> dict[str, bytes] | None:
    """The files of a volume by relative path, or None for one that is a plain directory. Raises Missing."""
    if not volume.keys() & set(_RENDERED):
        return None
    requests = {request.key: request for request in tokens(pod)}
    files: dict[str, bytes] = {}
    for index, source in enumerate(sources(volume)):
        if (reference := source.get("configMap")) is not None:
            files |= _picked("ConfigMap", reference, lookup)
        if (reference := source.get("secret")) is not None:
            files |= _picked("Secret", reference, lookup)
        if (downward := source.get("downwardAPI")) is not None:
            files |= {item["path"]: _downward(pod, item) for item in downward.get("items") or ()}
        if (wanted := source.get("serviceAccountToken")) is not None:
            files[wanted["path"]] = token(requests[(volume["name"], index)]).encode()
    return files


def _picked(kind: str, reference: Obj, lookup: Lookup) -> dict[str, bytes]:
    content = data_of(kind, reference, lookup)
    items = reference.get("items")
    if not items:
        return content
    files = {}
    for item in items:
        if item["key"] in content:
            files[item["path"]] = content[item["key"]]
        elif not reference.get("optional"):
            raise Missing(f"{kind} {reference.get('name') or reference.get('secretName')} has no key {item['key']}")
    return files


def _downward(pod: Obj, item: Obj) -> bytes:
    if reference := item.get("fieldRef"):
        return field(pod, reference["fieldPath"]).encode()
    reference = item["resourceFieldRef"]
    for container in pod["spec"]["containers"]:
        if container["name"] == reference.get("containerName"):
            return resource(container, reference).encode()
    raise Missing(f"resourceFieldRef names no container {reference.get('containerName')!r}")


def swap(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make `folder` hold exactly these files, all at once for whoever reads through `..data` or a name.

    The order errs towards readers: a new name appears only after its content, an old one goes only after the swap.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "..data"
    old = folder / os.readlink(data) if data.is_symlink() else None
    fresh = Path(tempfile.mkdtemp(prefix="..", dir=folder))
    for name, content in files.items():
        target = _inside(fresh, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch(mode=0o600)
        target.write_bytes(content)
    link = folder / f"{fresh.name}.link"
    link.symlink_to(fresh.name)
    link.replace(data)
    tops = {Path(name).parts[0] for name in files}
    for top in tops:
        if not (folder / top).is_symlink():
            (folder / top).symlink_to(Path("..data") / top)
    for stale in _names(folder.iterdir()) - tops:
        (folder / stale).unlink()
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


def _names(entries: Iterable[Path]) -> set[str]:
    """The links that belong to us; a mount within this volume may have put others here."""
    return {
        entry.name
        for entry in entries
        if entry.is_symlink() and not entry.name.startswith("..") and os.readlink(entry).startswith("..data/")
    }


def _inside(folder: Path, name: str) -> Path:
    path = Path(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise Missing(f"{name!r} is not a path within a volume")
    return folder / path
