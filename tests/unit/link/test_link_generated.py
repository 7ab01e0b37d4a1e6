"""The checked-in modules are what protoc makes of the proto."""

from taskdist.link import generate


def test_generated_modules_match_the_proto() -> None:
    assert generate.stale() == []
