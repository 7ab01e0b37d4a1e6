"""For all tests: how patient properties are."""

import os

from hypothesis import HealthCheck, settings

# Where CI is set, Hypothesis takes a profile of its own, with fixed examples. Elsewhere the machine may have other work:
# how long one example takes says nothing about what it shows.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
if not os.environ.get("CI"):
    settings.load_profile("patient")
