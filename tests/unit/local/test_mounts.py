"""Mount paths in texts, and the tree of links."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskdist.local.mounts import MountMap

ROOT = Path("/pods/1/root")
MAP = MountMap(ROOT, {"/etc/app": Path("/v/app"), "/etc/app/sub": Path("/v/sub"), "/token/": Path("/v/token")})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/etc/app", "/pods/1/root/etc/app"),
        ("/etc/app/x.yaml", "/pods/1/root/etc/app/x.yaml"),
        ("/etc/app/sub/x", "/pods/1/root/etc/app/sub/x"),
        ("--config=/etc/app/x", "--config=/pods/1/root/etc/app/x"),
        ("/etc/app:/token", "/pods/1/root/etc/app:/pods/1/root/token"),
        ("cat '/etc/app/x' > \"/token/y\"", "cat '/pods/1/root/etc/app/x' > \"/pods/1/root/token/y\""),
        ("file:///etc/app/x", "file:///pods/1/root/etc/app/x"),
        ("see /etc/app.", "see /pods/1/root/etc/app."),
        ("/etc/apple", "/etc/apple"),
        ("/etc/app.d/x", "/etc/app.d/x"),
        ("/etc/app-2", "/etc/app-2"),
        ("/usr/etc/app", "/usr/etc/app"),
        ("../etc/app", "../etc/app"),
        ("etc/app", "etc/app"),
        ("http://host/token", "http://host/token"),
        ("", ""),
    ],
)
def test_paths_are_rewritten_where_they_are_paths(text: str, expected: str) -> None:
    assert MAP.translate(text) == expected


# What is mounted, what only looks like it, and what may stand between.
PIECES = ("/etc/app", "/token", "/etc", "/app", "/toke", "n", "x", "usr", ".", ":", "=", " ", "-", "\n", "/", "//")
TEXTS = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)


@settings(deadline=None)  # A loaded machine is no failure.
@given(TEXTS)
def test_texts_without_a_mount_stay_as_they_are(text: str) -> None:
    if "/etc/app" not in text and "/token" not in text:
        assert MAP.translate(text) == text


@settings(deadline=None)  # A loaded machine is no failure.
@given(TEXTS)
def test_only_roots_are_put_in(text: str) -> None:
    assert re.sub(re.escape(str(ROOT)), "", MAP.translate(text)) == text.replace(str(ROOT), "")


def test_nothing_mounted_changes_nothing() -> None:
    assert MountMap(ROOT, {}).translate("/etc/app") == "/etc/app"


@pytest.mark.parametrize(
    ("path", "mounted"),
    [("/etc/app", True), ("/etc/app/x", True), ("/token", True), ("/etc/apple", False), ("/", False)],
)
def test_mounted(path: str, mounted: bool) -> None:
    assert MAP.mounted(path) is mounted


def test_the_tree_of_links_leads_to_the_volumes(tmp_path: Path) -> None:
    outer, inner = tmp_path / "outer", tmp_path / "inner"
    for folder in (outer, inner):
        folder.mkdir()
        (folder / "file").write_text(folder.name)
    mounts = MountMap(tmp_path / "root", {"/data/deep": inner, "/data": outer})
    mounts.build()
    mounts.build()
    assert Path(mounts.real("/data/file")).read_text() == "outer"
    assert Path(mounts.real("/data/deep/file")).read_text() == "inner"
