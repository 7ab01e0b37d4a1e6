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
    ],
)
def test_mistakes_are_named(env: dict[str, str], names: str) -> None:
    with pytest.raises(SettingsError, match=names):
        Settings.from_env(env)
