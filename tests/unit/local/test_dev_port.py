"""Agents that stand from an earlier run dial where the operator was then: it listens there again, if it can."""

import socket
from pathlib import Path

import pytest

from taskdist.local.dev import LINK_PORT, former_port


@pytest.mark.parametrize("written", [None, "", "x", "-1", "70000", "9" * 5000], ids=lambda each: str(each)[:8])
def test_what_is_no_port_is_not_taken_for_one(tmp_path: Path, written: str | None) -> None:
    if written is not None:
        (tmp_path / LINK_PORT).write_text(written)
    assert former_port(tmp_path) == 0


def test_the_former_port_is_taken_again_unless_somebody_else_listens_there(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        (tmp_path / LINK_PORT).write_text(str(port))
        assert former_port(tmp_path) == 0
    assert former_port(tmp_path) == port
