"""The operator's settings: defaults follow from the namespace, mistakes are named with their fix."""

import pytest

from taskdist.controller.settings import Settings, SettingsError

GOOD = {"TASKDIST_NAMESPACE": "sys"}


def test_defaults() -> None:
    settings = Settings.from_env(GOOD)
    assert settings.link_address == "taskdist.sys.svc:7443"
    assert settings.audience == "taskdist.dev/sys/taskdist"
    assert settings.watch_namespaces == ()
    assert settings.link_names == ("taskdist.sys.svc", "localhost", "127.0.0.1")


def test_lists_and_numbers() -> None:
    settings = Settings.from_env({**GOOD, "TASKDIST_WATCH_NAMESPACES": "a, b,", "TASKDIST_LINK_PORT": "1"})
    assert settings.watch_namespaces == ("a", "b")
    assert settings.link_port == 1


@pytest.mark.parametrize(
    ("env", "names"),
    [
        pytest.param({}, "TASKDIST_NAMESPACE is not set", id="namespace missing"),
        pytest.param({**GOOD, "TASKDIST_LINK_PORT": "many"}, "TASKDIST_LINK_PORT", id="no number"),
        pytest.param({**GOOD, "TASKDIST_HEALTH_PORT": "-1"}, "negative", id="negative"),
        pytest.param({**GOOD, "TASKDIST_LINK_ADDRESS": "host"}, "host:port", id="no port"),
        pytest.param({**GOOD, "TASKDIST_RENEW_SECONDS": "20"}, "must satisfy", id="renewal after the lease"),
        pytest.param(
            {**GOOD, "TASKDIST_RENEW_SECONDS": "4.95"},
            "TASKDIST_LEASE_SECONDS",
            id="renewal until the lease's very end",
        ),
        pytest.param(
            {**GOOD, "TASKDIST_LEASE_SECONDS": "15", "TASKDIST_RENEW_SECONDS": "10", "TASKDIST_RETRY_SECONDS": "2"},
            r"without one for 22.3 s.*leaseSeconds of 15.*Set it to 4 or less.*TASKDIST_ALLOW_SHORT_LEASES",
            id="a successor that comes when all work has stopped",
        ),
        pytest.param({**GOOD, "TASKDIST_ALLOW_SHORT_LEASES": "perhaps"}, "set it to true or false", id="no yes or no"),
    ],
)
def test_mistakes_are_named(env: dict[str, str], names: str) -> None:
    with pytest.raises(SettingsError, match=names):
        Settings.from_env(env)


def test_short_leases_can_be_allowed() -> None:
    slow = {"TASKDIST_LEASE_SECONDS": "15", "TASKDIST_RENEW_SECONDS": "10", "TASKDIST_RETRY_SECONDS": "2"}
    settings = Settings.from_env({**GOOD, **slow, "TASKDIST_ALLOW_SHORT_LEASES": "true"})
    assert settings.timing.lease == 15
    assert settings.least_lease == 0
