"""From text to manifests: what kind, whose name, and on which line each field stands.

Owns which documents are ours; others are passed over. Refuses to open files, and to judge what a manifest says.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from taskdist.api.meta import GROUP
from taskdist.lint.reading import documents

Obj = dict[str, Any]
Step = str | int

_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class Manifest:
    """One object as it was written, or as it is in the cluster.

    `namespace` is empty where neither the manifest nor the command says one. `node` knows the lines.
    """

    kind: str
    namespace: str
    name: str
    body: Obj
    source: str = ""
    node: yaml.Node | None = field(default=None, repr=False, compare=False)

    @property
    def live(self) -> bool:
        """Whether it is in the cluster already."""
        return not self.source

    @property
    def ours(self) -> bool:
        return str(self.body.get("apiVersion", "")).partition("/")[0] == GROUP

    @property
    def title(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"

    def place(self, path: str = "") -> str:
        """File and line of a field; of the nearest one above it that is written, if it is not."""
        if self.node is None:
            return self.source
        node = self.node
        line = node.start_mark.line
        for step in steps(path):
            found = _below(node, step)
            if found is None:
                break
            line, node = found
        return f"{self.source}:{line + 1}"


def steps(path: str) -> list[Step]:
    """`spec.pools[0]` → spec, pools, 0."""
    return [name or int(index) for name, index in _STEP.findall(path)]


def _below(node: yaml.Node, step: Step) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value == step:
                return key.start_mark.line, value
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        inner = node.value[step]
        return inner.start_mark.line, inner
    return None


def read(text: str, source: str, namespace: str = "") -> list[Manifest]:
    """All manifests of a text: our kinds, and the ResourceQuotas that bound them.

    `namespace` is that of objects which name none.

    Raises:
        Unreadable: it is no YAML.
    """
    return [made for document, node in documents(text) for made in _manifests(document, node, source, namespace)]


def live(obj: Obj, kind: str, api_version: str) -> Manifest:
    """One object as the API server lists it: there, kind and version are said of the list only."""
    return _manifest({"apiVersion": api_version, "kind": kind, **obj}, None, "", "")


def _manifests(document: Any, node: yaml.Node | None, source: str, namespace: str) -> Iterator[Manifest]:
    if not isinstance(document, dict) or "apiVersion" not in document or "kind" not in document:
        return
    if isinstance(document.get("items"), list):
        # A list of one kind says kind and version once for all.
        kind = str(document["kind"])
        common = {} if kind == "List" else {"apiVersion": document["apiVersion"], "kind": kind.removesuffix("List")}
        items = _below(node, "items") if node is not None else None
        for number, item in enumerate(document["items"]):
            inner = _below(items[1], number) if items else None
            if isinstance(item, dict):
                yield from _manifests(common | item, inner[1] if inner else node, source, namespace)
        return
    made = _manifest(document, node, source, namespace)
    if made.ours or made.kind == "ResourceQuota":
        yield made


def _manifest(document: Obj, node: yaml.Node | None, source: str, namespace: str) -> Manifest:
    given = document.get("metadata")
    metadata: Obj = given if isinstance(given, dict) else {}
    name = metadata.get("name") or (f"{metadata['generateName']}…" if metadata.get("generateName") else "")
    own = metadata.get("namespace")
    return Manifest(str(document["kind"]), str(own or namespace), str(name), document, source, node)
