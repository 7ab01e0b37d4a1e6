"""Settings of the object store: what is taken, and what is refused with the variable's name."""

import sys
from pathlib import Path

import pytest

from taskdist.common.environment import SettingsError
from taskdist.objects.places import Place
from taskdist.objects.settings import DEFAULT_MAX_BYTES, ObjectSettings, most_bytes
from taskdist.objects.transfer import connect

URL = "TASKDIST_OBJECTS_URL"


def test_without_a_url_there_is_no_store() -> None:
    assert ObjectSettings.from_env({}) is None
    assert ObjectSettings.from_env({URL: "", "AWS_REGION": "eu-central-1"}) is None


@pytest.mark.parametrize(
    ("url", "place"),
    [
        pytest.param("s3://my.bucket-1", Place("my.bucket-1", ""), id="a bucket alone will do"),
        pytest.param("s3://bucket/", Place("bucket", ""), id="a slash behind it changes nothing"),
        pytest.param("s3://bucket/a/b_c=1/", Place("bucket", "a/b_c=1"), id="a prefix has no slash at its end"),
    ],
)
def test_a_url_names_bucket_and_prefix(url: str, place: Place) -> None:
    settings = ObjectSettings.from_env({URL: url})
    assert settings is not None
    assert (settings.place, settings.max_bytes) == (place, DEFAULT_MAX_BYTES)


@pytest.mark.parametrize(
    ("env", "says"),
    [
        pytest.param({URL: "https://bucket/x"}, (URL, "s3://BUCKET"), id="another scheme is refused"),
        pytest.param({URL: "s3://Bucket"}, (URL,), id="a bucket with capitals is refused"),
        pytest.param({URL: "s3://bucket/a//b"}, (URL,), id="an empty folder is refused"),
        pytest.param({URL: "s3://bucket/../b"}, (URL,), id="a way up is refused"),
        pytest.param({"TASKDIST_OBJECTS_ENDPOINT": "http://x"}, (URL, "is not"), id="an endpoint alone is refused"),
        pytest.param(
            {URL: "s3://b-1", "TASKDIST_OBJECTS_ENDPOINT": "s3.example.com"},
            ("TASKDIST_OBJECTS_ENDPOINT", "https://"),
            id="an endpoint without a scheme is refused",
        ),
        pytest.param(
            {URL: "s3://b-1", "TASKDIST_OBJECTS_ENDPOINT": "https://x/bucket"},
            ("TASKDIST_OBJECTS_ENDPOINT",),
            id="an endpoint with a path is refused",
        ),
        pytest.param(
            {URL: "s3://b-1", "TASKDIST_OBJECTS_CA_FILE": "/nowhere/ca.crt"},
            ("TASKDIST_OBJECTS_CA_FILE", "no such file"),
            id="authorities that are not there are refused",
        ),
        pytest.param(
            {URL: "s3://b-1", "TASKDIST_OBJECTS_MAX_BYTES": "1000"},
            ("TASKDIST_OBJECTS_MAX_BYTES", "65536"),
            id="a bound below that of values is refused",
        ),
        pytest.param(
            {URL: "s3://b-1", "TASKDIST_OBJECTS_TIMEOUT_SECONDS": "0"},
            ("TASKDIST_OBJECTS_TIMEOUT_SECONDS",),
            id="no time at all is refused",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(env: dict[str, str], says: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError) as refused:
        ObjectSettings.from_env(env)
    for words in says:
        assert words in str(refused.value)


def test_all_of_it_is_read(tmp_path: Path) -> None:
    authority = tmp_path / "ca.crt"
    authority.write_text("x")
    env = {
        URL: "s3://bucket/p",
        "TASKDIST_OBJECTS_ENDPOINT": "https://s3.example.com:9000/",
        "TASKDIST_OBJECTS_CA_FILE": str(authority),
        "TASKDIST_OBJECTS_MAX_BYTES": "1000000",
        "TASKDIST_OBJECTS_TIMEOUT_SECONDS": "5",
    }
    expected = ObjectSettings(Place("bucket", "p"), "https://s3.example.com:9000", authority, 1_000_000, 5.0)
    assert ObjectSettings.from_env(env) == expected
    assert most_bytes(env) == 1_000_000
    assert most_bytes({}) == most_bytes({URL: "nonsense"}) == 65536


def test_without_the_extra_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ObjectSettings.from_env({URL: "s3://bucket"})
    assert settings is not None
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.delitem(sys.modules, "taskdist.objects.s3", raising=False)
    with pytest.raises(SettingsError, match=r"pip install 'taskdist\[objects\]'"):
        connect(settings)
