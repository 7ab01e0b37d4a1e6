"""Times as the API server may hold them: read, or refused with a ValueError and nothing else."""

import pytest

from taskdist.protocol.reading import moment


@pytest.mark.parametrize("text", ["", "z", "Z", "now", "2030-01-01T00:00:00x5Z", "0000-01-01T00:00:00Z"])
def test_what_is_no_time_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        moment(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        pytest.param("1970-01-01T00:00:10Z", 10.0, id="as-kubernetes-writes-it"),
        pytest.param("1970-01-01t00:00:10z", 10.0, id="in-lower-case"),
        pytest.param("1970-01-01T01:00:10+01:00", 10.0, id="in-another-zone"),
        pytest.param("9999-12-31T23:59:59Z", 253370764800.0, id="no-later-than-can-be-written-again"),
    ],
)
def test_a_time_is_read(text: str, seconds: float) -> None:
    assert moment(text) == seconds
