"""Settings of `taskdist sources`: read by name, refused by name."""

import pytest

from taskdist.common.environment import SettingsError
from taskdist.sources.settings import Settings


def test_what_is_not_said_has_its_default() -> None:
    found = Settings.from_env({"TASKDIST_NAMESPACE": "here"})
    assert (found.namespace, found.lease_name, found.watch_namespaces) == ("here", "taskdist-sources", ())
    assert (found.metrics_port, found.health_port, found.log_level) == (8080, 8081, "info")
    assert found.pod_name


def test_nobody_acts_as_the_process_unless_that_is_said() -> None:
    assert Settings.from_env({"TASKDIST_NAMESPACE": "here"}).identity_namespaces == ()
    found = Settings.from_env({"TASKDIST_NAMESPACE": "here", "TASKDIST_SOURCES_IDENTITY_NAMESPACES": "a,b"})
    assert found.identity_namespaces == ("a", "b")


def test_namespaces_are_a_list_without_gaps() -> None:
    found = Settings.from_env({"TASKDIST_NAMESPACE": "here", "TASKDIST_SOURCES_NAMESPACES": "a, b,,a"})
    assert found.watch_namespaces == ("a", "b")


@pytest.mark.parametrize(
    ("env", "words"),
    [
        pytest.param({"TASKDIST_NAMESPACE": ""}, "TASKDIST_NAMESPACE is not set", id="no namespace"),
        pytest.param({"TASKDIST_SOURCES_METRICS_PORT": "0"}, "TASKDIST_SOURCES_METRICS_PORT is '0'", id="no port"),
        pytest.param(
            {"TASKDIST_SOURCES_HEALTH_PORT": "8080"}, "TASKDIST_SOURCES_HEALTH_PORT is 8080", id="one port twice"
        ),
        pytest.param(
            {"TASKDIST_SOURCES_NAMESPACES": "a", "TASKDIST_SOURCES_IDENTITY_NAMESPACES": "*,a,c"},
            "TASKDIST_SOURCES_IDENTITY_NAMESPACES names c, which TASKDIST_SOURCES_NAMESPACES does not",
            id="an identity for a namespace whose sources are not run",
        ),
        pytest.param({"TASKDIST_LOG_LEVEL": "loud"}, "TASKDIST_LOG_LEVEL is 'loud'", id="no level"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(env: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        Settings.from_env({"TASKDIST_NAMESPACE": "here"} | env)
