"""Settings of `taskdist sinks`: read by name, refused by name."""

import pytest

from taskdist.common.environment import SettingsError
from taskdist.outgoing.addresses import PUBLIC_ONLY, parse_allowed
from taskdist.sinks.settings import Settings

NEEDED = {"TASKDIST_NAMESPACE": "taskdist-system"}


def test_without_further_words_only_the_public_internet_may_be_dialled() -> None:
    read = Settings.from_env(NEEDED)
    assert (read.namespace, read.lease_name, read.allowed) == ("taskdist-system", "taskdist-sinks", PUBLIC_ONLY)


def test_each_is_read() -> None:
    read = Settings.from_env(
        {
            **NEEDED,
            "TASKDIST_POD_NAME": "p",
            "TASKDIST_POD_UID": "u",
            "TASKDIST_SINKS_LEASE": "x-sinks",
            "TASKDIST_SINKS_NAMESPACES": "a, b",
            "TASKDIST_SINKS_IDENTITY_NAMESPACES": "b",
            "TASKDIST_SINKS_ALLOWED": "*.team.svc, 10.0.0.0/8",
            "TASKDIST_SINKS_METRICS_PORT": "1",
            "TASKDIST_SINKS_HEALTH_PORT": "2",
            "TASKDIST_SINKS_HOST": "::",
            "TASKDIST_LOG_LEVEL": "debug",
        }
    )
    assert read == Settings(
        "taskdist-system",
        "p",
        "u",
        "x-sinks",
        ("a", "b"),
        ("b",),
        parse_allowed(("*.team.svc", "10.0.0.0/8")),
        1,
        2,
        "::",
        "debug",
    )


@pytest.mark.parametrize(
    ("env", "says"),
    [
        pytest.param({}, "TASKDIST_NAMESPACE is not set", id="no namespace"),
        pytest.param({**NEEDED, "TASKDIST_SINKS_ALLOWED": "10.0.0.0/99"}, "TASKDIST_SINKS_ALLOWED: ", id="no network"),
        pytest.param(
            {**NEEDED, "TASKDIST_SINKS_ALLOWED": "https://x"}, "neither a host nor a network", id="a URL, not a host"
        ),
        pytest.param(
            {**NEEDED, "TASKDIST_SINKS_HEALTH_PORT": "8080"}, "TASKDIST_SINKS_HEALTH_PORT is 8080", id="one port twice"
        ),
        pytest.param(
            {**NEEDED, "TASKDIST_SINKS_NAMESPACES": "a", "TASKDIST_SINKS_IDENTITY_NAMESPACES": "*,a,c"},
            "TASKDIST_SINKS_IDENTITY_NAMESPACES names c, which TASKDIST_SINKS_NAMESPACES does not",
            id="an identity for a namespace whose sinks are not run",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(env: dict[str, str], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        Settings.from_env(env)
