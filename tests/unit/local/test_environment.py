"""Variables, commands and the downward API."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from taskdist.local.environment import Missing, expand, field, image_name, invocation, quantity, resource, variables
from taskdist.local.mounts import MountMap

POD: dict[str, Any] = {
    "metadata": {
        "name": "p", "namespace": "n", "uid": "u",
        "labels": {"b": "2", "a/x": 'say "hi"'}, "annotations": {"note": "two\nlines"},
    },
    "spec": {"nodeName": "local", "serviceAccountName": "sa"},
    "status": {"podIP": "127.64.0.1", "hostIP": "127.0.0.1"},
}  # fmt: skip

OBJECTS = {
    ("ConfigMap", "c"): {"data": {"k": "v"}, "binaryData": {"bin": base64.b64encode(b"raw").decode()}},
    ("Secret", "s"): {"data": {"k": base64.b64encode(b"hidden").decode()}},
}


def lookup(kind: str, name: str) -> dict[str, Any] | None:
    return OBJECTS.get((kind, name))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "p"),
        ("metadata.namespace", "n"),
        ("metadata.uid", "u"),
        ("metadata.labels['b']", "2"),
        ("metadata.labels['a/x']", 'say "hi"'),
        ("metadata.labels['none']", ""),
        ("metadata.annotations['note']", "two\nlines"),
        ("metadata.labels", 'a/x="say \\"hi\\""\nb="2"'),
        ("metadata.annotations", 'note="two\\nlines"'),
        ("spec.nodeName", "local"),
        ("spec.serviceAccountName", "sa"),
        ("status.podIP", "127.64.0.1"),
        ("status.hostIP", "127.0.0.1"),
    ],
)
def test_fields(path: str, value: str) -> None:
    assert field(POD, path) == value


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(Missing, match=r"metadata\.generation"):
        field(POD, "metadata.generation")


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        pytest.param([{"name": "A", "value": "1"}], {"A": "1"}, id="a value"),
        pytest.param([{"name": "A"}], {"A": ""}, id="no value"),
        pytest.param(
            [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)$(Z)$$(A)"}],
            {"A": "1", "B": "1$(Z)$(A)"},
            id="earlier ones are filled in",
        ),
        pytest.param(
            [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}], {"A": "v"}, id="config map"
        ),
        pytest.param(
            [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}], {"A": "hidden"}, id="secret"
        ),
        pytest.param(
            [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "none", "key": "k", "optional": True}}}],
            {},
            id="missing and optional",
        ),
        pytest.param(
            [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}}],
            {"A": "500"},
            id="a limit",
        ),
    ],
)
def test_variables(env: list[dict[str, Any]], expected: dict[str, str]) -> None:
    container = {"name": "c", "env": env, "resources": {"limits": {"cpu": "500m"}}}
    assert variables(POD, container, lookup) == expected


def test_whole_objects_come_first_and_named_variables_win() -> None:
    container = {
        "name": "c",
        "envFrom": [{"configMapRef": {"name": "c"}}, {"prefix": "S_", "secretRef": {"name": "s"}}],
        "env": [{"name": "k", "value": "own"}],
    }
    assert variables(POD, container, lookup) == {"k": "own", "bin": "raw", "S_k": "hidden"}


@pytest.mark.parametrize(
    ("origin", "message"),
    [
        ({"configMapKeyRef": {"name": "none", "key": "k"}}, "ConfigMap none not found"),
        ({"secretKeyRef": {"name": "s", "key": "none"}}, "Secret s has no key none"),
    ],
)
def test_what_is_missing_is_named(origin: dict[str, Any], message: str) -> None:
    with pytest.raises(Missing, match=message):
        variables(POD, {"env": [{"name": "A", "valueFrom": origin}]}, lookup)


def test_an_invocation_is_expanded_mapped_and_set_over_the_base() -> None:
    mounts = MountMap(Path("/r"), {"/etc/app": Path("/v")})
    container = {
        "image": "x",
        "command": ["tool"],
        "args": ["--file=$(FILE)", "$(HOME)"],
        "env": [{"name": "FILE", "value": "/etc/app/f"}],
    }
    result = invocation(POD, container, lookup, mounts, {"HOME": "/h", "PATH": "/etc/app"}, {})
    assert result.command == ("tool", "--file=/r/etc/app/f", "$(HOME)")
    assert result.env == {"HOME": "/h", "PATH": "/etc/app", "FILE": "/r/etc/app/f"}


def test_an_entry_point_is_found_by_the_images_name_or_asked_for() -> None:
    mounts = MountMap(Path("/r"), {})
    entries = {"taskdist": ("taskdist",)}
    container = {"image": "registry:5000/team/taskdist:1.2@sha256:00", "args": ["operator"]}
    assert invocation(POD, container, lookup, mounts, {}, entries).command == ("taskdist", "operator")
    with pytest.raises(Missing, match="give the command"):
        invocation(POD, {"image": "other:1"}, lookup, mounts, {}, entries)


@pytest.mark.parametrize(
    ("image", "name"), [("a", "a"), ("a:1", "a"), ("h:5/x/a:1", "a"), ("h:5/x/a@sha256:0", "a"), ("", "")]
)
def test_image_names(image: str, name: str) -> None:
    assert image_name(image) == name


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("500m", 0.5), ("1Ki", 1024), ("2Gi", 2 * 1024**3), ("3M", 3e6), ("1.5", 1.5), ("1e3", 1000)],
)
def test_quantities(text: str, value: float) -> None:
    assert quantity(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "x", "1Zi", "1 Gi"])
def test_bad_quantities_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        quantity(text)


def test_resources_round_up() -> None:
    container = {"resources": {"limits": {"memory": "1000Ki"}}}
    assert resource(container, {"resource": "limits.memory", "divisor": "1Mi"}) == "1"
    assert resource(container, {"resource": "requests.cpu"}) == "0"


def test_expansion_knows_dollars() -> None:
    assert expand("$$(A) $(A) $A $(B", {"A": "1"}) == "$(A) 1 $A $(B"
