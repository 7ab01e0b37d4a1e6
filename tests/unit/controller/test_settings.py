"""The operator's settings: defaults follow from the namespace, mistakes are named with their fix."""

import random
import re
from collections import Counter
from pathlib import Path

import pytest

from taskdist.common.environment import SettingsError
from taskdist.controller.settings import LEAST_SECONDS, MOST_SECONDS, Settings

GOOD = {"TASKDIST_NAMESPACE": "sys"}
SECONDS = ("TASKDIST_LEASE_SECONDS", "TASKDIST_RENEW_SECONDS", "TASKDIST_RETRY_SECONDS")
WHOLE = (
    "TASKDIST_LINK_PORT",
    "TASKDIST_METRICS_PORT",
    "TASKDIST_HEALTH_PORT",
    "TASKDIST_VIEW_PORT",
    "TASKDIST_WRITE_CONCURRENCY",
)
NO_NUMBERS = (
    "many",
    "nan",
    "-nan",
    "inf",
    "-inf",
    "1e400",
    "-1",
    "0",
    "-0.0",
    "1e300",
    "9" * 5000,
    "5s",
    "٣x",
    "0x10",
    " ",
)


def test_defaults() -> None:
    settings = Settings.from_env(GOOD)
    assert settings.link_address == "taskdist.sys.svc:7443"
    assert settings.audience == "taskdist.dev/sys/taskdist"
    assert settings.watch_namespaces == ()
    assert settings.view_address == "taskdist-view.sys.svc:9446"
    assert settings.served_names == ("taskdist.sys.svc", "taskdist-view.sys.svc", "localhost", "127.0.0.1")


def test_lists_and_numbers() -> None:
    settings = Settings.from_env({**GOOD, "TASKDIST_WATCH_NAMESPACES": "a, b,", "TASKDIST_LINK_PORT": "1"})
    assert settings.watch_namespaces == ("a", "b")
    assert settings.link_port == 1


@pytest.mark.parametrize(
    ("env", "names"),
    [
        pytest.param({}, "TASKDIST_NAMESPACE is not set", id="namespace missing"),
        *[
            pytest.param({**GOOD, name: value}, f"^{name} is .{{0,90}}: set it to a", id=f"{name} is {value[:9]}")
            for name in (*SECONDS, *WHOLE)
            for value in NO_NUMBERS
        ],
        *[
            pytest.param({**GOOD, name: value}, f"^{name} is .*: set it to a whole number", id=f"{name} is {value}")
            for name in WHOLE
            for value in ("1.5", "65536")
        ],
        pytest.param({**GOOD, "TASKDIST_LINK_ADDRESS": "host"}, "host:port", id="no port"),
        pytest.param({**GOOD, "TASKDIST_LINK_ADDRESS": ":7443"}, "host:port", id="no host"),
        pytest.param({**GOOD, "TASKDIST_LINK_ADDRESS": "host:²"}, "host:port", id="a port that is no number"),
        pytest.param({**GOOD, "TASKDIST_LINK_ADDRESS": "host:70000"}, "host:port", id="a port beyond all ports"),
        pytest.param({**GOOD, "TASKDIST_LINK_ADDRESS": "h:" + "9" * 5000}, "host:port", id="a port of 5000 digits"),
        pytest.param(
            {**GOOD, "TASKDIST_LOG_LEVEL": "loud"}, "TASKDIST_LOG_LEVEL is 'loud': set it to debug", id="level"
        ),
        pytest.param(
            {**GOOD, "TASKDIST_METRICS_PORT": "7443"},
            "TASKDIST_METRICS_PORT is 7443, and so is TASKDIST_LINK_PORT: set one of them to another port",
            id="one port for two servers",
        ),
        pytest.param(
            {**GOOD, "TASKDIST_HEALTH_PORT": "8080"},
            "TASKDIST_HEALTH_PORT is 8080, and so is TASKDIST_METRICS_PORT",
            id="a port that another has by default",
        ),
        pytest.param({**GOOD, "TASKDIST_RETRY_SECONDS": "3"}, "must satisfy", id="no time to renew again"),
        pytest.param({**GOOD, "TASKDIST_RENEW_SECONDS": "20"}, "must satisfy", id="renewal after the lease"),
        pytest.param(
            {**GOOD, "TASKDIST_RENEW_SECONDS": "4.95"},
            "TASKDIST_LEASE_SECONDS",
            id="renewal until the lease's very end",
        ),
        pytest.param(
            {**GOOD, "TASKDIST_LEASE_SECONDS": "15", "TASKDIST_RENEW_SECONDS": "10", "TASKDIST_RETRY_SECONDS": "2"},
            r"without one for 22.3 s.*leaseSeconds of 15.*Set TASKDIST_LEASE_SECONDS to 4 or less.*_ALLOW_SHORT_LEASES",
            id="a successor that comes when all work has stopped",
        ),
        pytest.param({**GOOD, "TASKDIST_ALLOW_SHORT_LEASES": "perhaps"}, "set it to true or false", id="no yes or no"),
    ],
)
def test_mistakes_are_named(env: dict[str, str], names: str) -> None:
    with pytest.raises(SettingsError, match=names):
        Settings.from_env(env)


def test_every_number_of_the_reference_is_in_the_table() -> None:
    reference = (Path(__file__).parents[3] / "docs/reference/settings.md").read_text()
    _, _, operator = reference.partition("## The operator\n")
    operator, _, _ = operator.partition("\n## ")
    numbers = re.findall(r"^\| `(\w+)` \| [0-9.]+ \|", operator, re.MULTILINE)
    assert sorted(numbers) == sorted((*SECONDS, *WHOLE))


def test_times_are_accepted_or_refused_with_a_mend_that_works() -> None:
    rng, mends = random.Random(1), Counter[str]()
    for _ in range(300):
        drawn = [rng.choice((rng.uniform(LEAST_SECONDS, 12), rng.uniform(1, MOST_SECONDS))) for _ in SECONDS]
        in_order = sorted(drawn, reverse=True) if rng.random() < 0.7 else drawn
        times = {name: f"{value:.3g}" for name, value in zip(SECONDS, in_order, strict=True)}
        try:
            Settings.from_env({**GOOD, **times})
            mends["none"] += 1
            continue
        except SettingsError as error:
            said = str(error)
        assert all(name in said for name in SECONDS)
        if advised := re.search(r"Set TASKDIST_LEASE_SECONDS to (\d+) or less, with \w+ below 0.98 of it", said):
            lease, renew = advised[1], f"{0.9799 * float(advised[1])}"
            Settings.from_env({**GOOD, **times, "TASKDIST_LEASE_SECONDS": lease, "TASKDIST_RENEW_SECONDS": renew})
            mends["a shorter lease"] += 1
        else:
            assert re.search("[Ll]eave .*unset", said)
            mends["unset"] += 1
    assert min(mends[each] for each in ("none", "a shorter lease", "unset")) > 0


def test_short_leases_can_be_allowed() -> None:
    slow = {"TASKDIST_LEASE_SECONDS": "15", "TASKDIST_RENEW_SECONDS": "10", "TASKDIST_RETRY_SECONDS": "2"}
    settings = Settings.from_env({**GOOD, **slow, "TASKDIST_ALLOW_SHORT_LEASES": "true"})
    assert settings.timing.lease == 15
    assert settings.least_lease == 0
