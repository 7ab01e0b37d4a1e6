"""For all tests: how patient properties are."""

import os

from hypothesis import HealthCheck, settings

# Where CI is set, Hypothesis takes a profile of its own, with fixed examples. Elsewhere the machine may be busy:
# how long one example takes shows nothing.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
if not os.environ.get("CI"):
    settings.load_profile("patient")
