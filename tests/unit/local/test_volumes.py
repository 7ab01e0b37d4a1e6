"""What volumes hold, and that readers never see a mixture."""

from __future__ import annotations

import base64
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskdist.local.environment import Missing
from taskdist.local.volumes import TokenRequest, references, refused, render, swap, tokens

OBJECTS = {
    ("ConfigMap", "c"): {"data": {"a": "1", "b": "2"}},
    ("Secret", "s"): {"data": {"k": base64.b64encode(b"x").decode()}},
}
PROJECTED: dict[str, Any] = {
    "name": "all",
    "projected": {
        "sources": [
            {"configMap": {"name": "c", "items": [{"key": "a", "path": "conf/a"}]}},
            {"secret": {"name": "s"}},
            {"serviceAccountToken": {"path": "token", "audience": "aud", "expirationSeconds": 600}},
            {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
        ]
    },
}


def pod(*volumes: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"name": "p"}, "spec": {"volumes": list(volumes), "containers": [{"name": "c"}]}}


def files(volume: dict[str, Any]) -> dict[str, bytes] | None:
    return render(pod(volume), volume, lambda *key: OBJECTS.get(key), lambda request: f"for {request.audience}")


@pytest.mark.parametrize(
    ("volume", "expected"),
    [
        pytest.param({"configMap": {"name": "c"}}, {"a": b"1", "b": b"2"}, id="a whole config map"),
        pytest.param(
            {"configMap": {"name": "c", "items": [{"key": "b", "path": "x/y"}]}}, {"x/y": b"2"}, id="one key of it"
        ),
        pytest.param({"configMap": {"name": "none", "optional": True}}, {}, id="missing and optional"),
        pytest.param({"secret": {"secretName": "s"}}, {"k": b"x"}, id="a secret"),
        pytest.param({"emptyDir": {}}, None, id="a plain directory"),
        pytest.param(
            PROJECTED, {"conf/a": b"1", "k": b"x", "token": b"for aud", "name": b"p"}, id="all kinds projected"
        ),
    ],
)
def test_files(volume: dict[str, Any], expected: dict[str, bytes] | None) -> None:
    assert files({"name": "v", **volume}) == expected


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        ({"configMap": {"name": "none"}}, "ConfigMap none not found"),
        ({"secret": {"secretName": "none"}}, "Secret none not found"),
        ({"configMap": {"name": "c", "items": [{"key": "z", "path": "z"}]}}, "has no key z"),
    ],
)
def test_what_is_missing_is_named(volume: dict[str, Any], message: str) -> None:
    with pytest.raises(Missing, match=message):
        files({"name": "v", **volume})


def test_a_pod_names_its_tokens_and_references() -> None:
    both = pod(PROJECTED, {"name": "v", "secret": {"secretName": "t"}})
    assert tokens(both) == [TokenRequest(("all", 2), "aud", 600)]
    assert references(both) == {("ConfigMap", "c"), ("Secret", "s"), ("Secret", "t")}


def test_other_kinds_are_refused_by_name() -> None:
    assert refused(pod(PROJECTED, {"name": "v", "emptyDir": {}})) == []
    assert "(nfs)" in refused(pod({"name": "v", "nfs": {"server": "x"}}))[0]


def content(folder: Path) -> dict[str, bytes]:
    found = {}
    for top in folder.iterdir():
        if not top.name.startswith(".."):
            for path in [top, *top.rglob("*")]:
                if path.is_file():
                    found[str(path.relative_to(folder))] = path.read_bytes()
    return found


FILES = st.dictionaries(st.sampled_from(["a", "b", "d/x", "d/y", "e/f/g"]), st.binary(max_size=5), max_size=5)


@settings(deadline=None)  # A loaded machine is no failure.
@given(st.lists(FILES, min_size=1, max_size=5))
def test_a_folder_holds_just_the_last_files(tmp_path_factory: pytest.TempPathFactory, steps: list[Any]) -> None:
    folder = tmp_path_factory.mktemp("volume")
    for step in steps:
        swap(folder, step)
        assert content(folder) == step
    assert len([path for path in folder.iterdir() if path.name.startswith("..")]) == 2  # ..data and what it links to


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x"])
def test_files_stay_within_their_volume(tmp_path: Path, name: str) -> None:
    with pytest.raises(Missing, match="not a path within"):
        swap(tmp_path / "v", {name: b""})


def test_one_who_reads_through_data_sees_one_generation(tmp_path: Path) -> None:
    folder = tmp_path / "v"
    swap(folder, {"a": b"0", "b": b"0"})
    done = threading.Event()
    mixed: list[tuple[bytes, bytes]] = []

    def read() -> None:
        while not done.is_set():
            generation = (folder / "..data").resolve()
            try:
                pair = (generation / "a").read_bytes(), (generation / "b").read_bytes()
            except FileNotFoundError:  # Swapped away between the two: gone as a whole, never half.
                continue
            if pair[0] != pair[1]:
                mixed.append(pair)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(200):
        value = str(number).encode()
        swap(folder, {"a": value, "b": value})
    done.set()
    reader.join()
    assert mixed == []
