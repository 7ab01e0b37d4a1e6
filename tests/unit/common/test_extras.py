"""Libraries of extras that are not installed."""

from __future__ import annotations

import pytest

from taskdist.common.extras import Missing, extra


def test_what_is_missing_is_named_with_what_to_install() -> None:
    with pytest.raises(Missing) as missing, extra("kafka"):
        raise ModuleNotFoundError("No module named 'aiokafka.abc'", name="aiokafka.abc")
    assert str(missing.value) == "aiokafka.abc is not installed: pip install 'taskdist[kafka]'"
    assert (missing.value.library, missing.value.install) == ("aiokafka.abc", "pip install 'taskdist[kafka]'")


@pytest.mark.parametrize("name", ["taskdist", "taskdist.nowhere", None])
def test_a_module_of_our_own_that_is_missing_stays_a_defect(name: str | None) -> None:
    with pytest.raises(ModuleNotFoundError), extra("kafka"):
        raise ModuleNotFoundError("it is not there", name=name)
